use std::collections::HashSet;
use std::time::Duration;

use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::operation::transact_write_items::builders::TransactWriteItemsFluentBuilder;
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use evenkeel_core::{
    Batch, ErrorKind, Expect, ExpectStream, Found, Hold, Lease, LeasedJob, Merge, NewEvent, Read, Store,
    Token, Version,
};
use evenkeel_storage_dynamo::{Decorate, DynamoStore, TableOptions};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::meddler::{Meddler, Trick};
use crate::shop::{at, batch, claim, exists, head, key, new_table, now};

const THROTTLED: Trick = Trick::Answer(
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"slow down"}"#,
);

const EXCEEDED: Trick = Trick::Answer(
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"slow"}"#,
);

const IN_CONFLICT: Trick = Trick::Answer(
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","message":"cancelled",
        "CancellationReasons":[{"Code":"None"},{"Code":"TransactionConflict","Message":"ongoing"}]}"#,
);

/// The head of the log, the second of what an append writes, is not judged; the page seems to stand.
const HEAD_IN_CONFLICT: Trick = Trick::Answer(
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","message":"cancelled",
        "CancellationReasons":[{"Code":"None"},{"Code":"TransactionConflict","Message":"ongoing"},
            {"Code":"ConditionalCheckFailed","Message":"failed"},{"Code":"None"}]}"#,
);

const IN_PROGRESS: Trick = Trick::Answer(
    r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionInProgressException","Message":"patience"}"#,
);

/// A batch of two records, which is a transaction.
fn pair(store: &DynamoStore, id: &str) -> Batch {
    batch(store, |batch| {
        batch.put(key(id), "", Expect::Absent).put(key(&format!("{id}'")), "", Expect::Absent)
    })
}

/// A batch that creates a job which it holds.
fn push_leased(store: &DynamoStore, id: &str) -> Batch {
    let hold = Hold { token: Token::fresh(), until: now() + Duration::from_secs(60) };
    batch(store, |batch| batch.push_leased("q", id, now(), "", hold))
}

