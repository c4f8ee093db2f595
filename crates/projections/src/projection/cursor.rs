use evenkeel_core::{Expect, Timestamp, Version};
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
    /// How far the version before had come when this one took over from it; the effects of what is
    /// after that are this one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) effects_after: Option<u64>,
    /// Whether the next version has taken over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) retired: bool,
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

/// A position, and the record that holds it.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    pub(super) position: u64,
    pub(super) record: Option<Version>,
    pub(super) failed: Option<Failure>,
    pub(super) effects_after: Option<u64>,
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
