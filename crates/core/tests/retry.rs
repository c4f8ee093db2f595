//! What the retry layer repeats, and what it does not.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_core::layer::{Around, Call, Retry};
use evenkeel_core::{
    Batch, Error, ErrorKind, Expect, ExpectStream, Jobs, Key, Lease, ManualClock, MemoryStore, Merge,
    NewEvent, Read, Result, RetryHint, Scan, Store, StoreExt, Timestamp, Token,
};

/// The next calls fail as scripted; what fails with `OutcomeUnknown` is done.
#[derive(Clone, Debug, Default)]
struct Script {
    failures: Arc<Mutex<VecDeque<Error>>>,
    calls: Arc<AtomicUsize>,
}

impl Script {
    fn new(failures: impl IntoIterator<Item = Error>) -> Self {
        let failures = Arc::new(Mutex::new(failures.into_iter().collect()));
        Self { failures, calls: Arc::default() }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Around for Script {
    async fn call<T: Send>(&self, _: Call<'_>, made: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let failure = self.failures.lock().unwrap().pop_front();
        match failure {
            Some(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                made.await?;
                Err(error)
            }
            Some(error) => Err(error),
            None => made.await,
        }
    }
}

const NOW: Timestamp = Timestamp::EPOCH;

fn failing(kind: ErrorKind) -> Error {
    Error::new(kind, "scripted")
}

fn at_once(store: impl Store, script: &Script) -> impl Store {
    store.layer(script.clone()).layer(Retry::default().delays(Duration::ZERO, Duration::ZERO))
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
    let script = Script::new([]);
    let store = at_once(MemoryStore::new(), &script);
    let at = store.partition_of("home");
    let page = Jobs::Page { queue: "queue".into(), after: None, limit: 1 };
    let lease = Lease { queue: "queue".into(), max: 1, hold_for: Duration::ZERO, now: NOW };
    let unfenced = batch(&store, |batch| batch.put(key(), "", Expect::Any));
    for call in 0..7 {
        script.failures.lock().unwrap().extend([0; 3].map(|_| failing(ErrorKind::Unavailable)));
        let before = script.calls();
        match call {
            0 => drop(store.get(&at, NOW, &[key()]).await.unwrap()),
            1 => drop(store.scan(&at, Scan::new("test", "group", 1, NOW)).await.unwrap()),
            2 => drop(store.read(&at, Read::partition(0, 1)).await.unwrap()),
            3 => drop(store.jobs(&at, page.clone()).await.unwrap()),
            4 => drop(store.lease(&at, lease.clone()).await.unwrap()),
            5 => drop(store.commit(unfenced.clone()).await.unwrap()),
            _ => assert_eq!(store.sweep(&at, NOW, 1).await.unwrap(), 0),
        }
        assert_eq!(script.calls() - before, 4, "call {call}");
    }
}

#[tokio::test]
async fn it_gives_up_after_so_many_times() {
    let script = Script::new([0; 10].map(|_| failing(ErrorKind::Unavailable)));
    let store = MemoryStore::new()
        .layer(script.clone())
        .layer(Retry::default().times(2).delays(Duration::ZERO, Duration::ZERO));
    let error = store.get(&store.partition_of("home"), NOW, &[]).await.unwrap_err();
    assert_eq!((error.kind(), script.calls()), (ErrorKind::Unavailable, 3));
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
        let script = Script::new([failing(kind)]);
        let store = at_once(MemoryStore::new(), &script);
        let fenced = batch(&store, |batch| batch.put(key(), "", Expect::Absent));
        assert_eq!(store.commit(fenced).await.unwrap_err().kind(), kind);
        assert_eq!(script.calls(), 1, "{kind}");
    }
    let script = Script::new([failing(ErrorKind::Unavailable).with_retry(RetryHint::Never)]);
    let store = at_once(MemoryStore::new(), &script);
    store.get(&store.partition_of("home"), NOW, &[]).await.unwrap_err();
    assert_eq!(script.calls(), 1, "the hint says never");
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
            let script = Script::new([0; 2].map(|_| failing(ErrorKind::OutcomeUnknown)));
            let database = MemoryStore::new();
            let store = at_once(database.clone(), &script);
            let batch = batch(&store, |batch| fill(batch, event(), token));
            let result = store.commit(batch.clone()).await;
            assert_eq!(result.is_ok(), calls == 3, "{batch:?}: {result:?}");
            assert_eq!(script.calls(), calls, "{batch:?}");
            let slice = database.read(batch.at(), Read::partition(0, 10)).await.unwrap();
            assert!(slice.head <= 1, "applied once: {batch:?}");
        }
    }
}

#[tokio::test]
async fn a_read_whose_outcome_is_unknown_is_not_repeated() {
    let script = Script::new([failing(ErrorKind::OutcomeUnknown)]);
    let store = at_once(MemoryStore::new(), &script);
    let lease = Lease { queue: "queue".into(), max: 1, hold_for: Duration::ZERO, now: NOW };
    store.lease(&store.partition_of("home"), lease).await.unwrap_err();
    assert_eq!(script.calls(), 1);
}

#[tokio::test]
async fn a_hint_of_how_long_to_wait_is_honoured() {
    let clock = ManualClock::default();
    let busy = || failing(ErrorKind::Unavailable).with_retry(RetryHint::After(Duration::from_secs(60)));
    let script = Script::new([busy(), busy()]);
    let store = MemoryStore::new().layer(script.clone()).layer(Retry::default().clock(clock.shared()));
    let call = tokio::spawn({
        let store = store.clone();
        async move { store.get(&store.partition_of("home"), NOW, &[]).await }
    });
    for calls in 1..=2 {
        clock.wait_for_sleepers(1).await;
        assert_eq!(script.calls(), calls);
        clock.advance(Duration::from_secs(59));
        tokio::task::yield_now().await;
        assert_eq!(script.calls(), calls, "not before the time is up");
        clock.advance(Duration::from_secs(1));
        while script.calls() == calls {
            tokio::task::yield_now().await;
        }
    }
    call.await.unwrap().unwrap();
    assert_eq!(script.calls(), 3);
}

#[tokio::test]
async fn repetitions_are_spaced_by_the_clock() {
    let clock = ManualClock::default();
    let script = Script::new([failing(ErrorKind::Unavailable)]);
    let store = MemoryStore::new().layer(script.clone()).layer(
        Retry::default().clock(clock.shared()).delays(Duration::from_secs(10), Duration::from_secs(10)),
    );
    let call = tokio::spawn({
        let store = store.clone();
        async move { store.get(&store.partition_of("home"), NOW, &[]).await }
    });
    clock.wait_for_sleepers(1).await;
    clock.advance(Duration::from_secs(9));
    tokio::task::yield_now().await;
    assert_eq!(script.calls(), 1);
    // Twice the delay bounds what jitter adds.
    clock.advance(Duration::from_secs(11));
    call.await.unwrap().unwrap();
    assert_eq!(script.calls(), 2);
}
