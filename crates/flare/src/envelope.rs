use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;

use bytes::Bytes;
use evenkeel_core::{Error, ErrorKind, Result, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::interpolate::Text;
use crate::{Captures, Revision, Template};

/// What happened to a document, as a subscriber sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It was not told of before.
    Create,
    /// It is newer than what was told.
    Update,
    /// It is gone.
    Delete,
}

impl Action {
    /// The name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value of a subscription's own in the envelope: a string, a number, a boolean, or a flat array of
/// them. Strings may have wildcards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum DataValue {
    /// One value.
    One(DataScalar),
    /// Some, in their order.
    Many(Vec<DataScalar>),
}

/// A value that has no parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataScalar {
    /// Text, perhaps with wildcards.
    Text(String),
    /// A number, written as it was read.
    Number(Number),
    /// `true` or `false`.
    Bool(bool),
}

impl TryFrom<Value> for DataValue {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self> {
        match value {
            Value::Array(values) => {
                values.into_iter().map(DataScalar::try_from).collect::<Result<_>>().map(Self::Many)
            }
            value => DataScalar::try_from(value).map(Self::One),
        }
    }
}

impl TryFrom<Value> for DataScalar {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self> {
        match value {
            Value::String(text) => Ok(Self::Text(text)),
            Value::Number(number) => Ok(Self::Number(number)),
            Value::Bool(bool) => Ok(Self::Bool(bool)),
            other @ (Value::Null | Value::Array(_) | Value::Object(_)) => {
                let message = "a value of data is a string, a number, a boolean or a flat array of them";
                Err(Error::new(ErrorKind::InvalidInput, message).with("field", "data").with("value", other))
            }
        }
    }
}

impl From<DataValue> for Value {
    fn from(value: DataValue) -> Self {
        match value {
            DataValue::One(scalar) => scalar.into(),
            DataValue::Many(scalars) => scalars.into_iter().map(Self::from).collect(),
        }
    }
}

impl From<DataScalar> for Value {
    fn from(scalar: DataScalar) -> Self {
        match scalar {
            DataScalar::Text(text) => Self::String(text),
            DataScalar::Number(number) => Self::Number(number),
            DataScalar::Bool(bool) => Self::Bool(bool),
        }
    }
}

/// A subscription's own values, ready to be written: what stands between two interpolated strings is
/// JSON already.
#[derive(Clone, Debug, Default)]
pub(crate) struct Data {
    parts: Vec<DataPart>,
}

#[derive(Clone, Debug)]
enum DataPart {
    Json(String),
    Text(Text),
}

impl Data {
    /// Reads the strings of `values`, whose wildcards are those of the template.
    pub(crate) fn new(values: &BTreeMap<String, DataValue>, template: &Template) -> Result<Self> {
        let mut data = Self::default();
        for (i, (name, value)) in values.iter().enumerate() {
            data.json(if i == 0 { "{" } else { "," });
            data.json(&json(name));
            data.json(":");
            match value {
                DataValue::One(scalar) => data.scalar(&format!("data.{name}"), scalar, template)?,
                DataValue::Many(scalars) => {
                    data.json("[");
                    for (i, scalar) in scalars.iter().enumerate() {
                        if i > 0 {
                            data.json(",");
                        }
                        data.scalar(&format!("data.{name}[{i}]"), scalar, template)?;
                    }
                    data.json("]");
                }
            }
        }
        if !values.is_empty() {
            data.json("}");
        }
        Ok(data)
    }

    fn scalar(&mut self, field: &str, scalar: &DataScalar, template: &Template) -> Result<()> {
        match scalar {
            DataScalar::Text(text) => self.parts.push(DataPart::Text(Text::data(field, text, template)?)),
            DataScalar::Number(number) => self.json(&json(number)),
            DataScalar::Bool(bool) => self.json(&json(bool)),
        }
        Ok(())
    }

    fn json(&mut self, json: &str) {
        if let Some(DataPart::Json(last)) = self.parts.last_mut() {
            last.push_str(json);
        } else {
            self.parts.push(DataPart::Json(json.to_owned()));
        }
    }
}

