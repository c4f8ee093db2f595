//! Requests that are runs: what a retry finds after a crash.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use evenkeel_choreograph::{Choreographer, Definition, OnInterrupted, RetryPolicy, RunState, StepKey};
use evenkeel_core::{ManualClock, MemoryStore};
use evenkeel_idempotency::{Idempotency, Scope};
use evenkeel_web_axum::{AsRun, IdempotencyLayer, MissingKey, Problem, value};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::runtime;
use tokio::sync::Semaphore;
use tower::ServiceExt;

const RESERVE: StepKey<String> = StepKey::new("reserve");
const CHARGE: StepKey<String> = StepKey::new("charge");

/// What outlives a process: a database, the time, and what the world outside saw.
#[derive(Clone, Default)]
struct World {
    store: MemoryStore,
    clock: ManualClock,
    reserved: Arc<AtomicUsize>,
    charged: Arc<AtomicUsize>,
    declines: Arc<AtomicBool>,
}

/// How a process fares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    /// Comes to a standstill while it charges.
    HangsInCharge,
    /// Comes to a standstill when the run is over and the request has not been answered.
    HangsInAnswer,
}

/// A service with a worker, in one process.
#[derive(Clone)]
struct Process {
    choreographer: Choreographer,
    fate: Fate,
    /// A permit where it has come to its standstill.
    hangs: Arc<Semaphore>,
}

impl Process {
    fn new(world: &World, fate: Fate) -> Self {
        let choreographer = Choreographer::new(world.store.clone()).clock(world.clock.shared());
        let hangs = Arc::new(Semaphore::new(0));
        let World { reserved, charged, declines, .. } = world.clone();
        let standstill = Arc::clone(&hangs);
        let definition = Definition::<String>::builder("order")
            .step(RESERVE, move |ctx| {
                reserved.fetch_add(1, Ordering::SeqCst);
                std::future::ready(Ok::<_, String>(format!("one {}", ctx.input())))
            })
            .step(CHARGE, move |ctx| {
                let try_number = charged.fetch_add(1, Ordering::SeqCst) + 1;
                let (standstill, declines) = (Arc::clone(&standstill), declines.load(Ordering::SeqCst));
                async move {
                    match fate {
                        Fate::HangsInCharge => {
                            standstill.add_permits(1);
                            std::future::pending().await
                        }
                        _ if declines => Err("declined".to_owned()),
                        Fate::Lives | Fate::HangsInAnswer => {
                            Ok(format!("{}, charged at try {try_number}", ctx.get(RESERVE).unwrap()))
                        }
                    }
                }
            })
            .retry(RetryPolicy::NONE)
            .on_interrupted(OnInterrupted::Retry)
            .build()
            .unwrap();
        choreographer.register(definition).unwrap();
        Self { choreographer, fate, hangs }
    }

    fn router(&self, layer: IdempotencyLayer) -> Router {
        Router::new().route("/orders", post(order).layer(layer)).with_state(self.clone())
    }
}

async fn order(State(process): State<Process>, request: AsRun, item: String) -> Result<String, Problem> {
    let run = request.outcome(&process.choreographer, "order", &item).await?;
    if process.fate == Fate::HangsInAnswer {
        process.hangs.add_permits(1);
        std::future::pending::<()>().await;
    }
    match (run.state, run.get(CHARGE)?) {
        (RunState::Completed, Some(receipt)) => Ok(receipt),
        (state, _) => Err(Problem::not_known(format!("the order is {state}"))),
    }
}

impl World {
    fn layer(&self) -> IdempotencyLayer {
        let idempotency = Idempotency::new(self.store.clone()).clock(self.clock.shared());
        IdempotencyLayer::new(idempotency, value(Scope::Global))
    }

    /// A process that begins with this request and is gone at its standstill: a runtime of its own,
    /// of which nothing is left.
    fn die_at(&self, fate: Fate, item: &'static str) {
        let process = Process::new(self, fate);
        let router = process.router(self.layer());
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        runtime.spawn(process.choreographer.worker().run(std::future::pending()));
        runtime.spawn(send(router, "k", item));
        runtime.block_on(pass(&self.clock, process.hangs.acquire())).unwrap().forget();
    }

    fn steps(&self) -> (usize, usize) {
        (self.reserved.load(Ordering::SeqCst), self.charged.load(Ordering::SeqCst))
    }
}

async fn send(router: Router, key: &str, item: &str) -> (StatusCode, String) {
    let request = Request::post("/orders").header("idempotency-key", format!("{key:?}"));
    seen(router.oneshot(request.body(Body::from(item.to_owned())).unwrap()).await.unwrap()).await
}

async fn seen(response: Response) -> (StatusCode, String) {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, String::from_utf8_lossy(&body).into_owned())
}

