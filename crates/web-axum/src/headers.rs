use std::time::Duration;

use evenkeel_core::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, Item, Parser};

use crate::problem::Kind;
use crate::settings::KeySyntax;
use crate::{Problem, duration};

/// draft-ietf-httpapi-idempotency-key-header-07.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(crate) const X_IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("x-idempotency-key");
const X_REFERENCE_TIME: HeaderName = HeaderName::from_static("x-idempotency-reference-time");
const X_TIMEOUT: HeaderName = HeaderName::from_static("x-idempotency-timeout");
const X_EXPIRATION: HeaderName = HeaderName::from_static("x-idempotency-expiration");

/// Set on an answer that was given before.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Set to `false` on an answer that a retry will not get again.
pub(crate) const STORED: HeaderName = HeaderName::from_static("idempotent-stored");

const LONGEST_KEY: usize = 255;

/// The key in either header; in both it must be the same.
pub(crate) fn key(headers: &HeaderMap, syntax: KeySyntax) -> Result<Option<String>, Problem> {
    let standard = single(headers, &IDEMPOTENCY_KEY, Kind::KeyMalformed)?
        .map(|value| standard_key(value, syntax))
        .transpose()?;
    let compatible = single(headers, &X_IDEMPOTENCY_KEY, Kind::KeyMalformed)?.map(plain_key).transpose()?;
    match (standard, compatible) {
        (Some(one), Some(other)) if one != other => {
            Err(malformed_key(&IDEMPOTENCY_KEY, "differs from the key in the x-idempotency-key header"))
        }
        (one, other) => Ok(one.or(other)),
    }
}

/// Read as an RFC 3339 instant.
pub(crate) fn reference_time(headers: &HeaderMap) -> Result<Option<Timestamp>, Problem> {
    read(headers, &X_REFERENCE_TIME, NOT_A_TIME, time)
}

pub(crate) const NOT_A_TIME: &str = "is not an RFC 3339 time such as 2024-05-01T12:00:00Z";

/// The instant that `text` says in RFC 3339.
pub(crate) fn time(text: &str) -> Option<Timestamp> {
    // Jiff also takes time zone names in brackets, which RFC 3339 does not have.
    let instant: jiff::Timestamp = text.parse().ok().filter(|_| !text.contains('['))?;
    Some(Timestamp::from_micros(instant.as_microsecond()))
}

pub(crate) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    read(headers, &X_TIMEOUT, NOT_A_DURATION, duration::parse)
}

pub(crate) fn expiration(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    read(headers, &X_EXPIRATION, NOT_A_DURATION, duration::parse)
}

const NOT_A_DURATION: &str = "is not a duration such as 10s, 24h or 1h30m";

fn read<T>(
    headers: &HeaderMap,
    name: &HeaderName,
    problem: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let Some(value) = single(headers, name, Kind::HeaderMalformed)? else { return Ok(None) };
    let parsed = std::str::from_utf8(value.as_bytes()).ok().and_then(|text| parse(text.trim()));
    parsed
        .map(Some)
        .ok_or_else(|| Problem::new(Kind::HeaderMalformed, format!("the {name} header {problem}")))
}

fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    kind: Kind,
) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(Problem::new(kind, format!("the {name} header is there more than once"))),
    }
}

/// An sf-string, or, unless strict, the text itself where it needs no quotes.
fn standard_key(value: &HeaderValue, syntax: KeySyntax) -> Result<String, Problem> {
    let malformed = |problem| Err(malformed_key(&IDEMPOTENCY_KEY, problem));
    let bytes = value.as_bytes().trim_ascii();
    if bytes.first() == Some(&b'"') {
        return match Parser::new(bytes).parse::<Item>() {
            Ok(Item { bare_item: BareItem::String(key), .. }) => bounded(&IDEMPOTENCY_KEY, String::from(key)),
            _ => malformed("is not a single quoted string"),
        };
    }
    match syntax {
        KeySyntax::Strict => malformed("is not a quoted string"),
        KeySyntax::Lenient if bytes.contains(&b',') => malformed("is a list"),
        KeySyntax::Lenient => {
            let needs_quotes = |byte: &u8| !byte.is_ascii_graphic() || matches!(byte, b'"' | b';' | b'\\');
            match std::str::from_utf8(bytes) {
                Ok(key) if !bytes.iter().any(needs_quotes) => bounded(&IDEMPOTENCY_KEY, key.to_owned()),
                _ => malformed("has a character that needs quotes"),
            }
        }
    }
}

fn plain_key(value: &HeaderValue) -> Result<String, Problem> {
    match value.to_str() {
        Ok(key) if !key.contains('\t') => bounded(&X_IDEMPOTENCY_KEY, key.trim().to_owned()),
        _ => Err(malformed_key(&X_IDEMPOTENCY_KEY, "has a character that is not printable ASCII")),
    }
}

fn bounded(header: &HeaderName, key: String) -> Result<String, Problem> {
    match key.len() {
        0 => Err(malformed_key(header, "is empty")),
        1..=LONGEST_KEY => Ok(key),
        _ => Err(malformed_key(header, "is longer than 255 characters")),
    }
}