/// What a message is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope<'a> {
    /// The `webhook-id`.
    pub(crate) id: &'a str,
    /// What happened: an [`Action`]'s name, or that nothing did.
    pub(crate) action: &'static str,
    pub(crate) revision: Revision,
    pub(crate) updated_at: Timestamp,
    /// The document's bytes, which are JSON; `None` where it is gone, or not to be sent.
    pub(crate) document: Option<&'a Bytes>,
}

impl Envelope<'_> {
    /// `{"id","action","revision","updatedAt","data"?,"document"?}`, in this order; the document is
    /// in it byte for byte, and `data` where there is some. `captures` are those of the template that
    /// the data was read with.
    pub(crate) fn body(&self, data: &Data, captures: &Captures) -> Bytes {
        // What precedes data and document is at most 200 bytes but for the id.
        let known = 200 + self.id.len() + self.document.map_or(0, Bytes::len);
        let parts = data.parts.iter().map(|part| match part {
            DataPart::Json(json) => json.len(),
            DataPart::Text(_) => 64,
        });
        let mut body = Vec::with_capacity(known + parts.sum::<usize>());
        let Self { id, action, revision, updated_at, document } = *self;
        let updated_at = rfc3339(updated_at);
        body.extend_from_slice(br#"{"id":"#);
        write_text(&mut body, id);
        write!(body, r#","action":"{action}","revision":{revision},"updatedAt":"{updated_at}""#)
            .expect("a vector takes every write");
        for (i, part) in data.parts.iter().enumerate() {
            if i == 0 {
                body.extend_from_slice(br#","data":"#);
            }
            match part {
                DataPart::Json(json) => body.extend_from_slice(json.as_bytes()),
                DataPart::Text(text) => write_text(&mut body, &text.render(captures, revision)),
            }
        }
        if let Some(document) = document {
            body.extend_from_slice(br#","document":"#);
            body.extend_from_slice(document);
        }
        body.push(b'}');
        body.into()
    }

    /// The message without an envelope: the document's exact bytes, or none.
    pub(crate) fn bare_body(&self) -> Bytes {
        self.document.cloned().unwrap_or_default()
    }
}

fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("strings, numbers and booleans are JSON")
}

fn write_text(body: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(body, text).expect("a vector takes every write");
}

/// The time in UTC, with as many digits of a fraction as it has; the nearest of the years -9999 to
/// 9999 where it is beyond.
fn rfc3339(time: Timestamp) -> jiff::Timestamp {
    let nearest = if time < Timestamp::EPOCH { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::from_microsecond(time.as_micros()).unwrap_or(nearest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::DocumentUrl;

    fn template() -> Template {
        Template::parse("https://a.example/{id}").unwrap()
    }

    fn captures(id: &str) -> Captures {
        template().captures(&DocumentUrl::parse(&format!("https://a.example/{id}")).unwrap()).unwrap()
    }

    fn data(json: &str) -> Result<Data> {
        Data::new(&serde_json::from_str(json).unwrap(), &template())
    }

    fn body(document: Option<&'static str>, data_json: &str) -> String {
        let document = document.map(|document| Bytes::from_static(document.as_bytes()));
        let envelope = Envelope {
            id: "msg_1",
            action: if document.is_some() { "update" } else { "delete" },
            revision: Revision::from(9_007_199_254_740_993),
            updated_at: Timestamp::from_micros(1_291_970_108_008_000),
            document: document.as_ref(),
        };
        let body = envelope.body(&data(data_json).unwrap(), &captures("a%22b%0A"));
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn the_members_are_in_their_order_and_the_document_byte_for_byte() {
        assert_eq!(
            body(
                Some("{ \"b\": 1.0,\n \"a\":\"\\u0041\" }"),
                r#"{"x":"{id} {revision}","n":[1,true,"{id}"]}"#
            ),
            concat!(
                r#"{"id":"msg_1","action":"update","revision":9007199254740993,"#,
                r#""updatedAt":"2010-12-10T08:35:08.008Z","#,
                r#""data":{"n":[1,true,"a\"b\n"],"x":"a\"b\n 9007199254740993"},"#,
                "\"document\":{ \"b\": 1.0,\n \"a\":\"\\u0041\" }}",
            )
        );
    }

    #[test]
    fn what_there_is_none_of_is_absent() {
        assert_eq!(
            body(None, "{}"),
            concat!(
                r#"{"id":"msg_1","action":"delete","revision":9007199254740993,"#,
                r#""updatedAt":"2010-12-10T08:35:08.008Z"}"#,
            )
        );
    }

    #[test]
    fn without_an_envelope_the_body_is_the_document_itself() {
        let document = Bytes::from_static(b"{ \"a\":1 }\n");
        let mut envelope = Envelope {
            id: "msg_1",
            action: "create",
            revision: Revision::from(1),
            updated_at: Timestamp::EPOCH,
            document: Some(&document),
        };
        assert_eq!(envelope.bare_body().as_ptr(), document.as_ptr(), "nothing is copied");
        assert_eq!(envelope.bare_body(), document);
        envelope.document = None;
        assert_eq!(envelope.bare_body(), Bytes::new());
    }

    #[test]
    fn times_have_the_digits_they_need() {
        for (micros, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (1, "1970-01-01T00:00:00.000001Z"),
            (1_500_000, "1970-01-01T00:00:01.5Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(rfc3339(Timestamp::from_micros(micros)).to_string(), expected);
        }
        assert!(rfc3339(Timestamp::MAX).to_string().starts_with("9999-12-30T"));
        assert!(rfc3339(Timestamp::MIN).to_string().starts_with("-009999-01-02T"));
    }

    #[test]
    fn data_is_flat() {
        for json in [r#""a""#, "1", "-2.5", "18446744073709551615", "true", "[]", r#"["{id}",1,false]"#] {
            let value: DataValue = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
        }
        for (json, value) in
            [("null", "null"), (r#"{"a":1}"#, r#"{"a":1}"#), ("[1,[2]]", "[2]"), ("[null]", "null")]
        {
            let error = serde_json::from_str::<DataValue>(json).unwrap_err().to_string();
            assert!(error.contains(&format!("flat array of them (field: data, value: {value})")), "{error}");
        }
    }

    #[test]
    fn a_wildcard_of_data_is_the_resources() {
        for (json, field) in [(r#"{"a":1,"b":"{no}"}"#, "data.b"), (r#"{"a":["{id}","{no}"]}"#, "data.a[1]")]
        {
            let error = data(json).unwrap_err().to_string();
            assert!(error.contains(&format!("field: {field}, value: \"{{no}}\"")), "{error}");
        }
    }

    #[test]
    fn an_action_is_a_word_in_json() {
        for action in [Action::Create, Action::Update, Action::Delete] {
            let json = format!("\"{action}\"");
            assert_eq!(serde_json::to_string(&action).unwrap(), json);
            assert_eq!(serde_json::from_str::<Action>(&json).unwrap(), action);
        }
    }

    proptest! {
        #[test]
        fn every_body_is_json_that_says_what_it_was_made_of(
            id in "\\PC{0,20}",
            revision: i64,
            micros: i64,
            name in "\\PC{0,10}",
            text in "[^{}]{0,20}",
            document in prop::option::of("[^\"\\\\\\x00-\\x1f]{0,20}"),
        ) {
            let document_bytes = document.as_ref().map(|text| Bytes::from(format!(" {{\"text\": \"{text}\"}} ")));
            let envelope = Envelope {
                id: &id,
                action: "create",
                revision: Revision::from(revision),
                updated_at: Timestamp::from_micros(micros),
                document: document_bytes.as_ref(),
            };
            let values = BTreeMap::from([(name.clone(), DataValue::One(DataScalar::Text(text.clone())))]);
            let body = envelope.body(&Data::new(&values, &template()).unwrap(), &captures("1"));
            let body: Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(&body["id"], &Value::from(id));
            prop_assert_eq!(&body["revision"], &Value::from(revision));
            prop_assert_eq!(&body["data"][&name], &Value::from(text));
            prop_assert_eq!(body.pointer("/document/text").and_then(Value::as_str), document.as_deref());
        }
    }
}
