use std::fmt;

use evenkeel_core::{Error, Result};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize, Serializer};

use crate::absolute::{self, Absolute};

const FIELD: &str = "url";

/// The absolute http or https URL of a document, in a form in which equal URLs are equal texts.
///
/// - The host is in lower case, and the scheme's own port is left out.
/// - Path segments are encoded one way: `%7e` and `~` are the same.
/// - One trailing slash is left out. Empty segments, `.` and `..` are refused.
/// - User information, a query and a fragment are refused, as are backslashes and control characters.
/// - It is at most 2,048 bytes long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct DocumentUrl {
    text: String,
    /// Where the path begins in `text`.
    path: usize,
}

impl DocumentUrl {
    /// Reads a URL as it stands.
    ///
    /// # Errors
    /// `InvalidInput`, naming the rule that it breaks.
    pub fn parse(text: &str) -> Result<Self> {
        let Absolute { origin, segments } = Absolute::parse(FIELD, text)?;
        let mut url = Self { path: origin.len(), text: origin };
        for segment in segments {
            url.text.push('/');
            url.text.push_str(&absolute::canonical(FIELD, text, segment)?);
        }
        absolute::check_length(FIELD, &url.text)?;
        Ok(url)
    }

    /// Reads a URL that is part of a request's path: as it stands, or percent-encoded whole
    /// (`https%3A%2F%2Fapi.example.com%2Forders%2F17`).
    ///
    /// # Errors
    /// `InvalidInput`, naming the rule that it breaks.
    pub fn from_path(path: &str) -> Result<Self> {
        if path.contains("://") {
            return Self::parse(path);
        }
        let decoded = percent_decode_str(path).decode_utf8();
        Self::parse(&decoded.map_err(|_| absolute::invalid("is not UTF-8 once it is decoded", FIELD, path))?)
    }

    /// The normalised URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Scheme, host and, where it is not the scheme's own, port.
    pub(crate) fn origin(&self) -> &str {
        &self.text[..self.path]
    }

    /// The segments of the path, encoded.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &str> {
        self.text[self.path..].split('/').skip(1)
    }
}

