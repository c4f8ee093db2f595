//! The trouble that the chaos layer makes, and what gets through it.

use std::time::Duration;

use evenkeel_core::layer::Retry;
use evenkeel_core::{
    Batch, Draft, ErrorKind, Expect, ExpectStream, Hold, Job, Jobs, Key, Lease, MemoryStore, NewEvent,
    Partition, Read, Result, Store, StoreExt, Timestamp, Token, Transactional, Tx,
};
use evenkeel_testkit::{Chaos, ChaosStore};
use futures_util::FutureExt;

const NOW: Timestamp = Timestamp::EPOCH;
const HOLD: Duration = Duration::from_secs(60);
const SEEDS: std::ops::Range<u64> = 0..200;

fn home(store: &impl Store) -> Partition {
    store.partition_of("home")
}

fn key(id: impl Into<String>) -> Key {
    Key::new("test", "group", id)
}

fn put(store: &impl Store, id: impl Into<String>) -> Batch {
    let mut batch = Batch::new(home(store), NOW);
    batch.put(key(id), "", Expect::Absent);
    batch
}

async fn is_there(store: &impl Store, id: impl Into<String>) -> bool {
    store.get_one(&home(store), NOW, &key(id)).await.unwrap().is_some()
}

/// The kinds of the answers to a hundred commits.
async fn answers(chaos: Chaos) -> Vec<Option<ErrorKind>> {
    let store = MemoryStore::new().layer(chaos);
    let mut answers = Vec::new();
    for n in 0..100 {
        answers.push(store.commit(put(&store, format!("{n}"))).await.err().map(|error| error.kind()));
    }
    answers
}

#[tokio::test]
async fn the_same_seed_makes_the_same_trouble() {
    let chaos = |seed| Chaos::new(seed).unavailable(0.3).lost_acknowledgements(0.3);
    let first = answers(chaos(1)).await;
    assert_eq!(first, answers(chaos(1)).await);
    assert_ne!(first, answers(chaos(2)).await);
    for outcome in [None, Some(ErrorKind::Unavailable), Some(ErrorKind::OutcomeUnknown)] {
        assert!(first.iter().filter(|found| **found == outcome).count() > 10, "{outcome:?} in {first:?}");
    }
}

#[tokio::test]
async fn without_trouble_asked_for_there_is_none() {
    assert!(answers(Chaos::new(1)).await.iter().all(Option::is_none));
    assert!(answers(Chaos::new(1).delays(5)).await.iter().all(Option::is_none));
}

