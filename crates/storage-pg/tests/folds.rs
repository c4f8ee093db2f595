//! A fold means what its batches mean one after another.

mod common;

use std::time::Duration;

use common::{Home, key, partition};
use evenkeel_core::{
    Batch, Committed, Conflict, Error, Expect, ExpectStream, Hold, Jobs, Lease, MemoryStore, Merge, NewEvent,
    Read, Store, Timestamp, Token, Version,
};
use evenkeel_storage_pg::PgStore;
use evenkeel_testkit::services;
use fastrand::Rng;
use uuid::Uuid;

evenkeel_testkit::server_tests! {
    "pg", services::pg_url => [
        a_fold_means_what_its_batches_mean_one_after_another,
        a_fold_of_few_records_means_what_its_batches_mean_one_after_another,
    ],
}

const START: Timestamp = Timestamp::from_micros(1_000_000_000_000_000);

fn any_of<T: Copy>(random: &mut Rng, these: &[T]) -> T {
    these[random.usize(..these.len())]
}

/// Now and then, a batch that was there before.
fn sent_again(random: &mut Rng, before: &[Batch]) -> Option<Batch> {
    if random.u8(..8) == 0 { random.choice(before).cloned() } else { None }
}

/// A batch about some of these records.
fn random_records(store: &PgStore, random: &mut Rng, before: &[Batch], ids: &[&str]) -> Batch {
    let now = START + Duration::from_secs(random.u64(..4));
    let mut batch = Batch::new(partition(store), now);
    let expect = |random: &mut Rng| {
        let version = random.choice(before).map_or(Version(Uuid::nil()), Batch::version);
        any_of(random, &[Expect::Any, Expect::Any, Expect::Absent, Expect::Present, Expect::Version(version)])
    };
    for &id in ids {
        let expected = expect(random);
        match random.u8(..6) {
            0 => batch.put(key(id), format!("{now} {id}"), expected),
            1 => batch.put_until(key(id), "", expected, START + Duration::from_secs(2)),
            2 => batch.delete(key(id), expected),
            3 => batch.check(key(id), expected),
            _ => &mut batch,
        };
    }
    batch
}

/// A batch about a few records, streams and jobs, so that many batches name the same.
fn random_batch(store: &PgStore, random: &mut Rng, before: &[Batch], tokens: &[Token]) -> Batch {
    let mut batch = random_records(store, random, before, &["a", "b", "c"]);
    let now = batch.now();
    for stream in ["s", "t"] {
        let expected = match random.u8(..8) {
            0 => ExpectStream::NoStream,
            1 => ExpectStream::Exists,
            2 => ExpectStream::Version(random.u64(..6)),
            _ => ExpectStream::Any,
        };
        match random.u8(..6) {
            0 | 1 => {
                let events = (0..random.u8(..4)).map(|n| NewEvent::new("Happened", vec![n], now));
                batch.append(stream, expected, events.collect::<Vec<_>>())
            }
            2 => batch.trim(stream, random.u64(..4)),
            _ => &mut batch,
        };
    }
    for (id, &token) in ["x", "y", "z"].into_iter().zip(tokens) {
        let token = if random.u8(..6) == 0 { Token::fresh() } else { token };
        let at = now + Duration::from_secs(random.u64(..9));
        let merge = any_of(random, &[Merge::Keep, Merge::Sooner]);
        match random.u8(..12) {
            0..3 => batch.push("queue", id, at, format!("{at}"), merge),
            3 => batch.ack("queue", id, token),
            4 => batch.retry("queue", id, token, at),
            5 => batch.extend("queue", id, token, at),
            6 => batch.cancel("queue", id),
            7 => batch.push_leased("queue", id, at, format!("{at}"), Hold { token, until: at }),
            _ => &mut batch,
        };
    }
    batch
}

/// A verdict without what differs by the store: what the error says in words.
fn verdict(answer: Result<Committed, Error>) -> Result<Committed, Box<Conflict>> {
    answer.map_err(|error| Box::new(error.into_conflict().expect("every batch is valid")))
}

/// Has both stores lease the same jobs with the same tokens.
async fn lease_all(home: &Home, store: &PgStore, memory: &MemoryStore) -> Vec<Token> {
    let at = partition(store);
    let mut push = Batch::new(at.clone(), START);
    for id in ["x", "y", "z"] {
        push.push("queue", id, START, "first", Merge::Keep);
    }
    store.commit(push.clone()).await.unwrap();
    memory.commit(push).await.unwrap();
    let want = Lease { queue: "queue".into(), max: 3, hold_for: Duration::from_secs(60), now: START };
    store.lease(&at, want.clone()).await.unwrap();
    let leased = memory.lease(&at, want).await.unwrap().jobs;
    for job in &leased {
        home.run(&format!("UPDATE evenkeel.job SET token = '{}' WHERE id = '{}'", job.token.0, job.id)).await;
    }
    leased.into_iter().map(|job| job.token).collect()
}

async fn a_fold_means_what_its_batches_mean_one_after_another() {
    for seed in 0..12 {
        let home = Home::shared();
        let store = home.config().unchecked_clock().open().await.unwrap();
        let memory = MemoryStore::new();
        let random = &mut Rng::with_seed(seed);
        let tokens = lease_all(&home, &store, &memory).await;
        let mut batches: Vec<Batch> = Vec::new();
        for _ in 0..60 {
            let batch = sent_again(random, &batches)
                .unwrap_or_else(|| random_batch(&store, random, &batches, &tokens));
            batches.push(batch);
        }
        one_fold(&home, &store, &memory, &batches, seed).await;
    }
}

/// They are committed by a function of their own, one by one.
async fn a_fold_of_few_records_means_what_its_batches_mean_one_after_another() {
    for seed in 0..4 {
        let home = Home::shared();
        let store = home.config().unchecked_clock().open().await.unwrap();
        let memory = MemoryStore::new();
        let random = &mut Rng::with_seed(seed);
        let mut batches: Vec<Batch> = Vec::new();
        for _ in 0..25 {
            let before = batches.len();
            for _ in 0..4 {
                // So few that what they expect is now and then what stands there.
                let recent = &batches[batches.len().saturating_sub(6)..];
                let batch = sent_again(random, recent)
                    .unwrap_or_else(|| random_records(&store, random, recent, &["a", "b"]));
                batches.push(batch);
            }
            one_fold(&home, &store, &memory, &batches[before..], seed).await;
        }
    }
}

/// Has the store commit the batches as one fold, and compares with one after another.
async fn one_fold(home: &Home, store: &PgStore, memory: &MemoryStore, batches: &[Batch], seed: u64) {
    let verdicts = common::commit_as_one_fold(home, store, batches).await;
    for (nth, (batch, found)) in batches.iter().zip(verdicts).enumerate() {
        let expected = verdict(memory.commit(batch.clone()).await);
        assert_eq!(verdict(found), expected, "seed {seed}, batch {nth}: {batch:?}");
    }
    let at = partition(store);
    let keys = ["a", "b", "c"].map(key);
    assert_eq!(store.get(&at, START, &keys).await.unwrap(), memory.get(&at, START, &keys).await.unwrap());
    let log = Read::partition(0, 1_000);
    assert_eq!(store.read(&at, log.clone()).await.unwrap(), memory.read(&at, log).await.unwrap());
    let jobs = Jobs::Page { queue: "queue".into(), after: None, limit: 10 };
    assert_eq!(store.jobs(&at, jobs.clone()).await.unwrap(), memory.jobs(&at, jobs).await.unwrap());
}
