use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use evenkeel_core::{Event as RawEvent, Result, Scalar};
use uuid::Uuid;

use crate::event::{self, Event};
use crate::upcast::Upcasters;

/// The names in an event's metadata that this crate gives a meaning.
pub mod metadata {
    /// The version of the payload's shape; without it, 1.
    pub const VERSION: &str = "version";
    /// The id of the event that caused this one.
    pub const CAUSATION: &str = "causation";
    /// The id that all events share that one request led to.
    pub const CORRELATION: &str = "correlation";
}

/// An event as it stands in the log; its payload is read when it is asked for.
///
/// It dereferences to the [event of the store](RawEvent), with its stream, version, position and
/// metadata, and the payload as bytes for kinds that no type knows.
#[derive(Clone)]
pub struct Recorded {
    raw: RawEvent,
    upcasters: Arc<Upcasters>,
}

impl Recorded {
    pub(crate) fn new(raw: RawEvent, upcasters: &Arc<Upcasters>) -> Self {
        Self { raw, upcasters: Arc::clone(upcasters) }
    }

    /// What happened, brought to the version that `E` has today; `None` where `E` has no such
    /// kind.
    ///
    /// # Errors
    /// `Corrupt` where the payload is not what `E` or an upcaster expects.
    pub fn decode<E: Event>(&self) -> Result<Option<E>> {
        match self.upcasters.raise(&self.raw.kind, self.shape(), &self.raw.payload)? {
            None => event::decode(&self.raw.kind, &self.raw.payload),
            Some((kind, payload)) => event::decode(&kind, &payload),
        }
    }

    /// The version of the payload's shape that it was written in.
    #[must_use]
    pub fn shape(&self) -> u32 {
        match self.raw.metadata.get(metadata::VERSION) {
            Some(Scalar::Integer(version)) => u32::try_from(*version).unwrap_or(1),
            _ => 1,
        }
    }

    /// The id of the event that caused this one, where that was said.
    #[must_use]
    pub fn causation(&self) -> Option<Uuid> {
        self.id_in(metadata::CAUSATION)
    }

    /// The id shared by all that one request led to, where that was said.
    #[must_use]
    pub fn correlation(&self) -> Option<Uuid> {
        self.id_in(metadata::CORRELATION)
    }

    /// The event as the store has it.
    #[must_use]
    pub fn into_raw(self) -> RawEvent {
        self.raw
    }

    fn id_in(&self, name: &str) -> Option<Uuid> {
        match self.raw.metadata.get(name) {
            Some(Scalar::Text(id)) => Uuid::parse_str(id).ok(),
            _ => None,
        }
    }
}

impl Deref for Recorded {
    type Target = RawEvent;

    fn deref(&self) -> &RawEvent {
        &self.raw
    }
}

impl PartialEq for Recorded {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.fmt(f)
    }
}
