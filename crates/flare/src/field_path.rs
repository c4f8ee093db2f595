use std::fmt;

use evenkeel_core::Result;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::absolute::invalid;

/// How deep a field may lie.
const MAX_DEPTH: usize = 16;

/// The longest path, in bytes.
const MAX_LENGTH: usize = 512;

/// Where a value is in a document: member names from the outermost object inwards, joined by dots.
/// Every dot separates; a member whose name has one is out of reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldPath {
    text: String,
}

impl FieldPath {
    /// Reads a path that is the value of `field`.
    pub(crate) fn parse(field: &str, text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(invalid("is empty", field, text));
        }
        if text.len() > MAX_LENGTH {
            return Err(invalid("is longer than 512 bytes", field, text));
        }
        if text.split('.').any(str::is_empty) {
            return Err(invalid("has an empty member name", field, text));
        }
        if text.split('.').count() > MAX_DEPTH {
            return Err(invalid("is deeper than 16 members", field, text));
        }
        Ok(Self { text: text.to_owned() })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The value in a document that was read already.
    pub(crate) fn get<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.text.split('.').try_fold(document, |value, name| value.as_object()?.get(name))
    }

    /// The value's JSON, in a document of which nothing else is kept. Where a member is there twice,
    /// the last counts, as it does for [`FieldPath::get`].
    ///
    /// # Errors
    /// Where the document is not JSON or a part of the path is not an object.
    pub(crate) fn find<'a>(&self, document: &'a str) -> serde_json::Result<Option<&'a str>> {
        let mut found = document;
        for name in self.text.split('.') {
            let mut reader = serde_json::Deserializer::from_str(found);
            let value = reader.deserialize_map(Member { name })?;
            reader.end()?;
            let Some(value) = value else { return Ok(None) };
            found = value.get();
        }
        Ok(Some(found))
    }
}

/// Reads one member of an object and skips the others.
struct Member<'n> {
    name: &'n str,
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the member {:?}", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_wanted) = object.next_key_seed(IsNamed { name: self.name })? {
            if is_wanted {
                found = Some(object.next_value()?);
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares a member's name without keeping it.
struct IsNamed<'n> {
    name: &'n str,
}

impl<'de> DeserializeSeed<'de> for IsNamed<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<bool, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for IsNamed<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, document: &str, expected: Option<&str>) {
        let path = FieldPath::parse("field", path).unwrap();
        assert_eq!(path.find(document).unwrap(), expected, "{path:?} in {document}");
        let value = serde_json::from_str(document).unwrap();
        let expected: Option<Value> = expected.map(|text| serde_json::from_str(text).unwrap());
        assert_eq!(path.get(&value), expected.as_ref(), "{path:?} in {document}");
    }

    #[test]
    fn a_dotted_path_reaches_nested_members() {
        check("a", r#"{"a":1}"#, Some("1"));
        check("a", r#" { "b" : [ {"a":2} ], "a" : "x\"y" } "#, Some(r#""x\"y""#));
        check("a.b.c", r#"{"a":{"x":{},"b":{"c": null }}}"#, Some("null"));
        check("a", r#"{"a":{"b":[1, 2]}}"#, Some(r#"{"b":[1, 2]}"#));
        check("é", r#"{"\u00e9":1}"#, Some("1"));
        check("a.b", r#"{"a":{}}"#, None);
        check("a.b", r#"{"b":1}"#, None);
        check("a", "{}", None);
    }

    #[test]
    fn every_dot_separates() {
        check("a.b", r#"{"a.b":1}"#, None);
        check("a.b", r#"{"a.b":1,"a":{"b":2}}"#, Some("2"));
    }

    #[test]
    fn the_last_of_two_members_of_a_name_counts() {
        check("a", r#"{"a":1,"a":2}"#, Some("2"));
        check("a.b", r#"{"a":1,"a":{"b":2,"b":3}}"#, Some("3"));
    }

    #[test]
    fn what_is_not_json_or_not_an_object_is_an_error() {
        let path = FieldPath::parse("field", "a.b").unwrap();
        for document in
            ["", "1", "[]", "null", "{", r#"{"a":}"#, r#"{"a":{"b":1}} x"#, r#"{"a":1}"#, r#"{"a":[]}"#]
        {
            assert!(path.find(document).is_err(), "{document}");
        }
    }

    #[test]
    fn a_path_names_its_members_and_is_bounded() {
        for (text, rule) in [
            ("", "is empty"),
            (".", "empty member name"),
            (".a", "empty member name"),
            ("a.", "empty member name"),
            ("a..b", "empty member name"),
            (&"a.".repeat(16).as_str()[..31], ""),
            (&("a.".repeat(16) + "a"), "deeper than 16"),
            (&"a".repeat(513), "longer than 512 bytes"),
        ] {
            let found = FieldPath::parse("change.field", text);
            match found {
                Ok(_) => assert_eq!(rule, "", "{text}"),
                Err(error) => {
                    let error = error.to_string();
                    assert!(!rule.is_empty() && error.contains(rule), "{text}: {error}");
                    assert!(error.contains("field: change.field, value: "), "{text}: {error}");
                }
            }
        }
    }
}
