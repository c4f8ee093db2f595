//! How the items that batches name are taken to stand, and the conditions that they do.

use bytes::Bytes;
use evenkeel_core::{Expect, Hold, Job, Record, Timestamp, Token, Version};
use uuid::Uuid;

use crate::rows::{StoredJob, StreamHead, binary_id, number};
use crate::write::Guard;

/// How a record is taken to stand.
#[derive(Clone, Debug)]
pub(crate) enum RecordBase {
    /// It does not matter.
    Any,
    /// As one operation of a batch expects it, and not written by that batch.
    Expected { expect: Expect, own: Uuid, now: Timestamp },
    /// There is none, it is supposed.
    Supposed,
    /// As it was read.
    Known(Option<Record>),
}

impl RecordBase {
    /// The record that is there if it is as taken. What the judge does not look at is made up.
    pub(crate) fn taken(&self) -> Option<Record> {
        let made_up = |version| Some(Record { value: Bytes::new(), version, expires_at: None });
        match self {
            Self::Any | Self::Supposed => None,
            Self::Expected { expect: Expect::Any | Expect::Absent, .. } => None,
            Self::Expected { expect: Expect::Present, .. } => made_up(Version(Uuid::nil())),
            Self::Expected { expect: Expect::Version(version), .. } => made_up(*version),
            Self::Known(record) => record.clone(),
        }
    }

    /// The condition that it is as taken.
    pub(crate) fn guard(&self) -> Option<Guard> {
        let known = |version: Version| Guard::new("ver = :ver", [(":ver", binary_id(version.0))]);
        Some(match self {
            Self::Any => return None,
            Self::Supposed | Self::Known(None) => Guard::no_item(),
            Self::Known(Some(record)) => known(record.version),
            Self::Expected { expect, own, now } => {
                let (own, now) = ((":own", binary_id(*own)), (":now", number(now.as_micros())));
                match expect {
                    Expect::Any => Guard::new("attribute_not_exists(pk) OR ver <> :own", [own]),
                    Expect::Absent => {
                        Guard::new("attribute_not_exists(pk) OR (exp <= :now AND ver <> :own)", [own, now])
                    }
                    Expect::Present => Guard::new(
                        "attribute_exists(pk) AND ver <> :own AND (attribute_not_exists(exp) OR exp > :now)",
                        [own, now],
                    ),
                    Expect::Version(version) => Guard::new(
                        "ver = :ver AND (attribute_not_exists(exp) OR exp > :now)",
                        [(":ver", binary_id(version.0)), now],
                    ),
                }
            }
        })
    }
}

/// How a job is taken to stand.
#[derive(Clone, Debug)]
pub(crate) enum JobBase {
    /// It does not matter, but that each payload is in its item.
    Any,
    /// Held by this token, not pushed meanwhile, and with its payload in its item.
    HeldBy(Token),
    /// There is none, it is supposed.
    Supposed,
    /// As it was read.
    Known(Option<StoredJob>),
}

impl JobBase {
    /// The job that is there if it is as taken. What the judge does not look at is made up.
    pub(crate) fn taken(&self) -> Option<Job> {
        match self {
            Self::Any | Self::Supposed => None,
            Self::HeldBy(token) => {
                let hold = Hold { token: *token, until: Timestamp::EPOCH };
                Some(Job { lease: Some(hold), ..Job::new(Timestamp::EPOCH, Bytes::new()) })
            }
            Self::Known(stored) => stored.as_ref().map(|stored| stored.job.clone()),
        }
    }

    /// The condition that it is as taken.
    pub(crate) fn guard(&self) -> Guard {
        match self {
            Self::Any => Guard::new("attribute_not_exists(vref) AND attribute_not_exists(pref)", []),
            Self::Supposed | Self::Known(None) => Guard::no_item(),
            Self::Known(Some(stored)) => Guard::new("ver = :ver", [(":ver", binary_id(stored.revision))]),
            Self::HeldBy(token) => Guard::new(
                "tok = :tok AND attribute_not_exists(pdue) AND attribute_not_exists(vref)",
                [(":tok", binary_id(token.0))],
            ),
        }
    }
}

/// How a stream is taken to stand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StreamBase {
    /// It does not matter.
    Any,
    /// It exists.
    Exists,
    /// At this version.
    AtVersion(u64),
    /// As this process last saw it.
    Hinted(StreamHead),
    /// As it was read.
    Known(Option<StreamHead>),
}

impl StreamBase {
    /// The head of the stream if it is as taken. What the judge does not look at is made up.
    pub(crate) fn taken(self) -> StreamHead {
        let at_version = |version| StreamHead {
            version,
            first: version + 1,
            position: 0,
            batch: Uuid::nil(),
            trimmed: 0,
            swept: 0,
        };
        match self {
            Self::Any | Self::Known(None) => at_version(0),
            Self::Exists => at_version(1),
            Self::AtVersion(version) => at_version(version),
            Self::Hinted(head) | Self::Known(Some(head)) => head,
        }
    }
}