fn malformed_key(header: &HeaderName, problem: &str) -> Problem {
    Problem::new(Kind::KeyMalformed, format!("the {header} header {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &[u8])]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap()))
            .fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            })
    }

    fn lenient(value: &[u8]) -> Result<Option<String>, Problem> {
        key(&headers(&[("idempotency-key", value)]), KeySyntax::Lenient)
    }

    #[test]
    fn a_quoted_string_is_a_key() {
        for (value, want) in [
            (&b"\"8e03978e-40d5\""[..], "8e03978e-40d5"),
            (b"  \"a b\"  ", "a b"),
            (b"\"a\\\"b\\\\c\"", "a\"b\\c"),
            (b"\"a,b\"", "a,b"),
            (b"\"a\";version=1", "a"),
        ] {
            for syntax in [KeySyntax::Lenient, KeySyntax::Strict] {
                let found = key(&headers(&[("idempotency-key", value)]), syntax).unwrap();
                assert_eq!(found.as_deref(), Some(want));
            }
        }
    }

    #[test]
    fn a_bare_token_is_a_key_unless_strict() {
        for bare in ["8e03978e-40d5-43dd-bc93-6895a57f9324", "KG5LxwFBepaKHyUD", "a/b=c+d:e"] {
            assert_eq!(lenient(bare.as_bytes()).unwrap().as_deref(), Some(bare));
            let strict = key(&headers(&[("idempotency-key", bare.as_bytes())]), KeySyntax::Strict);
            assert_eq!(strict.unwrap_err().name(), "key-malformed");
        }
    }

    #[test]
    fn a_malformed_key_is_a_bad_request() {
        let long = format!("\"{}\"", "x".repeat(256));
        for bad in [
            &b""[..],
            b"\"\"",
            b"\"unclosed",
            b"\"a\", \"b\"",
            b"a, b",
            b"a b",
            b"a;b",
            b"caf\xc3\xa9",
            b"\"caf\xc3\xa9\"",
            b"\"a\xff\"",
            b"\"tab\there\"",
            long.as_bytes(),
            &long.as_bytes()[1..257],
        ] {
            let problem = lenient(bad).unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.name()), (400, "key-malformed"), "{bad:?}");
        }
        let longest = "x".repeat(255);
        assert_eq!(lenient(format!("\"{longest}\"").as_bytes()).unwrap(), Some(longest.clone()));
        assert_eq!(lenient(longest.as_bytes()).unwrap(), Some(longest));
    }

    #[test]
    fn several_fields_are_a_bad_request() {
        for name in ["idempotency-key", "x-idempotency-key"] {
            let twice = headers(&[(name, b"\"a\""), (name, b"\"a\"")]);
            assert_eq!(key(&twice, KeySyntax::Lenient).unwrap_err().name(), "key-malformed");
        }
    }

    #[test]
    fn both_headers_must_agree() {
        let both = |other: &'static [u8]| {
            key(&headers(&[("idempotency-key", b"\"a b\""), ("x-idempotency-key", other)]), KeySyntax::Strict)
        };
        assert_eq!(both(b"a b").unwrap().as_deref(), Some("a b"));
        assert_eq!(both(b"c").unwrap_err().name(), "key-malformed");
    }

    #[test]
    fn the_compatible_key_is_plain_text() {
        let plain = |value: &[u8]| key(&headers(&[("x-idempotency-key", value)]), KeySyntax::Strict);
        assert_eq!(plain(b"a, b;c").unwrap().as_deref(), Some("a, b;c"));
        for bad in [&b""[..], b"  ", b"a\tb", b"\xff", "x".repeat(256).as_bytes()] {
            assert_eq!(plain(bad).unwrap_err().name(), "key-malformed", "{bad:?}");
        }
    }

    #[test]
    fn a_reference_time_is_rfc_3339() {
        let read = |value: &[u8]| reference_time(&headers(&[("x-idempotency-reference-time", value)]));
        let want = Some(Timestamp::from_micros(1_700_000_000_250_000));
        assert_eq!(read(b"2023-11-14T22:13:20.25Z").unwrap(), want);
        assert_eq!(read(b"2023-11-14T23:13:20.25+01:00").unwrap(), want);
        for bad in [
            &b""[..],
            b"yesterday",
            b"1700000000",
            b"2023-11-14",
            b"2023-11-14T22:13:20",
            b"\xff",
            b"2023-11-14T22:13:20Z[UTC]",
        ] {
            assert_eq!(read(bad).unwrap_err().name(), "header-malformed", "{bad:?}");
        }
    }

    #[test]
    fn times_to_live_are_durations() {
        let fields = headers(&[("x-idempotency-timeout", b"10s"), ("x-idempotency-expiration", b"1h30m")]);
        assert_eq!(timeout(&fields).unwrap(), Some(Duration::from_secs(10)));
        assert_eq!(expiration(&fields).unwrap(), Some(Duration::from_secs(5400)));
        let bad = headers(&[("x-idempotency-timeout", b"soon"), ("x-idempotency-expiration", b"\xff")]);
        assert_eq!(timeout(&bad).unwrap_err().name(), "header-malformed");
        assert_eq!(expiration(&bad).unwrap_err().name(), "header-malformed");
        assert_eq!(timeout(&HeaderMap::new()).unwrap(), None);
    }
}
