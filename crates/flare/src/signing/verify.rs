use std::fmt;
use std::time::Duration;

use evenkeel_core::Timestamp;
use http::{HeaderMap, HeaderName};

use super::{VerifyingKey, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, decode_base64, preamble};

/// How far a message's timestamp may be from now if nothing else is said.
const TOLERANCE: Duration = Duration::from_secs(300);

/// How many signatures of one message are looked at. A sender in the midst of rotating its secrets
/// sends a few; each costs a hash of the body, so that thousands would be an attack.
const MOST_SIGNATURES: usize = 32;

/// Tells genuine messages from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verifier {
    /// How far a message's timestamp may be from now, in either direction.
    ///
    /// Within it, a message that somebody overheard can be sent again and is accepted: remember
    /// ids for as long.
    pub tolerance: Duration,
}

/// A message that is genuine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The message's id, the same each time it is sent.
    pub id: String,
    /// When it was sent, this time.
    pub timestamp: Timestamp,
}

/// Why a message is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyError {
    /// The header is not there.
    Missing(&'static str),
    /// The header is there twice, or is not what it should be.
    Malformed(&'static str),
    /// It was sent longer ago than the tolerance.
    TooOld,
    /// It claims to be sent further in the future than the tolerance.
    TooNew,
    /// No signature is that of a known key for this id, timestamp and body.
    NoMatch,
}

/// Checks a message that arrived with `headers` and `body`, with a tolerance of five minutes.
///
/// # Behavior
/// - The body is what arrived, byte for byte: not parsed and written again.
/// - One signature of one of `keys` suffices. At most 32 signatures are looked at.
/// - Signatures of versions that none of `keys` can check are passed over.
///
/// # Errors
/// Why the message is not accepted.
pub fn verify(
    headers: &HeaderMap,
    body: &[u8],
    keys: &[VerifyingKey],
    now: Timestamp,
) -> Result<Verified, VerifyError> {
    Verifier::default().verify(headers, body, keys, now)
}

impl Default for Verifier {
    fn default() -> Self {
        Self { tolerance: TOLERANCE }
    }
}

impl Verifier {
    /// As [`verify`], with this verifier's tolerance.
    ///
    /// # Errors
    /// Why the message is not accepted.
    pub fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        keys: &[VerifyingKey],
        now: Timestamp,
    ) -> Result<Verified, VerifyError> {
        let id = only(headers, &WEBHOOK_ID, "webhook-id")?;
        let seconds = only(headers, &WEBHOOK_TIMESTAMP, "webhook-timestamp")?;
        let (seconds, timestamp) =
            parse_seconds(seconds).ok_or(VerifyError::Malformed("webhook-timestamp"))?;
        let signatures = only(headers, &WEBHOOK_SIGNATURE, "webhook-signature")?;

        if now.since(timestamp) > self.tolerance {
            return Err(VerifyError::TooOld);
        }
        if timestamp.since(now) > self.tolerance {
            return Err(VerifyError::TooNew);
        }
        let message = [preamble(id, seconds).as_bytes(), body].concat();
        let genuine = signatures
            .split(' ')
            .filter_map(|signature| signature.split_once(','))
            .take(MOST_SIGNATURES)
            .filter_map(|(version, encoded)| Some((version, decode_base64(encoded)?)))
            .any(|(version, signature)| {
                keys.iter().any(|key| key.version() == version && key.matches(&message, &signature))
            });
        if genuine { Ok(Verified { id: id.to_owned(), timestamp }) } else { Err(VerifyError::NoMatch) }
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(header) => write!(f, "header {header} is missing"),
            Self::Malformed(header) => write!(f, "header {header} is malformed"),
            Self::TooOld => f.write_str("the message is too old"),
            Self::TooNew => f.write_str("the message is from the future"),
            Self::NoMatch => f.write_str("no signature matches"),
        }
    }
}

impl std::error::Error for VerifyError {}

/// The header's text. With two of them, what was checked and what is used could be different ones.
fn only<'a>(headers: &'a HeaderMap, header: &HeaderName, name: &'static str) -> Result<&'a str, VerifyError> {
    let mut values = headers.get_all(header).iter();
    let value = values.next().ok_or(VerifyError::Missing(name))?;
    match value.to_str() {
        Ok(text) if values.next().is_none() && !text.is_empty() => Ok(text),
        _ => Err(VerifyError::Malformed(name)),
    }
}