fn append(store: &DynamoStore, stream: &str, expect: ExpectStream) -> Batch {
    batch(store, |batch| batch.append(stream, expect, [NewEvent::new("E", "{}", now())]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_as_expected_costs_one_request() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    let created = store.commit(claim(&store, "a")).await.unwrap();
    assert_eq!(meddler.kinds(), ["PutItem"]);
    let expect = Expect::Version(created.version);
    store.commit(batch(&store, |batch| batch.put(key("a"), "", expect))).await.unwrap();
    assert_eq!(meddler.kinds(), ["PutItem"]);
    store.commit(batch(&store, |batch| batch.delete(key("a"), Expect::Present))).await.unwrap();
    assert_eq!(meddler.kinds(), ["DeleteItem"]);
    store.commit(pair(&store, "b")).await.unwrap();
    assert_eq!(meddler.kinds(), ["TransactWriteItems"]);
    store.commit(batch(&store, |batch| batch)).await.unwrap();
    assert_eq!(meddler.kinds(), [""; 0]);

    let pushed = batch(&store, |batch| batch.push("q", "a", now(), "", Merge::Keep));
    store.commit(pushed).await.unwrap();
    assert_eq!(meddler.kinds(), ["PutItem"]);
    let want = Lease { queue: "q".into(), max: 1, hold_for: Duration::from_secs(60), now: now() };
    let leased = store.lease(&at(&store), want).await.unwrap().jobs.remove(0);
    assert_eq!(meddler.kinds(), ["Query", "UpdateItem"]);
    let later = now() + Duration::from_secs(90);
    store.commit(batch(&store, |batch| batch.extend("q", "a", leased.token, later))).await.unwrap();
    assert_eq!(meddler.kinds(), ["UpdateItem"]);
    store.commit(push_leased(&store, "b")).await.unwrap();
    assert_eq!(meddler.kinds(), ["PutItem"]);
    store.commit(batch(&store, |batch| batch.ack("q", "a", leased.token))).await.unwrap();
    assert_eq!(meddler.kinds(), ["DeleteItem"]);

    // The first append of a process looks where the log ends.
    store.commit(append(&store, "s", ExpectStream::NoStream)).await.unwrap();
    assert_eq!(meddler.kinds(), ["GetItem", "TransactWriteItems"]);
    for n in 1..4 {
        store.commit(append(&store, "s", ExpectStream::Version(n))).await.unwrap();
        store.commit(append(&store, &format!("s{n}"), ExpectStream::NoStream)).await.unwrap();
        assert_eq!(meddler.kinds(), ["TransactWriteItems"; 2]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unsynced_batch_is_written_like_any() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    let mut claim = claim(&store, "a");
    store.commit(claim.clone()).await.unwrap();
    let synced = meddler.seen().remove(0);
    store.commit(batch(&store, |batch| batch.delete(key("a"), Expect::Present))).await.unwrap();
    meddler.seen();
    claim.set_unsynced();
    store.commit(claim).await.unwrap();
    assert_eq!(meddler.seen().remove(0).body, synced.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_as_expected_costs_one_request_too() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    store.commit(claim(&store, "a")).await.unwrap();
    meddler.seen();
    for expect in [Expect::Absent, Expect::Version(Version(Uuid::nil()))] {
        let put = batch(&store, |batch| batch.put(key("a"), "", expect));
        assert!(store.commit(put).await.unwrap_err().into_conflict().is_ok());
        assert_eq!(meddler.kinds(), ["PutItem"]);
    }
    store.commit(push_leased(&store, "a")).await.unwrap();
    meddler.seen();
    assert!(store.commit(push_leased(&store, "a")).await.unwrap_err().into_conflict().is_ok());
    assert_eq!(meddler.kinds(), ["PutItem"]);
    let error = store.commit(append(&store, "s", ExpectStream::Version(u64::MAX))).await.unwrap_err();
    assert_eq!(error.into_conflict().unwrap().op, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_with_nothing_in_common_are_not_made_a_transaction() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    let ids: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    for committed in join_all(ids.iter().map(|id| store.commit(claim(&store, id)))).await {
        committed.unwrap();
    }
    assert_eq!(meddler.kinds(), ["PutItem"; 40]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_of_one_process_are_folded() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    let streams: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let appends = streams.iter().map(|stream| store.commit(append(&store, stream, ExpectStream::NoStream)));
    for committed in join_all(appends).await {
        committed.unwrap();
    }
    assert_eq!(head(&store).await, 40);
    let transactions = meddler.kinds().iter().filter(|kind| *kind == "TransactWriteItems").count();
    assert!(transactions <= 5, "{transactions} for 40 appends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_transaction_carries_a_token_of_its_own() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    for id in ["a", "b", "c"] {
        store.commit(pair(&store, id)).await.unwrap();
    }
    let tokens: HashSet<String> = meddler
        .seen()
        .iter()
        .map(|seen| seen.body["ClientRequestToken"].as_str().expect("it has a token").to_owned())
        .collect();
    assert_eq!(tokens.len(), 3);
}

async fn lease(store: &DynamoStore, max: usize) -> Vec<LeasedJob> {
    let want = Lease { queue: "q".into(), max, hold_for: Duration::from_secs(60), now: now() };
    store.lease(&at(store), want).await.unwrap().jobs
}

/// Asks what requests consume.
#[derive(Debug)]
struct ShowCapacity;

impl Decorate for ShowCapacity {
    fn put_item(&self, request: PutItemFluentBuilder) -> PutItemFluentBuilder {
        request.return_consumed_capacity(ReturnConsumedCapacity::Total)
    }

    fn transact_write_items(
        &self,
        request: TransactWriteItemsFluentBuilder,
    ) -> TransactWriteItemsFluentBuilder {
        request.return_consumed_capacity(ReturnConsumedCapacity::Indexes)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_decorated() {
    let meddler = Meddler::new();
    let config = meddler.config(&format!("test-{}", Uuid::new_v4()));
    config.create_table(&TableOptions::new()).await.unwrap();
    let store = meddler.open(config.decorate(ShowCapacity)).await;
    store.commit(claim(&store, "a")).await.unwrap();
    store.commit(pair(&store, "b")).await.unwrap();
    assert!(exists(&store, "a").await);
    let asked: Vec<_> =
        meddler.seen().iter().map(|seen| seen.body["ReturnConsumedCapacity"].clone()).collect();
    assert_eq!(asked, ["TOTAL".into(), "INDEXES".into(), serde_json::Value::Null]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_commit_is_made_again() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    meddler.meddle("TransactWriteItems", [THROTTLED, EXCEEDED]);
    store.commit(pair(&store, "a")).await.unwrap();
    assert_eq!(meddler.kinds(), ["TransactWriteItems"; 3]);
    meddler.meddle("PutItem", [EXCEEDED, THROTTLED]);
    store.commit(claim(&store, "b")).await.unwrap();
    assert_eq!(meddler.kinds(), ["PutItem"; 3]);
    meddler.meddle("GetItem", [THROTTLED]);
    assert!(exists(&store, "b").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_stays_throttled_is_unavailable() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    meddler.meddle("PutItem", vec![THROTTLED; 8]);
    let error = store.commit(claim(&store, "a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(meddler.kinds(), ["PutItem"; 8]);
    assert!(!exists(&store, "a").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_in_conflict_with_another_is_made_again() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    meddler.meddle("TransactWriteItems", [IN_CONFLICT, IN_CONFLICT]);
    store.commit(pair(&store, "a")).await.unwrap();
    assert_eq!(meddler.kinds(), ["TransactWriteItems"; 3]);
    assert!(exists(&store, "a").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_meets_another_in_the_midst_of_its_commit_is_made_again() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    meddler.meddle("TransactWriteItems", [HEAD_IN_CONFLICT, HEAD_IN_CONFLICT]);
    let committed = store.commit(append(&store, "s", ExpectStream::NoStream)).await.unwrap();
    assert_eq!(committed.appended[0].position, 1);
    assert_eq!(
        meddler.kinds(),
        ["GetItem", "TransactWriteItems", "TransactWriteItems", "TransactWriteItems"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_becomes_a_store_though_the_answer_is_lost() {
    let meddler = Meddler::new();
    let config = meddler.config(&format!("test-{}", Uuid::new_v4()));
    config.create_table(&TableOptions::new()).await.unwrap();
    meddler.meddle("PutItem", [Trick::LoseAnswer]);
    let store = meddler.open(config).await;
    store.commit(claim(&store, "a")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_asked_for_with_the_same_token() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    meddler.meddle("TransactWriteItems", [Trick::LoseAnswer, Trick::LoseAnswer]);
    let appends = batch(&store, |batch| {
        batch.append_any("s", [NewEvent::new("E", "{}", now())]).push("q", "a", now(), "", Merge::Keep)
    });
    let committed = store.commit(appends).await.unwrap();
    assert_eq!(committed.appended[0].position, 1);
    assert_eq!(head(&store).await, 1, "it was applied once");
    let seen = meddler.seen();
    let sent: Vec<_> = seen.iter().filter(|seen| seen.kind == "TransactWriteItems").collect();
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|again| again.body == sent[0].body), "the identical request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_in_progress_is_waited_for() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    meddler.meddle("TransactWriteItems", [Trick::LoseAnswer, IN_PROGRESS, IN_PROGRESS]);
    store.commit(pair(&store, "a")).await.unwrap();
    let tokens: HashSet<_> =
        meddler.seen().iter().map(|seen| seen.body["ClientRequestToken"].to_string()).collect();
    assert_eq!(tokens.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_of_a_single_put_is_recognised() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    meddler.meddle("PutItem", [Trick::LoseAnswer]);
    let created = store.commit(claim(&store, "a")).await.unwrap();
    assert_eq!(meddler.kinds(), ["PutItem"; 2]);

    meddler.meddle("PutItem", [Trick::LoseAnswer]);
    let put = batch(&store, |batch| batch.put(key("a"), "", Expect::Version(created.version)));
    store.commit(put).await.unwrap();
    assert_eq!(meddler.kinds(), ["PutItem"; 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_of_a_job_pushed_leased_is_recognised() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    meddler.meddle("PutItem", [Trick::LoseAnswer]);
    let push = push_leased(&store, "a");
    store.commit(push.clone()).await.unwrap();
    assert_eq!(meddler.kinds(), ["PutItem"; 2]);
    // Sent again by the caller, who need not know.
    store.commit(push).await.unwrap();
    assert_eq!(meddler.kinds(), ["PutItem"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_where_a_lost_write_was_is_no_proof_that_it_was_not() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    let other = store.commit(claim(&store, "a")).await.unwrap();
    // As if the other had written over it between the two requests.
    meddler.meddle("PutItem", [Trick::LoseAnswer]);
    let error = store.commit(claim(&store, "a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(meddler.kinds(), ["PutItem"; 3]);
    // Sent again by the caller, it has its verdict.
    let error = store.commit(claim(&store, "a")).await.unwrap_err();
    let Found::Record { record: Some(record), .. } = error.into_conflict().unwrap().found else {
        panic!("a record stands there");
    };
    assert_eq!(record.version, other.version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_stays_lost_is_an_unknown_outcome() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    meddler.meddle("TransactWriteItems", vec![Trick::LoseAnswer; 8]);
    let lost = pair(&store, "a");
    let error = store.commit(lost.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    // The caller sends it again, and learns that it had happened.
    store.commit(lost).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_of_what_may_not_be_repeated_is_an_unknown_outcome() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    meddler.meddle("PutItem", [Trick::LoseAnswer, Trick::LoseAnswer]);
    let put = batch(&store, |batch| batch.put(key("a"), "", Expect::Any));
    let push = batch(&store, |batch| batch.push("q", "a", now(), "", Merge::Keep));
    meddler.meddle("DeleteItem", [Trick::LoseAnswer]);
    let delete = batch(&store, |batch| batch.delete(key("a"), Expect::Present));
    meddler.meddle("PutItem", [Trick::LoseAnswer]);
    let replace = batch(&store, |batch| batch.put(key("a"), "", Expect::Present));
    for batch in [put, push, replace, delete] {
        let error = store.commit(batch).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    }
    assert_eq!(meddler.kinds(), ["PutItem", "PutItem", "PutItem", "DeleteItem"]);

    let leased = lease(&store, 1).await.remove(0);
    meddler.seen();
    meddler.meddle("UpdateItem", [Trick::LoseAnswer]);
    let later = now() + Duration::from_secs(90);
    let extend = batch(&store, |batch| batch.extend("q", "a", leased.token, later));
    let error = store.commit(extend).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(meddler.kinds(), ["UpdateItem"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_onto_jobs_does_not_send_the_payloads_that_they_have() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    let ids: Vec<String> = (0..12).map(|n| n.to_string()).collect();
    for id in &ids {
        let push = batch(&store, |batch| batch.push("q", id, now(), vec![7; 358_000], Merge::Keep));
        store.commit(push).await.unwrap();
    }
    let leased = lease(&store, 12).await;
    meddler.seen();
    let pushes = batch(&store, |batch| {
        ids.iter().fold(batch, |batch, id| batch.push("q", id, now(), "a new one", Merge::Keep))
    });
    store.commit(pushes).await.unwrap();
    let seen = meddler.seen();
    assert!(seen.iter().all(|seen| seen.body.to_string().len() < 100_000));
    assert_eq!(seen.last().unwrap().kind, "TransactWriteItems");

    for job in leased {
        assert_eq!(job.payload.len(), 358_000);
        store.commit(batch(&store, |batch| batch.ack("q", &job.id, job.token))).await.unwrap();
    }
    let again = lease(&store, 12).await;
    assert_eq!(again.len(), 12);
    assert!(again.iter().all(|job| job.attempt == 1 && &job.payload[..] == b"a new one"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_of_a_lease_is_recognised() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    let push = batch(&store, |batch| batch.push("q", "a", now(), "what", Merge::Keep));
    store.commit(push).await.unwrap();
    meddler.meddle("UpdateItem", [Trick::LoseAnswer]);
    let want = Lease { queue: "q".into(), max: 1, hold_for: Duration::from_secs(60), now: now() };
    let leased = store.lease(&at(&store), want).await.unwrap().jobs;
    assert_eq!((leased.len(), leased[0].attempt, &leased[0].payload[..]), (1, 1, &b"what"[..]));
    store.commit(batch(&store, |batch| batch.ack("q", "a", leased[0].token))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_append_lose_and_double_nothing() {
    let config = new_table();
    config.create_table(&TableOptions::new()).await.unwrap();
    // Neither knows what the other has written last.
    let stores = [config.clone().open().await.unwrap(), config.open().await.unwrap()];
    let commits = (0..80_usize).map(|n| {
        let store = stores[n % 2].clone();
        tokio::spawn(async move {
            let claimed = batch(&store, |batch| {
                // Each name is claimed once through either store.
                let batch = batch.put(key(&format!("r{}", n / 2)), "", Expect::Absent);
                batch.append_any("s", [NewEvent::new("Claimed", "{}", now())])
            });
            store.commit(claimed).await.map_err(|error| error.kind())
        })
    });
    let mut won = 0;
    for committed in join_all(commits).await {
        match committed.unwrap() {
            Ok(_) => won += 1,
            Err(kind) => assert_eq!(kind, ErrorKind::Conflict),
        }
    }
    assert_eq!(won, 40);
    for store in &stores {
        for read in [Read::partition(0, 1000), Read::stream("s", 0, 1000)] {
            let events = store.read(&at(store), read).await.unwrap().events;
            let places: Vec<_> = events.iter().map(|event| (event.position, event.version)).collect();
            assert_eq!(places, (1..=40).map(|n| (n, n)).collect::<Vec<_>>());
        }
    }
}
