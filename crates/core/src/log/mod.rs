mod filter;

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::filter::{Comparison, Filter, Metadata, Scalar};
use crate::batch::{check_limit, check_name};
use crate::record::Order;
use crate::{Key, Result, Timestamp};

/// An event to append.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// Its id, a UUIDv7 by default; the appender's to choose.
    pub id: Uuid,
    /// What happened, 1 to 512 bytes.
    pub kind: Cow<'static, str>,
    /// The details.
    pub payload: Bytes,
    /// The media type of the payload, 1 to 512 bytes; `application/json` by default.
    pub content_type: Cow<'static, str>,
    /// Named values to filter by.
    pub metadata: Metadata,
}

impl NewEvent {
    /// An event whose id is made from `now`.
    #[must_use]
    pub fn new(kind: impl Into<Cow<'static, str>>, payload: impl Into<Bytes>, now: Timestamp) -> Self {
        Self {
            id: crate::batch::time_ordered_id(now),
            kind: kind.into(),
            payload: payload.into(),
            content_type: Cow::Borrowed("application/json"),
            metadata: Metadata::new(),
        }
    }

    /// Adds a named value.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Scalar>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }
}

/// An event as it stands in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its id.
    pub id: Uuid,
    /// The stream it belongs to.
    pub stream: String,
    /// Its place in the stream, from 1.
    pub version: u64,
    /// Its place in the partition, from 1, without gaps and in commit order.
    pub position: u64,
    /// What happened.
    pub kind: String,
    /// The details.
    pub payload: Bytes,
    /// The media type of the payload.
    pub content_type: String,
    /// Named values.
    pub metadata: Metadata,
    /// The `now` of the batch that appended it.
    pub recorded_at: Timestamp,
    /// The id of the batch that appended it, by which an appender recognises its own success.
    pub batch: Uuid,
}

/// What an append expects of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExpectStream {
    /// Nothing.
    Any,
    /// That it has no event.
    NoStream,
    /// That it has an event.
    Exists,
    /// That its last event has this version.
    Version(u64),
}

impl ExpectStream {
    /// Whether a stream at `version` (0 where it does not exist) is as expected.
    #[must_use]
    pub const fn holds(self, version: u64) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => version == 0,
            Self::Exists => version > 0,
            Self::Version(expected) => version == expected,
        }
    }

    /// The version expected, where there is exactly one.
    #[must_use]
    pub const fn version(self) -> Option<u64> {
        match self {
            Self::NoStream => Some(0),
            Self::Version(version) => Some(version),
            Self::Any | Self::Exists => None,
        }
    }
}

/// A run of events of a stream or of a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// Where to read.
    pub source: Source,
    /// At most this many events; at least 1.
    pub limit: usize,
    /// Which events.
    pub filter: Filter,
}

/// Where a [`Read`] takes its events from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A partition's log, from the position after this one.
    Partition {
        /// The last position that the reader has seen; 0 from the start.
        after: u64,
    },
    /// A stream.
    Stream {
        /// Its name, 1 to 512 bytes.
        name: String,
        /// Versions strictly beyond this one in the direction of the read; `None` from the
        /// stream's near end.
        after: Option<u64>,
        /// In which order the versions come.
        order: Order,
    },
}

impl Read {
    /// Up to `limit` events of a partition after position `after`.
    #[must_use]
    pub const fn partition(after: u64, limit: usize) -> Self {
        Self { source: Source::Partition { after }, limit, filter: Filter::all() }
    }

    /// Up to `limit` events of a stream after version `after`, oldest first.
    #[must_use]
    pub fn stream(name: impl Into<String>, after: u64, limit: usize) -> Self {
        let source = Source::Stream { name: name.into(), after: Some(after), order: Order::Ascending };
        Self { source, limit, filter: Filter::all() }
    }

    /// Up to `limit` events of a stream before version `before` (or from its end), newest first.
    #[must_use]
    pub fn stream_backwards(name: impl Into<String>, before: Option<u64>, limit: usize) -> Self {
        let source = Source::Stream { name: name.into(), after: before, order: Order::Descending };
        Self { source, limit, filter: Filter::all() }
    }

    /// Keeps only the events that match.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Checks the names and the limit.
    ///
    /// # Errors
    /// `InvalidInput` naming what is wrong.
    pub fn check(&self) -> Result<()> {
        if let Source::Stream { name, .. } = &self.source {
            check_name("stream", name, Key::MAX_PART)?;
        }
        check_limit(self.limit)
    }
}

/// The answer to a [`Read`].
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// The events, in the order asked for. May be fewer than the limit with more to come.
    pub events: Vec<Event>,
    /// How far the store has looked: a position, or a version of the stream. Going on after it
    /// passes what the filter dropped. The end is reached where it equals `head` (reading
    /// backwards: where it is 1 or 0).
    pub examined_to: u64,
    /// The last position of the partition, or the last version of the stream; 0 where empty.
    pub head: u64,
}