/// Seconds as they were signed: digits without a leading zero, so that they have one spelling.
fn parse_seconds(text: &str) -> Option<(i64, Timestamp)> {
    let seconds: i64 = text.parse().ok()?;
    if seconds < 0 || seconds.to_string() != text {
        return None;
    }
    Some((seconds, Timestamp::from_micros(seconds.checked_mul(1_000_000)?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Secret, signature_header};
    use super::*;

    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SECONDS: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SYMMETRIC: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const PRIVATE: &str =
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";

    fn secret(text: &str) -> Secret {
        text.parse().unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_micros(SECONDS * 1_000_000)
    }

    fn headers(id: &str, timestamp: &str, signature: &str) -> HeaderMap {
        let value = |text: &str| text.parse().unwrap();
        [
            (WEBHOOK_ID, value(id)),
            (WEBHOOK_TIMESTAMP, value(timestamp)),
            (WEBHOOK_SIGNATURE, value(signature)),
        ]
        .into_iter()
        .collect()
    }

    fn signed(secrets: &[Secret]) -> HeaderMap {
        headers(ID, &SECONDS.to_string(), &signature_header(secrets, ID, SECONDS, BODY))
    }

    fn check(headers: &HeaderMap, body: &[u8], keys: &[&str]) -> Result<Verified, VerifyError> {
        let keys: Vec<VerifyingKey> = keys.iter().map(|text| text.parse().unwrap()).collect();
        verify(headers, body, &keys, now())
    }

    #[test]
    fn a_message_is_genuine_by_either_kind_of_key() {
        let genuine = Ok(Verified { id: ID.to_owned(), timestamp: now() });
        let public = secret(PRIVATE).verifying_key().to_string();
        assert_eq!(check(&signed(&[secret(SYMMETRIC)]), BODY, &[SYMMETRIC]), genuine);
        assert_eq!(check(&signed(&[secret(PRIVATE)]), BODY, &[&public]), genuine);
    }

    #[test]
    fn one_signature_of_one_known_key_suffices() {
        let (old, new) = (Secret::generate(), Secret::generate());
        let (old_key, new_key) = (old.to_string(), new.to_string());
        let both = signed(&[new, old, secret(PRIVATE)]);
        for keys in [vec![old_key.as_str()], vec![&new_key], vec![SYMMETRIC, &old_key]] {
            assert!(check(&both, BODY, &keys).is_ok(), "{keys:?}");
        }
        assert_eq!(check(&both, BODY, &[SYMMETRIC]), Err(VerifyError::NoMatch));
        assert_eq!(check(&both, BODY, &[]), Err(VerifyError::NoMatch));
    }

    #[test]
    fn any_change_to_id_timestamp_or_body_is_noticed() {
        let signature = secret(SYMMETRIC).sign(ID, SECONDS, BODY);
        for (id, timestamp, body) in [
            ("msg_other", SECONDS, BODY),
            (ID, SECONDS + 1, BODY),
            (ID, SECONDS, br#"{"test":2432232314}"#.as_slice()),
            (ID, SECONDS, b""),
        ] {
            let headers = headers(id, &timestamp.to_string(), &signature);
            assert_eq!(check(&headers, body, &[SYMMETRIC]), Err(VerifyError::NoMatch));
        }
    }

    #[test]
    fn a_signature_of_another_version_is_passed_over() {
        let genuine = secret(SYMMETRIC).sign(ID, SECONDS, BODY);
        let bare = genuine.strip_prefix("v1,").unwrap();
        for (signature, accepted) in [
            (format!("v2,{bare} {genuine}"), true),
            (format!("nonsense {genuine}"), true),
            (format!("v1,%%% {genuine}"), true),
            (format!("  {genuine}"), true),
            (format!("v2,{bare}"), false),
            (format!("v1a,{bare}"), false),
            (format!("V1,{bare}"), false),
            (bare.to_owned(), false),
            (format!("v1,{}", &bare[..40]), false),
            ("v1,".to_owned(), false),
        ] {
            let headers = headers(ID, &SECONDS.to_string(), &signature);
            assert_eq!(check(&headers, BODY, &[SYMMETRIC]).is_ok(), accepted, "{signature}");
        }
    }

    #[test]
    fn at_most_32_signatures_are_looked_at() {
        let genuine = secret(SYMMETRIC).sign(ID, SECONDS, BODY);
        for (before, accepted) in [(31, true), (32, false)] {
            let signature = format!("{}{genuine}", "v1,AAAA ".repeat(before));
            let headers = headers(ID, &SECONDS.to_string(), &signature);
            assert_eq!(check(&headers, BODY, &[SYMMETRIC]).is_ok(), accepted, "{before}");
        }
    }

    #[test]
    fn a_message_is_accepted_within_the_tolerance_in_both_directions() {
        let keys = [secret(SYMMETRIC).verifying_key()];
        let headers = signed(&[secret(SYMMETRIC)]);
        let (second, tick) = (Duration::from_secs(1), Duration::from_micros(1));
        let short = Verifier { tolerance: second };
        for (verifier, now, expected) in [
            (Verifier::default(), now() + 300 * second, None),
            (Verifier::default(), now() + 300 * second + tick, Some(VerifyError::TooOld)),
            (Verifier::default(), now() - 300 * second, None),
            (Verifier::default(), now() - 300 * second - tick, Some(VerifyError::TooNew)),
            (short, now() + second, None),
            (short, now() + second + tick, Some(VerifyError::TooOld)),
            (short, now() - second - tick, Some(VerifyError::TooNew)),
        ] {
            assert_eq!(verifier.verify(&headers, BODY, &keys, now).err(), expected, "{verifier:?} at {now}");
        }
    }

    #[test]
    fn a_header_that_is_missing_is_named() {
        for header in [WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE] {
            let mut headers = signed(&[secret(SYMMETRIC)]);
            headers.remove(&header);
            let error = check(&headers, BODY, &[SYMMETRIC]).unwrap_err();
            assert_eq!(error.to_string(), format!("header {header} is missing"));
        }
    }

    #[test]
    fn a_header_that_is_there_twice_is_malformed() {
        for header in [WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE] {
            let mut headers = signed(&[secret(SYMMETRIC)]);
            let value = headers[&header].clone();
            headers.append(&header, value);
            let error = check(&headers, BODY, &[SYMMETRIC]).unwrap_err();
            assert_eq!(error.to_string(), format!("header {header} is malformed"));
        }
    }

    #[test]
    fn a_timestamp_has_one_spelling() {
        let far = i64::MAX.to_string();
        for timestamp in
            ["", "soon", "+1614265330", "01614265330", "1614265330.0", "-1", "99999999999999999999", &far]
        {
            let headers = headers(ID, timestamp, "v1,AAAA");
            let error = check(&headers, BODY, &[SYMMETRIC]).unwrap_err();
            assert_eq!(error, VerifyError::Malformed("webhook-timestamp"), "{timestamp:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_signed_is_verified_and_nothing_else(
            id in "[!-~]{1,40}",
            seconds in 0_i64..4_000_000_000,
            body in prop::collection::vec(any::<u8>(), 0..200),
            flip in any::<prop::sample::Index>(),
            private in any::<bool>(),
        ) {
            let secret = if private { secret(PRIVATE) } else { Secret::generate() };
            let now = Timestamp::from_micros(seconds * 1_000_000);
            let headers = headers(&id, &seconds.to_string(), &secret.sign(&id, seconds, &body));
            let keys = [secret.verifying_key()];
            prop_assert_eq!(verify(&headers, &body, &keys, now), Ok(Verified { id, timestamp: now }));

            if !body.is_empty() {
                let mut changed = body;
                let at = flip.index(changed.len());
                changed[at] ^= 1;
                prop_assert_eq!(verify(&headers, &changed, &keys, now), Err(VerifyError::NoMatch));
            }
        }

        #[test]
        fn no_header_is_too_strange_to_be_judged(values in prop::collection::vec("[ -~]{0,60}", 3)) {
            let headers = headers(&values[0], &values[1], &values[2]);
            prop_assert!(check(&headers, BODY, &[SYMMETRIC]).is_err());
        }
    }
}
