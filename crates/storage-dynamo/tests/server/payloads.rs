//! What is pushed to a leased job and is too long for its item has one of its own: that none is lost, and
//! none is left over.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use evenkeel_core::{
    Batch, Error, ErrorKind, Hold, Job, Jobs, Lease, LeasedJob, ManualClock, Merge, Result, Store,
    SystemClock, Token,
};
use evenkeel_storage_dynamo::DynamoStore;

use crate::meddler::{Meddler, Trick};
use crate::shop::{at, batch, new_store, now};

const HOLD: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// DynamoDB is too busy.
const THROTTLED: Trick = Trick::Answer(
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"slow down"}"#,
);

/// The commit is refused, and not made again.
const REFUSED: Trick =
    Trick::Answer(r#"{"__type":"com.amazonaws.dynamodb.v20120810#AccessDeniedException","message":"no"}"#);

/// The longest payload, made of one letter.
fn long(letter: u8) -> Vec<u8> {
    vec![letter; 350 * 1024]
}

fn push(store: &DynamoStore, payload: Vec<u8>, merge: Merge) -> Batch {
    batch(store, |batch| batch.push("q", "a", now(), payload, merge))
}

async fn lease_after(store: &DynamoStore, wait: Duration) -> LeasedJob {
    let want = Lease { queue: "q".into(), max: 1, hold_for: HOLD, now: now() + wait };
    store.lease(&at(store), want).await.unwrap().jobs.remove(0)
}

async fn job(store: &DynamoStore) -> Result<Option<Job>> {
    let page = Jobs::Page { queue: "q".into(), after: None, limit: 10 };
    Ok(store.jobs(&at(store), page).await?.jobs.pop().map(|(_, job)| job))
}

/// Leases a job with a long payload, and pushes another to it.
async fn hold_with_two(store: &DynamoStore, merge: Merge) -> LeasedJob {
    store.commit(push(store, long(b'1'), Merge::Keep)).await.unwrap();
    let held = lease_after(store, Duration::ZERO).await;
    store.commit(push(store, long(b'2'), merge)).await.unwrap();
    assert_eq!(payloads(store).await.len(), 1);
    held
}

/// The keys of all items in the table, but of the one that says what it is.
async fn items(store: &DynamoStore) -> Vec<HashMap<String, AttributeValue>> {
    let scan = store.client().scan().table_name(store.table()).consistent_read(true);
    let items = scan.projection_expression("pk, sk").into_paginator().items().send();
    let items: Vec<HashMap<_, _>> = items.try_collect().await.unwrap();
    items.into_iter().filter(|item| item["pk"].as_s().unwrap() != "evenkeel").collect()
}

/// The keys of those that are payloads.
async fn payloads(store: &DynamoStore) -> Vec<HashMap<String, AttributeValue>> {
    let prefix = format!("{}/p/", at(store));
    let is_payload = |item: &HashMap<String, AttributeValue>| item["pk"].as_s().unwrap().starts_with(&prefix);
    items(store).await.into_iter().filter(is_payload).collect()
}

async fn sweep_after(store: &DynamoStore, wait: Duration) -> usize {
    store.sweep(&at(store), now() + wait, 100).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_job_that_is_gone() {
    let store = new_store().await;
    let ack = |held: LeasedJob| batch(&store, |batch| batch.ack("q", "a", held.token));
    let retry = |held: LeasedJob| batch(&store, |batch| batch.retry("q", "a", held.token, now()));
    let cancel = || batch(&store, |batch| batch.cancel("q", "a"));
    for merge in [Merge::Keep, Merge::Sooner] {
        // Cancelled while it waits.
        hold_with_two(&store, merge).await;
        store.commit(cancel()).await.unwrap();
        assert_eq!(items(&store).await, []);

        // Acknowledged, so that what was pushed is the job; cancelled, or acknowledged again.
        let held = hold_with_two(&store, merge).await;
        store.commit(ack(held)).await.unwrap();
        assert_eq!(payloads(&store).await.len(), 1);
        store.commit(cancel()).await.unwrap();
        assert_eq!(items(&store).await, []);
        let held = hold_with_two(&store, merge).await;
        store.commit(ack(held)).await.unwrap();
        let held = lease_after(&store, Duration::ZERO).await;
        assert!(held.payload == long(b'2'));
        store.commit(ack(held)).await.unwrap();
        assert_eq!(items(&store).await, []);

        // Retried, or taken over: what was kept is gone with the lease.
        let kept = usize::from(merge == Merge::Sooner);
        let held = hold_with_two(&store, merge).await;
        store.commit(retry(held)).await.unwrap();
        assert_eq!(payloads(&store).await.len(), kept);
        let held = lease_after(&store, Duration::ZERO).await;
        store.commit(ack(held)).await.unwrap();
        assert_eq!(items(&store).await, []);
        hold_with_two(&store, merge).await;
        let held = lease_after(&store, HOLD * 2).await;
        assert_eq!(payloads(&store).await.len(), kept);
        store.commit(ack(held)).await.unwrap();
        assert_eq!(items(&store).await, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pushed_makes_room_for_more() {
    let store = new_store().await;
    let ends: [fn(&mut Batch, &LeasedJob); 3] = [
        |batch, held| {
            batch.ack("q", "a", held.token);
        },
        |batch, held| {
            batch.retry("q", "a", held.token, now());
        },
        |batch, _| {
            batch.cancel("q", "a");
        },
    ];
    for (end, left) in ends.into_iter().zip([1, 1, 0]) {
        let held = hold_with_two(&store, Merge::Sooner).await;
        store.commit(batch(&store, |batch| batch.ack("q", "a", held.token))).await.unwrap();
        let held = lease_after(&store, Duration::ZERO).await;
        store.commit(push(&store, long(b'3'), Merge::Sooner)).await.unwrap();
        assert_eq!(payloads(&store).await.len(), 2);
        let found = job(&store).await.unwrap().unwrap();
        assert!(found.payload == long(b'2') && found.pending.unwrap().payload == long(b'3'));
        let mut ended = batch(&store, |batch| batch);
        end(&mut ended, &held);
        store.commit(ended).await.unwrap();
        assert_eq!(payloads(&store).await.len(), left);
        let found = job(&store).await.unwrap();
        assert!(found.is_none_or(|found| found.payload == long(b'3')));
        store.commit(batch(&store, |batch| batch.cancel("q", "a"))).await.unwrap();
        assert_eq!(items(&store).await, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_payload_may_be_pushed_again() {
    let store = new_store().await;
    store.commit(push(&store, long(b'1'), Merge::Keep)).await.unwrap();
    let held = lease_after(&store, Duration::ZERO).await;
    store.commit(push(&store, long(b'1'), Merge::Sooner)).await.unwrap();
    store.commit(push(&store, long(b'1'), Merge::Sooner)).await.unwrap();
    assert_eq!(payloads(&store).await.len(), 1);
    store.commit(batch(&store, |batch| batch.retry("q", "a", held.token, now()))).await.unwrap();
    let held = lease_after(&store, Duration::ZERO).await;
    assert!(held.payload == long(b'1'));
    store.commit(batch(&store, |batch| batch.ack("q", "a", held.token))).await.unwrap();
    assert_eq!(items(&store).await, []);
}

// On one thread, so that both commits wait before either is made, and are folded.
#[tokio::test]
async fn a_push_beside_one_that_holds_the_job_may_be_long() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    // The second two fit one item, but not while what was pushed becomes the job's payload.
    for (own, pushed, requests) in [(10, 10, 1), (60_000, 210_000, 4), (350_000, 350_000, 4)] {
        let hold = Hold { token: Token::fresh(), until: now() + HOLD };
        let (own, pushed) = (vec![b'1'; own], vec![b'2'; pushed]);
        let held = batch(&store, |batch| batch.push_leased("q", "a", now(), own.clone(), hold));
        let push = push(&store, pushed.clone(), Merge::Sooner);
        let (held, push) = tokio::join!(store.commit(held), store.commit(push));
        held.unwrap();
        push.unwrap();
        assert_eq!(meddler.kinds().len(), requests);
        let found = job(&store).await.unwrap().unwrap();
        assert!(found.payload == own && found.pending.unwrap().payload == pushed);
        store.commit(batch(&store, |batch| batch.retry("q", "a", hold.token, now()))).await.unwrap();
        let held = lease_after(&store, Duration::ZERO).await;
        assert!(held.attempt == 2 && held.payload == pushed);
        store.commit(batch(&store, |batch| batch.ack("q", "a", held.token))).await.unwrap();
        assert_eq!(items(&store).await, []);
        meddler.seen();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_leaves_nothing_of_the_one_that_it_replaces() {
    let store = new_store().await;
    let held = hold_with_two(&store, Merge::Sooner).await;
    store.commit(push(&store, long(b'3'), Merge::Sooner)).await.unwrap();
    assert_eq!(payloads(&store).await.len(), 1);
    assert!(job(&store).await.unwrap().unwrap().pending.unwrap().payload == long(b'3'));
    // A short one fits beside the job's own.
    store.commit(push(&store, b"4".to_vec(), Merge::Sooner)).await.unwrap();
    assert_eq!(payloads(&store).await, []);
    let found = job(&store).await.unwrap().unwrap();
    assert!(found.payload == long(b'1') && found.pending.unwrap().payload == "4");
    store.commit(batch(&store, |batch| batch.ack("q", "a", held.token))).await.unwrap();
    assert_eq!(job(&store).await.unwrap().unwrap().payload, "4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_lease_sends_no_payload() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    for second in [long(b'2'), vec![b'2'; 40_000]] {
        store.commit(push(&store, long(b'1'), Merge::Keep)).await.unwrap();
        let held = lease_after(&store, Duration::ZERO).await;
        store.commit(push(&store, second.clone(), Merge::Sooner)).await.unwrap();
        meddler.seen();
        store.commit(batch(&store, |batch| batch.retry("q", "a", held.token, now()))).await.unwrap();
        let longest = meddler.seen().iter().map(|seen| seen.body.to_string().len()).max().unwrap();
        assert!(longest < 2_000, "{longest} bytes");
        let held = lease_after(&store, Duration::ZERO).await;
        assert!(held.payload == second);
        store.commit(batch(&store, |batch| batch.ack("q", "a", held.token))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_long_pushes_as_fit_a_batch_are_one_transaction() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    let ids: Vec<String> = (0..90).map(|n| format!("{n:02}")).collect();
    let (long_ones, short_ones) = ids.split_at(20);
    for id in long_ones {
        let push = batch(&store, |batch| batch.push("q", &**id, now(), long(b'1'), Merge::Keep));
        store.commit(push).await.unwrap();
    }
    let short = batch(&store, |batch| {
        short_ones.iter().fold(batch, |batch, id| batch.push("q", &**id, now(), "1", Merge::Keep))
    });
    store.commit(short).await.unwrap();
    let want = Lease { queue: "q".into(), max: 90, hold_for: HOLD, now: now() };
    let leased = store.lease(&at(&store), want).await.unwrap().jobs;
    assert_eq!(leased.len(), 90);

    let pushes = batch(&store, |batch| {
        let payload = |id| vec![b'2'; if long_ones.contains(id) { 48_000 } else { 10 }];
        ids.iter().fold(batch, |batch, id| batch.push("q", &**id, now(), payload(id), Merge::Sooner))
    });
    assert_eq!(pushes.units(), store.info().limits.units);
    store.commit(pushes).await.unwrap();
    assert_eq!(payloads(&store).await.len(), long_ones.len());
    let acks =
        batch(&store, |batch| leased.iter().fold(batch, |batch, job| batch.ack("q", &*job.id, job.token)));
    store.commit(acks).await.unwrap();

    let want = Lease { queue: "q".into(), max: 90, hold_for: HOLD, now: now() };
    let leased = store.lease(&at(&store), want).await.unwrap().jobs;
    assert!(leased.len() == 90 && leased.iter().all(|job| job.payload[0] == b'2'));
    let acks =
        batch(&store, |batch| leased.iter().fold(batch, |batch, job| batch.ack("q", &*job.id, job.token)));
    store.commit(acks).await.unwrap();
    assert_eq!(items(&store).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failed_commit_left_is_swept() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    store.commit(push(&store, long(b'1'), Merge::Keep)).await.unwrap();
    let held = lease_after(&store, Duration::ZERO).await;
    meddler.meddle("UpdateItem", [REFUSED]);
    store.commit(push(&store, long(b'2'), Merge::Sooner)).await.unwrap_err();
    assert_eq!(payloads(&store).await.len(), 1);

    assert_eq!(sweep_after(&store, Duration::ZERO).await, 0, "a commit may be under way");
    assert_eq!(sweep_after(&store, HOUR).await, 1);
    assert_eq!(payloads(&store).await, []);
    assert_eq!(sweep_after(&store, HOUR).await, 0);
    let found = job(&store).await.unwrap().unwrap();
    assert!(found.payload == long(b'1') && found.pending.is_none());
    store.commit(batch(&store, |batch| batch.ack("q", "a", held.token))).await.unwrap();
    assert_eq!(items(&store).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_removed_is_swept() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    let held = hold_with_two(&store, Merge::Keep).await;
    meddler.meddle("DeleteItem", [REFUSED]);
    store.commit(batch(&store, |batch| batch.retry("q", "a", held.token, now()))).await.unwrap();
    assert_eq!(payloads(&store).await.len(), 1);
    store.commit(batch(&store, |batch| batch.cancel("q", "a"))).await.unwrap();
    assert_eq!(sweep_after(&store, HOUR).await, 1);
    assert_eq!(items(&store).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_refers_to_is_not_swept() {
    let store = new_store().await;
    let held = hold_with_two(&store, Merge::Sooner).await;
    assert_eq!(sweep_after(&store, HOUR).await, 0);
    store.commit(batch(&store, |batch| batch.ack("q", "a", held.token))).await.unwrap();
    assert_eq!(sweep_after(&store, HOUR).await, 0);
    assert!(lease_after(&store, Duration::ZERO).await.payload == long(b'2'));
}

/// Waits until a request of a kind was made.
async fn until_seen(meddler: &Meddler, kind: &str) {
    let seen = async {
        while !meddler.kinds().iter().any(|seen| seen == kind) {
            tokio::task::yield_now().await;
        }
    };
    let clock = SystemClock::shared();
    let in_time = clock.timeout_at(clock.now() + Duration::from_secs(60), seen).await;
    assert!(in_time.is_some(), "no {kind}");
}

/// Two handles of one store; the first goes through the meddler and waits only where the clock says so.
async fn two_handles(meddler: &Meddler, clock: &ManualClock) -> [DynamoStore; 2] {
    let other = Meddler::new().new_store().await;
    let config = meddler.config(other.table()).clock(clock.shared()).unchecked_clock();
    [meddler.open(config).await, other]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_payload_was_swept_begins_anew() {
    let (meddler, clock) = (Meddler::new(), ManualClock::default());
    let [slow, other] = two_handles(&meddler, &clock).await;
    other.commit(push(&other, long(b'1'), Merge::Keep)).await.unwrap();
    let held = lease_after(&other, Duration::ZERO).await;

    meddler.meddle("UpdateItem", [THROTTLED]);
    let commit = tokio::spawn({
        let (slow, push) = (slow.clone(), push(&slow, long(b'2'), Merge::Sooner));
        async move { slow.commit(push).await }
    });
    until_seen(&meddler, "UpdateItem").await;
    assert_eq!(sweep_after(&other, HOUR).await, 1, "no job refers to it yet");
    clock.advance(HOUR);
    commit.await.unwrap().unwrap();

    assert!(job(&other).await.unwrap().unwrap().pending.unwrap().payload == long(b'2'));
    other.commit(batch(&other, |batch| batch.ack("q", "a", held.token))).await.unwrap();
    assert!(lease_after(&other, Duration::ZERO).await.payload == long(b'2'));
    assert_eq!(payloads(&other).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_let_go_of_its_payload_is_looked_at_again() {
    let (meddler, clock) = (Meddler::new(), ManualClock::default());
    let [slow, other] = two_handles(&meddler, &clock).await;
    let held = hold_with_two(&other, Merge::Keep).await;

    meddler.meddle("GetItem", [THROTTLED]);
    let look = tokio::spawn(async move { job(&slow).await });
    until_seen(&meddler, "GetItem").await;
    other.commit(batch(&other, |batch| batch.retry("q", "a", held.token, now()))).await.unwrap();
    clock.advance(HOUR);
    let found = look.await.unwrap().unwrap().unwrap();
    assert!(found.payload == long(b'1') && found.lease.is_none() && found.pending.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_is_missing_is_corrupt() {
    let store = new_store().await;
    let held = hold_with_two(&store, Merge::Sooner).await;
    for payload in payloads(&store).await {
        let removal = store.client().delete_item().table_name(store.table()).set_key(Some(payload));
        removal.send().await.unwrap();
    }
    let assert_corrupt = |error: &Error| {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert!(error.to_string().contains("payload that a job refers to is missing"), "{error}");
    };
    assert_corrupt(&job(&store).await.unwrap_err());
    let ack = batch(&store, |batch| batch.ack("q", "a", held.token));
    assert_corrupt(&store.commit(ack).await.unwrap_err());
}
