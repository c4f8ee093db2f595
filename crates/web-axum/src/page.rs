//! Parts of lists, and times, as they stand in JSON.

use evenkeel_core::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::openapi::Schema;
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::{IntoParams, ToSchema};

#[cfg(feature = "flare")]
use crate::Problem;

/// How many of a list are wanted: 1 to 100, 30 unless said.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "usize")]
pub(crate) struct Limit(usize);

impl Limit {
    pub(crate) const fn get(self) -> usize {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(30)
    }
}

impl TryFrom<usize> for Limit {
    type Error = String;

    fn try_from(limit: usize) -> Result<Self, String> {
        if (1..=100).contains(&limit) { Ok(Self(limit)) } else { Err(format!("{limit} is not 1 to 100")) }
    }
}

/// A time in RFC 3339.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub(crate) struct Time(pub(crate) Timestamp);

impl Time {
    /// On the calendar; what is beyond it is its end.
    pub(crate) fn instant(self) -> jiff::Timestamp {
        let end = if self.0 < Timestamp::EPOCH { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        jiff::Timestamp::from_microsecond(self.0.as_micros()).unwrap_or(end)
    }
}

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self(time)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.instant())
    }
}

/// Which part of a list is wanted.
#[cfg(feature = "flare")]
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// How many are answered at most.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 100, default = 30)]
    pub(crate) limit: Limit,
    /// How many are left out from the start; not beside a cursor.
    offset: Option<usize>,
    /// Where to go on: the `nextCursor` of the part before.
    cursor: Option<String>,
}

/// Which part of a list is wanted, where it cannot be said by number.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CursorQuery {
    /// How many are answered at most; there may be fewer, even none, with more to come.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 100, default = 30)]
    pub(crate) limit: Limit,
    /// Where to go on: the `nextCursor` of the part before.
    pub(crate) cursor: Option<String>,
}

/// Which part of a list this is.
#[cfg(feature = "flare")]
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct Pagination {
    /// How many are answered at most.
    limit: usize,
    /// How many come before this part.
    offset: usize,
    /// How many there are in all.
    total: usize,
}

/// A part of a list that is sorted by its ids.
#[cfg(feature = "flare")]
pub(crate) struct Part<T> {
    pub(crate) items: Vec<T>,
    pub(crate) pagination: Pagination,
    pub(crate) next_cursor: Option<String>,
}

#[cfg(feature = "flare")]
impl<T> Part<T> {
    pub(crate) fn of(all: Vec<T>, query: ListQuery, id: impl Fn(&T) -> &str) -> Result<Self, Problem> {
        let (total, limit) = (all.len(), query.limit.get());
        let offset = match (query.cursor, query.offset) {
            (Some(_), Some(_)) => {
                return Err(Problem::bad_request("there is a cursor or an offset, not both"));
            }
            (Some(cursor), None) => all.partition_point(|item| id(item) <= cursor.as_str()),
            (None, offset) => offset.unwrap_or(0),
        };
        let items: Vec<_> = all.into_iter().skip(offset).take(limit).collect();
        let is_more = offset.saturating_add(items.len()) < total;
        let next_cursor = items.last().filter(|_| is_more).map(|last| id(last).to_owned());
        Ok(Self { items, pagination: Pagination { limit, offset, total }, next_cursor })
    }
}

/// The schema of a word that is one of these.
pub(crate) fn words<T: Serialize>(words: &[T]) -> Schema {
    let words = words.iter().map(|word| serde_json::to_value(word).expect("a word is JSON"));
    let schema = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).enum_values(Some(words));
    schema.build().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_beyond_the_calendar_is_its_end() {
        for (micros, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (1_714_564_800_500_000, "2024-05-01T12:00:00.5Z"),
            (i64::MAX, "9999-12-30T22:00:00.999999999Z"),
        ] {
            let json = serde_json::to_value(Time(Timestamp::from_micros(micros))).unwrap();
            assert_eq!(json, expected);
        }
        assert_eq!(Time(Timestamp::MIN).instant(), jiff::Timestamp::MIN);
    }
}
