//! Handlers that say how long an event may take.

mod kit;

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use evenkeel_core::{
    Batch, BoxError, Committed, Draft, ErrorKind, ExpectStream, JobPage, Jobs, Key, Lease, Leased,
    ManualClock, MemoryStore, Namespace, Partition, Read, Record, RecordPage, Result, Scan, Signals, Slice,
    Store, StoreInfo, Timestamp, Transactional, Tx,
};
use evenkeel_projections::{Context, OnFailure, Policy, Projection, Projector, Recorded};
use kit::{Bank, Mode};

const LIMIT: Duration = Duration::from_secs(5);

/// Takes as many seconds for an event as it moves cents, which it writes down first.
struct Slow {
    clock: ManualClock,
    limit: Option<Duration>,
    /// How often it is quick nevertheless, from the so manieth time on.
    quick_after: u32,
    times: AtomicU32,
}

impl Slow {
    fn new(bank: &Bank, limit: Option<Duration>) -> Self {
        Self { clock: bank.clock.clone(), limit, quick_after: u32::MAX, times: AtomicU32::default() }
    }
}

impl Projector<Draft> for Slow {
    type State = i64;

    fn timeout(&self, _: &Recorded) -> Option<Duration> {
        self.limit
    }

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, i64>) -> Result<(), BoxError> {
        let cents = kit::cents(event)?;
        *context.state += cents;
        kit::add(context.conn().await?, "slow", &event.stream, cents).await?;
        let seconds = u64::try_from(cents)?;
        if self.times.fetch_add(1, SeqCst) < self.quick_after {
            self.clock.shared().sleep(Duration::from_secs(seconds)).await;
        }
        Ok(())
    }
}

fn projection<P: Projector<Draft>>(mode: Mode, bank: &Bank, slow: P) -> Projection<P, MemoryStore> {
    match mode {
        Mode::Stream => Projection::stream(bank.events.clone(), "slow", slow),
        Mode::Keyed => Projection::keyed(bank.events.clone(), "slow", slow),
    }
}

#[tokio::test]
async fn what_takes_longer_than_its_time_is_dropped_and_a_failure_of_the_event() {
    for mode in Mode::BOTH {
        let bank = Bank::new();
        bank.deposit("a", &[1, 2, 6, 4]).await;
        let projection = projection(mode, &bank, Slow::new(&bank, Some(LIMIT)));
        let projection = projection.policy(Policy::new(OnFailure::Ignore));
        kit::with_moving_clock(&bank.clock, projection.catch_up()).await.unwrap();
        assert_eq!(bank.row("slow", "a").await, Some(7), "{mode:?}");
        let dead = projection.operations().dead_letters(None, 10).await.unwrap();
        let [letter] = &dead[..] else { panic!("{dead:?}") };
        assert_eq!((letter.failure.position, letter.failure.attempts), (3, 1));
        assert_eq!(letter.failure.error, "the handler took longer than 5s");
    }
}

#[tokio::test]
async fn each_attempt_that_the_policy_allows_has_its_time_again() {
    let bank = Bank::new();
    bank.deposit("a", &[1, 6, 4]).await;
    // Event 2 takes too long with event 1, alone, and at the first of the policy's attempts.
    let slow = Slow { quick_after: 5, ..Slow::new(&bank, Some(LIMIT)) };
    let policy = Policy::new(OnFailure::Fail).retry(2, Duration::from_secs(1), Duration::from_secs(1));
    let projection = projection(Mode::Stream, &bank, slow).policy(policy);
    kit::with_moving_clock(&bank.clock, projection.catch_up()).await.unwrap();
    assert_eq!(bank.row("slow", "a").await, Some(11));
}

#[tokio::test]
async fn without_a_limit_it_takes_as_long_as_it_takes() {
    let bank = Bank::new();
    bank.deposit("a", &[600]).await;
    let projection = projection(Mode::Stream, &bank, Slow::new(&bank, None));
    kit::with_moving_clock(&bank.clock, projection.catch_up()).await.unwrap();
    assert_eq!(bank.row("slow", "a").await, Some(600));
}

#[tokio::test]
async fn an_append_whose_events_take_too_long_to_be_applied_appends_nothing() {
    let bank = Bank::new();
    let projection = projection(Mode::Keyed, &bank, Slow::new(&bank, Some(LIMIT)));
    let append = async |cents| {
        let events = kit::deposits(cents);
        let append = Box::pin(projection.append("a", ExpectStream::NoStream, &events));
        kit::with_moving_clock(&bank.clock, append).await
    };
    let refused = append(&[1, 6]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unexpected);
    assert_eq!(bank.events.version("a").await.unwrap(), 0);
    assert_eq!(bank.row("slow", "a").await, None);
    append(&[1, 2]).await.unwrap();
    assert_eq!(bank.row("slow", "a").await, Some(3));
}

/// A store that makes everybody wait for a connection.
#[derive(Clone, Debug)]
struct Crowded {
    store: MemoryStore,
    clock: ManualClock,
}

