use std::fmt::Debug;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use evenkeel_core::layer::Layer;
use evenkeel_core::{
    AnyStore, Batch, Committed, Error, ErrorKind, JobPage, Jobs, Key, Lease, Leased, Namespace, Partition,
    Read, Record, RecordPage, Result, Scan, Signals, Slice, Store, StoreInfo, Timestamp, Transactional, Tx,
};
use tokio::sync::watch;
use tokio::task::yield_now;

/// A layer that makes trouble, the same for the same seed.
///
/// The fate of the n-th call depends on the seed and on n only. Counted are `get`, `scan`, `read`,
/// `jobs`, `lease`, `commit`, `sweep`, `begin` and `finish`; what is done on the connection of a
/// [`Tx`] is not, but is rolled back with it.
///
/// # Example
/// ```
/// use evenkeel_core::{Batch, ErrorKind, Expect, Key, MemoryStore, Store, StoreExt, Timestamp};
/// use evenkeel_testkit::Chaos;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let database = MemoryStore::new();
/// let at = database.partition_of("order-17");
/// let mut batch = Batch::new(at, Timestamp::EPOCH);
/// batch.put(Key::new("shop.order", "open", "17"), "{}", Expect::Absent);
///
/// // The process dies in its first call: its commit never returns.
/// let process = database.clone().layer(Chaos::new(1).crash_at(1));
/// tokio::select! {
///     _ = process.commit(batch.clone()) => unreachable!("a dead process learns nothing"),
///     () = process.crashed() => {}
/// }
///
/// // The next one sends the batch again. Whether or not it was applied, it is now, once.
/// database.commit(batch).await.unwrap();
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Chaos {
    seed: u64,
    unavailable: f64,
    lost_acknowledgements: f64,
    most_yields: u32,
    crash_at: Option<u64>,
}

impl Chaos {
    /// No trouble yet.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, unavailable: 0.0, lost_acknowledgements: 0.0, most_yields: 0, crash_at: None }
    }

    /// Fails this share of the calls with `Unavailable`, without making them; 0 to 1.
    #[must_use]
    pub const fn unavailable(mut self, share: f64) -> Self {
        self.unavailable = share;
        self
    }

    /// Answers this share of the `commit` and `finish` calls that succeeded with `OutcomeUnknown`;
    /// 0 to 1.
    #[must_use]
    pub const fn lost_acknowledgements(mut self, share: f64) -> Self {
        self.lost_acknowledgements = share;
        self
    }

    /// Lets other tasks run up to this many times before each call, and after it.
    #[must_use]
    pub const fn delays(mut self, most: u32) -> Self {
        self.most_yields = most;
        self
    }

    /// Kills the process at the n-th call, counted from 1: before it is made or after, as the seed
    /// decides. Neither it nor any call that is under way or comes later ever completes, through
    /// this handle or its clones and namespaces.
    #[must_use]
    pub const fn crash_at(mut self, n: u64) -> Self {
        self.crash_at = Some(n);
        self
    }

    fn fate(&self, n: u64) -> Fate {
        // Apart by an odd constant, so that neighbouring calls and seeds share no sequence.
        let seed =
            self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut random = fastrand::Rng::with_seed(seed);
        let crash = (self.crash_at == Some(n)).then(|| random.bool());
        Fate {
            yields_before: random.u32(0..=self.most_yields),
            yields_after: random.u32(0..=self.most_yields),
            end: match crash {
                Some(true) => End::CrashBefore,
                Some(false) => End::CrashAfter,
                None if random.f64() < self.unavailable => End::Unavailable,
                None if random.f64() < self.lost_acknowledgements => End::LoseAcknowledgement,
                None => End::Answer,
            },
        }
    }
}

/// What becomes of a call.
struct Fate {
    yields_before: u32,
    yields_after: u32,
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Answer,
    Unavailable,
    LoseAcknowledgement,
    CrashBefore,
    CrashAfter,
}

impl<S> Layer<S> for Chaos {
    type Store = ChaosStore<S>;

    fn layer(self, store: S) -> ChaosStore<S> {
        ChaosStore { store, chaos: self, process: Arc::default() }
    }
}

/// A store behind a [`Chaos`] layer: one process's handle, to be dropped with everything that holds
/// it when the process dies.
#[derive(Clone, Debug)]
pub struct ChaosStore<S> {
    store: S,
    chaos: Chaos,
    process: Arc<Process>,
}

#[derive(Debug, Default)]
struct Process {
    calls: AtomicU64,
    under_way: watch::Sender<u64>,
    crashed: watch::Sender<bool>,
}

/// Counts a call until it is answered or dropped.
struct UnderWay<'a>(&'a watch::Sender<u64>);

