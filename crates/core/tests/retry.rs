//! What the retry layer repeats, and what it does not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use evenkeel_core::layer::{Retry, RetryStore};
use evenkeel_core::{
    Batch, Committed, Error, ErrorKind, Expect, ExpectStream, JobPage, Jobs, Key, Lease, Leased, ManualClock,
    MemoryStore, Merge, Namespace, NewEvent, Partition, Read, Record, RecordPage, Result, RetryHint, Scan,
    Signals, Slice, Store, StoreExt, StoreInfo, Timestamp, Token,
};

/// A store whose next calls fail as scripted; a commit that fails with `OutcomeUnknown` is applied.
#[derive(Clone, Debug)]
struct Scripted {
    store: MemoryStore,
    failures: Arc<Mutex<Vec<Error>>>,
    calls: Arc<AtomicUsize>,
}

impl Scripted {
    fn new(failures: impl IntoIterator<Item = Error>) -> Self {
        let mut failures: Vec<Error> = failures.into_iter().collect();
        failures.reverse();
        Self { store: MemoryStore::new(), failures: Arc::new(Mutex::new(failures)), calls: Arc::default() }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn fail(&self) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.failures.lock().unwrap().pop().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Store for Scripted {
    fn info(&self) -> &StoreInfo {
        self.store.info()
    }

    fn namespace(&self, namespace: Namespace) -> Self {
        Self { store: self.store.namespace(namespace), ..self.clone() }
    }

    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.fail()?;
        self.store.get(at, now, keys).await
    }

    async fn scan(&self, at: &Partition, scan: Scan) -> Result<RecordPage> {
        self.fail()?;
        self.store.scan(at, scan).await
    }

    async fn read(&self, at: &Partition, read: Read) -> Result<Slice> {
        self.fail()?;
        self.store.read(at, read).await
    }

    async fn jobs(&self, at: &Partition, want: Jobs) -> Result<JobPage> {
        self.fail()?;
        self.store.jobs(at, want).await
    }

    async fn lease(&self, at: &Partition, want: Lease) -> Result<Leased> {
        self.fail()?;
        self.store.lease(at, want).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        match self.fail() {
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                self.store.commit(batch).await?;
                Err(error)
            }
            Err(error) => Err(error),
            Ok(()) => self.store.commit(batch).await,
        }
    }

    async fn sweep(&self, at: &Partition, now: Timestamp, limit: usize) -> Result<usize> {
        self.fail()?;
        self.store.sweep(at, now, limit).await
    }

    fn signals(&self) -> Signals {
        self.store.signals()
    }
}

const NOW: Timestamp = Timestamp::EPOCH;

fn failing(kind: ErrorKind) -> Error {
    Error::new(kind, "scripted")
}

fn at_once(store: Scripted) -> RetryStore<Scripted> {
    store.layer(Retry::default().delays(Duration::ZERO, Duration::ZERO))
}

fn batch(store: &impl Store, fill: impl FnOnce(&mut Batch) -> &mut Batch) -> Batch {
    let mut batch = Batch::new(store.partition_of("home"), NOW);
    fill(&mut batch);
    batch
}

fn key() -> Key {
    Key::new("test", "group", "id")
}

#[tokio::test]
async fn every_call_is_repeated_while_the_store_is_unavailable() {
    let scripted = Scripted::new([]);
    let store = at_once(scripted.clone());
    let at = store.partition_of("home");
    let page = Jobs::Page { queue: "queue".into(), after: None, limit: 1 };
    let lease = Lease { queue: "queue".into(), max: 1, hold_for: Duration::ZERO, now: NOW };
    let unfenced = batch(&store, |batch| batch.put(key(), "", Expect::Any));
    for call in 0..7 {
        scripted.failures.lock().unwrap().extend([0; 3].map(|_| failing(ErrorKind::Unavailable)));
        let before = scripted.calls();
        match call {
            0 => drop(store.get(&at, NOW, &[key()]).await.unwrap()),
            1 => drop(store.scan(&at, Scan::new("test", "group", 1, NOW)).await.unwrap()),
            2 => drop(store.read(&at, Read::partition(0, 1)).await.unwrap()),
            3 => drop(store.jobs(&at, page.clone()).await.unwrap()),
            4 => drop(store.lease(&at, lease.clone()).await.unwrap()),
            5 => drop(store.commit(unfenced.clone()).await.unwrap()),
            _ => assert_eq!(store.sweep(&at, NOW, 1).await.unwrap(), 0),
        }
        assert_eq!(scripted.calls() - before, 4, "call {call}");
    }
}

#[tokio::test]
async fn it_gives_up_after_so_many_times() {
    let scripted = Scripted::new([0; 10].map(|_| failing(ErrorKind::Unavailable)));
    let store = scripted.clone().layer(Retry::default().times(2).delays(Duration::ZERO, Duration::ZERO));
    let error = store.get(&store.partition_of("home"), NOW, &[]).await.unwrap_err();
    assert_eq!((error.kind(), scripted.calls()), (ErrorKind::Unavailable, 3));
}

