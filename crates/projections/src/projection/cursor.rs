use evenkeel_core::{Error, ErrorKind, Expect, Key, Record, Result, Timestamp, Version};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// How far a version of a projection has come in a partition, as it is stored. A stream
/// projection's state is in the same record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) position: u64,
    /// When it moved last.
    pub(crate) moved_at: Timestamp,
    /// Where it stopped, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<Failure>,
    /// How far the versions before had come when this one took over from them; the effects of what
    /// is after that are this one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) effects_after: Option<u64>,
}

impl Position {
    /// The position further on.
    pub(super) fn moved(&self, position: u64, moved_at: Timestamp) -> Self {
        Self { position, moved_at, failed: None, effects_after: self.effects_after }
    }
}

/// A [`Position`] with the state of a stream projection.
#[derive(Serialize, Deserialize)]
pub(crate) struct Stored<T> {
    #[serde(flatten)]
    pub(crate) position: Position,
    #[serde(default = "nothing", skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<T>,
}

fn nothing<T>() -> Option<T> {
    None
}

/// A position as it is known, and the record that holds it.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    pub(super) stored: Position,
    pub(super) record: Option<Version>,
}

impl Cursor {
    pub(super) fn expect(&self) -> Expect {
        expect(self.record)
    }
}

/// The state of a stream, or that of a partition in a stream projection.
#[derive(Clone, Debug)]
pub(super) struct Entry<T> {
    /// The stream; `None` for a partition's.
    pub(super) stream: Option<String>,
    pub(super) state: T,
    /// The version of the last event of the stream that is applied.
    pub(super) version: u64,
    /// Whether the stream is set apart.
    pub(super) is_parked: bool,
    pub(super) record: Option<Version>,
}

impl<T> Entry<T> {
    pub(super) fn expect(&self) -> Expect {
        expect(self.record)
    }
}

/// What is stored of a stream's [`Entry`].
#[derive(Serialize, Deserialize)]
pub(super) struct StoredEntry<T> {
    pub(super) version: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) parked: bool,
    pub(super) state: T,
}

fn expect(record: Option<Version>) -> Expect {
    record.map_or(Expect::Absent, Expect::Version)
}

/// What is stored in a record, and its version.
pub(super) fn read<T: DeserializeOwned>(key: &Key, record: &Record) -> Result<(T, Version)> {
    let stored = serde_json::from_slice(&record.value).map_err(|source| {
        Error::new(ErrorKind::Corrupt, "the record is not that of a projection")
            .with("key", key)
            .with_source(source)
    })?;
    Ok((stored, record.version))
}
