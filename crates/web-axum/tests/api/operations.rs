use std::time::Duration;

use evenkeel_core::{Batch, Lease, Merge, Store, StoreExt};
use evenkeel_idempotency::{Operation, Scope};
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::World;

#[tokio::test]
async fn running_operations_are_listed_shown_and_released() {
    let world = World::new();
    let charge = Operation::new(Scope::Principal("tenant-a".into()), "[POST]/charges", "key-1").payload("1");
    let running = world.idempotency.claim(charge).await.unwrap();
    let list = world.get("/operations/idempotency/running").await.json();
    let listed = &list["operations"][0];
    assert_eq!((&listed["principal"], &listed["target"]), (&json!("tenant-a"), &json!("[POST]/charges")));
    assert_eq!((&listed["key"], &listed["status"]), (&json!("key-1"), &json!("running")));
    assert_eq!((&listed["attempt"], &listed["startedAt"]), (&json!(1), &json!("2024-05-01T00:00:00Z")));

    let query = "principal=tenant-a&target=%5BPOST%5D/charges&key=key-1";
    let shown = world.get(&format!("/operations/idempotency/operation?{query}")).await;
    assert_eq!((shown.status, &shown.json()), (StatusCode::OK, listed));

    let release = json!({
        "principal": "tenant-a", "target": "[POST]/charges", "key": "key-1", "reason": "the machine burnt down",
    });
    let released = world.post("/operations/idempotency/release", release.clone()).await;
    assert_eq!((released.status, released.text("status").as_str()), (StatusCode::OK, "failed"));
    assert_eq!(
        (released.text("ending").as_str(), released.text("error").as_str()),
        ("released", "the machine burnt down")
    );
    assert_eq!(world.get("/operations/idempotency/running").await.json(), json!({"operations": []}));
    world.post("/operations/idempotency/release", release).await.is_problem(
        409,
        "conflict",
        &["not held up"],
    );
    drop(running);
}

#[tokio::test]
async fn an_operation_that_is_not_there_is_not_found() {
    let world = World::new();
    let path = "/operations/idempotency/operation";
    world.get(&format!("{path}?target=a&key=b")).await.is_problem(404, "not-found", &["no such operation"]);
    world.get(&format!("{path}?target=a")).await.is_problem(400, "bad-request", &["missing field `key`"]);
    world.get(&format!("{path}?target=a&key=b&by=c")).await.is_problem(400, "bad-request", &["`by`"]);
    let long = "k".repeat(256);
    world.get(&format!("{path}?target=a&key={long}")).await.is_problem(400, "bad-request", &["key"]);
    let release = json!({"target": "a", "key": "b", "reason": "c"});
    world.post("/operations/idempotency/release", release).await.is_problem(404, "not-found", &[]);
}

/// Three jobs in a queue whose name has a slash, due in an hour.
async fn with_jobs() -> World {
    let world = World::new();
    let at = world.store.partitions().remove(0);
    let mut batch = Batch::new(at, world.now());
    let later = world.now() + Duration::from_secs(3600);
    batch.push("mail/out", "a", later, "hello", Merge::Keep);
    batch.push("mail/out", "b", later, vec![0xff, 0x00], Merge::Keep);
    batch.push("mail/out", "c", later, "", Merge::Keep);
    world.store.commit(batch).await.unwrap();
    world
}

#[tokio::test]
async fn a_queues_jobs_are_listed_and_shown() {
    let world = with_jobs().await;
    let queues = world.get("/operations/queues").await.json();
    assert_eq!(queues["partitions"], 1);
    assert_eq!(queues["queues"][0]["name"], "flare.tasks");

    let first = world.get("/operations/jobs?queue=mail/out&limit=2").await;
    let a = json!({"id": "a", "due": "2024-05-01T01:00:00Z", "attempt": 0, "payload": "hello"});
    assert_eq!(first.json()["jobs"][0], a);
    assert_eq!(first.json()["jobs"][1]["payloadBase64"], "/wA=");
    let cursor = first.text("nextCursor");
    let second = world.get(&format!("/operations/jobs?queue=mail/out&limit=2&cursor={cursor}")).await.json();
    assert_eq!((&second["jobs"][0]["id"], second.get("nextCursor")), (&json!("c"), None));
    assert_eq!(world.get("/operations/job?queue=mail/out&id=a").await.json(), a);

    world.get("/operations/job?queue=mail/out&id=z").await.is_problem(404, "not-found", &["mail/out", "z"]);
    world.get("/operations/jobs?queue=").await.is_problem(400, "bad-request", &["queue"]);
    world.get("/operations/jobs").await.is_problem(400, "bad-request", &["missing field `queue`"]);
    let elsewhere = world.get("/operations/jobs?queue=mail/out&partition=1").await;
    elsewhere.is_problem(400, "bad-request", &["partition: 1", "partitions: 1"]);
}

#[tokio::test]
async fn a_job_is_made_due_at_once_with_its_payload() {
    let world = with_jobs().await;
    let name = json!({"queue": "mail/out", "id": "a"});
    assert_eq!(world.post("/operations/jobs/retry", name).await.status, StatusCode::ACCEPTED);
    let leased = lease(&world).await;
    assert_eq!(leased, [("a".to_owned(), "hello".to_owned())]);
    let shown = world.get("/operations/job?queue=mail/out&id=a").await.json();
    assert_eq!(shown["leasedUntil"], "2024-05-01T00:01:00Z");
    let name = json!({"queue": "mail/out", "id": "z"});
    world.post("/operations/jobs/retry", name).await.is_problem(404, "not-found", &["z"]);
}

#[tokio::test]
async fn a_cancelled_job_is_gone() {
    let world = with_jobs().await;
    let name = json!({"queue": "mail/out", "partition": 0, "id": "a"});
    assert_eq!(world.post("/operations/jobs/cancel", name.clone()).await.status, StatusCode::NO_CONTENT);
    world.post("/operations/jobs/cancel", name).await.is_problem(404, "not-found", &["a"]);
    world.clock.advance(Duration::from_secs(3600));
    let ids: Vec<_> = lease(&world).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["b", "c"]);
    let odd: Value = json!({"queue": "mail/out", "id": "b", "force": true});
    world.post("/operations/jobs/cancel", odd).await.is_problem(400, "bad-request", &["force"]);
}

async fn lease(world: &World) -> Vec<(String, String)> {
    let at = world.store.partitions().remove(0);
    let want =
        Lease { queue: "mail/out".into(), max: 9, hold_for: Duration::from_secs(60), now: world.now() };
    let leased = world.store.lease(&at, want).await.unwrap();
    let job = |job: evenkeel_core::LeasedJob| (job.id, String::from_utf8_lossy(&job.payload).into_owned());
    let mut jobs: Vec<_> = leased.jobs.into_iter().map(job).collect();
    jobs.sort();
    jobs
}
