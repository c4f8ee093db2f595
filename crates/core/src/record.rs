use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::batch::check_name;
use crate::{Result, Timestamp};

/// Where a record lives: `space` is a record type, `group` a collection that
/// [`scan`](crate::Store::scan) lists in id order, `id` a member of it.
///
/// Spaces are 1 to 64 bytes, groups and ids 1 to 512 bytes of UTF-8 without NUL; checked where the
/// key is used. Text without a bound (URLs, names from users) belongs hashed into a key, with the
/// original in the value. Keys order by space, group and id, byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The record type, such as `idempotency.op`.
    pub space: Cow<'static, str>,
    /// The collection.
    pub group: String,
    /// The member.
    pub id: String,
}

impl Key {
    /// The longest space, in bytes.
    pub const MAX_SPACE: usize = 64;
    /// The longest group or id, in bytes.
    pub const MAX_PART: usize = 512;

    /// A key; not yet checked.
    #[must_use]
    pub fn new(space: impl Into<Cow<'static, str>>, group: impl Into<String>, id: impl Into<String>) -> Self {
        Self { space: space.into(), group: group.into(), id: id.into() }
    }

    /// Checks the lengths of its parts and that none has a NUL.
    ///
    /// # Errors
    /// `InvalidInput` naming the part.
    pub fn check(&self) -> Result<()> {
        check_name("space", &self.space, Self::MAX_SPACE)?;
        check_name("group", &self.group, Self::MAX_PART)?;
        check_name("id", &self.id, Self::MAX_PART)
    }

    pub(crate) fn len(&self) -> usize {
        self.space.len() + self.group.len() + self.id.len()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.space, self.group, self.id)
    }
}

/// The id of the batch that last wrote a record: opaque, compared for equality only, and never
/// the same again for a key, not after a delete and not after a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub Uuid);

/// A stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The bytes that were put.
    pub value: Bytes,
    /// The batch that put them.
    pub version: Version,
    /// From this instant on the record reads as absent.
    pub expires_at: Option<Timestamp>,
}

impl Record {
    /// Whether the record reads as present at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| expires_at > now)
    }
}

/// What a batch expects of a record before it is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// No live record.
    Absent,
    /// A live record, whatever its version.
    Present,
    /// A live record of this version.
    Version(Version),
}

impl Expect {
    /// Whether `live` (the record, where one is live) is as expected.
    #[must_use]
    pub fn holds(self, live: Option<&Record>) -> bool {
        match (self, live) {
            (Self::Any, _) | (Self::Absent, None) | (Self::Present, Some(_)) => true,
            (Self::Version(version), Some(record)) => record.version == version,
            (Self::Absent, Some(_)) | (Self::Present | Self::Version(_), None) => false,
        }
    }

    /// The expectation that what was read is still so.
    #[must_use]
    pub fn unchanged(read: Option<&Record>) -> Self {
        read.map_or(Self::Absent, |record| Self::Version(record.version))
    }
}

/// A page of a group's live records, in id order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The record type.
    pub space: Cow<'static, str>,
    /// The collection.
    pub group: String,
    /// Ids strictly beyond this one, in the direction of the scan.
    pub after: Option<String>,
    /// Ids strictly before this one, in the direction of the scan.
    pub until: Option<String>,
    /// In which order the ids come.
    pub order: Order,
    /// At most this many records; at least 1.
    pub limit: usize,
    /// The instant at which expiry is judged.
    pub now: Timestamp,
}

impl Scan {
    /// The first `limit` records of a group, in ascending id order.
    #[must_use]
    pub fn new(
        space: impl Into<Cow<'static, str>>,
        group: impl Into<String>,
        limit: usize,
        now: Timestamp,
    ) -> Self {
        Self {
            space: space.into(),
            group: group.into(),
            after: None,
            until: None,
            order: Order::Ascending,
            limit,
            now,
        }
    }

    /// Begins beyond `id`, usually the cursor of the page before.
    #[must_use]
    pub fn after(mut self, id: impl Into<String>) -> Self {
        self.after = Some(id.into());
        self
    }

    /// Ends before `id`.
    #[must_use]
    pub fn until(mut self, id: impl Into<String>) -> Self {
        self.until = Some(id.into());
        self
    }

    /// Lists in descending id order.
    #[must_use]
    pub fn backwards(mut self) -> Self {
        self.order = Order::Descending;
        self
    }

    /// Checks the names and the limit.
    ///
    /// # Errors
    /// `InvalidInput` naming what is wrong.
    pub fn check(&self) -> Result<()> {
        check_name("space", &self.space, Key::MAX_SPACE)?;
        check_name("group", &self.group, Key::MAX_PART)?;
        crate::batch::check_limit(self.limit)
    }
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// Lowest first.
    #[default]
    Ascending,
    /// Highest first.
    Descending,
}

/// One page of a [`Scan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPage {
    /// Ids and records, in the order asked for. May be fewer than the limit, even none, with more
    /// to come.
    pub records: Vec<(String, Record)>,
    /// Where to go on with [`Scan::after`]; `None` at the end.
    pub cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_expectation_is_judged_on_the_live_record() {
        let version = Version(Uuid::from_u128(1));
        let record = Record { value: Bytes::new(), version, expires_at: None };
        let other = Expect::Version(Version(Uuid::from_u128(2)));
        for (expect, present, absent) in [
            (Expect::Any, true, true),
            (Expect::Absent, false, true),
            (Expect::Present, true, false),
            (Expect::Version(version), true, false),
            (other, false, false),
        ] {
            assert_eq!(expect.holds(Some(&record)), present, "{expect:?}");
            assert_eq!(expect.holds(None), absent, "{expect:?}");
        }
    }

    #[test]
    fn a_record_is_absent_from_the_instant_it_expires() {
        let at = Timestamp::from_micros(10);
        let record = Record { value: Bytes::new(), version: Version(Uuid::nil()), expires_at: Some(at) };
        assert!(record.is_live(Timestamp::from_micros(9)));
        assert!(!record.is_live(at));
    }
}
