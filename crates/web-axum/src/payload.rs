//! What of a request's body a retry must repeat: selectors for
//! [`IdempotencyLayer::payload`](crate::IdempotencyLayer::payload).

use bytes::Bytes;
use http::request::Parts;
use serde_json::Value;

use crate::Problem;

/// The body, byte for byte; the default.
///
/// # Errors
/// None.
pub fn exact(_: &Parts, body: &Bytes) -> Result<Bytes, Problem> {
    Ok(body.clone())
}

/// The body's JSON, whatever its white space, the order of its members, and the escapes in its
/// strings. Numbers count as they are written, `1` and `1.0` are two, but digits beyond the
/// precision of a double are not told apart. A body that is not JSON is taken byte for byte.
///
/// # Errors
/// None.
pub fn canonical_json(_: &Parts, body: &Bytes) -> Result<Bytes, Problem> {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return Ok(body.clone()) };
    Ok(canonical(&value).into())
}

/// Only these parts of the body's JSON, as JSON pointers (RFC 6901) such as `/amount`; parts that
/// are missing are missing in the retry too. A body that is not JSON is taken byte for byte.
pub fn json_parts<const N: usize>(
    pointers: [&'static str; N],
) -> impl Fn(&Parts, &Bytes) -> Result<Bytes, Problem> + Send + Sync + 'static {
    move |_, body| {
        let Ok(value) = serde_json::from_slice::<Value>(body) else { return Ok(body.clone()) };
        let parts = pointers.map(|pointer| value.pointer(pointer).map_or_else(String::new, canonical));
        // No canonical JSON has a line break.
        Ok(parts.join("\n").into())
    }
}

fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value);
    text
}

/// Sorts members itself: whether a `Map` is sorted depends on features that others may turn on.
/// The parser bounds the depth.
fn write(text: &mut String, value: &Value) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            text.push('{');
            for (i, (name, value)) in members.into_iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                write_string(text, name);
                text.push(':');
                write(text, value);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                write(text, item);
            }
            text.push(']');
        }
        Value::String(string) => write_string(text, string),
        Value::Number(number) => text.push_str(&number.to_string()),
        Value::Bool(true) => text.push_str("true"),
        Value::Bool(false) => text.push_str("false"),
        Value::Null => text.push_str("null"),
    }
}

fn write_string(text: &mut String, string: &str) {
    text.push_str(&serde_json::to_string(string).expect("a string is always JSON"));
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts() -> Parts {
        Request::new(()).into_parts().0
    }

    fn json(text: &'static str) -> Bytes {
        canonical_json(&parts(), &Bytes::from_static(text.as_bytes())).unwrap()
    }

    #[test]
    fn canonical_json_ignores_how_it_is_written() {
        let one = json(r#"{"b": [1, {"y": null, "x": true}], "a": "\u00e9\n"}"#);
        assert_eq!(one, json("{\"a\":\"é\\n\",\n \"b\":[1,{\"x\":true,\"y\":null}]}"));
        assert_eq!(one, "{\"a\":\"é\\n\",\"b\":[1,{\"x\":true,\"y\":null}]}");
    }

    #[test]
    fn canonical_json_keeps_what_it_says() {
        for (one, other) in [
            (r#"{"a":1}"#, r#"{"a":2}"#),
            (r#"{"a":1}"#, r#"{"a":1.0}"#),
            (r#"{"a":1}"#, r#"{"a":"1"}"#),
            (r#"[1,2]"#, r#"[2,1]"#),
            (r#"{"a":null}"#, r#"{}"#),
            ("not json", "not  json"),
        ] {
            assert_ne!(json(one), json(other), "{one} {other}");
        }
    }

    #[test]
    fn parts_of_json_ignore_the_rest() {
        let select = json_parts(["/amount", "/to/iban"]);
        let of = |text: &'static str| select(&parts(), &Bytes::from_static(text.as_bytes())).unwrap();
        let one = of(r#"{"amount": 5, "to": {"iban": "X", "name": "A"}, "sent_at": 1}"#);
        assert_eq!(one, of(r#"{"sent_at": 2, "to": {"iban": "X"}, "amount": 5}"#));
        assert_ne!(one, of(r#"{"amount": 5, "to": {"iban": "Y"}}"#));
        assert_ne!(of(r#"{"amount": "X"}"#), of(r#"{"to": {"iban": "X"}}"#));
    }

    #[test]
    fn json_that_is_too_deep_is_taken_byte_for_byte() {
        let deep = Bytes::from("[".repeat(100_000));
        assert_eq!(canonical_json(&parts(), &deep).unwrap(), deep);
    }
}
