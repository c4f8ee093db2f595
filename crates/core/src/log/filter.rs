use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Event;

/// Named, typed values beside an event's payload.
pub type Metadata = BTreeMap<String, Scalar>;

/// A metadata value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// `true` or `false`; `false` is the lesser.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A finite number; another is refused when it is appended.
    Float(f64),
    /// Text, compared byte by byte.
    Text(String),
}

macro_rules! scalar_from {
    ($($from:ty => $variant:ident),* $(,)?) => {$(
        impl From<$from> for Scalar {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}
scalar_from!(bool => Bool, i64 => Integer, i32 => Integer, u32 => Integer, f64 => Float, &str => Text, String => Text);

impl Scalar {
    /// How two values of one type compare: numbers as numbers, whole or not; `None` across types.
    fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Integer(a), Self::Integer(b)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(b),
            (Self::Integer(a), Self::Float(b)) => compare_mixed(*a, *b),
            (Self::Float(a), Self::Integer(b)) => compare_mixed(*b, *a).map(Ordering::reverse),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// Exact where a conversion of either side would round.
fn compare_mixed(integer: i64, float: f64) -> Option<Ordering> {
    const TWO_POW_63: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        return None;
    }
    if float >= TWO_POW_63 {
        return Some(Ordering::Less);
    }
    if float < -TWO_POW_63 {
        return Some(Ordering::Greater);
    }
    #[expect(clippy::cast_possible_truncation, reason = "within i64 by the two checks above")]
    let floor = float.floor() as i64;
    Some(integer.cmp(&floor).then(if float.fract() == 0.0 { Ordering::Equal } else { Ordering::Less }))
}

/// A comparison operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
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

/// Which events a reader wants. Judged here, so that it means the same on every store.
///
/// A missing metadata key matches nothing, also not `!=`; neither does a value of another type.
/// Numbers compare as numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    kinds: Vec<String>,
    conditions: Vec<(String, Comparison, Scalar)>,
}

impl Filter {
    /// Matches every event.
    #[must_use]
    pub const fn all() -> Self {
        Self { kinds: Vec::new(), conditions: Vec::new() }
    }

    /// Also accepts events of this kind; without any, every kind is accepted.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kinds.push(kind.into());
        self
    }

    /// Accepts only events whose metadata compares so; all conditions must hold.
    #[must_use]
    pub fn metadata(
        mut self,
        key: impl Into<String>,
        comparison: Comparison,
        value: impl Into<Scalar>,
    ) -> Self {
        self.conditions.push((key.into(), comparison, value.into()));
        self
    }

    /// The kinds accepted; empty where all are. A store may push them down.
    #[must_use]
    pub fn kinds(&self) -> &[String] {
        &self.kinds
    }

    /// Whether the event is wanted.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        let kind = self.kinds.is_empty() || self.kinds.contains(&event.kind);
        kind && self.conditions.iter().all(|(key, comparison, wanted)| {
            let ordering = event.metadata.get(key).and_then(|found| found.compare(wanted));
            ordering.is_some_and(|ordering| comparison.holds(ordering))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Comparison::*;

    fn check(found: impl Into<Scalar>, wanted: impl Into<Scalar>, holding: &[Comparison]) {
        let (found, wanted) = (found.into(), wanted.into());
        for comparison in [Equal, NotEqual, Less, AtMost, Greater, AtLeast] {
            let holds = found.compare(&wanted).is_some_and(|ordering| comparison.holds(ordering));
            assert_eq!(holds, holding.contains(&comparison), "{found:?} {comparison:?} {wanted:?}");
        }
    }

    #[test]
    fn values_of_one_type_compare() {
        check(2_i64, 2_i64, &[Equal, AtMost, AtLeast]);
        check(1_i64, 2_i64, &[NotEqual, Less, AtMost]);
        check("b", "a", &[NotEqual, Greater, AtLeast]);
        check(false, true, &[NotEqual, Less, AtMost]);
        check(0.5, 0.25, &[NotEqual, Greater, AtLeast]);
    }

    #[test]
    fn numbers_compare_as_numbers_without_rounding() {
        check(2_i64, 2.0, &[Equal, AtMost, AtLeast]);
        check(2.5, 2_i64, &[NotEqual, Greater, AtLeast]);
        check(-2_i64, -2.5, &[NotEqual, Greater, AtLeast]);
        // 2^53 + 1 has no f64 of its own.
        check(9_007_199_254_740_993_i64, 9_007_199_254_740_992.0, &[NotEqual, Greater, AtLeast]);
        check(i64::MAX, 9_223_372_036_854_775_808.0, &[NotEqual, Less, AtMost]);
        check(i64::MIN, -9_223_372_036_854_775_808.0, &[Equal, AtMost, AtLeast]);
        check(i64::MIN, -1e300, &[NotEqual, Greater, AtLeast]);
    }

    #[test]
    fn values_of_two_types_never_match() {
        check("1", 1_i64, &[]);
        check(true, 1_i64, &[]);
        check("true", true, &[]);
    }

    #[test]
    fn scalars_survive_json_with_their_type() {
        for scalar in [Scalar::from(true), 7_i64.into(), 7.0.into(), "7".into()] {
            let json = serde_json::to_string(&scalar).unwrap();
            assert_eq!(serde_json::from_str::<Scalar>(&json).unwrap(), scalar, "{json}");
        }
    }
}