#[tokio::test]
async fn an_unavailable_call_is_not_made() {
    let database = MemoryStore::new();
    let store = database.clone().layer(Chaos::new(1).unavailable(1.0));
    assert_eq!(store.commit(put(&store, "a")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.begin(home(&store), NOW).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(!is_there(&database, "a").await);
}

#[tokio::test]
async fn a_commit_whose_acknowledgement_is_lost_is_applied() {
    let database = MemoryStore::new();
    let store = database.clone().layer(Chaos::new(1).lost_acknowledgements(1.0));
    assert_eq!(store.commit(put(&store, "a")).await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert!(is_there(&database, "a").await);

    let mut tx = store.begin(home(&store), NOW).await.unwrap();
    tx.conn().await.unwrap().put(key("b"), "");
    assert_eq!(store.finish(tx).await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    assert!(is_there(&database, "b").await);
}

#[tokio::test]
async fn only_the_acknowledgement_of_a_commit_is_lost() {
    let store = MemoryStore::new().layer(Chaos::new(1).lost_acknowledgements(1.0));
    store.get_one(&home(&store), NOW, &key("a")).await.unwrap();
    store.sweep(&home(&store), NOW, 1).await.unwrap();
    let mut failing = put(&store, "a");
    failing.check(key("b"), Expect::Present);
    assert_eq!(store.commit(failing).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_dead_process_learns_nothing_any_more() {
    for seed in 0..20 {
        let database = MemoryStore::new();
        let process = database.clone().layer(Chaos::new(seed).crash_at(3));
        let sibling = process.namespace(process.info().namespace.clone());
        process.commit(put(&process, "1")).await.unwrap();
        sibling.commit(put(&process, "2")).await.unwrap();
        assert!(process.crashed().now_or_never().is_none());

        assert!(process.commit(put(&process, "3")).now_or_never().is_none());
        assert!(process.has_crashed());
        process.crashed().await;
        let batch = put(&process, "4");
        assert!(sibling.commit(batch).now_or_never().is_none());
        assert!(process.read_nothing().now_or_never().is_none());
        assert!(!is_there(&database, "4").await, "what comes after the crash is not made");
        assert_eq!(process.calls(), 5);
    }
}

trait ReadNothing {
    async fn read_nothing(&self);
}

impl ReadNothing for ChaosStore<MemoryStore> {
    async fn read_nothing(&self) {
        let _ = self.get(&home(self), NOW, &[]).await;
    }
}

#[tokio::test]
async fn a_crash_comes_before_the_call_or_after_it() {
    let mut applied = 0;
    for seed in SEEDS {
        let database = MemoryStore::new();
        let process = database.clone().layer(Chaos::new(seed).crash_at(1));
        assert!(process.commit(put(&process, "a")).now_or_never().is_none());
        applied += u64::from(is_there(&database, "a").await);
    }
    let half = SEEDS.end / 2;
    assert!((half - half / 2..half + half / 2).contains(&applied), "{applied} of {} applied", SEEDS.end);
}

#[tokio::test]
async fn a_call_under_way_when_the_process_dies_never_returns() {
    let process = MemoryStore::new().layer(Chaos::new(1).delays(50).crash_at(2));
    let under_way = tokio::spawn({
        let process = process.clone();
        async move { process.commit(put(&process, "a")).await }
    });
    while process.calls() == 0 {
        tokio::task::yield_now().await;
    }
    tokio::select! {
        _ = process.commit(put(&process, "b")) => unreachable!("a dead process learns nothing"),
        () = process.crashed() => {}
    }
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    // The first call may have returned before the second got as far as the crash; not after it.
    if under_way.is_finished() {
        under_way.await.unwrap().unwrap();
    } else {
        under_way.abort();
    }
}

async fn write_in_tx(store: &ChaosStore<MemoryStore>) -> Result<()> {
    let mut tx: Tx<Draft> = store.begin(home(store), NOW).await?;
    tx.conn().await?.put(key("user"), "");
    tx.batch().put(key("batch"), "", Expect::Absent);
    store.finish(tx).await?;
    Ok(())
}

#[tokio::test]
async fn a_transaction_of_a_dead_process_is_applied_whole_or_not_at_all() {
    for crash_at in 1..=2 {
        let mut applied = 0;
        for seed in SEEDS {
            let database = MemoryStore::new();
            let process = database.clone().layer(Chaos::new(seed).crash_at(crash_at));
            assert!(write_in_tx(&process).now_or_never().is_none());
            let (user, batch) = (is_there(&database, "user").await, is_there(&database, "batch").await);
            assert_eq!(user, batch);
            applied += u64::from(batch);
        }
        assert_eq!(applied > 0, crash_at == 2, "only finishing commits");
    }
}

#[tokio::test]
async fn a_job_pushed_leased_by_a_process_that_dies_is_held_or_not_there() {
    for (crash_at, door) in [(1, 1), (1, 2), (2, 2)] {
        let mut applied = 0;
        for seed in SEEDS {
            let database = MemoryStore::new();
            let process = database.clone().layer(Chaos::new(seed).crash_at(crash_at));
            let hold = Hold { token: Token::fresh(), until: NOW + HOLD };
            let mut batch = put(&process, "a");
            batch.push_leased("queue", "a", NOW, "", hold);
            let died = match door {
                1 => process.commit(batch.clone()).now_or_never().is_none(),
                _ => commit_in_tx(&process, &batch).now_or_never().is_none(),
            };
            assert!(died);
            let found = job(&database, "a").await;
            assert_eq!(found.is_some(), is_there(&database, "a").await);
            assert!(found.is_none_or(|job| job.is_held_by(hold.token) && job.attempt == 1));
            applied += u64::from(is_there(&database, "a").await);

            // Whoever knows the batch takes it up; whoever does not has it once the lease has run out.
            database.commit(batch).await.unwrap();
            assert!(job(&database, "a").await.unwrap().is_held_by(hold.token));
            for (wait, attempts) in [(HOLD / 2, vec![]), (HOLD, vec![2])] {
                let want = Lease { queue: "queue".into(), max: 1, hold_for: HOLD, now: NOW + wait };
                let leased = database.lease(&home(&database), want).await.unwrap().jobs;
                assert_eq!(leased.iter().map(|job| job.attempt).collect::<Vec<_>>(), attempts);
            }
        }
        assert_eq!(applied > 0, crash_at == door, "the last call commits");
        assert!(applied < SEEDS.end);
    }
}

async fn commit_in_tx(store: &ChaosStore<MemoryStore>, batch: &Batch) -> Result<()> {
    let mut tx: Tx<Draft> = store.begin(home(store), NOW).await?;
    *tx.batch() = batch.clone();
    store.finish(tx).await?;
    Ok(())
}

async fn job(store: &impl Store, id: &str) -> Option<Job> {
    let want = Jobs::ByIds { queue: "queue".into(), ids: vec![id.into()] };
    store.jobs(&home(store), want).await.unwrap().jobs.pop().map(|(_, job)| job)
}

/// Adds 1 to the counter, and an event to the stream, until nobody comes between.
async fn count_up(store: &impl Store) -> Result<()> {
    loop {
        let at = home(store);
        let before = store.get_one(&at, NOW, &key("counter")).await?;
        let count = before.as_ref().map_or(0, |record| record.value[0]);
        let mut batch = Batch::new(at, NOW);
        batch.put(key("counter"), vec![count + 1], Expect::unchanged(before.as_ref())).append(
            "counted",
            ExpectStream::Version(count.into()),
            [NewEvent::new("Counted", "", NOW)],
        );
        match store.commit(batch).await {
            Ok(_) => return Ok(()),
            Err(error) => drop(error.into_conflict()?),
        }
    }
}

/// One caller counts alone here: with others in between, resending a batch whose acknowledgement
/// was lost may find that they went on from it, which is a conflict and not an answer.
#[tokio::test]
async fn behind_retry_every_fenced_batch_is_applied_exactly_once() {
    const COUNT: u8 = 30;
    let mut repeated = 0;
    for seed in SEEDS {
        let database = MemoryStore::new();
        let chaos = Chaos::new(seed).unavailable(0.2).lost_acknowledgements(0.3).delays(3);
        let troubled = database.clone().layer(chaos);
        let retry = Retry::default().times(1000).delays(Duration::ZERO, Duration::ZERO);
        let store = troubled.clone().layer(retry);
        for _ in 0..COUNT {
            count_up(&store).await.unwrap();
        }
        let record = database.get_one(&home(&database), NOW, &key("counter")).await.unwrap().unwrap();
        assert_eq!(record.value[0], COUNT, "seed {seed}");
        let slice = database.read(&home(&database), Read::stream("counted", 0, 1)).await.unwrap();
        assert_eq!(slice.head, u64::from(COUNT), "seed {seed}");
        repeated += troubled.calls() - 2 * u64::from(COUNT);
    }
    assert!(repeated > 1000, "there was trouble: {repeated} calls more than without");
}

#[tokio::test]
async fn whatever_call_a_process_dies_in_the_next_one_takes_up_its_work() {
    const COUNT: u64 = 5;
    let calls = {
        let store = MemoryStore::new().layer(Chaos::new(0));
        work_through(&store, COUNT).await.unwrap();
        store.calls()
    };
    for seed in 0..50 {
        for crash_at in 1..=calls {
            let database = MemoryStore::new();
            let process = database.clone().layer(Chaos::new(seed).crash_at(crash_at));
            tokio::select! {
                _ = work_through(&process, COUNT) => unreachable!("it dies within its work"),
                () = process.crashed() => {}
            }
            work_through(&database, COUNT).await.unwrap();
            let slice = database.read(&home(&database), Read::partition(0, 100)).await.unwrap();
            assert_eq!(slice.head, COUNT, "seed {seed}, crash at {crash_at}");
        }
    }
}

/// One event for each of `count` things to do, whoever did some already.
async fn work_through(store: &impl Store, count: u64) -> Result<()> {
    for n in 0..count {
        if store.get_one(&home(store), NOW, &key(format!("{n}"))).await?.is_none() {
            let mut batch = put(store, format!("{n}"));
            batch.append_any("done", [NewEvent::new("Done", "", NOW)]);
            store.commit(batch).await?;
        }
    }
    Ok(())
}
