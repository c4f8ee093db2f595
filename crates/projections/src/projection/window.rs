use evenkeel_core::{Filter, Partition, Read, Result, Store};

use crate::{EventStore, Recorded};

/// How much is read ahead at most, in bytes of payload.
const BYTES: usize = 8_000_000;

/// A run of the log that is applied before the next.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) events: Vec<Recorded>,
    /// The position that is reached with it.
    pub(super) to: u64,
    /// The last position of the partition when it was read.
    pub(super) head: u64,
}

/// Where windows are taken from.
#[derive(Clone, Debug)]
pub(super) struct Source<S> {
    pub(super) events: EventStore<S>,
    pub(super) at: Partition,
    pub(super) filter: Filter,
    /// How many events a window has at most.
    pub(super) most: usize,
    /// The position beyond which nothing is read.
    pub(super) until: u64,
}

impl<S: Store + Clone> Source<S> {
    /// The window after a position.
    pub(super) async fn read(self, after: u64) -> Result<Window> {
        let mut window = Window { events: Vec::new(), to: after, head: after };
        let mut bytes = 0;
        loop {
            let limit = self.most - window.events.len();
            let read = Read::partition(window.to, limit).filter(self.filter.clone());
            let page = self.events.read(&self.at, read).await?;
            bytes += page.events.iter().map(|event| event.payload.len()).sum::<usize>();
            window.events.extend(page.events);
            (window.to, window.head) = (page.examined_to, page.head);
            if window.to >= window.head || window.to >= self.until {
                break;
            }
            if window.events.len() >= self.most || bytes >= BYTES {
                break;
            }
        }
        if window.to > self.until {
            window.events.retain(|event| event.position <= self.until);
            window.to = self.until.max(after);
        }
        Ok(window)
    }
}
