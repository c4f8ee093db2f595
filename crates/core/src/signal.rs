use tokio::sync::broadcast;

use crate::Partition;
use crate::batch::{Batch, Op};

/// A hint that something can be worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A job of the queue was created or its due time moved; not where that is leased, as of one that is
    /// [leased from its birth](Batch::push_leased).
    Queue {
        /// The partition.
        at: Partition,
        /// The queue's name.
        queue: String,
    },
    /// Events were appended.
    Log {
        /// The partition.
        at: Partition,
    },
    /// Hints were lost; anything may have happened.
    Missed,
}

impl Signal {
    /// One hint for each queue and log that a committed batch touched.
    #[must_use]
    pub fn of(batch: &Batch) -> Vec<Self> {
        let mut queues: Vec<&str> = Vec::new();
        let mut appended = false;
        for op in batch.ops() {
            match op {
                Op::Push { queue, .. } | Op::Retry { queue, .. } | Op::Ack { queue, .. } => {
                    queues.push(queue)
                }
                Op::Append { events, .. } => appended |= !events.is_empty(),
                _ => {}
            }
        }
        queues.sort_unstable();
        queues.dedup();
        let queue = |queue: &str| Self::Queue { at: batch.at().clone(), queue: queue.to_owned() };
        let log = appended.then(|| Self::Log { at: batch.at().clone() });
        queues.into_iter().map(queue).chain(log).collect()
    }
}

/// A stream of [`Signal`]s. A lost hint costs latency only: every consumer also polls.
#[derive(Debug)]
pub struct Signals {
    receiver: broadcast::Receiver<Signal>,
}

impl Signals {
    /// Waits for the next hint; for ever where the store gives none. Dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Signal {
        match self.receiver.recv().await {
            Ok(signal) => signal,
            Err(broadcast::error::RecvError::Lagged(_)) => Signal::Missed,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The in-process source of signals, for stores to hold.
#[derive(Clone, Debug)]
pub struct SignalHub {
    sender: broadcast::Sender<Signal>,
}

impl Default for SignalHub {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(1024) }
    }
}

impl SignalHub {
    /// A stream of what is published from now on.
    #[must_use]
    pub fn subscribe(&self) -> Signals {
        Signals { receiver: self.sender.subscribe() }
    }

    /// Publishes the hints [of](Signal::of) a committed batch.
    pub fn committed(&self, batch: &Batch) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        Signal::of(batch).into_iter().for_each(|signal| self.publish(signal));
    }

    /// Publishes a hint, such as one that came from another process.
    pub fn publish(&self, signal: Signal) {
        // Without a subscriber there is nobody to tell.
        let _ = self.sender.send(signal);
    }
}
