use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::batch::{Batch, Committed, Limits};
use crate::log::{Read, Slice};
use crate::queue::{JobPage, Jobs, Lease, Leased};
use crate::record::{Key, Record, RecordPage, Scan};
use crate::signal::Signals;
use crate::{Error, ErrorKind, Namespace, Partition, Result, Timestamp};

/// N partitions, each a small transactional database with records, a log and queues.
///
/// ```text
///   Store ── namespace ── partition 0 ─┬─ records   keyed values, with versions and expiry
///                     │                ├─ log       events in streams, gap-free positions
///                     │                └─ queues    jobs that fall due and are leased
///                     └── partition 1 ─ ...         a commit is atomic within one partition
/// ```
///
/// A store is a cheap handle: clones and namespaces share what is stored.
///
/// # Contract
/// Each sentence is a test of the conformance suite, run on every store.
///
/// **Time.** The store compares only with the `now` that the caller passes, except to keep its own
/// house. A record past its expiry reads as absent everywhere from that instant.
///
/// **Consistency.** A read begun after a commit returned sees it. A `get` of several keys is not a
/// snapshot; decisions are fenced by expectations.
///
/// **Errors.** `Unavailable` means that nothing was written. `OutcomeUnknown` means that the batch
/// was applied whole or not at all. Malformed input is `InvalidInput` or `TooLarge`, before
/// anything is sent.
///
/// **Cancellation.** Dropping the future of a read loses nothing. Dropping that of a `commit`,
/// `lease` or `sweep` does not take it back: its outcome is then unknown to the caller.
#[async_trait]
pub trait Store: Debug + Send + Sync + 'static {
    /// What this store is and takes, and the namespace of this handle.
    fn info(&self) -> &StoreInfo;

    /// The same store with partitions of another namespace, each with records, log and queues of
    /// its own.
    #[must_use]
    fn namespace(&self, namespace: Namespace) -> Self
    where
        Self: Sized;

    /// The live records at `keys`, in their order.
    ///
    /// # Behavior
    /// - A record that expired at `now` reads as absent.
    /// - No keys give an empty answer.
    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>>;

    /// A page of a group's live records.
    ///
    /// # Behavior
    /// - Ids come in byte order.
    /// - Following the cursors returns every record that existed throughout exactly once.
    /// - A page may be short and still have a cursor.
    async fn scan(&self, at: &Partition, scan: Scan) -> Result<RecordPage>;

    /// A run of events of the partition or of one stream.
    ///
    /// # Behavior
    /// - Positions are gap-free and appear in commit order: having seen one, a reader never finds a
    ///   new event at or below it.
    /// - Trimmed events are passed over.
    /// - Reading a partition after a position beyond its head is `Corrupt`: history was lost.
    /// - Reading a stream that does not exist is empty with head 0.
    async fn read(&self, at: &Partition, read: Read) -> Result<Slice>;

    /// A look at jobs without leasing them.
    async fn jobs(&self, at: &Partition, want: Jobs) -> Result<JobPage>;

    /// Takes due jobs of a queue, roughly earliest first.
    ///
    /// # Behavior
    /// - A job is leased to at most one holder at a time.
    /// - Each lease raises the job's attempt and gives it a new token; the one before is worth
    ///   nothing from then on, and not earlier.
    /// - What was pushed during a lease that ran out is in the job that the next holder gets.
    async fn lease(&self, at: &Partition, want: Lease) -> Result<Leased>;

    /// Applies a batch, all or nothing.
    ///
    /// # Behavior
    /// - Batches of a partition are serialisable: two that each check what the other writes do not
    ///   both commit.
    /// - A failed expectation is `Conflict` (`LeaseLost` for a token) and carries the first such
    ///   operation with what stood there; nothing is written.
    /// - A batch whose id a record or stream that it names bears already is a success; so is one that
    ///   [pushes a job leased](Batch::push_leased) which its token holds already.
    /// - Sending a [fenced](Batch::is_fenced) batch again does not apply it twice.
    async fn commit(&self, batch: Batch) -> Result<Committed>;

    /// Reclaims what nobody can see any more, at most `limit` records or events; returns how many.
    ///
    /// # Behavior
    /// - Only what expired more than [`StoreInfo::max_skew`] before `now` goes.
    /// - Positions stay gap-free.
    async fn sweep(&self, at: &Partition, now: Timestamp, limit: usize) -> Result<usize>;

    /// Hints that something fell due or was appended, from now on. Hints may be lost.
    fn signals(&self) -> Signals;
}

/// What a store is and takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreInfo {
    /// Its one word: `memory`, `sqlite`, `pg`, `dynamo` or `redis`.
    pub name: &'static str,
    /// The namespace that this handle's partitions belong to.
    pub namespace: Namespace,
    /// How many partitions a namespace has; fixed when the store was created.
    pub partitions: u32,
    /// What one batch may hold.
    pub limits: Limits,
    /// How far callers' clocks may be apart.
    pub max_skew: Duration,
    /// What outlives what.
    pub durability: Durability,
    /// Whether a live door-2 transaction keeps every other commit waiting.
    pub writers: Writers,
}

/// What committed data outlives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing: it is gone with the last handle.
    None,
    /// A crash of the process, not of the machine.
    Process,
    /// A crash of the machine.
    Machine,
}

/// How many transactions can write at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// One; a live door-2 transaction holds up the others, renewals of leases too.
    One,
    /// Many.
    Many,
}

impl StoreInfo {
    /// A store called `name` with the least that the contract allows: the limits of
    /// [`Limits::MIN`], a skew of 30 seconds, no durability, many writers.
    ///
    /// # Errors
    /// `Config` where `partitions` is not within 1 to 65,536.
    pub fn new(name: &'static str, partitions: u32) -> Result<Self> {
        if !(1..=65_536).contains(&partitions) {
            return Err(Error::new(ErrorKind::Config, "a store has 1 to 65,536 partitions")
                .with("store", name)
                .with("partitions", partitions));
        }
        Ok(Self {
            name,
            namespace: Namespace::default(),
            partitions,
            limits: Limits::MIN,
            max_skew: Duration::from_secs(30),
            durability: Durability::None,
            writers: Writers::Many,
        })
    }

    /// The same with another namespace.
    #[must_use]
    pub fn with_namespace(&self, namespace: Namespace) -> Self {
        Self { namespace, ..self.clone() }
    }

    /// Checks that `at` is one of the store's partitions.
    ///
    /// # Errors
    /// `InvalidInput` where its index is beyond the store's count.
    pub fn check_partition(&self, at: &Partition) -> Result<()> {
        if at.index() < self.partitions {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "the store has no such partition")
            .with("partition", at)
            .with("partitions", self.partitions))
    }
}
