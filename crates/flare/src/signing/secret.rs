use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use evenkeel_core::{Error, ErrorKind, Result};
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::key::{Symmetric, VerifyingKey};
use super::{PRIVATE_PREFIX, decode_base64, encode_base64, preamble, random};

/// Signs messages. Cheap to clone.
///
/// Written as `whsec_` and 24 to 64 bytes in base64 (HMAC-SHA256; the prefix may be missing), or as
/// `whsk_` and 64 bytes (ed25519: the seed, then the public key).
///
/// [`Display`](fmt::Display) writes it out; `Debug` does not.
#[derive(Clone)]
pub struct Secret(Kind);

#[derive(Clone)]
enum Kind {
    Symmetric(Symmetric),
    Private { pair: Arc<Ed25519KeyPair>, text: Arc<str> },
}

impl Secret {
    /// A new secret of 32 random bytes, for HMAC-SHA256.
    #[must_use]
    pub fn generate() -> Self {
        Self(Kind::Symmetric(Symmetric::new(&random::<32>()).expect("32 bytes are a symmetric secret")))
    }

    /// The signature of one message, as `webhook-signature` holds it: `v1,...` or `v1a,...`.
    ///
    /// `timestamp` is in seconds since 1970.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let preamble = preamble(id, timestamp);
        match &self.0 {
            Kind::Symmetric(secret) => {
                let mut context = hmac::Context::with_key(&secret.key);
                context.update(preamble.as_bytes());
                context.update(body);
                format!("v1,{}", encode_base64(context.sign().as_ref()))
            }
            Kind::Private { pair, .. } => {
                let message = [preamble.as_bytes(), body].concat();
                format!("v1a,{}", encode_base64(pair.sign(&message).as_ref()))
            }
        }
    }

    /// What consumers check its signatures with: the secret itself, or the public key of a pair.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        match &self.0 {
            Kind::Symmetric(secret) => VerifyingKey::symmetric(secret.clone()),
            Kind::Private { pair, .. } => VerifyingKey::public(pair.public_key().as_ref()),
        }
    }
}

impl FromStr for Secret {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some(encoded) = text.strip_prefix(PRIVATE_PREFIX) else {
            return Symmetric::parse(text).map(|secret| Self(Kind::Symmetric(secret)));
        };
        let invalid = |message| Error::new(ErrorKind::InvalidInput, message).with("prefix", PRIVATE_PREFIX);
        let bytes = decode_base64(encoded).ok_or_else(|| invalid("a private key is base64"))?;
        let Some((seed, public)) = bytes.split_at_checked(32).filter(|(_, public)| public.len() == 32) else {
            return Err(invalid("a private key is 64 bytes").with("bytes", bytes.len()));
        };
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public)
            .map_err(|_| invalid("the public half of a private key belongs to its seed"))?;
        Ok(Self(Kind::Private { pair: Arc::new(pair), text: text.into() }))
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Symmetric(secret) => secret.fmt(f),
            Kind::Private { text, .. } => f.write_str(text),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Symmetric(_) => "Secret(symmetric)",
            Kind::Private { .. } => "Secret(private)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: &str =
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";

    #[test]
    fn messages_are_signed_as_the_specification_shows() {
        for (secret, id, timestamp, body, signature) in [
            (
                "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                r#"{"email":"test@example.com","username":"test_user"}"#,
                "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
            (
                PRIVATE,
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#,
                "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
            ),
        ] {
            let secret: Secret = secret.parse().unwrap();
            assert_eq!(secret.sign(id, timestamp, body.as_bytes()), signature);
        }
    }

    #[test]
    fn a_secret_is_read_back_as_it_was_written() {
        let generated = Secret::generate().to_string();
        for text in [PRIVATE, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", &generated] {
            assert_eq!(text.parse::<Secret>().unwrap().to_string(), text);
        }
        let bare: Secret = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        assert_eq!(bare.to_string(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    }

    #[test]
    fn generated_secrets_differ() {
        assert_ne!(Secret::generate().to_string(), Secret::generate().to_string());
    }

    #[test]
    fn the_verifying_key_of_a_pair_does_not_hold_its_seed() {
        let public = PRIVATE.parse::<Secret>().unwrap().verifying_key().to_string();
        assert_eq!(public, "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=");
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_repeated() {
        for (text, message) in [
            ("", "a symmetric secret is 24 to 64 bytes (prefix: whsec_, bytes: 0)"),
            ("whsec_", "a symmetric secret is 24 to 64 bytes (prefix: whsec_, bytes: 0)"),
            ("whsec_%%%", "a symmetric secret is base64 (prefix: whsec_)"),
            (
                "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                "a symmetric secret is 24 to 64 bytes (prefix: whsec_, bytes: 23)",
            ),
            ("whsk_AAAA", "a private key is 64 bytes (prefix: whsk_, bytes: 3)"),
            ("whsk_%", "a private key is base64 (prefix: whsk_)"),
            (
                "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
                "a symmetric secret is base64 (prefix: whsec_)",
            ),
        ] {
            let error = text.parse::<Secret>().unwrap_err();
            assert_eq!(error.to_string(), format!("invalid input: {message}"), "{text}");
        }
        let swapped = PRIVATE.replace("whsk_6", "whsk_7");
        let error = swapped.parse::<Secret>().unwrap_err();
        assert_eq!(error.message(), "the public half of a private key belongs to its seed");
    }

    #[test]
    fn a_symmetric_secret_is_at_most_64_bytes() {
        let text = |bytes: usize| format!("whsec_{}", encode_base64(&vec![7; bytes]));
        for bytes in [24, 64] {
            assert!(text(bytes).parse::<Secret>().is_ok(), "{bytes}");
        }
        for bytes in [23, 65] {
            assert!(text(bytes).parse::<Secret>().is_err(), "{bytes}");
        }
    }

    #[test]
    fn debug_output_does_not_tell_the_secret() {
        for (text, shown) in
            [(PRIVATE, "Secret(private)"), ("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "Secret(symmetric)")]
        {
            assert_eq!(format!("{:?}", text.parse::<Secret>().unwrap()), shown);
        }
    }
}
