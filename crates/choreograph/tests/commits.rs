//! What a durable run writes, and when.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Bench, Fallible, Running, settle};
use evenkeel_choreograph::{Choreographer, Definition, RunState, Started, StepContext, StepKey};
use evenkeel_core::layer::{Around, Call, Method};
use evenkeel_core::{ErrorKind, Result, StoreExt};
use tokio::sync::Semaphore;

/// Counts commits, their operations and reads. Where it has a gate, it lets through as many commits as
/// that has permits; where it has somebody else's, it gives one with each `get` that it answers.
#[derive(Clone, Debug, Default)]
struct Watch {
    commits: Arc<AtomicUsize>,
    operations: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
    gate: Option<Arc<Semaphore>>,
    others: Option<Arc<Semaphore>>,
}

impl Around for Watch {
    async fn call<T: Send>(&self, call: Call<'_>, made: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if let Some(batch) = call.batch {
            if let Some(gate) = &self.gate {
                gate.acquire().await.expect("nobody closes the gate").forget();
            }
            self.commits.fetch_add(1, Ordering::SeqCst);
            self.operations.fetch_add(batch.ops().len(), Ordering::SeqCst);
        }
        if let Method::Get | Method::Scan = call.method {
            self.reads.fetch_add(1, Ordering::SeqCst);
        }
        let answer = made.await;
        if let (Method::Get, Some(others)) = (call.method, &self.others) {
            others.add_permits(1);
            settle().await;
        }
        answer
    }
}

/// A definition of five steps that do nothing.
fn counted() -> Definition<String> {
    let step = || async |_: StepContext<String>| Fallible::Ok(());
    let builder = Definition::builder("counted").unnamed(step()).unnamed(step()).unnamed(step());
    builder.unnamed(step()).unnamed(step()).build().unwrap()
}

#[tokio::test]
async fn a_plain_step_is_one_commit_of_one_operation_and_a_run_one_besides() {
    let bench = Bench::new(1);
    let watch = Watch::default();
    let choreographer =
        Choreographer::new(bench.store.clone().layer(watch.clone()).any()).clock(bench.clock.shared());
    choreographer.register(counted()).unwrap();
    let _worker = Running::start(&choreographer);
    for n in 0..20 {
        choreographer.start("counted", &format!("r{n}"), &"").await.unwrap();
    }
    for n in 0..20 {
        assert_eq!(bench.outcome(&choreographer, &format!("r{n}")).await.state, RunState::Completed);
    }
    assert_eq!(watch.commits.load(Ordering::SeqCst), 20 * (5 + 1));
    // The start has its entry in the index and its job besides, and the end, which is the fifth step's
    // commit, takes that entry out and puts another.
    assert_eq!(watch.operations.load(Ordering::SeqCst), 20 * (3 + 4 + (2 + 2)));
}

#[tokio::test]
async fn a_step_that_the_runs_record_has_no_room_for_is_one_commit_of_three_operations() {
    let bench = Bench::new(1);
    let watch = Watch::default();
    let choreographer =
        Choreographer::new(bench.store.clone().layer(watch.clone()).any()).clock(bench.clock.shared());
    let long = async |_: StepContext<()>| Fallible::Ok("x".repeat(2000));
    let definition = Definition::<()>::builder("long")
        .step(StepKey::<String>::new("first"), long)
        .step(StepKey::<String>::new("second"), long)
        .build()
        .unwrap();
    choreographer.register(definition).unwrap();
    let _worker = Running::start(&choreographer);
    choreographer.start("long", "r", &()).await.unwrap();
    assert_eq!(bench.outcome(&choreographer, "r").await.values.len(), 2);
    assert_eq!(watch.commits.load(Ordering::SeqCst), 3);
    assert_eq!(watch.operations.load(Ordering::SeqCst), 3 + 3 + 5);
}

#[tokio::test]
async fn a_run_that_is_started_worked_on_and_waited_for_in_one_process_is_not_read() {
    let bench = Bench::new(1);
    let watch = Watch::default();
    let choreographer = Choreographer::new(bench.store.clone().layer(watch.clone()).any());
    choreographer.register(counted()).unwrap();
    let worker = Running::start(&choreographer);
    for n in 0..20 {
        let run = format!("r{n}");
        choreographer.start("counted", &run, &"").await.unwrap();
        let told = choreographer.outcome(&run).await.unwrap();
        assert_eq!(watch.reads.load(Ordering::SeqCst), 0);
        let kept = bench.choreographer();
        kept.register(counted()).unwrap();
        let kept = kept.inspect(&run).await.unwrap();
        assert_eq!(serde_json::to_value(told).unwrap(), serde_json::to_value(kept).unwrap());
    }
    drop(worker);
}

