use std::fmt;

use evenkeel_core::{Error, ErrorKind, Result};
use serde_json::{Map, Value};

use super::{Comparison, Node, Scalar};
use crate::field_path::FieldPath;

const MAX_DEPTH: usize = 16;
const MAX_PARTS: usize = 256;
const MAX_VALUES: usize = 256;

/// The forms that are told apart by a member's name.
const FORMS: [&str; 4] = ["field", "and", "or", "not"];

pub(super) fn root(json: &Value) -> Result<Node> {
    Parser { parts: 0 }.node(json, "filter", 1)
}

struct Parser {
    parts: usize,
}

impl Parser {
    /// Reads the part of the filter at the path `at`.
    fn node(&mut self, json: &Value, at: &str, depth: usize) -> Result<Node> {
        if depth > MAX_DEPTH {
            return Err(invalid("the filter is deeper than 16", at, json));
        }
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(invalid("the filter has more than 256 parts", at, json));
        }
        let object = json.as_object().ok_or_else(|| invalid("a filter is an object", at, json))?;
        let form = FORMS.into_iter().find(|form| object.contains_key(*form));
        let form =
            form.ok_or_else(|| invalid("a filter has one of the members field, and, or and not", at, json))?;
        let known: &[&str] = if form == "field" { &["field", "op", "value"] } else { &[form] };
        if let Some((name, value)) = object.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            let message = format!("a filter with the member {form} has no member {name:?}");
            return Err(invalid(message, format_args!("{at}.{name}"), value));
        }
        let inner = &object[form];
        match form {
            "and" => self.nodes(inner, &format!("{at}.and"), depth).map(Node::And),
            "or" => self.nodes(inner, &format!("{at}.or"), depth).map(Node::Or),
            "not" => self.node(inner, &format!("{at}.not"), depth + 1).map(|node| Node::Not(Box::new(node))),
            _ => condition(object, at),
        }
    }

    fn nodes(&mut self, json: &Value, at: &str, depth: usize) -> Result<Vec<Node>> {
        let nodes =
            filled(json).ok_or_else(|| invalid("expected an array of at least one filter", at, json))?;
        nodes.iter().enumerate().map(|(i, node)| self.node(node, &format!("{at}[{i}]"), depth + 1)).collect()
    }
}

fn condition(object: &Map<String, Value>, at: &str) -> Result<Node> {
    let [field, op, value] = ["field", "op", "value"].map(|name| object.get(name).unwrap_or(&Value::Null));
    let path = match field {
        Value::String(path) => FieldPath::parse(&format!("{at}.field"), path)?,
        _ => return Err(invalid("expected a path of member names", format_args!("{at}.field"), field)),
    };
    let op = op.as_str().unwrap_or_default();
    let comparison = match op {
        "eq" => Comparison::Equal,
        "ne" => Comparison::NotEqual,
        "lt" => Comparison::Less,
        "le" => Comparison::AtMost,
        "gt" => Comparison::Greater,
        "ge" => Comparison::AtLeast,
        "in" => {
            let values = filled(value).filter(|values| values.len() <= MAX_VALUES);
            let values = values.ok_or_else(|| {
                invalid("in takes an array of 1 to 256 values", format_args!("{at}.value"), value)
            })?;
            let values = values.iter().enumerate().map(|(i, value)| {
                let at = format!("{at}.value[{i}]");
                scalar(value, &at)
            });
            return Ok(Node::In(path, values.collect::<Result<_>>()?));
        }
        "exists" => {
            let exists = Node::Exists(path);
            return match value {
                Value::Bool(true) => Ok(exists),
                Value::Bool(false) => Ok(Node::Not(Box::new(exists))),
                _ => Err(invalid("exists takes true or false", format_args!("{at}.value"), value)),
            };
        }
        _ => {
            let found = object.get("op").unwrap_or(&Value::Null);
            let message = "expected one of eq, ne, lt, le, gt, ge, in and exists";
            return Err(invalid(message, format_args!("{at}.op"), found));
        }
    };
    let at = format!("{at}.value");
    if !object.contains_key("value") {
        return Err(invalid(format!("{op} takes a value"), at, value));
    }
    if value.is_null() && comparison != Comparison::Equal {
        return Err(invalid(format!("{op} never matches null"), at, value));
    }
    Ok(Node::Compare(path, comparison, scalar(value, &at)?))
}

fn scalar(value: &Value, at: &str) -> Result<Scalar> {
    let scalar = Scalar::of(value).map(|scalar| scalar.to_owned());
    scalar.ok_or_else(|| invalid("expected a string, a number, a boolean or null", at, value))
}

/// The members of an array that has some.
fn filled(json: &Value) -> Option<&Vec<Value>> {
    json.as_array().filter(|array| !array.is_empty())
}

fn invalid(
    message: impl Into<std::borrow::Cow<'static, str>>,
    at: impl fmt::Display,
    value: &Value,
) -> Error {
    let mut value = value.to_string();
    if let Some((end, _)) = value.char_indices().nth(64) {
        value.truncate(end);
        value.push_str("...");
    }
    Error::new(ErrorKind::InvalidInput, message).with("field", at).with("value", value)
}