#[tokio::test]
async fn what_will_not_pass_is_not_repeated() {
    for kind in [
        ErrorKind::Conflict,
        ErrorKind::InvalidInput,
        ErrorKind::TooLarge,
        ErrorKind::Corrupt,
        ErrorKind::Config,
        ErrorKind::Unexpected,
    ] {
        let scripted = Scripted::new([failing(kind)]);
        let store = at_once(scripted.clone());
        let fenced = batch(&store, |batch| batch.put(key(), "", Expect::Absent));
        assert_eq!(store.commit(fenced).await.unwrap_err().kind(), kind);
        assert_eq!(scripted.calls(), 1, "{kind}");
    }
    let scripted = Scripted::new([failing(ErrorKind::Unavailable).with_retry(RetryHint::Never)]);
    let store = at_once(scripted.clone());
    store.get(&store.partition_of("home"), NOW, &[]).await.unwrap_err();
    assert_eq!(scripted.calls(), 1, "the hint says never");
}

#[tokio::test]
async fn only_a_fenced_batch_is_sent_again_after_an_unknown_outcome() {
    let token = Token::fresh();
    let event = || NewEvent::new("Happened", "", NOW);
    type Fill = fn(&mut Batch, NewEvent, Token) -> &mut Batch;
    let fenced: [Fill; 3] = [
        |batch, _, _| batch.put(key(), "", Expect::Absent),
        |batch, event, _| batch.append("stream", ExpectStream::NoStream, [event]),
        |batch, event, _| {
            batch.put(key(), "", Expect::Absent).append_any("stream", [event]).push(
                "queue",
                "id",
                NOW,
                "",
                Merge::Keep,
            )
        },
    ];
    let not_fenced: [Fill; 5] = [
        |batch, _, _| batch.put(key(), "", Expect::Any),
        |batch, _, _| batch.delete(key(), Expect::Absent),
        |batch, event, _| batch.append_any("stream", [event]),
        |batch, _, _| batch.append("stream", ExpectStream::NoStream, []),
        |batch, _, _| batch.push("queue", "id", NOW, "", Merge::Sooner),
    ];
    for (fills, calls) in [(&fenced[..], 3), (&not_fenced[..], 1)] {
        for fill in fills {
            let scripted = Scripted::new([0; 2].map(|_| failing(ErrorKind::OutcomeUnknown)));
            let store = at_once(scripted.clone());
            let batch = batch(&store, |batch| fill(batch, event(), token));
            let result = store.commit(batch.clone()).await;
            assert_eq!(result.is_ok(), calls == 3, "{batch:?}: {result:?}");
            assert_eq!(scripted.calls(), calls, "{batch:?}");
            let slice = scripted.store.read(batch.at(), Read::partition(0, 10)).await.unwrap();
            assert!(slice.head <= 1, "applied once: {batch:?}");
        }
    }
}

#[tokio::test]
async fn a_read_whose_outcome_is_unknown_is_not_repeated() {
    let scripted = Scripted::new([failing(ErrorKind::OutcomeUnknown)]);
    let store = at_once(scripted.clone());
    let lease = Lease { queue: "queue".into(), max: 1, hold_for: Duration::ZERO, now: NOW };
    store.lease(&store.partition_of("home"), lease).await.unwrap_err();
    assert_eq!(scripted.calls(), 1);
}

#[tokio::test]
async fn a_hint_of_how_long_to_wait_is_honoured() {
    let clock = ManualClock::default();
    let busy = || failing(ErrorKind::Unavailable).with_retry(RetryHint::After(Duration::from_secs(60)));
    let scripted = Scripted::new([busy(), busy()]);
    let store = scripted.clone().layer(Retry::default().clock(clock.shared()));
    let call = tokio::spawn({
        let store = store.clone();
        async move { store.get(&store.partition_of("home"), NOW, &[]).await }
    });
    for calls in 1..=2 {
        clock.wait_for_sleepers(1).await;
        assert_eq!(scripted.calls(), calls);
        clock.advance(Duration::from_secs(59));
        tokio::task::yield_now().await;
        assert_eq!(scripted.calls(), calls, "not before the time is up");
        clock.advance(Duration::from_secs(1));
        while scripted.calls() == calls {
            tokio::task::yield_now().await;
        }
    }
    call.await.unwrap().unwrap();
    assert_eq!(scripted.calls(), 3);
}

#[tokio::test]
async fn repetitions_are_spaced_by_the_clock() {
    let clock = ManualClock::default();
    let scripted = Scripted::new([failing(ErrorKind::Unavailable)]);
    let store = scripted.clone().layer(
        Retry::default().clock(clock.shared()).delays(Duration::from_secs(10), Duration::from_secs(10)),
    );
    let call = tokio::spawn({
        let store = store.clone();
        async move { store.get(&store.partition_of("home"), NOW, &[]).await }
    });
    clock.wait_for_sleepers(1).await;
    clock.advance(Duration::from_secs(9));
    tokio::task::yield_now().await;
    assert_eq!(scripted.calls(), 1);
    // Twice the delay bounds what jitter adds.
    clock.advance(Duration::from_secs(11));
    call.await.unwrap().unwrap();
    assert_eq!(scripted.calls(), 2);
}
