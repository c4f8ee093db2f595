use std::fmt;

use evenkeel_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::field_path::FieldPath;
use crate::time_layout::Layout;

/// How new a document is: the greater, the newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(i64);

impl Revision {
    /// The number itself.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl From<i64> for Revision {
    fn from(number: i64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a document says how new it is, and in what form.
///
/// The field is a path of member names joined by dots (`meta.version`); every dot separates, so a
/// member whose name has one is out of reach. Where a member is there twice, the last counts.
///
/// | format | the field's value | the revision |
/// |---|---|---|
/// | empty | a whole JSON number of 64 bits, exactly: `7`, but not `7.0`, `7e0` or `"7"` | that number |
/// | `unix` | a JSON number of seconds since 1970, perhaps with a decimal fraction, no exponent | nanoseconds |
/// | `unix_ms` | the same in milliseconds | nanoseconds |
/// | `rfc3339` | a string as in `2010-12-10T08:35:08.008Z` | nanoseconds |
/// | a Go time layout, as `2006-01-02 15:04:05` | a string of that layout | nanoseconds |
///
/// A Go time layout has a year, and `PM` where its hours are those of a 12-hour clock. A text
/// without an offset is in UTC; of the zones' names, `UTC` and `GMT` are known. Times are those that
/// fit nanoseconds of 64 bits: the years 1678 to 2261. More than nine digits of a fraction are cut.
///
/// ```
/// use evenkeel_flare::{Change, Revision};
///
/// # fn main() -> evenkeel_core::Result<()> {
/// let change = Change::new("meta.changed", "rfc3339")?;
/// let revision = change.revision_of(br#"{"meta": {"changed": "2010-12-10T08:35:08.008Z"}}"#)?;
/// assert_eq!(revision, Revision::from(1_291_970_108_008_000_000));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Described", into = "Described")]
pub struct Change {
    field: FieldPath,
    format: ChangeFormat,
}

/// A change as it stands in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "change")]
struct Described {
    field: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    format: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ChangeFormat {
    Integer,
    Unix,
    UnixMillis,
    Rfc3339(Layout),
    Layout(Layout),
}

impl Change {
    /// The field and its format.
    ///
    /// # Errors
    /// `InvalidInput`, naming the rule that either breaks.
    pub fn new(field: &str, format: &str) -> Result<Self> {
        Ok(Self { field: FieldPath::parse("change.field", field)?, format: ChangeFormat::parse(format)? })
    }

    /// The path of the field.
    #[must_use]
    pub fn field(&self) -> &str {
        self.field.as_str()
    }

    /// The format; empty for integers.
    #[must_use]
    pub fn format(&self) -> &str {
        match &self.format {
            ChangeFormat::Integer => "",
            ChangeFormat::Unix => "unix",
            ChangeFormat::UnixMillis => "unix_ms",
            ChangeFormat::Rfc3339(_) => "rfc3339",
            ChangeFormat::Layout(layout) => layout.as_str(),
        }
    }

    /// How new the document is.
    ///
    /// # Errors
    /// `InvalidInput` where it is not a JSON object in UTF-8, has no such field, or the field's value
    /// is not of the format.
    pub fn revision_of(&self, document: &[u8]) -> Result<Revision> {
        let not_an_object = "the document is not a JSON object with such a field";
        let invalid = |message: &'static str| {
            Error::new(ErrorKind::InvalidInput, message).with("field", self.field.as_str())
        };
        let text = std::str::from_utf8(document)
            .map_err(|source| invalid("the document is not UTF-8").with_source(source))?;
        let value = self
            .field
            .find(text)
            .map_err(|source| invalid(not_an_object).with("reason", &source).with_source(source))?
            .ok_or_else(|| invalid("the document has no such field"))?;
        self.format.revision(value).map_err(|reason| {
            invalid("the document's field is not of its format")
                .with("format", format_args!("{:?}", self.format()))
                .with("value", shortened(value))
                .with("reason", reason)
        })
    }
}

impl TryFrom<Described> for Change {
    type Error = Error;

    fn try_from(described: Described) -> Result<Self> {
        Self::new(&described.field, &described.format)
    }
}

impl From<Change> for Described {
    fn from(change: Change) -> Self {
        Self { field: change.field().to_owned(), format: change.format().to_owned() }
    }
}

impl ChangeFormat {
    fn parse(format: &str) -> Result<Self> {
        Ok(match format {
            "" => Self::Integer,
            "unix" => Self::Unix,
            "unix_ms" => Self::UnixMillis,
            "rfc3339" => Self::Rfc3339(Layout::rfc3339()),
            layout => Self::Layout(Layout::parse("change.format", layout)?),
        })
    }

    /// The revision that a JSON value stands for, or why it stands for none.
    fn revision(&self, json: &str) -> Result<Revision, String> {
        let nanoseconds = match self {
            Self::Integer => {
                number(json)?;
                if json.contains(['.', 'e', 'E']) {
                    return Err("the number is not written as a whole one".to_owned());
                }
                return json.parse().map(Revision).map_err(|_| "the number is beyond 64 bits".to_owned());
            }
            Self::Unix => decimal(json, 9)?,
            Self::UnixMillis => decimal(json, 6)?,
            Self::Rfc3339(layout) | Self::Layout(layout) => {
                let text: String = serde_json::from_str(json).map_err(|_| "the value is not a string")?;
                layout.nanoseconds(&text)?
            }
        };
        i64::try_from(nanoseconds)
            .map(Revision)
            .map_err(|_| "the time is outside the years 1678 to 2261".to_owned())
    }
}

/// Checks that the JSON value is a number.
fn number(json: &str) -> Result<&str, String> {
    if json.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        Ok(json)
    } else {
        Err("the value is not a number".to_owned())
    }
}

/// A JSON number times ten to the power of `places`, exactly; digits beyond are cut.
fn decimal(json: &str, places: usize) -> Result<i128, String> {
    let number = number(json)?;
    if number.contains(['e', 'E']) {
        return Err("the number has an exponent".to_owned());
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = fraction.len().min(places);
    let scaled = format!("{whole}{}{}", &fraction[..digits], "0".repeat(places - digits));
    scaled.parse().map_err(|_| "the number is beyond 64 bits".to_owned())
}

/// Enough of a value to recognise it in a message.
fn shortened(json: &str) -> String {
    const LENGTH: usize = 64;
    match json.char_indices().nth(LENGTH) {
        None => json.to_owned(),
        Some((end, _)) => format!("{}...", &json[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: &str, json: &str, expected: Result<i64, &str>) {
        let change = Change::new("v", format).unwrap();
        let found = change.revision_of(format!(r#"{{"x":[1],"v":{json},"y":{{}}}}"#).as_bytes());
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.get(), expected, "{format:?} of {json}"),
            (Err(found), Err(expected)) => {
                let found = found.to_string();
                assert!(found.contains(expected), "{format:?} of {json}: {found}");
                assert!(found.contains(&format!("field: v, format: {format:?}")), "{json}: {found}");
            }
            _ => panic!("{format:?} of {json}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn integers_are_exact_to_64_bits() {
        check("", "7", Ok(7));
        check("", "0", Ok(0));
        check("", "-0", Ok(0));
        check("", "-12", Ok(-12));
        check("", "9007199254740993", Ok(9_007_199_254_740_993));
        check("", "9223372036854775807", Ok(i64::MAX));
        check("", "-9223372036854775808", Ok(i64::MIN));
        check("", "9223372036854775808", Err("beyond 64 bits"));
        check("", "-9223372036854775809", Err("beyond 64 bits"));
        check("", "1.0", Err("not written as a whole one"));
        check("", "1e3", Err("not written as a whole one"));
        check("", "1E3", Err("not written as a whole one"));
        check("", r#""7""#, Err("not a number"));
        check("", "null", Err("not a number"));
        check("", "true", Err("not a number"));
        check("", "[7]", Err("not a number"));
    }

    #[test]
    fn unix_times_are_exact_to_the_nanosecond() {
        check("unix", "1291970108", Ok(1_291_970_108_000_000_000));
        check("unix", "1291970108.008", Ok(1_291_970_108_008_000_000));
        check("unix", "1291970108.123456789", Ok(1_291_970_108_123_456_789));
        check("unix", "1291970108.1234567899", Ok(1_291_970_108_123_456_789));
        check("unix", "-0.5", Ok(-500_000_000));
        check("unix", "-1.5", Ok(-1_500_000_000));
        check("unix", "9223372036.854775807", Ok(i64::MAX));
        check("unix", "9223372036.854775808", Err("outside the years 1678 to 2261"));
        check("unix", &"9".repeat(60), Err("beyond 64 bits"));
        check("unix", "1.2e9", Err("exponent"));
        check("unix", r#""1291970108""#, Err("not a number"));
        check("unix_ms", "1291970108008", Ok(1_291_970_108_008_000_000));
        check("unix_ms", "1291970108008.25", Ok(1_291_970_108_008_250_000));
        check("unix_ms", "9223372036855", Err("outside the years 1678 to 2261"));
        check("unix_ms", "{}", Err("not a number"));
    }

    #[test]
    fn times_in_words_are_nanoseconds() {
        check("rfc3339", r#""2010-12-10T08:35:08.008Z""#, Ok(1_291_970_108_008_000_000));
        check("rfc3339", r#""2010-12-10T09:35:08+01:00""#, Ok(1_291_970_108_000_000_000));
        check("rfc3339", r#""1970-01-01T00:00:0\u0031Z""#, Ok(1_000_000_000));
        check("2006-01-02T15:04:05Z07:00", r#""2010-12-10T08:35:08.008Z""#, Ok(1_291_970_108_008_000_000));
        check("2006-01-02", r#""1970-01-02""#, Ok(86_400_000_000_000));
        check("rfc3339", r#""1677-09-21T00:12:43Z""#, Err("outside the years 1678 to 2261"));
        check("rfc3339", r#""2262-04-12T00:00:00Z""#, Err("outside the years 1678 to 2261"));
        check("rfc3339", r#""9999-12-31T23:59:59Z""#, Err("outside the years 1678 to 2261"));
        check("rfc3339", "1291970108", Err("not a string"));
        check("rfc3339", r#""yesterday""#, Err("reason: "));
        check("2006-01-02", &format!("{:?}", "é".repeat(100)), Err("é..."));
    }

    #[test]
    fn a_document_is_a_json_object_with_the_field() {
        let change = Change::new("a.b", "").unwrap();
        let check = |document: &[u8], expected: &str| {
            let error = change.revision_of(document).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let error = error.to_string();
            assert!(error.contains(expected) && error.contains("field: a.b"), "{error}");
        };
        assert_eq!(change.revision_of(br#" {"a":{"b":3}} "#).unwrap(), Revision::from(3));
        check(b"", "not a JSON object");
        check(b"[1]", "not a JSON object");
        check(br#""a""#, "not a JSON object");
        check(br#"{"a":{"b":1}"#, "not a JSON object");
        check(br#"{"a":{"b":1}} {}"#, "not a JSON object");
        check(br#"{"a":{"b":1},"c":tru}"#, "not a JSON object");
        check(br#"{"a":1}"#, "not a JSON object with such a field");
        check(br#"{"a":{}}"#, "no such field");
        check(br#"{"b":1}"#, "no such field");
        check(b"{\"a\":{\"b\":1},\"c\":\"\xff\"}", "not UTF-8");
    }

    #[test]
    fn a_change_is_an_object_in_json_and_checked_when_read() {
        for json in [
            r#"{"field":"a.b"}"#,
            r#"{"field":"a","format":"unix"}"#,
            r#"{"field":"a","format":"unix_ms"}"#,
            r#"{"field":"a","format":"rfc3339"}"#,
            r#"{"field":"a","format":"2006-01-02"}"#,
        ] {
            let change: Change = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&change).unwrap(), json);
        }
        for (json, expected) in [
            (r#"{}"#, "missing field `field`"),
            (r#"{"field":""}"#, "change.field is empty"),
            (r#"{"field":"a","format":"UNIX"}"#, "field: change.format, value: \"UNIX\""),
            (r#"{"field":"a","colour":1}"#, "unknown field `colour`"),
        ] {
            let error = serde_json::from_str::<Change>(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
