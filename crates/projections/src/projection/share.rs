//! Who runs which partition: each is a job that one node holds, and no node holds more than its
//! share. Leases only spare nodes from doing the same; positions decide what is applied.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use evenkeel_core::{
    Batch, ErrorKind, Expect, Key, Lease, Merge, Partition, Result, Scan, StoreExt, Timestamp, Token,
    Transactional,
};
use tokio::sync::watch;
use uuid::Uuid;

use super::Shared;
use crate::{Projector, places};

/// The id of a partition's only job.
const JOB: &str = "partition";

/// How many nodes are counted.
const MOST_NODES: usize = 10_000;

/// A node that runs a projection.
pub(super) struct Node<P, S> {
    pub(super) shared: Arc<Shared<P, S>>,
    id: String,
    held: AtomicUsize,
    /// How many partitions it may hold.
    share: watch::Sender<usize>,
}

/// A partition that this node holds.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) at: Partition,
    token: Token,
    pub(super) until: Timestamp,
}

impl<P: Projector<S::Conn>, S: Transactional + Clone> Node<P, S> {
    pub(super) fn new(shared: &Arc<Shared<P, S>>) -> Self {
        Self {
            shared: Arc::clone(shared),
            id: Uuid::new_v4().to_string(),
            held: AtomicUsize::new(0),
            share: watch::Sender::new(0),
        }
    }

    /// Says that it is there, and finds out how many others are.
    pub(super) async fn report(&self) -> Result<()> {
        let (home, now) = (self.shared.operations.home(), self.shared.now());
        let mut batch = Batch::new(home.clone(), now);
        // It is missed in time for the others to take over when its leases end.
        let until = now + self.shared.settings.lease * 2 / 3;
        batch.put_until(self.key(), "{}", Expect::Any, until);
        self.shared.store().commit(batch).await?;
        let scan = Scan::new(places::NODES, self.shared.name(), MOST_NODES, now);
        let nodes = self.shared.store().scan(&home, scan).await?.records.len().max(1);
        let partitions = self.shared.store().partitions().len();
        self.share.send_replace(partitions.div_ceil(nodes));
        Ok(())
    }

    /// Says that it is going.
    pub(super) async fn leave(&self) -> Result<()> {
        let mut batch = Batch::new(self.shared.operations.home(), self.shared.now());
        batch.delete(self.key(), Expect::Any);
        self.shared.store().commit(batch).await.map(drop)
    }

    /// Takes a partition where nobody holds it and this node has room for it; otherwise says when
    /// it may be free.
    pub(super) async fn take(&self, at: &Partition) -> Result<Result<Held, Option<Timestamp>>> {
        if self.held.fetch_add(1, SeqCst) >= *self.share.borrow() {
            self.held.fetch_sub(1, SeqCst);
            return Ok(Err(None));
        }
        let taken = self.lease(at).await;
        if !matches!(taken, Ok(Ok(_))) {
            self.held.fetch_sub(1, SeqCst);
        }
        taken
    }

    async fn lease(&self, at: &Partition) -> Result<Result<Held, Option<Timestamp>>> {
        let (store, queue) = (self.shared.store(), places::queue(self.shared.name()));
        let want = Lease {
            queue: queue.clone(),
            max: 1,
            hold_for: self.shared.settings.lease,
            now: self.shared.now(),
        };
        let leased = store.lease(at, want).await?;
        if let Some(job) = leased.jobs.into_iter().next() {
            return Ok(Ok(Held { at: at.clone(), token: job.token, until: job.until }));
        }
        if leased.next_due.is_none() {
            let now = self.shared.now();
            let mut batch = Batch::new(at.clone(), now);
            batch.push(queue, JOB, now, "", Merge::Keep);
            store.commit(batch).await?;
            return Ok(Err(Some(now)));
        }
        Ok(Err(leased.next_due))
    }

    /// Keeps a partition for longer; `LeaseLost` where another has it by now.
    pub(super) async fn extend(&self, held: &mut Held) -> Result<()> {
        let now = self.shared.now();
        let until = now + self.shared.settings.lease;
        let mut batch = Batch::new(held.at.clone(), now);
        batch.extend(places::queue(self.shared.name()), JOB, held.token, until);
        self.shared.store().commit(batch).await?;
        held.until = until;
        Ok(())
    }

    /// Whether it holds more than its share.
    pub(super) fn has_too_much(&self) -> bool {
        self.held.load(SeqCst) > *self.share.borrow()
    }

    /// Gives a partition back, for anybody to take.
    pub(super) async fn give_back(&self, held: Held) {
        self.held.fetch_sub(1, SeqCst);
        let now = self.shared.now();
        let mut batch = Batch::new(held.at, now);
        batch.retry(places::queue(self.shared.name()), JOB, held.token, now);
        match self.shared.store().commit(batch).await {
            Err(error) if error.kind() != ErrorKind::LeaseLost => {
                tracing::debug!(%error, "a partition is not given back; its lease runs out");
            }
            _ => {}
        }
    }

    fn key(&self) -> Key {
        Key::new(places::NODES, self.shared.name(), &*self.id)
    }
}