#[async_trait]
impl Store for Crowded {
    fn info(&self) -> &StoreInfo {
        self.store.info()
    }

    fn namespace(&self, namespace: Namespace) -> Self {
        Self { store: self.store.namespace(namespace), clock: self.clock.clone() }
    }

    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.store.get(at, now, keys).await
    }

    async fn scan(&self, at: &Partition, scan: Scan) -> Result<RecordPage> {
        self.store.scan(at, scan).await
    }

    async fn read(&self, at: &Partition, read: Read) -> Result<Slice> {
        self.store.read(at, read).await
    }

    async fn jobs(&self, at: &Partition, want: Jobs) -> Result<JobPage> {
        self.store.jobs(at, want).await
    }

    async fn lease(&self, at: &Partition, want: Lease) -> Result<Leased> {
        self.store.lease(at, want).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        self.store.commit(batch).await
    }

    async fn sweep(&self, at: &Partition, now: Timestamp, limit: usize) -> Result<usize> {
        self.store.sweep(at, now, limit).await
    }

    fn signals(&self) -> Signals {
        self.store.signals()
    }
}

impl Transactional for Crowded {
    type Conn = Draft;

    async fn begin(&self, at: Partition, now: Timestamp) -> Result<Tx<Draft>> {
        let mut tx = self.store.begin(at, now).await?;
        let wait = self.clock.shared().sleep(2 * LIMIT);
        tx.before_connect(async move {
            wait.await;
            Ok(Duration::MAX)
        });
        Ok(tx)
    }

    async fn finish(&self, tx: Tx<Draft>) -> Result<Committed> {
        self.store.finish(tx).await
    }

    async fn rollback(&self, tx: Tx<Draft>) {
        self.store.rollback(tx).await;
    }
}

#[tokio::test]
async fn who_is_made_to_wait_for_a_connection_is_not_slow() {
    let bank = Bank::new();
    bank.deposit("a", &[1, 4]).await;
    let crowded =
        Bank::on(Crowded { store: bank.store.clone(), clock: bank.clock.clone() }, bank.clock.clone());
    let slow = Slow::new(&bank, Some(LIMIT));
    let projection = Projection::stream(crowded.events.clone(), "slow", slow);
    kit::with_moving_clock(&bank.clock, projection.catch_up()).await.unwrap();
    assert_eq!(bank.row("slow", "a").await, Some(5));
}

/// Takes the time of all events of a batch together; one of a hundred cents or more has no limit.
struct SlowTogether(Slow);

impl Projector<Draft> for SlowTogether {
    type State = i64;

    fn timeout(&self, event: &Recorded) -> Option<Duration> {
        let is_small = kit::cents(event).is_ok_and(|cents| cents < 100);
        self.0.timeout(event).filter(|_| is_small)
    }

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, i64>) -> Result<(), BoxError> {
        self.0.apply(event, context).await
    }

    async fn apply_batch(
        &self,
        events: &[Recorded],
        context: &mut Context<'_, Draft, i64>,
    ) -> Result<(), BoxError> {
        for event in events {
            self.apply(event, context).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn events_of_a_batch_have_the_time_of_all_of_them_together() {
    let bank = Bank::new();
    // Ten seconds, of fifteen; the six for one event do not matter here.
    bank.deposit("a", &[1, 6, 3]).await;
    let together = SlowTogether(Slow::new(&bank, Some(LIMIT)));
    let projection = projection(Mode::Keyed, &bank, together).policy(Policy::new(OnFailure::Ignore));
    kit::with_moving_clock(&bank.clock, projection.catch_up()).await.unwrap();
    assert_eq!(bank.row("slow", "a").await, Some(10));
    // Halved until the one is found that takes them all: 47 seconds, of twenty.
    bank.deposit("a", &[1, 2, 40, 4]).await;
    kit::with_moving_clock(&bank.clock, projection.catch_up()).await.unwrap();
    assert_eq!(bank.row("slow", "a").await, Some(17));
    let dead = projection.operations().dead_letters(None, 10).await.unwrap();
    assert_eq!(dead.iter().map(|letter| letter.failure.position).collect::<Vec<_>>(), [6]);
}

#[tokio::test]
async fn an_event_without_a_limit_leaves_the_others_of_its_batch_theirs() {
    for mode in Mode::BOTH {
        let bank = Bank::new();
        bank.deposit("a", &[600, 1, 40, 2, 700]).await;
        let together = SlowTogether(Slow::new(&bank, Some(LIMIT)));
        let projection = projection(mode, &bank, together).policy(Policy::new(OnFailure::Ignore));
        kit::with_moving_clock(&bank.clock, projection.catch_up()).await.unwrap();
        assert_eq!(bank.row("slow", "a").await, Some(1_303), "{mode:?}");
        let dead = projection.operations().dead_letters(None, 10).await.unwrap();
        assert_eq!(dead.iter().map(|letter| letter.failure.position).collect::<Vec<_>>(), [3]);
    }
}
