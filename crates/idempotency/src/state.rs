use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use evenkeel_core::{Record, StateIndex, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::operation::Place;
use crate::{Error, Fingerprint, Identity};

/// The space of the operations' records.
pub(crate) const RECORDS: &str = "idempotency.op";

/// Lists operations by [`Status`]: the running ones by their hash, those that ended and expire by
/// the time they do.
pub(crate) const INDEX: StateIndex = StateIndex::new(INDEX_SPACE);

/// The space of the index.
pub(crate) const INDEX_SPACE: &str = "idempotency.state";

/// The longest failure message that is kept, in bytes.
pub(crate) const LONGEST_MESSAGE: usize = 2048;

/// An operation as it is tracked in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tracked {
    /// What makes it the same operation as another.
    pub identity: Identity,
    /// How far it is.
    pub status: Status,
    /// How often it was begun; the first attempt is 1.
    pub attempt: u32,
    /// What the request asked for.
    pub fingerprint: Fingerprint,
    /// What its expiration counts from.
    pub reference_time: Timestamp,
    /// When the last attempt began, by its owner's clock.
    pub started_at: Timestamp,
    /// When the last attempt ended; `None` while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// From this instant on the last attempt, if it runs still, may be taken over.
    pub lease_until: Timestamp,
    /// How long after `started_at` the lease is renewed; zero is without end.
    #[serde(with = "micros", rename = "timeout_us")]
    pub timeout: Duration,
    /// From this instant on it is expired; `None` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// How many attempts failed.
    pub error_count: u32,
    /// Why the last failed attempt did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How the last attempt ended, where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Stored>,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// An attempt was begun and has not ended.
    Running,
    /// It is done; repetitions get its answer.
    Finished,
    /// The last attempt failed; the next arrival runs it again.
    Failed,
}

impl Status {
    /// Its group in the index.
    pub(crate) const fn group(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
}

/// How a failed attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ending {
    /// Its owner said so.
    Reported,
    /// Its work panicked.
    Panicked,
    /// Its owner let go of it without a word.
    Dropped,
    /// It reached its timeout, or its result came after the expiration.
    TooLate,
    /// Nobody renewed its lease: what it did is unknown.
    Interrupted,
    /// An operator released it.
    Released,
}

/// A failure to record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure<'a> {
    pub(crate) ending: Ending,
    pub(crate) message: &'a str,
}

/// What an attempt left for repetitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stored {
    Text(String),
    Base64(String),
    Chunks(Chunks),
    #[serde(rename = "not_stored")]
    Omitted {
        bytes: u64,
    },
}

/// Where an answer is kept that is too large for the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chunks {
    /// The group of its records in the second store.
    pub(crate) group: String,
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

impl Stored {
    pub(crate) fn inline(answer: &[u8]) -> Self {
        match std::str::from_utf8(answer) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(answer)),
        }
    }

    /// The bytes of an answer that is in the record.
    pub(crate) fn decode(&self, place: &Place) -> Result<Bytes> {
        match self {
            Self::Text(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
            Self::Base64(text) => STANDARD.decode(text).map(Bytes::from).map_err(|source| {
                unreadable("the operation's answer is unreadable", place).with_source(source).into()
            }),
            Self::Chunks(_) | Self::Omitted { .. } => Err(corrupt("the answer is not in the record", place)),
        }
    }
}

/// The answer to an operation that finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was answered.
    pub content: Content,
    /// The attempt that finished.
    pub attempt: u32,
    /// When it did.
    pub finished_at: Timestamp,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Stored(Bytes),
    /// Something that was not stored; the operation does not run again all the same.
    NotStored {
        /// How long it was.
        bytes: u64,
    },
}

impl Tracked {
    /// Whether the operation is expired at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The instant after which the lease is not renewed.
    pub(crate) fn renewable_until(&self) -> Timestamp {
        if self.timeout.is_zero() { Timestamp::MAX } else { self.started_at + self.timeout }
    }

    /// When the record reads as absent: `retention` after the operation's expiration, and never
    /// while somebody may hold it.
    pub(crate) fn kept_until(&self, retention: Duration) -> Option<Timestamp> {
        let ended = self.finished_at.unwrap_or(self.lease_until);
        self.expires_at.map(|at| at.max(ended) + retention)
    }

    pub(crate) fn fail(&mut self, failure: Failure<'_>, now: Timestamp) {
        self.status = Status::Failed;
        self.finished_at = Some(now);
        self.error_count = self.error_count.saturating_add(1);
        let end = failure.message.floor_char_boundary(LONGEST_MESSAGE);
        self.error = Some(failure.message[..end].to_owned());
        self.ending = Some(failure.ending);
        self.result = None;
    }

    /// Makes it the record of an attempt that is done; its result is still to be set.
    pub(crate) fn finish(&mut self, now: Timestamp) {
        self.status = Status::Finished;
        self.finished_at = Some(now);
        self.error = None;
        self.ending = None;
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut json = Vec::with_capacity(1024);
        serde_json::to_writer(&mut json, self).expect("a map with text keys turns into JSON");
        // A copy of just its length, since a store may keep it as it comes.
        Bytes::copy_from_slice(&json)
    }

    pub(crate) fn decode(record: &Record, place: &Place) -> Result<Self> {
        serde_json::from_slice(&record.value).map_err(|source| {
            unreadable("the operation's record is unreadable", place).with_source(source).into()
        })
    }
}

pub(crate) fn corrupt(message: &'static str, place: &Place) -> Error {
    unreadable(message, place).into()
}

fn unreadable(message: &'static str, place: &Place) -> evenkeel_core::Error {
    evenkeel_core::Error::new(evenkeel_core::ErrorKind::Corrupt, message).with("record", &place.key)
}

/// An instant as text that sorts by time; before the epoch is the epoch.
pub(crate) fn padded(at: Timestamp) -> String {
    format!("{:019}", at.as_micros().max(0))
}

mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_micros)
    }
}
