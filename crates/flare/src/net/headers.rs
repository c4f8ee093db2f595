use evenkeel_core::{Error, ErrorKind, Result};
use http::{HeaderName, HeaderValue};

/// Headers that belong to one connection (RFC 9110, 7.6.1), or that the sender sets itself.
const RESERVED: &[&str] =
    &["connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// Families of headers of which the same is true.
const RESERVED_PREFIXES: &[&str] = &["proxy-", "webhook-"];

/// The name of a header that a subscription may set.
///
/// Refused are what is no header's name, what belongs to the connection rather than the request,
/// `host`, `content-length`, and `webhook-*`, which would let a subscription forge a signature.
///
/// # Errors
/// `InvalidInput` naming `field`, where the name was found, and the name.
pub fn check_header_name(field: &str, name: &str) -> Result<HeaderName> {
    let refuse =
        |message| Error::new(ErrorKind::InvalidInput, message).with("field", field).with("value", name);
    let parsed: HeaderName = name.parse().map_err(|_| refuse("a header's name has other characters"))?;
    let lower = parsed.as_str();
    if RESERVED.contains(&lower) || RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
        return Err(refuse("this header is not a subscription's to set"));
    }
    Ok(parsed)
}

/// The value of a header: visible ASCII, spaces and tabs.
///
/// # Errors
/// `InvalidInput` naming `field`, where the value was found, and the value.
pub fn check_header_value(field: &str, value: &str) -> Result<HeaderValue> {
    // The parser also takes other bytes, which every receiver reads in its own way.
    let parsed = HeaderValue::from_str(value).ok().filter(|parsed| parsed.to_str().is_ok());
    parsed.ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, "a header's value is visible ASCII")
            .with("field", field)
            .with("value", value.escape_debug())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_connection_and_of_the_sender_are_refused() {
        for name in [
            "Connection",
            "keep-alive",
            "Proxy-Authorization",
            "proxy-authenticate",
            "proxy-connection",
            "TE",
            "trailer",
            "Transfer-Encoding",
            "upgrade",
            "webhook-id",
            "Webhook-Signature",
            "webhook-anything",
            "Host",
            "content-length",
        ] {
            let error = check_header_name("endpoint.headers", name).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "invalid input: this header is not a subscription's to set (field: endpoint.headers, value: {name})"
                ),
            );
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["", "x y", "x:", "x\r\n", "é"] {
            let error = check_header_name("endpoint.headers", name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}");
        }
    }

    #[test]
    fn any_other_name_is_allowed_in_any_case() {
        for name in ["Authorization", "X-Api-Key", "content-type", "webhooks", "proxy"] {
            assert_eq!(check_header_name("f", name).unwrap(), name.to_ascii_lowercase().as_str());
        }
    }

    #[test]
    fn a_value_cannot_begin_another_header() {
        for value in ["a\r\nhost: b", "a\nb", "a\0b", "é"] {
            let error = check_header_value("endpoint.headers.x", value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{value:?}");
            assert!(!error.to_string().contains(['\r', '\n', '\0']), "{error}");
        }
        assert_eq!(check_header_value("f", "Bearer {id} 1\t2").unwrap(), "Bearer {id} 1\t2");
    }
}
