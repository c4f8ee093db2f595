use std::time::Duration;

use evenkeel_core::{Error, ErrorKind, Record, Result, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Action, Revision};

/// What a subscriber was told of a document, and how telling it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Told {
    /// The document.
    pub url: String,
    /// What was told last; `None` where nothing was, as far as we know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
    /// The revision of the last attempt of which nobody knows whether it was heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Revision>,
    /// The tries that failed since the last that did not; `None` where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Failing>,
    /// Whether what was told last is to be told once more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// What a subscriber was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Last {
    /// Which revision.
    pub revision: Revision,
    /// That it was what.
    pub action: Action,
    /// When its answer came.
    pub at: Timestamp,
    /// What it answered.
    pub status: u16,
}

/// A series of tries that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failing {
    /// When the first began.
    pub since: Timestamp,
    /// When the last ended.
    pub at: Timestamp,
    /// How many there were.
    pub tries: u32,
    /// Which revision the last was of.
    pub revision: Revision,
    /// Whether the last was the last: the next begins a new series.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exhausted: bool,
}

impl Told {
    pub(crate) const fn nothing(url: String) -> Self {
        Self { url, last: None, begun: None, failing: None, again: false }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("what was told is JSON")
    }

    pub(crate) fn decode(record: &Record) -> Result<Self> {
        serde_json::from_slice(&record.value).map_err(|source| {
            Error::new(ErrorKind::Corrupt, "a record of what was told is not one").with_source(source)
        })
    }

    /// Counts a try of `revision` that began `took` before `now` and failed. A series is over once it
    /// is exhausted, a newer revision is there, or deliveries were resumed.
    pub(crate) fn failed(
        &mut self,
        revision: Revision,
        now: Timestamp,
        took: Duration,
        resumed_at: Option<Timestamp>,
    ) -> Failing {
        let goes_on = |failing: &Failing| {
            !failing.exhausted
                && failing.revision >= revision
                && resumed_at.is_none_or(|resumed_at| failing.at >= resumed_at)
        };
        let (since, tries) = match self.failing.filter(goes_on) {
            Some(series) => (series.since, series.tries),
            None => (now - took, 0),
        };
        let failing = Failing { since, at: now, tries: tries.saturating_add(1), revision, exhausted: false };
        self.failing = Some(failing);
        failing
    }

    /// Whether what was to be told was given up.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.failing.is_some_and(|failing| failing.exhausted)
    }
}
