use std::time::Duration;

use evenkeel_core::{Error, ErrorKind, Key, Record, Result, Timestamp};
use serde::{Deserialize, Serialize};

use crate::net::SendError;
use crate::{Action, Revision, places};

/// One try at telling a subscriber of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attempt {
    /// The `webhook-id` that was sent.
    pub message: String,
    /// The document.
    pub url: String,
    /// Which revision of it.
    pub revision: Revision,
    /// What was told of it.
    pub action: Action,
    /// When it ended.
    pub at: Timestamp,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// Which try of its series it was, from 1.
    pub tries: u32,
    /// What came of it.
    pub outcome: Outcome,
    /// The status answered, where there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The first 16 KiB of the answer's body; bytes that are not UTF-8 are replaced.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub response: String,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The subscriber took it.
    Delivered,
    /// The subscriber did not want it, which settles it too.
    Discarded,
    /// It is tried again.
    Failed,
    /// It failed, and was the last try.
    Exhausted,
}

/// Why an attempt had no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failure {
    /// What failed: `dns`, `refused_address`, `connect`, `tls`, `timed_out` or `protocol`; `message`
    /// where there was none to send.
    pub kind: String,
    /// In words.
    pub message: String,
}

impl From<&SendError> for Failure {
    fn from(error: &SendError) -> Self {
        Self { kind: error.kind().to_owned(), message: error.to_string() }
    }
}

impl Failure {
    /// That there was no message to send.
    pub(crate) fn no_message(error: &Error) -> Self {
        Self { kind: "message".to_owned(), message: error.to_string() }
    }
}

impl Attempt {
    /// Attempts sort by their end.
    pub(crate) fn key(&self, subscription: &str) -> Key {
        let id = format!("{:020}-{}-{}", self.at.as_micros().max(0), self.message, self.tries);
        Key::new(places::ATTEMPTS, subscription, id)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an attempt is JSON")
    }

    pub(crate) fn decode(record: &Record) -> Result<Self> {
        serde_json::from_slice(&record.value).map_err(|source| {
            Error::new(ErrorKind::Corrupt, "an attempt's record is not one").with_source(source)
        })
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
