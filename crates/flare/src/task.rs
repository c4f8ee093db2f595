use bytes::Bytes;
use evenkeel_core::{Batch, Error, ErrorKind, Merge, Result, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{DocumentUrl, places};

/// Work that one commit cannot hold: a job in the partition where it arose, done a page at a time.
///
/// Its effects in other partitions are idempotent, so that a page may be done again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "task")]
pub(crate) enum Task {
    /// Tells the subscribers of a resource, from the one after `after` on, of a document.
    FanOut { resource: String, url: DocumentUrl, after: Option<String> },
    /// Publishes the document in the task's body.
    Publish,
    /// Tells a new subscriber of all documents there are, partition by partition.
    Backfill { subscription: String, partition: u32, after: Option<String> },
    /// Moves back the deliveries of a subscription that were given up, each once, and then lets those
    /// that wait fall due.
    Rearm { subscription: String, which: Which, after: Option<String> },
    /// Tells a subscriber once more what it was told at `since` or later.
    Replay { subscription: String, since: Timestamp, after: Option<String> },
    /// Forgets what is kept for a subscription that is gone.
    Forget { subscription: String, page: u32 },
    /// Forgets the documents of a resource that is gone, partition by partition.
    Purge { resource: String, partition: u32, page: u32 },
}

/// Which of a subscription's deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Which {
    GivenUp,
    Waiting,
}

impl Which {
    const fn as_str(self) -> &'static str {
        match self {
            Self::GivenUp => "given up",
            Self::Waiting => "waiting",
        }
    }
}

impl Task {
    /// Lets all deliveries of a subscription fall due at once.
    pub(crate) fn rearm(subscription: &str) -> Self {
        Self::Rearm { subscription: subscription.to_owned(), which: Which::GivenUp, after: None }
    }

    /// Writes the task into `batch`. One about the same thing that waits already is replaced.
    pub(crate) fn push(&self, batch: &mut Batch, body: &[u8]) {
        let now = batch.now();
        let id = self.id(batch);
        batch.push(places::TASKS, id, now, self.encode(body), Merge::Sooner);
    }

    /// One line of JSON, and then the body byte for byte.
    fn encode(&self, body: &[u8]) -> Bytes {
        let mut payload = serde_json::to_vec(self).expect("a task is JSON");
        payload.push(b'\n');
        payload.extend_from_slice(body);
        payload.into()
    }

    pub(crate) fn decode(payload: &Bytes) -> Result<(Self, Bytes)> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "a task's job is not one");
        let end = payload.iter().position(|byte| *byte == b'\n').ok_or_else(corrupt)?;
        let task = serde_json::from_slice(&payload[..end]).map_err(|source| corrupt().with_source(source))?;
        Ok((task, payload.slice(end + 1..)))
    }

    /// What it is about and how far it is, so that a page's successor is another job than the page.
    fn id(&self, batch: &Batch) -> String {
        let parts: &[&str] = match self {
            Self::FanOut { resource, url, after } => {
                &["fan-out", resource, url.as_str(), after.as_deref().unwrap_or_default()]
            }
            Self::Publish => &["publish", &batch.id().to_string(), &batch.ops().len().to_string()],
            Self::Backfill { subscription, partition, after } => {
                &["backfill", subscription, &partition.to_string(), after.as_deref().unwrap_or_default()]
            }
            Self::Rearm { subscription, which, after } => {
                &["rearm", subscription, which.as_str(), after.as_deref().unwrap_or_default()]
            }
            Self::Replay { subscription, since, after } => {
                &["replay", subscription, &since.to_string(), after.as_deref().unwrap_or_default()]
            }
            Self::Forget { subscription, page } => &["forget", subscription, &page.to_string()],
            Self::Purge { resource, partition, page } => {
                &["purge", resource, &partition.to_string(), &page.to_string()]
            }
        };
        places::hash(parts)
    }
}
