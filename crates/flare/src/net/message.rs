use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::{Error, ErrorKind, Result};
use http::{HeaderMap, Method, Uri};
use url::Url;

/// A request to be sent.
#[derive(Clone)]
pub struct Outgoing {
    /// What is asked.
    pub method: Method,
    /// Whom; see [`target`].
    pub uri: Uri,
    /// `host`, `content-length` and, unless it is here, `user-agent` are added.
    pub headers: HeaderMap,
    /// Sent byte for byte.
    pub body: Bytes,
}

/// A target's answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// How long the target asks to be left alone, from when it answered.
    pub retry_after: Option<Duration>,
    /// The first 16 KiB of the body.
    pub body: Bytes,
    /// From the beginning of the attempt to the end of the answer.
    pub took: Duration,
}

/// Keeps headers' values, which may be credentials, and the body out of logs.
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("method", &self.method)
            .field("uri", &self.uri)
            .field("headers", &Vec::from_iter(self.headers.keys()))
            .field("bytes", &self.body.len())
            .finish()
    }
}

/// The target that `url` names: absolute, `http` or `https`, without credentials.
///
/// Spelled as a browser would spell it: international names in punycode, IP addresses in their
/// usual form, other characters escaped; a fragment is dropped.
///
/// # Errors
/// `InvalidInput` naming the URL and what is wrong with it.
pub fn target(url: &str) -> Result<Uri> {
    let refuse = |message| Error::new(ErrorKind::InvalidInput, message).with("url", url.escape_debug());
    let mut parsed =
        Url::parse(url).map_err(|source| refuse("this is no absolute URL").with_source(source))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(refuse("a target's scheme is http or https"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(refuse("a target's URL has no user and no password"));
    }
    parsed.set_fragment(None);
    parsed
        .as_str()
        .parse()
        .map_err(|source| refuse("this URL cannot be sent to").with_source(Box::new(source)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_spelled_as_a_browser_would() {
        for (url, expected) in [
            ("https://example.com", "https://example.com/"),
            ("HTTP://Example.COM:80/a b?c=é#d", "http://example.com/a%20b?c=%C3%A9"),
            ("https://bücher.example/{id}", "https://xn--bcher-kva.example/%7Bid%7D"),
            ("http://example.com/a|b?c|{d}^`", "http://example.com/a|b?c|{d}^`"),
            ("http://0x7f.1/", "http://127.0.0.1/"),
            ("http://[::FFFF:7f00:1]:8080/", "http://[::ffff:7f00:1]:8080/"),
        ] {
            assert_eq!(target(url).unwrap(), expected, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_sent_to_is_named() {
        for (url, message) in [
            ("", "this is no absolute URL"),
            ("/hooks", "this is no absolute URL"),
            ("http://", "this is no absolute URL"),
            ("ftp://example.com/", "a target's scheme is http or https"),
            ("data:text/plain,x", "a target's scheme is http or https"),
            ("https://me@example.com/", "a target's URL has no user and no password"),
            ("https://:secret@example.com/", "a target's URL has no user and no password"),
        ] {
            let error = target(url).unwrap_err();
            assert_eq!(error.to_string(), format!("invalid input: {message} (url: {url})"));
        }
    }

    #[test]
    fn credentials_and_content_stay_out_of_logs() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer s3cret".parse().unwrap());
        let uri = Uri::from_static("http://example.com/");
        let shown = format!("{:?}", Outgoing { method: Method::POST, uri, headers, body: "private".into() });
        assert!(shown.contains("authorization") && shown.contains("http://example.com/"), "{shown}");
        assert!(!shown.contains("s3cret") && !shown.contains("private"), "{shown}");
    }
}
