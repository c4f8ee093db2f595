use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use evenkeel_choreograph::{Choreographer, Definition, RetryPolicy, StepKey, VersionPolicy};
use evenkeel_core::{MemoryStore, Scan, Store, StoreExt, Timestamp};
use evenkeel_idempotency::Scope;
use evenkeel_web_axum::{IdempotencyLayer, choreograph, value};
use futures_util::FutureExt;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{Seen, World, send};

const DOUBLE: StepKey<u32> = StepKey::new("double");
const NOTE: StepKey<String> = StepKey::new("note");
const APPROVE: StepKey<Value> = StepKey::new("approve");
const AGAIN: StepKey<Value> = StepKey::new("again");

type Fallible<T> = Result<T, String>;

/// A definition that doubles its input.
fn sums() -> Definition<u32> {
    let doubled = async |ctx: evenkeel_choreograph::StepContext<u32>| Fallible::Ok(ctx.input() * 2);
    Definition::builder("sums").step(DOUBLE, doubled).build().unwrap()
}

/// A definition that waits for a signal, and then for another.
fn approvals() -> Definition<Value> {
    let two = Definition::builder("approvals").wait_for_signal(APPROVE, None).wait_for_signal(AGAIN, None);
    two.build().unwrap()
}

/// A worker for as long as it is held.
struct Working(JoinHandle<()>);

impl Working {
    fn start(choreographer: &Choreographer) -> Self {
        Self(tokio::spawn(choreographer.worker().run(std::future::pending())))
    }

