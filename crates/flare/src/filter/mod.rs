use std::cmp::Ordering;

use evenkeel_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::field_path::FieldPath;

mod parse; // what the JSON says
#[cfg(test)]
mod tests;

/// Which documents a subscription is told of, by their content. In JSON, one of:
///
/// | form | matches where |
/// |---|---|
/// | `{"field": "a.b", "op": "eq", "value": 1}` | the field compares so: `eq`, `ne`, `lt`, `le`, `gt` or `ge` |
/// | `{"field": "a.b", "op": "in", "value": [1, 2]}` | the field equals one of at most 256 values |
/// | `{"field": "a.b", "op": "exists", "value": true}` | the field is there; with `false`, it is not |
/// | `{"and": [...]}` | all of these match |
/// | `{"or": [...]}` | one of these matches |
/// | `{"not": {...}}` | this does not match |
///
/// - A field is a path of member names joined by dots; every dot separates.
/// - A field that is missing matches no comparison, also not `ne`; neither does one of another type
///   than the value's. Under `not`, both match.
/// - Values are strings, numbers, booleans and `null`. Numbers compare as numbers, whole ones of 64
///   bits exactly; strings byte by byte; `false` is less than `true`; `null` only equals `null`.
/// - A filter is at most 16 deep and has at most 256 parts.
///
/// ```
/// use evenkeel_flare::Filter;
/// use serde_json::json;
///
/// # fn main() -> evenkeel_core::Result<()> {
/// let filter = Filter::parse(json!({"field": "status", "op": "in", "value": ["open", "late"]}))?;
/// assert!(filter.matches(&json!({"status": "late"})));
/// assert!(!filter.matches(&json!({"status": "paid"})));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Filter {
    json: Value,
    root: Node,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
    Compare(FieldPath, Comparison, Scalar),
    In(FieldPath, Vec<Scalar>),
    Exists(FieldPath),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// What a field is compared with, and what the field itself is as far as that matters.
#[derive(Clone, Debug, PartialEq)]
enum Scalar<T = String> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(T),
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// `InvalidInput`, naming the part of the filter (`filter.and[2].op`) and the rule that it breaks.
    pub fn parse(json: Value) -> Result<Self> {
        let root = parse::root(&json)?;
        Ok(Self { json, root })
    }

    /// Whether the document is wanted.
    #[must_use]
    pub fn matches(&self, document: &Value) -> bool {
        self.root.matches(document)
    }
}

impl TryFrom<Value> for Filter {
    type Error = Error;

    fn try_from(json: Value) -> Result<Self> {
        Self::parse(json)
    }
}

impl From<Filter> for Value {
    fn from(filter: Filter) -> Self {
        filter.json
    }
}

impl Node {
    fn matches(&self, document: &Value) -> bool {
        match self {
            Self::And(nodes) => nodes.iter().all(|node| node.matches(document)),
            Self::Or(nodes) => nodes.iter().any(|node| node.matches(document)),
            Self::Not(node) => !node.matches(document),
            Self::Exists(path) => path.get(document).is_some(),
            Self::Compare(path, comparison, wanted) => {
                let ordering = scalar_at(path, document).and_then(|found| found.compare(wanted));
                ordering.is_some_and(|ordering| comparison.holds(ordering))
            }
            Self::In(path, wanted) => scalar_at(path, document).is_some_and(|found| {
                wanted.iter().any(|wanted| found.compare(wanted) == Some(Ordering::Equal))
            }),
        }
    }
}

fn scalar_at<'a>(path: &FieldPath, document: &'a Value) -> Option<Scalar<&'a str>> {
    path.get(document).and_then(Scalar::of)
}

impl Comparison {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::AtMost => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::AtLeast => ordering.is_ge(),
        }
    }
}

impl<'a> Scalar<&'a str> {
    /// `None` for arrays and objects.
    fn of(value: &'a Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::Null),
            Value::Bool(bool) => Some(Self::Bool(*bool)),
            Value::Number(number) => {
                number.as_i128().map(Self::Integer).or_else(|| number.as_f64().map(Self::Float))
            }
            Value::String(text) => Some(Self::Text(text)),
            Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn to_owned(&self) -> Scalar {
        match *self {
            Self::Null => Scalar::Null,
            Self::Bool(bool) => Scalar::Bool(bool),
            Self::Integer(integer) => Scalar::Integer(integer),
            Self::Float(float) => Scalar::Float(float),
            Self::Text(text) => Scalar::Text(text.to_owned()),
        }
    }

    /// How two values of one type compare; `None` across types.
    fn compare(&self, other: &Scalar) -> Option<Ordering> {
        match (self, other) {
            (Self::Null, Scalar::Null) => Some(Ordering::Equal),
            (Self::Bool(a), Scalar::Bool(b)) => Some(a.cmp(b)),
            (Self::Integer(a), Scalar::Integer(b)) => Some(a.cmp(b)),
            (Self::Float(a), Scalar::Float(b)) => a.partial_cmp(b),
            (Self::Integer(a), Scalar::Float(b)) => Some(compare_mixed(*a, *b)),
            (Self::Float(a), Scalar::Integer(b)) => Some(compare_mixed(*b, *a).reverse()),
            (Self::Text(a), Scalar::Text(b)) => Some((*a).cmp(b.as_str())),
            _ => None,
        }
    }
}

/// Compares a whole number of 64 bits, signed or not, with any other that JSON can write; exact where
/// a conversion to floating point would round.
fn compare_mixed(integer: i128, float: f64) -> Ordering {
    // A conversion to an integer saturates, far beyond 64 bits.
    #[expect(clippy::cast_possible_truncation, reason = "floor is whole")]
    let floor = float.floor() as i128;
    integer.cmp(&floor).then(if float.fract() == 0.0 { Ordering::Equal } else { Ordering::Less })
}
