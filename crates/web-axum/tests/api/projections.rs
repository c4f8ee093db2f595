use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use evenkeel_core::{AnyStore, Batch, BoxError, Clock, Draft, Expect, ExpectStream, Key, Store, StoreExt};
use evenkeel_projections::{Context, Event, OnFailure, Policy, Projection, Projector, Recorded};
use evenkeel_web_axum::projections;
use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::{Seen, World, send};

#[derive(Serialize, Deserialize)]
struct Deposited {
    cents: i64,
}

impl Event for Deposited {}

/// Keeps sums, and fails for what is no deposit until it is healed.
#[derive(Clone, Default)]
struct Sums {
    healed: Arc<AtomicBool>,
}

impl Projector<Draft> for Sums {
    type State = i64;

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, i64>) -> Result<(), BoxError> {
        let Deposited { cents } = event.decode()?.ok_or("this is no deposit")?;
        if cents < 0 && !self.healed.load(Ordering::SeqCst) {
            return Err("a deposit takes nothing away".into());
        }
        *context.state += cents;
        Ok(())
    }
}

/// A projection of the world's events, and the API that knows its code.
struct Service {
    world: World,
    sums: Sums,
    projection: Projection<Sums, AnyStore>,
    router: Router,
}

impl Service {
    fn new(then: OnFailure) -> Self {
        let (world, sums) = (World::new(), Sums::default());
        let projection =
            Projection::keyed(world.events.clone(), "sums", sums.clone()).policy(Policy::new(then));
        let api = projections::Api::new(world.store.clone()).projection(&projection);
        let router = api.clock(world.clock.shared()).router();
        Self { world, sums, projection, router }
    }

    async fn deposit(&self, account: &str, cents: &[i64]) {
        let deposits: Vec<_> = cents.iter().map(|cents| Deposited { cents: *cents }).collect();
        self.world.events.append(account, ExpectStream::Any, &deposits).await.unwrap();
    }