/// What comes of it on a clock that moves on whenever everybody has come to rest.
async fn pass<T>(clock: &ManualClock, future: impl Future<Output = T>) -> T {
    tokio::pin!(future);
    loop {
        for _ in 0..200 {
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = tokio::task::yield_now() => {}
            }
        }
        clock.advance(Duration::from_millis(500));
    }
}

/// A process that lives on in this test, with a worker.
fn alive(world: &World, fate: Fate) -> (Process, Router) {
    let process = Process::new(world, fate);
    tokio::spawn(process.choreographer.worker().run(std::future::pending()));
    let router = process.router(world.layer());
    (process, router)
}

#[test]
fn a_retry_after_a_crash_between_steps_waits_for_the_rest_of_the_run() {
    let world = World::default();
    world.die_at(Fate::HangsInCharge, "book");
    assert_eq!(world.steps(), (1, 1));

    let runtime = runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (_process, router) = alive(&world, Fate::Lives);
        // The dead still hold the request and the run.
        let early = pass(&world.clock, send(router.clone(), "k", "book")).await;
        assert_eq!(early.0, StatusCode::CONFLICT, "{early:?}");
        world.clock.advance(Duration::from_secs(30));

        let (status, body) = pass(&world.clock, send(router.clone(), "k", "pen")).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        let retry = pass(&world.clock, send(router.clone(), "k", "book")).await;
        assert_eq!(retry, (StatusCode::OK, "one book, charged at try 2".to_owned()));
        assert_eq!(world.steps(), (1, 2), "a step that finished ran again");
        assert_eq!(pass(&world.clock, send(router, "k", "book")).await, retry);
        assert_eq!(world.steps(), (1, 2), "a replay ran a step");
    });
}

#[test]
fn a_retry_after_a_crash_before_the_answer_gets_the_runs_answer() {
    let world = World::default();
    world.die_at(Fate::HangsInAnswer, "book");
    world.clock.advance(Duration::from_secs(31));

    let runtime = runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (_process, router) = alive(&world, Fate::Lives);
        let retry = pass(&world.clock, send(router, "k", "book")).await;
        assert_eq!(retry, (StatusCode::OK, "one book, charged at try 1".to_owned()));
        assert_eq!(world.steps(), (1, 1));
    });
}

#[tokio::test]
async fn another_request_is_another_run() {
    let world = World::default();
    let (_process, router) = alive(&world, Fate::Lives);
    for key in ["a", "b"] {
        assert_eq!(pass(&world.clock, send(router.clone(), key, "book")).await.0, StatusCode::OK);
    }
    assert_eq!(world.steps(), (2, 2));
}

#[tokio::test]
async fn a_retry_of_a_failed_run_goes_on_at_the_failed_step() {
    let world = World::default();
    let (_process, router) = alive(&world, Fate::Lives);
    world.declines.store(true, Ordering::SeqCst);
    let (status, body) = pass(&world.clock, send(router.clone(), "k", "book")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("the order is failed"), "{body}");

    world.declines.store(false, Ordering::SeqCst);
    let retry = pass(&world.clock, send(router, "k", "book")).await;
    assert_eq!(retry, (StatusCode::OK, "one book, charged at try 2".to_owned()));
    assert_eq!(world.steps(), (1, 2));
}

#[tokio::test]
async fn a_run_that_is_remembered_longer_than_its_request_refuses_another_body() {
    let world = World::default();
    let (process, router) = alive(&world, Fate::Lives);
    assert_eq!(pass(&world.clock, send(router, "k", "book")).await.0, StatusCode::OK);
    // A process that knows of no earlier request.
    let router = || {
        let forgetful = Idempotency::new(MemoryStore::new()).clock(world.clock.shared());
        process.router(IdempotencyLayer::new(forgetful, value(Scope::Global)))
    };
    let (status, body) = pass(&world.clock, send(router(), "k", "pen")).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(body.contains("another input"), "{body}");
    let (status, _) = pass(&world.clock, send(router(), "k", "book")).await;
    assert_eq!((status, world.steps()), (StatusCode::OK, (1, 1)));
}

#[tokio::test]
async fn a_request_that_is_not_protected_has_no_run() {
    let world = World::default();
    let process = Process::new(&world, Fate::Lives);
    let layerless = Router::new().route("/orders", post(order)).with_state(process.clone());
    let keyless = process.router(world.layer().missing_key(MissingKey::RunUnprotected));
    for (router, reason) in [(layerless, "no idempotency layer"), (keyless, "it has no key")] {
        let request = Request::post("/orders").body(Body::from("book")).unwrap();
        let (status, body) = seen(router.oneshot(request).await.unwrap()).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.contains("#run-refused") && body.contains(reason), "{body}");
    }
    assert_eq!(world.steps(), (0, 0));
}