    /// Once it returns, the worker does nothing any more.
    async fn kill(mut self) {
        self.0.abort();
        assert!((&mut self.0).await.unwrap_err().is_cancelled());
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn start(world: &World, id: &str, definition: &str, input: Value) -> Seen {
    world.post("/runs", json!({"id": id, "definition": definition, "input": input})).await
}

/// A run once it is in a state, with the clock moved on whenever everybody has come to rest.
async fn in_state(world: &World, path: &str, state: &str) -> Value {
    for _ in 0..1000 {
        let run = world.get(path).await.json();
        if run["state"] == state {
            return run;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        world.clock.advance(Duration::from_millis(100));
    }
    panic!("{path} is not {state}: {}", world.get(path).await.json())
}

#[tokio::test]
async fn a_run_is_started_once_under_its_id() {
    let world = World::new();
    world.choreographer.register(sums()).unwrap();
    let first = start(&world, "r", "sums", json!(21)).await;
    assert_eq!((first.status, first.header("location")), (StatusCode::CREATED, "/runs/r"));
    assert_eq!(first.json(), world.get("/runs/r").await.json());
    let again = start(&world, "r", "sums", json!(21)).await;
    assert_eq!((again.status, again.header("location")), (StatusCode::OK, "/runs/r"));
    assert_eq!(again.body, first.body);
    start(&world, "r", "sums", json!(22)).await.is_problem(
        409,
        "already-exists",
        &["another input", "\"r\""],
    );
}

#[tokio::test]
async fn what_cannot_be_started_is_refused() {
    let world = World::new();
    world.choreographer.register(sums()).unwrap();
    start(&world, "r", "other", json!(1)).await.is_problem(404, "not-found", &["registered", "\"other\""]);
    start(&world, "r", "sums", json!("text")).await.is_problem(400, "bad-request", &["input", "\"sums\""]);
    start(&world, "", "sums", json!(1)).await.is_problem(400, "bad-request", &["is empty"]);
    let odd = world.post("/runs", json!({"id": "r", "definition": "sums", "by": "me"})).await;
    odd.is_problem(400, "bad-request", &["`by`"]);
    world.post("/runs", json!({"id": "r"})).await.is_problem(400, "bad-request", &["`definition`"]);
    world.post("/runs?force=true", json!({})).await.is_problem(400, "bad-request", &["force"]);
    world.get("/runs/r").await.is_problem(404, "not-found", &["\"r\""]);
}

#[tokio::test]
async fn a_run_is_shown_as_it_stands_and_as_it_ended() {
    let world = World::new();
    world.choreographer.register(sums()).unwrap();
    start(&world, "r", "sums", json!(21)).await;
    let shown = world.get("/runs/r").await.json();
    let version = sums().version().to_owned();
    let standing = json!({
        "id": "r", "definition": "sums", "version": version, "state": "running",
        "startedAt": "2024-05-01T00:00:00Z", "input": 21, "errors": [], "values": {}, "preChecks": {},
    });
    assert_eq!(shown, standing);
    let _worker = Working::start(&world.choreographer);
    let ended = world.get("/runs/r?wait=20").await.json();
    assert_eq!((&ended["state"], &ended["values"]), (&json!("completed"), &json!({"double": 42})));
    assert_eq!(ended["finishedAt"], "2024-05-01T00:00:00Z");
}

#[tokio::test]
async fn a_wait_is_over_when_its_time_is() {
    let world = World::new();
    world.choreographer.register(sums()).unwrap();
    start(&world, "r", "sums", json!(21)).await;
    let mut waiting = Box::pin(world.get("/runs/r?wait=20"));
    assert!((&mut waiting).now_or_never().is_none());
    world.clock.advance(Duration::from_secs(20));
    assert_eq!(waiting.await.text("state"), "running");
    world.get("/runs/none?wait=1").await.is_problem(404, "not-found", &["none"]);
    world.get("/runs/r?wait=21").await.is_problem(400, "bad-request", &["21 is not 0 to 20"]);
    world.get("/runs/r?wait=-1").await.is_problem(400, "bad-request", &["wait"]);
    world.get("/runs/r?weight=1").await.is_problem(400, "bad-request", &["weight"]);
}

#[tokio::test]
async fn an_id_may_be_any_text() {
    let world = World::new();
    world.choreographer.register(sums()).unwrap();
    let started = start(&world, "a/b c%ü", "sums", json!(1)).await;
    let location = started.header("location");
    assert_eq!(location, "/runs/a%2Fb%20c%25%C3%BC");
    assert_eq!(world.get(location).await.text("id"), "a/b c%ü");
}

#[tokio::test]
async fn runs_are_listed_by_state_definition_and_time_a_part_at_a_time() {
    let world = World::new();
    world.choreographer.register(sums()).unwrap();
    world.choreographer.register(approvals()).unwrap();
    for id in ["a", "b", "c", "d"] {
        let definition = if id == "c" { "approvals" } else { "sums" };
        start(&world, id, definition, json!(1)).await;
        world.clock.advance(Duration::from_secs(60));
    }
    let ids = |list: &Value| -> Vec<String> {
        let runs = list["runs"].as_array().unwrap();
        runs.iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = world.get("/runs?state=running&limit=3").await.json();
    assert_eq!(ids(&first), ["a", "b", "c"]);
    let c = json!({
        "id": "c", "definition": "approvals", "state": "running", "startedAt": "2024-05-01T00:02:00Z",
    });
    assert_eq!(first["runs"][2], c);
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = world.get(&format!("/runs?state=running&limit=3&cursor={cursor}")).await.json();
    assert_eq!((ids(&second), second.get("nextCursor")), (vec!["d".to_owned()], None));

    for (query, expected) in [
        ("state=running&definition=sums", &["a", "b", "d"][..]),
        ("state=running&since=2024-05-01T00:01:00Z&until=2024-05-01T00:03:00Z", &["b", "c"]),
        ("state=running&until=2024-05-01T00:00:00Z", &[]),
        ("state=completed", &[]),
        ("", &["a", "b", "c", "d"]),
        ("limit=2", &["a", "b"]),
    ] {
        assert_eq!(ids(&world.get(&format!("/runs?{query}")).await.json()), expected, "{query}");
    }
    let _worker = Working::start(&world.choreographer);
    in_state(&world, "/runs/a", "completed").await;
    assert_eq!(ids(&world.get("/runs?state=completed&until=2024-05-01T00:01:00Z").await.json()), ["a"]);
    for (query, word) in [
        ("state=asleep", "asleep"),
        ("state=running&limit=0", "0 is not 1 to 100"),
        ("state=running&since=yesterday", "since is not an RFC 3339 time"),
        ("state=running&until=1", "until is not an RFC 3339 time"),
        ("state=running&name=sums", "name"),
    ] {
        world.get(&format!("/runs?{query}")).await.is_problem(400, "bad-request", &[word]);
    }
}

#[tokio::test]
async fn a_run_has_a_history_and_a_picture_of_it() {
    let world = World::new();
    world.choreographer.register(sums()).unwrap();
    start(&world, "r", "sums", json!(21)).await;
    world.clock.advance(Duration::from_secs(1));
    let _worker = Working::start(&world.choreographer);
    world.get("/runs/r?wait=20").await;
    let history = world.get("/runs/r/history").await.json();
    let entry = |event: &str, at: &str| json!({"event": event, "beganAt": at});
    let mut attempt = entry("attempt", "2024-05-01T00:00:01Z");
    attempt["endedAt"] = json!("2024-05-01T00:00:01Z");
    attempt["step"] = json!("double");
    attempt["attempt"] = json!(1);
    let (start, end) = (entry("started", "2024-05-01T00:00:00Z"), entry("ended", "2024-05-01T00:00:01Z"));
    assert_eq!(history, json!({"entries": [start, attempt, end]}));

    let seen = world.get("/runs/r/timeline.svg").await;
    assert_eq!((seen.status, seen.header("content-type")), (StatusCode::OK, "image/svg+xml"));
    assert!(seen.header("content-security-policy").contains("default-src 'none'"));
    let picture = String::from_utf8_lossy(&seen.body);
    assert!(picture.contains("<svg") && picture.contains("double"), "{picture}");
    for path in ["/runs/none/history", "/runs/none/timeline.svg"] {
        world.get(path).await.is_problem(404, "not-found", &["none"]);
    }
}

#[tokio::test]
async fn a_signal_reaches_the_step_that_waits_for_it() {
    let world = World::new();
    world.choreographer.register(approvals()).unwrap();
    start(&world, "r", "approvals", json!(null)).await;
    let _worker = Working::start(&world.choreographer);
    let by = json!({"by": "ada"});
    assert_eq!(world.post("/runs/r/signals/approve", by.clone()).await.status, StatusCode::ACCEPTED);
    let bodiless = world.call(http::Method::POST, "/runs/r/signals/again", "").await;
    assert_eq!(bodiless.status, StatusCode::ACCEPTED, "{bodiless:?}");
    let ended = in_state(&world, "/runs/r", "completed").await;
    assert_eq!(ended["values"], json!({"approve": by, "again": null}));
    world.post("/runs/r/signals/again", json!(1)).await.is_problem(409, "conflict", &["completed"]);
    world.post("/runs/none/signals/again", json!(1)).await.is_problem(404, "not-found", &["none"]);
    let text = world.call(http::Method::POST, "/runs/r/signals/again", "{").await;
    text.is_problem(400, "bad-request", &["json"]);
}

#[tokio::test]
async fn a_signal_with_a_key_is_sent_once_even_where_its_answer_was_lost() {
    let twice = Definition::<Value>::builder("twice").wait_for_signal(APPROVE, None);
    let twice = twice.wait_for_signal(AGAIN, None).build().unwrap();
    let store = MemoryStore::new();
    let world = World::on(store.clone().into());
    world.choreographer.register(twice).unwrap();
    start(&world, "r", "twice", json!(null)).await;
    let signal = || {
        let request = Request::post("/runs/r/signals/again").header("idempotency-key", "\"k\"");
        request.body(Body::from("1")).unwrap()
    };
    assert_eq!(world.send(signal()).await.status, StatusCode::ACCEPTED);
    let kept = signals_of(&store, "r").await;
    // Whatever was kept of the first request is gone: this one is a new one to the layer.
    let forgetful = World::on(MemoryStore::new().into());
    let once = IdempotencyLayer::new(forgetful.idempotency.clone(), value(Scope::Global));
    let router = choreograph::Api::new(&world.choreographer).idempotency(once).router();
    let again = send(&router, signal()).await;
    assert_eq!(again.status, StatusCode::ACCEPTED);
    assert!(!again.headers.contains_key("idempotent-replayed"));
    assert_eq!((kept, signals_of(&store, "r").await), (1, 1));
}

async fn signals_of(store: &MemoryStore, run: &str) -> usize {
    let scan = Scan::new("choreograph.run", run, 100, Timestamp::EPOCH);
    let page = store.scan(&store.partition_of(run), scan).await.unwrap();
    page.records.iter().filter(|(id, _)| id.starts_with("signal/")).count()
}

#[tokio::test]
async fn a_failed_run_is_retried_from_its_failed_step() {
    let world = World::new();
    let (is_well, first, second) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::default());
    let (well, one, two): (_, Arc<AtomicUsize>, Arc<AtomicUsize>) =
        (Arc::clone(&is_well), Arc::clone(&first), Arc::clone(&second));
    let definition = Definition::<u32>::builder("flaky")
        .step(DOUBLE, move |_| {
            one.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Fallible::Ok(2))
        })
        .step(NOTE, move |_| {
            two.fetch_add(1, Ordering::SeqCst);
            let fine = well.load(Ordering::SeqCst);
            std::future::ready(if fine { Ok("noted".to_owned()) } else { Err("out of ink".to_owned()) })
        })
        .retry(RetryPolicy::NONE)
        .build()
        .unwrap();
    world.choreographer.register(definition).unwrap();
    let _worker = Working::start(&world.choreographer);
    start(&world, "r", "flaky", json!(1)).await;
    let failed = in_state(&world, "/runs/r", "failed").await;
    let error = json!({"step": "note", "phase": "job", "kind": "failed", "message": "out of ink"});
    assert_eq!(failed["error"], error);
    world.post("/runs/r/resume", json!(null)).await.is_problem(409, "conflict", &["parked", "failed"]);
    world.post("/runs/r/cancel", json!(null)).await.is_problem(409, "conflict", &["failed"]);

    is_well.store(true, Ordering::SeqCst);
    let retried = world.post("/runs/r/retry", json!(null)).await;
    assert_eq!((retried.status, retried.text("state").as_str()), (StatusCode::OK, "running"));
    let ended = in_state(&world, "/runs/r", "completed").await;
    assert_eq!(ended["values"], json!({"double": 2, "note": "noted"}));
    assert_eq!((first.load(Ordering::SeqCst), second.load(Ordering::SeqCst)), (1, 2));
    world.post("/runs/none/retry", json!(null)).await.is_problem(404, "not-found", &["none"]);
}

#[tokio::test]
async fn a_run_is_cancelled() {
    let world = World::new();
    world.choreographer.register(approvals()).unwrap();
    start(&world, "r", "approvals", json!(null)).await;
    let _worker = Working::start(&world.choreographer);
    assert_eq!(world.post("/runs/r/cancel", json!(null)).await.status, StatusCode::OK);
    in_state(&world, "/runs/r", "cancelled").await;
    world.post("/runs/r/cancel?now=1", json!(null)).await.is_problem(400, "bad-request", &["now"]);
}

#[tokio::test]
async fn a_parked_run_is_shown_with_its_reason_and_resumed() {
    let store = MemoryStore::new();
    let before = World::on(store.clone().into());
    before.choreographer.register(sums()).unwrap();
    start(&before, "r", "sums", json!(21)).await;

    let after = World::on(store.into());
    let changed = async |_| Fallible::Ok("changed".to_owned());
    let changed = Definition::<u32>::builder("sums").step(NOTE, changed).version_policy(VersionPolicy::Park);
    after.choreographer.register(changed.build().unwrap()).unwrap();
    let working = Working::start(&after.choreographer);
    let parked = in_state(&after, "/runs/r", "parked").await;
    assert!(parked["error"]["message"].is_string(), "{parked}");
    working.kill().await;
    let resumed = before.post("/runs/r/resume", json!(null)).await;
    assert_eq!((resumed.status, resumed.text("state").as_str()), (StatusCode::OK, "running"));
    let _worker = Working::start(&before.choreographer);
    in_state(&before, "/runs/r", "completed").await;
}

#[tokio::test]
async fn where_no_definition_is_registered_everything_works_but_to_start() {
    let store = MemoryStore::new();
    let world = World::on(store.clone().into());
    world.choreographer.register(sums()).unwrap();
    world.choreographer.register(approvals()).unwrap();
    start(&world, "sum", "sums", json!(21)).await;
    start(&world, "waits", "approvals", json!(null)).await;
    let _worker = Working::start(&world.choreographer);
    in_state(&world, "/runs/sum", "completed").await;

    let elsewhere = World::on(store.into());
    start(&elsewhere, "new", "sums", json!(1)).await.is_problem(404, "not-found", &["registered"]);
    assert_eq!(elsewhere.get("/runs/sum").await.json()["values"], json!({"double": 42}));
    assert_eq!(elsewhere.get("/runs/sum/history").await.json()["entries"][1]["step"], "double");
    assert_eq!(elsewhere.get("/runs?state=running").await.json()["runs"][0]["id"], "waits");
    elsewhere.post("/runs/waits/signals/approve", json!(true)).await;
    elsewhere.post("/runs/waits/signals/again", json!(true)).await;
    let ended = in_state(&world, "/runs/waits", "completed").await;
    assert_eq!(ended["values"]["approve"], true);
}

#[tokio::test]
async fn a_start_with_the_same_key_gets_the_same_answer() {
    let world = World::new();
    world.choreographer.register(sums()).unwrap();
    let post = |body: Value| {
        let request = Request::post("/runs").header("idempotency-key", "\"k\"");
        request.body(Body::from(body.to_string())).unwrap()
    };
    let body = json!({"id": "r", "definition": "sums", "input": 1});
    let first = world.send(post(body.clone())).await;
    let again = world.send(post(body)).await;
    assert_eq!((again.status, &again.body), (StatusCode::CREATED, &first.body));
    assert_eq!(again.header("idempotent-replayed"), "true");
    let other = world.send(post(json!({"id": "other", "definition": "sums", "input": 1}))).await;
    other.is_problem(422, "payload-mismatch", &[]);
}

#[tokio::test]
async fn definitions_are_listed_and_drawn() {
    let world = World::new();
    assert_eq!(world.get("/definitions").await.json(), json!({"definitions": []}));
    world.choreographer.register(sums()).unwrap();
    world.choreographer.register(approvals()).unwrap();
    let listed = world.get("/definitions").await.json();
    let listing = |name: &str, version: &str| json!({"name": name, "versions": [version]});
    let all = [listing("approvals", approvals().version()), listing("sums", sums().version())];
    assert_eq!(listed, json!({"definitions": all}));

    let drawn = world.get("/definitions/sums/diagram").await;
    assert_eq!((drawn.status, drawn.header("content-type")), (StatusCode::OK, "text/plain; charset=utf-8"));
    assert_eq!(drawn.body, sums().to_mermaid());
    world.get("/definitions/other/diagram").await.is_problem(404, "not-found", &["\"other\""]);
    world.get("/definitions?by=name").await.is_problem(400, "bad-request", &["`by`"]);
}