    async fn get(&self, path: &str) -> Seen {
        send(&self.router, Request::get(path).body("".into()).unwrap()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Seen {
        send(&self.router, Request::post(path).body(body.to_string().into()).unwrap()).await
    }

    async fn act(&self, what: &str) -> Seen {
        send(&self.router, Request::post(format!("/projections/sums/{what}")).body("".into()).unwrap()).await
    }
}

#[tokio::test]
async fn a_projection_is_listed_and_shown_with_its_lag() {
    let service = Service::new(OnFailure::Fail);
    service.get("/projections/sums").await.is_problem(404, "not-found", &["sums"]);
    assert_eq!(service.get("/projections").await.json(), json!({"projections": []}));
    service.deposit("a", &[1, 2]).await;
    service.projection.catch_up().await.unwrap();
    service.deposit("b", &[3]).await;
    service.world.clock.advance(Duration::from_millis(1_500));

    let shown = service.get("/projections/sums").await.json();
    let partition = json!({
        "partition": 0, "position": 2, "head": 3, "lag": 1, "behindSeconds": 1.5, "stillSeconds": 1.5,
    });
    assert_eq!(
        shown,
        json!({"name": "sums", "version": 1, "paused": false, "lag": 1, "partitions": [partition]})
    );
    assert_eq!(service.get("/projections").await.json(), json!({"projections": [shown]}));
}

#[tokio::test]
async fn projections_are_listed_in_parts_by_their_names() {
    let world = World::new();
    for name in ["c", "a", "b"] {
        let projection = Projection::keyed(world.events.clone(), name, Sums::default());
        projection.catch_up().await.unwrap();
    }
    let names = |seen: &Seen| {
        let projections = seen.json()["projections"].as_array().unwrap().clone();
        projections.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = world.get("/projections?limit=2").await;
    assert_eq!(names(&first), ["a", "b"]);
    let rest = world.get(&format!("/projections?limit=2&cursor={}", first.text("nextCursor"))).await;
    assert_eq!((names(&rest), rest.json().get("nextCursor")), (vec!["c".to_owned()], None));
}

#[tokio::test]
async fn one_that_cannot_be_read_is_listed_and_shown_with_what_is_wrong() {
    let service = Service::new(OnFailure::Fail);
    service.deposit("a", &[1, 2]).await;
    service.projection.catch_up().await.unwrap();
    let other = Projection::keyed(service.world.events.clone(), "totals", Sums::default());
    other.catch_up().await.unwrap();
    // As after a log was restored from an older backup than the records.
    let (store, at) = (&service.world.store, service.world.store.partition_of("sums"));
    let mut batch = Batch::new(at, service.world.clock.now());
    let key = Key::new("projections.position", "sums", "0000000001");
    batch.put(key, r#"{"position":7,"moved_at":0}"#, Expect::Present);
    store.commit(batch).await.unwrap();

    let listed = service.get("/projections").await.json();
    assert_eq!(listed["projections"][0]["name"], "sums");
    let error = listed["projections"][0]["error"].as_str().unwrap();
    assert!(error.contains("the log ends before the position") && error.contains("head: 2"), "{error}");
    assert_eq!(
        (&listed["projections"][1]["name"], &listed["projections"][1]["lag"]),
        (&json!("totals"), &json!(0))
    );
    assert_eq!(service.get("/projections/sums").await.json(), listed["projections"][0]);

    let mut batch = Batch::new(store.partition_of("sums"), service.world.clock.now());
    batch.put(Key::new("projections.position", "sums", "0000000001"), "scribble", Expect::Present);
    store.commit(batch).await.unwrap();
    let shown = service.get("/projections/sums").await;
    assert_eq!((shown.status.as_u16(), &shown.json()["name"]), (200, &json!("sums")));
    let error = shown.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("corrupt") && error.contains("projections.position/sums/"), "{error}");
}

#[tokio::test]
async fn a_projection_is_paused_and_resumed() {
    let service = Service::new(OnFailure::Fail);
    service.deposit("a", &[1]).await;
    service.projection.catch_up().await.unwrap();
    assert_eq!(service.act("pause").await.json()["paused"], true);
    assert!(service.projection.catch_up().await.unwrap_err().to_string().contains("paused"));
    assert_eq!(service.act("resume").await.json()["paused"], false);
    service.projection.catch_up().await.unwrap();
}

#[tokio::test]
async fn where_it_stopped_is_shown_and_a_resume_clears_it() {
    let service = Service::new(OnFailure::Fail);
    service.deposit("a", &[1, -2]).await;
    service.projection.catch_up().await.unwrap_err();
    let stopped = service.get("/projections/sums").await.json()["partitions"][0]["stopped"].clone();
    assert_eq!(
        stopped,
        json!({
            "position": 2, "stream": "a", "version": 2, "kind": "Deposited", "attempts": 1,
            "error": "a deposit takes nothing away", "failedAt": "2024-05-01T00:00:00Z",
        })
    );
    service.sums.healed.store(true, Ordering::SeqCst);
    assert_eq!(service.act("resume").await.json()["partitions"][0].get("stopped"), None);
    service.projection.catch_up().await.unwrap();
    assert_eq!(service.get("/projections/sums").await.json()["lag"], 0);
}

#[tokio::test]
async fn a_rebuild_is_asked_for_and_followed_until_its_version_is_read() {
    let service = Service::new(OnFailure::Fail);
    service.deposit("a", &[1, 2]).await;
    service.projection.catch_up().await.unwrap();
    let asked = service.act("rebuild").await;
    assert_eq!((asked.status, &asked.json()["version"]), (StatusCode::ACCEPTED, &json!(1)));
    let building = asked.json()["building"].clone();
    assert_eq!((&building["version"], &building["lag"]), (&json!(2), &json!(2)));
    assert_eq!(building["partitions"][0]["position"], 0);
    assert_eq!(service.act("rebuild").await.json()["building"]["version"], 2);
    // As it is done wherever it runs.
    service.projection.rebuild().await.unwrap();
    let shown = service.get("/projections/sums").await.json();
    assert_eq!((&shown["version"], shown.get("building"), &shown["lag"]), (&json!(2), None, &json!(0)));

    assert_eq!(service.act("rebuild").await.json()["building"]["version"], 3);
    let given_up = service.act("cancel-rebuild").await.json();
    assert_eq!((&given_up["version"], given_up.get("building")), (&json!(2), None));
    assert_eq!(service.act("cancel-rebuild").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_reset_begins_anew_at_once() {
    let service = Service::new(OnFailure::Fail);
    service.deposit("a", &[1, 2]).await;
    service.projection.catch_up().await.unwrap();
    let anew = service.act("reset").await.json();
    assert_eq!((&anew["version"], &anew["lag"]), (&json!(2), &json!(2)));
    service.projection.catch_up().await.unwrap();
    assert_eq!(service.get("/projections/sums").await.json()["lag"], 0);
}

#[tokio::test]
async fn what_is_set_apart_is_listed_retried_and_dismissed() {
    let service = Service::new(OnFailure::Park);
    service.deposit("a", &[1, -2, 3]).await;
    service.deposit("b", &[-5, 6]).await;
    service.projection.catch_up().await.unwrap();
    let first = service.get("/projections/sums/parked?limit=1").await.json();
    assert_eq!((&first["letters"][0]["id"], &first["nextCursor"]), (&json!("a"), &json!("a")));
    assert_eq!(first["letters"][0]["failure"]["error"], "a deposit takes nothing away");
    let rest = service.get("/projections/sums/parked?cursor=a").await.json();
    assert_eq!((&rest["letters"][0]["id"], rest.get("nextCursor")), (&json!("b"), None));

    let (path, a) = ("/projections/sums/parked/retry", json!({"id": "a"}));
    service.post(path, &a).await.is_problem(
        409,
        "conflict",
        &["a deposit takes nothing away", "position: 2"],
    );
    let dismissed = service.post("/projections/sums/parked/dismiss", &json!({"id": "b"})).await;
    assert_eq!(dismissed.status, StatusCode::NO_CONTENT, "{dismissed:?}");
    service.sums.healed.store(true, Ordering::SeqCst);
    assert_eq!(service.post(path, &a).await.status, StatusCode::NO_CONTENT);
    assert_eq!(service.get("/projections/sums/parked").await.json(), json!({"letters": []}));
    service.post(path, &a).await.is_problem(404, "not-found", &["not parked", "a"]);
    service.post(path, &json!({"stream": "a"})).await.is_problem(400, "bad-request", &["`stream`"]);
}

#[tokio::test]
async fn what_was_skipped_is_listed_retried_and_dismissed() {
    let service = Service::new(OnFailure::Ignore);
    service.deposit("a", &[1, -2, -3, 4]).await;
    service.projection.catch_up().await.unwrap();
    let letters = service.get("/projections/sums/dead-letters").await.json()["letters"].clone();
    assert_eq!((letters.as_array().unwrap().len(), &letters[0]["failure"]["position"]), (2, &json!(2)));
    let [first, second] = [0, 1].map(|place| json!({"id": letters[place]["id"]}));
    let (retry, dismiss) = ("/projections/sums/dead-letters/retry", "/projections/sums/dead-letters/dismiss");

    service.post(retry, &first).await.is_problem(409, "conflict", &["a deposit takes nothing away"]);
    service.sums.healed.store(true, Ordering::SeqCst);
    assert_eq!(service.post(retry, &first).await.status, StatusCode::NO_CONTENT);
    assert_eq!(service.post(dismiss, &second).await.status, StatusCode::NO_CONTENT);
    assert_eq!(service.get("/projections/sums/dead-letters").await.json(), json!({"letters": []}));
    for (path, letter) in [(retry, &first), (dismiss, &second), (dismiss, &json!({"id": "x"}))] {
        service.post(path, letter).await.is_problem(404, "not-found", &["no such dead letter"]);
    }
}

#[tokio::test]
async fn without_its_code_a_projection_is_operated_all_the_same() {
    let service = Service::new(OnFailure::Park);
    service.deposit("a", &[-1]).await;
    service.projection.catch_up().await.unwrap();
    let world = &service.world;
    assert_eq!(world.get("/projections/sums/parked").await.json()["letters"][0]["id"], "a");
    assert_eq!(world.post("/projections/sums/pause", Value::Null).await.json()["paused"], true);
    assert_eq!(world.post("/projections/sums/rebuild", Value::Null).await.status, StatusCode::ACCEPTED);
    let retried = world.post("/projections/sums/parked/retry", json!({"id": "a"})).await;
    retried.is_problem(404, "not-found", &["the code", "\"sums\""]);
}

#[tokio::test]
async fn a_projection_that_never_ran_is_not_found() {
    let world = World::new();
    for path in ["", "/parked", "/dead-letters"] {
        world.get(&format!("/projections/x{path}")).await.is_problem(404, "not-found", &["x"]);
    }
    for action in ["pause", "resume", "reset", "rebuild", "cancel-rebuild"] {
        let seen = world.post(&format!("/projections/x/{action}"), Value::Null).await;
        seen.is_problem(404, "not-found", &["x"]);
    }
    let letter = json!({"id": "a"});
    for action in ["parked/retry", "parked/dismiss", "dead-letters/retry", "dead-letters/dismiss"] {
        let seen = world.post(&format!("/projections/x/{action}"), letter.clone()).await;
        seen.is_problem(404, "not-found", &["x"]);
    }
}