#[tokio::test]
async fn a_new_run_is_not_read_by_the_worker_that_takes_it_and_a_long_input_once() {
    for (input, scans) in [("short".to_owned(), 0), ("long".repeat(1000), 1)] {
        let bench = Bench::new(1);
        let elsewhere = bench.choreographer();
        elsewhere.register(counted()).unwrap();
        elsewhere.start("counted", "r", &input).await.unwrap();
        let watch = Watch::default();
        let choreographer =
            Choreographer::new(bench.store.clone().layer(watch.clone()).any()).clock(bench.clock.shared());
        choreographer.register(counted()).unwrap();
        let _worker = Running::start(&choreographer);
        assert_eq!(bench.outcome(&elsewhere, "r").await.state, RunState::Completed);
        assert_eq!(watch.reads.load(Ordering::SeqCst), scans);
    }
}

#[tokio::test]
async fn a_run_that_hurries_through_its_steps_is_cancelled() {
    let bench = Bench::new(1);
    let gate = Arc::new(Semaphore::new(0));
    let gated = bench.store.clone().layer(Watch { gate: Some(Arc::clone(&gate)), ..Watch::default() });
    let choreographer = Choreographer::new(gated.any()).clock(bench.clock.shared());
    let job = async |_: StepContext<()>| Fallible::Ok(());
    let builder = (1..100).fold(Definition::<()>::builder("hurries").unnamed(job), |it, _| it.unnamed(job));
    choreographer.register(builder.build().unwrap()).unwrap();
    let elsewhere = bench.choreographer();
    gate.add_permits(1);
    choreographer.start("hurries", "r", &()).await.unwrap();
    let _worker = Running::start(&choreographer);
    settle().await;
    let late = bench.store.clone().layer(Watch { others: Some(Arc::clone(&gate)), ..Watch::default() });
    // Whenever it has looked at the run, that takes a step.
    Choreographer::new(late.clone().any()).cancel("r").await.unwrap();
    assert!(late.around().commits.load(Ordering::SeqCst) > 5, "it was late now and then");
    gate.add_permits(100);
    let run = bench.outcome(&elsewhere, "r").await;
    assert_eq!(run.state, RunState::Cancelled);
    let taken = late.around().commits.load(Ordering::SeqCst);
    assert_eq!(run.values.len(), taken + 1, "all that were taken, and the one that was under way");
}

#[tokio::test]
async fn while_a_long_run_is_forgotten_it_can_be_read_and_not_be_retried() {
    const ITEMS: StepKey<Vec<u32>> = StepKey::new("items");
    let bench = Bench::new(1);
    let definition = || {
        Definition::<u32>::builder("long")
            .for_each(ITEMS, 20, |_| (0..200).collect::<Vec<u32>>(), async |_, item| Fallible::Ok(*item))
            .step(StepKey::<u32>::new("last"), async |_| Err::<u32, _>("no"))
            .build()
            .unwrap()
    };
    let choreographer = bench.choreographer().retention(Duration::from_hours(48));
    choreographer.register(definition()).unwrap();
    let worker = Running::start(&choreographer);
    choreographer.start("long", "r", &1).await.unwrap();
    assert_eq!(bench.outcome(&choreographer, "r").await.state, RunState::Failed);
    worker.kill().await;
    bench.clock.advance(Duration::from_hours(49));

    let gate = Arc::new(Semaphore::new(0));
    let gated = bench.store.clone().layer(Watch { gate: Some(Arc::clone(&gate)), ..Watch::default() });
    let forgetful =
        Choreographer::new(gated.any()).clock(bench.clock.shared()).retention(Duration::from_hours(48));
    forgetful.register(definition()).unwrap();
    let _worker = Running::start(&forgetful);
    let mut halves = 0;
    for _ in 0..100 {
        gate.add_permits(1);
        settle().await;
        bench.clock.advance(Duration::from_secs(1));
        settle().await;
        let found = choreographer.inspect("r").await.unwrap();
        assert_eq!(choreographer.history("r").await.unwrap().is_some(), found.is_some());
        let Some(run) = found else {
            assert!(halves > 1, "it was half forgotten {halves} times");
            return;
        };
        assert_eq!((run.state, run.input.get()), (RunState::Failed, "1"));
        assert_eq!(choreographer.outcome("r").await.unwrap().state, RunState::Failed);
        assert_eq!(choreographer.start("long", "r", &1).await.unwrap(), Started::Existing);
        let steps = choreographer.history("r").await.unwrap().unwrap().len();
        if steps < 200 {
            halves += 1;
            let error = choreographer.retry("r").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            assert!(error.to_string().contains("being forgotten"), "{error}");
        }
    }
    panic!("it was never forgotten");
}