impl<'a> UnderWay<'a> {
    fn new(count: &'a watch::Sender<u64>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// What a call leaves behind, which decides what can be lost.
#[derive(Clone, Copy, PartialEq)]
enum Call {
    Commits,
    Other,
}

impl<S> ChaosStore<S> {
    /// How many calls the process has made.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.process.calls.load(Ordering::SeqCst)
    }

    /// How many calls are under way at this moment.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        *self.process.under_way.borrow()
    }

    /// Lets everything that can happen at this instant happen: until no call was under way while
    /// others had so many turns.
    pub(crate) async fn settle(&self, turns: u32) {
        let mut calm = 0;
        while calm < turns {
            yield_now().await;
            calm += 1;
            if self.under_way() > 0 {
                calm = 0;
                // The sender is this process's, which is there as long as this handle.
                let _ = self.process.under_way.subscribe().wait_for(|count| *count == 0).await;
            }
        }
    }

    /// Completes when the process dies.
    pub fn crashed(&self) -> impl Future<Output = ()> + Send + 'static + use<S> {
        let mut crashed = self.process.crashed.subscribe();
        async move {
            if crashed.wait_for(|crashed| *crashed).await.is_err() {
                // Every handle is gone, so that no call will be the one.
                pending::<()>().await;
            }
        }
    }

    /// Whether the process is dead.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        *self.process.crashed.borrow()
    }

    async fn call<T>(&self, what: Call, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let n = self.process.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let _under_way = UnderWay::new(&self.process.under_way);
        let fate = self.chaos.fate(n);
        yield_for(fate.yields_before).await;
        if self.has_crashed() || fate.end == End::CrashBefore {
            // What the call holds, such as a transaction, dies with the process.
            drop(call);
            return self.crash().await;
        }
        if fate.end == End::Unavailable {
            return Err(Error::new(ErrorKind::Unavailable, "chaos: the call was not made").with("call", n));
        }
        let result = call.await;
        if fate.end == End::CrashAfter {
            return self.crash().await;
        }
        yield_for(fate.yields_after).await;
        if self.has_crashed() {
            return self.crash().await;
        }
        if fate.end == End::LoseAcknowledgement && what == Call::Commits && result.is_ok() {
            let lost = Error::new(ErrorKind::OutcomeUnknown, "chaos: the acknowledgement was lost");
            return Err(lost.with("call", n));
        }
        result
    }

    async fn crash<T>(&self) -> T {
        self.process.crashed.send_replace(true);
        pending().await
    }
}

async fn yield_for(times: u32) {
    for _ in 0..times {
        yield_now().await;
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: Store> Store for ChaosStore<S> {
    fn info(&self) -> &StoreInfo {
        self.store.info()
    }

    fn namespace(&self, namespace: Namespace) -> Self {
        let process = Arc::clone(&self.process);
        Self { store: self.store.namespace(namespace), chaos: self.chaos.clone(), process }
    }

    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.call(Call::Other, self.store.get(at, now, keys)).await
    }

    async fn scan(&self, at: &Partition, scan: Scan) -> Result<RecordPage> {
        self.call(Call::Other, self.store.scan(at, scan)).await
    }

    async fn read(&self, at: &Partition, read: Read) -> Result<Slice> {
        self.call(Call::Other, self.store.read(at, read)).await
    }

    async fn jobs(&self, at: &Partition, want: Jobs) -> Result<JobPage> {
        self.call(Call::Other, self.store.jobs(at, want)).await
    }

    async fn lease(&self, at: &Partition, want: Lease) -> Result<Leased> {
        self.call(Call::Other, self.store.lease(at, want)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        self.call(Call::Commits, self.store.commit(batch)).await
    }

    async fn sweep(&self, at: &Partition, now: Timestamp, limit: usize) -> Result<usize> {
        self.call(Call::Other, self.store.sweep(at, now, limit)).await
    }

    fn signals(&self) -> Signals {
        self.store.signals()
    }
}

impl<S: Transactional> Transactional for ChaosStore<S> {
    type Conn = S::Conn;

    async fn begin(&self, at: Partition, now: Timestamp) -> Result<Tx<S::Conn>> {
        self.call(Call::Other, self.store.begin(at, now)).await
    }

    async fn finish(&self, tx: Tx<S::Conn>) -> Result<Committed> {
        self.call(Call::Commits, self.store.finish(tx)).await
    }

    async fn rollback(&self, tx: Tx<S::Conn>) {
        if self.has_crashed() {
            drop(tx);
            return self.crash().await;
        }
        self.store.rollback(tx).await;
    }
}

impl<S: Store> From<ChaosStore<S>> for AnyStore {
    fn from(store: ChaosStore<S>) -> Self {
        Self::new(store)
    }
}