impl TryFrom<String> for DocumentUrl {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl Serialize for DocumentUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl fmt::Display for DocumentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let found = DocumentUrl::parse(text);
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.as_str(), expected, "{text:?}"),
            (Err(found), Err(expected)) => {
                assert!(found.to_string().contains(expected), "{text:?}: {found}");
                assert!(found.to_string().contains("field: url"), "{text:?}: {found}");
            }
            _ => panic!("{text:?}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn equal_urls_become_equal_texts() {
        check("https://api.example.com/orders/17", Ok("https://api.example.com/orders/17"));
        check("HTTPS://API.Example.COM/Orders/17", Ok("https://api.example.com/Orders/17"));
        check("https://api.example.com:443/a", Ok("https://api.example.com/a"));
        check("http://api.example.com:80/a", Ok("http://api.example.com/a"));
        check("http://api.example.com:443/a", Ok("http://api.example.com:443/a"));
        check("https://api.example.com/a/", Ok("https://api.example.com/a"));
        check("https://api.example.com/", Ok("https://api.example.com"));
        check("https://api.example.com", Ok("https://api.example.com"));
        check("https://api.example.com/%7ejoe/%41", Ok("https://api.example.com/~joe/A"));
        check("https://api.example.com/a b/%c3%a9/é", Ok("https://api.example.com/a%20b/%C3%A9/%C3%A9"));
        check("https://api.example.com/a%2fb", Ok("https://api.example.com/a%2Fb"));
        check("https://api.example.com/100%", Ok("https://api.example.com/100%25"));
        check("https://api.example.com/%252e%252e", Ok("https://api.example.com/%252e%252e"));
        check("https://api.example.com/{id}", Ok("https://api.example.com/%7Bid%7D"));
        check("https://Bücher.example/a", Ok("https://xn--bcher-kva.example/a"));
        check("http://[::1]:8080/a", Ok("http://[::1]:8080/a"));
        check("http://127.0.0.1:8080/a;v=1/b:c@d", Ok("http://127.0.0.1:8080/a;v=1/b:c@d"));
    }

    #[test]
    fn what_is_no_documents_url_is_refused_by_name_of_the_rule() {
        check("", Err("absolute http or https URL"));
        check("orders/17", Err("absolute http or https URL"));
        check("//api.example.com/a", Err("absolute http or https URL"));
        check("ftp://api.example.com/a", Err("absolute http or https URL"));
        check("https:/api.example.com/a", Err("absolute http or https URL"));
        check(" https://api.example.com/a", Err("absolute http or https URL"));
        check("https:///a", Err("has no valid host"));
        check("https://api example.com/a", Err("has no valid host"));
        check("https://api.example.com:99999/a", Err("has no valid host"));
        check("https://joe@api.example.com/a", Err("user information"));
        check("https://joe:pw@api.example.com/a", Err("user information"));
        check("https://@api.example.com/a", Err("user information"));
        check("https://api.example.com/a?b=c", Err("a query"));
        check("https://api.example.com?b=c", Err("a query"));
        check("https://api.example.com/a?", Err("a query"));
        check("https://api.example.com/a#b", Err("a fragment"));
        check("https://api.example.com//a", Err("empty path segment"));
        check("https://api.example.com/a//", Err("empty path segment"));
        check("https://api.example.com/a/../b", Err("`.` or `..`"));
        check("https://api.example.com/a/%2E%2e", Err("`.` or `..`"));
        check("https://api.example.com/./a", Err("`.` or `..`"));
        check("https://api.example.com/%ff", Err("not UTF-8"));
        check("https://api.example.com/a\\b", Err("backslash or control character"));
        check("https://api.example.com/a\tb", Err("backslash or control character"));
        check(&format!("https://api.example.com/{}", "a".repeat(2048)), Err("2,048 bytes"));
        check(&format!("https://api.example.com/{}", "é".repeat(600)), Err("2,048 bytes"));
    }

    #[test]
    fn a_request_path_has_the_url_as_it_stands_or_encoded_whole() {
        let url = DocumentUrl::parse("https://api.example.com/a%2Fb/17").unwrap();
        for path in [
            "https://api.example.com/a%2Fb/17",
            "https%3A%2F%2Fapi.example.com%2Fa%252Fb%2F17",
            "https%3a%2f%2fapi.example.com/a%252Fb/17",
        ] {
            assert_eq!(DocumentUrl::from_path(path).unwrap(), url, "{path}");
        }
        let error = DocumentUrl::from_path("https%3A%2F%2F%FF").unwrap_err();
        assert!(error.to_string().contains("not UTF-8"), "{error}");
        assert!(DocumentUrl::from_path("orders").is_err());
    }

    #[test]
    fn it_is_a_string_in_json_and_checked_when_read() {
        let url: DocumentUrl = serde_json::from_str(r#""https://A.example/%41/""#).unwrap();
        assert_eq!(serde_json::to_string(&url).unwrap(), r#""https://a.example/A""#);
        let error = serde_json::from_str::<DocumentUrl>(r#""a""#).unwrap_err();
        assert!(error.to_string().contains(r#"value: "a""#), "{error}");
    }

    proptest! {
        #[test]
        fn the_normalised_form_is_its_own(text in "https?://[a-zA-Z.0-9]{1,8}(:[0-9]{1,3})?(/[ -~é]{0,6}){0,5}/?") {
            if let Ok(url) = DocumentUrl::parse(&text) {
                prop_assert_eq!(&DocumentUrl::parse(url.as_str()).unwrap(), &url);
                let rebuilt = url.segments().fold(url.origin().to_owned(), |text, segment| text + "/" + segment);
                prop_assert_eq!(rebuilt, url.as_str());
            }
        }
    }
}
