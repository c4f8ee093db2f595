//! What templates and documents' URLs have in common.

use evenkeel_core::{Error, ErrorKind, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

/// The longest URL, in bytes.
const MAX_LENGTH: usize = 2_048;

/// What RFC 3986 lets stand in a path segment as it is: everything else is encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// An absolute http or https URL without user information, query and fragment.
#[derive(Debug)]
pub(crate) struct Absolute<'a> {
    /// Scheme, host and, where it is not the scheme's own, port; normalised.
    pub(crate) origin: String,
    /// The segments of the path as they were given, but for one empty one at the end.
    pub(crate) segments: Vec<&'a str>,
}

impl<'a> Absolute<'a> {
    pub(crate) fn parse(field: &str, text: &'a str) -> Result<Self> {
        let (origin, rest) = split_origin(field, text)?;
        if rest.contains('#') {
            return Err(invalid("has a fragment", field, text));
        }
        if rest.contains('?') {
            return Err(invalid("has a query", field, text));
        }
        let path = rest.strip_suffix('/').unwrap_or(rest);
        let segments: Vec<_> = path.split('/').skip(1).collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return Err(invalid("has an empty path segment", field, text));
        }
        Ok(Self { origin, segments })
    }
}

/// The normalised scheme, host and port of an absolute http or https URL, and what follows them.
pub(crate) fn split_origin<'a>(field: &str, text: &'a str) -> Result<(String, &'a str)> {
    check_length(field, text)?;
    // A URL parser would quietly drop or replace them.
    if text.contains(|c: char| c == '\\' || c.is_control()) {
        return Err(invalid("has a backslash or control character", field, text));
    }
    let is_web = |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let (scheme, rest) = text
        .split_once("://")
        .filter(|(scheme, _)| is_web(scheme))
        .ok_or_else(|| invalid("is not an absolute http or https URL", field, text))?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(invalid("has user information", field, text));
    }
    if authority.contains(['{', '}']) {
        return Err(invalid("has a wildcard before the path", field, text));
    }
    // A URL parser would take the host from the path.
    let url = if authority.is_empty() { None } else { Url::parse(&format!("{scheme}://{authority}")).ok() };
    let url = url.ok_or_else(|| invalid("has no valid host", field, text))?;
    Ok((url.origin().ascii_serialization(), rest))
}

/// The one encoding of a path segment.
pub(crate) fn canonical(field: &str, text: &str, segment: &str) -> Result<String> {
    let decoded = percent_decode_str(segment).decode_utf8();
    let decoded = decoded.map_err(|_| invalid("has a path segment that is not UTF-8", field, text))?;
    if decoded == "." || decoded == ".." {
        return Err(invalid("has a path segment `.` or `..`", field, text));
    }
    Ok(utf8_percent_encode(&decoded, SEGMENT).to_string())
}

pub(crate) fn check_length(field: &str, text: &str) -> Result<()> {
    if text.len() <= MAX_LENGTH {
        return Ok(());
    }
    let error = Error::new(ErrorKind::InvalidInput, format!("{field} is longer than 2,048 bytes"));
    Err(error.with("field", field).with("bytes", text.len()))
}

/// The error of a rule that `value` breaks.
pub(crate) fn invalid(rule: &str, field: &str, value: &str) -> Error {
    let error = Error::new(ErrorKind::InvalidInput, format!("{field} {rule}"));
    error.with("field", field).with("value", format_args!("{value:?}"))
}
