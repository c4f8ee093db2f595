//! What this process last saw of the logs: worth a guess, never more. A commit that guessed wrong is
//! cancelled by its guards, learns, and is made again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use evenkeel_core::Partition;

use crate::rows::{LogHead, StreamHead};

/// How many streams of a partition are remembered.
const STREAMS: usize = 1024;

/// How many partitions are.
const PARTITIONS: usize = 256;

/// What was seen of a partition's log.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    pub(crate) log_head: Option<LogHead>,
    streams: HashMap<String, StreamHead>,
}

impl Hints {
    pub(crate) fn stream(&self, name: &str) -> Option<StreamHead> {
        self.streams.get(name).copied()
    }

    /// Notes how a stream stands now.
    pub(crate) fn saw_stream(&mut self, name: &str, head: StreamHead) {
        if self.streams.len() >= STREAMS {
            // What is in use comes back.
            self.streams.clear();
        }
        self.streams.insert(name.to_owned(), head);
    }
}

/// The hints of all partitions. Whoever appends holds those of its partition until it is done:
/// appends of one process do not get into each other's way.
#[derive(Debug, Default)]
pub(crate) struct AllHints {
    partitions: Mutex<HashMap<Partition, Arc<tokio::sync::Mutex<Hints>>>>,
}

impl AllHints {
    pub(crate) fn of(&self, at: &Partition) -> Arc<tokio::sync::Mutex<Hints>> {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hints) = partitions.get(at) {
            return Arc::clone(hints);
        }
        if partitions.len() >= PARTITIONS {
            // Those in use stay: there is one line for each partition.
            partitions.retain(|_, hints| Arc::strong_count(hints) > 1);
        }
        Arc::clone(partitions.entry(at.clone()).or_default())
    }
}
