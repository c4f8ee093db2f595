//! Who runs which partition: each is a job that one node holds, and no node holds more than its
//! share. Leases only spare nodes from doing the same; positions decide what is applied.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use evenkeel_core::{
    Batch, ErrorKind, Expect, Key, Lease, Merge, Partition, Result, Scan, StoreExt, Timestamp, Token,
    Transactional,
};
use tokio::sync::{Mutex, watch};
use uuid::Uuid;

use super::Shared;
use crate::control::Control;
use crate::{Projector, places};

/// The id of a partition's only job.
const JOB: &str = "partition";

/// How many nodes are counted.
const MOST_NODES: usize = 10_000;

/// A node that runs a projection.
pub(super) struct Node<P, S> {
    pub(super) shared: Arc<Shared<P, S>>,
    id: String,
    held: Arc<AtomicUsize>,
    /// How many partitions it may hold.
    share: watch::Sender<usize>,
    /// What is to run, and when that was read.
    control: Mutex<Option<(Control, Timestamp)>>,
}

/// A partition that this node holds.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) at: Partition,
    token: Token,
    pub(super) until: Timestamp,
    slot: Slot,
}

/// A place among the partitions that a node may hold; counted until it is dropped.
#[derive(Debug)]
struct Slot(Option<Arc<AtomicUsize>>);

impl Held {
    /// Says that the partition is [shed](Node::sheds), and counts no more.
    pub(super) fn is_shed(&mut self) {
        self.slot.0 = None;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(held) = &self.0 {
            held.fetch_sub(1, SeqCst);
        }
    }
}

impl<P: Projector<S::Conn>, S: Transactional + Clone> Node<P, S> {
    pub(super) fn new(shared: &Arc<Shared<P, S>>) -> Self {
        Self {
            shared: Arc::clone(shared),
            id: Uuid::new_v4().to_string(),
            held: Arc::default(),
            share: watch::Sender::new(0),
            control: Mutex::default(),
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
        let share = *self.share.borrow();
        let free = |held| (held < share).then_some(held + 1);
        if self.held.fetch_update(SeqCst, SeqCst, free).is_err() {
            return Ok(Err(None));
        }
        let slot = Slot(Some(Arc::clone(&self.held)));
        let leased = self.lease(at).await?;
        Ok(leased.map(|(token, until)| Held { at: at.clone(), token, until, slot }))
    }

    async fn lease(&self, at: &Partition) -> Result<Result<(Token, Timestamp), Option<Timestamp>>> {
        let (store, queue) = (self.shared.store(), places::queue(self.shared.name()));
        let want = Lease {
            queue: queue.clone(),
            max: 1,
            hold_for: self.shared.settings.lease,
            now: self.shared.now(),
        };
        let leased = store.lease(at, want).await?;
        if let Some(job) = leased.jobs.into_iter().next() {
            return Ok(Ok((job.token, job.until)));
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

    /// Whether it holds more than its share. Where it does, the caller's partition counts no more,
    /// so that no other is given back instead, and is to be given back.
    pub(super) fn sheds(&self) -> bool {
        let share = *self.share.borrow();
        self.held.fetch_update(SeqCst, SeqCst, |held| (held > share).then(|| held - 1)).is_ok()
    }

    /// Gives a partition back, for anybody to take.
    pub(super) async fn give_back(&self, held: Held) {
        let Held { at, token, slot, .. } = held;
        drop(slot);
        let now = self.shared.now();
        let mut batch = Batch::new(at, now);
        batch.retry(places::queue(self.shared.name()), JOB, token, now);
        match self.shared.store().commit(batch).await {
            Err(error) if error.kind() != ErrorKind::LeaseLost => {
                tracing::debug!(%error, "a partition is not given back; its lease runs out");
            }
            _ => {}
        }
    }

    /// What is to run, as of the last poll.
    pub(super) async fn control(&self) -> Result<Control> {
        let mut known = self.control.lock().await;
        let now = self.shared.now();
        if let Some((control, read_at)) = &*known
            && now.since(*read_at) < self.shared.settings.poll
        {
            return Ok(control.clone());
        }
        let control = self.shared.operations.control().await?;
        *known = Some((control.clone(), now));
        Ok(control)
    }

    /// Lets what is to run be read anew.
    pub(super) async fn forget_control(&self) {
        *self.control.lock().await = None;
    }

    fn key(&self) -> Key {
        Key::new(places::NODES, self.shared.name(), &*self.id)
    }
}
