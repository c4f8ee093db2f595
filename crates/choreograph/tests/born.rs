//! Runs that begin where they are started.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Bench, Fallible, Running, Seen, settle};
use evenkeel_choreograph::{
    Choreographer, Definition, OnInterrupted, RunFilter, RunState, Started, StepContext, StepKey,
};
use evenkeel_core::layer::{Around, AroundStore, Call, Method};
use evenkeel_core::{
    AnyStore, Batch, Clock, Error, ErrorKind, Expect, MemoryStore, Merge, Op, Result, Store, StoreExt,
    Timestamp,
};
use tokio::sync::Semaphore;

const STEP: StepKey<u32> = StepKey::new("step");

/// Notes how runs come to their worker, and holds up what a test wants held up.
#[derive(Clone, Debug, Default)]
struct Watch {
    /// How each run was written.
    starts: Arc<Mutex<Vec<&'static str>>>,
    leases: Arc<AtomicUsize>,
    /// What a look at the queue has to pass.
    looks: Gate,
    /// What a commit has to pass before it is made.
    commits: Gate,
    /// What its answer has to pass.
    answers: Gate,
    /// How many answers of commits are lost.
    lost: Arc<AtomicUsize>,
}

/// Lets everybody through until it is shut, and then so many.
#[derive(Clone, Debug)]
struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1000)))
    }
}

impl Gate {
    fn shut(&self) {
        self.0.forget_permits(1000);
    }

    fn open(&self) {
        self.0.add_permits(1000);
    }

    async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }
}

impl Around for Watch {
    async fn call<T: Send>(&self, call: Call<'_>, made: impl Future<Output = Result<T>> + Send) -> Result<T> {
        match call.method {
            Method::Lease => {
                self.leases.fetch_add(1, Ordering::SeqCst);
                self.looks.pass().await;
                made.await
            }
            Method::Commit => {
                let start = call.batch.unwrap().ops().iter().find_map(|op| match op {
                    Op::PushLeased { .. } => Some("born"),
                    Op::Push { payload, .. } if !payload.is_empty() => Some("pushed"),
                    _ => None,
                });
                self.starts.lock().unwrap().extend(start);
                self.commits.pass().await;
                let answer = made.await;
                self.answers.pass().await;
                let loses = |left: usize| left.checked_sub(1);
                if self.lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, loses).is_ok() {
                    return Err(Error::new(ErrorKind::OutcomeUnknown, "the answer was lost"));
                }
                answer
            }
            _ => made.await,
        }
    }
}

/// A process whose store is watched, and a definition of one step, which begins once and ends when the
/// gate lets it.
struct Here {
    bench: Bench,
    watch: Watch,
    process: Choreographer<AroundStore<MemoryStore, Watch>>,
    seen: Seen,
    gate: Arc<Semaphore>,
}

impl Here {
    fn new() -> Self {
        let (bench, watch, seen) = (Bench::new(1), Watch::default(), Seen::default());
        let gate = Arc::new(Semaphore::new(0));
        let store = bench.store.clone().layer(watch.clone());
        let process = Choreographer::with_store(store).clock(bench.clock.shared());
        let here = Self { bench, watch, process, seen, gate };
        here.process.register(here.definition()).unwrap();
        here
    }

    fn definition(&self) -> Definition<u32> {
        // Whoever finds it in doubt asks a person.
        let step = Definition::<u32>::builder("one").step(STEP, self.seen.gated(&self.gate, 7));
        step.on_interrupted(OnInterrupted::Park).build().unwrap()
    }

    /// Another process.
    fn elsewhere(&self) -> Choreographer<AnyStore> {
        self.bench.process(self.definition())
    }

    /// A worker that has looked at the queue.
    async fn worker(&self, concurrency: usize) -> Worker {
        let (shutdown, asked) = tokio::sync::oneshot::channel::<()>();
        let worker = self.process.worker().concurrency(concurrency);
        let task = tokio::spawn(worker.run(async move { drop(asked.await) }));
        settle().await;
        Worker { shutdown: Some(shutdown), task }
    }

    async fn start(&self, run: &str) -> Result<Started> {
        self.process.start("one", run, &1).await
    }

    async fn state(&self, run: &str) -> Option<RunState> {
        let choreographer = self.bench.choreographer();
        choreographer.inspect(run).await.unwrap().map(|run| run.state)
    }

    fn starts(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.watch.starts.lock().unwrap())
    }
}

struct Worker {
    shutdown: Option<tokio::sync::oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Worker {
    fn shut_down(&mut self) {
        drop(self.shutdown.take());
    }

    async fn kill(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_run_that_is_started_beside_a_worker_with_room_begins_without_a_look_at_the_queue() {
    let here = Here::new();
    let _worker = here.worker(64).await;
    here.watch.looks.shut();
    let looks = here.watch.leases.load(Ordering::SeqCst);
    for n in 0..20 {
        assert_eq!(here.start(&format!("r{n}")).await.unwrap(), Started::New);
        here.gate.add_permits(1);
        settle().await;
        assert_eq!(here.state(&format!("r{n}")).await, Some(RunState::Completed));
    }
    assert_eq!(here.starts(), ["born"; 20]);
    let more = here.watch.leases.load(Ordering::SeqCst) - looks;
    assert!(more <= 1, "only a hint has the worker look, and it waits for an answer since: {more}");
    let ended = here.process.list(RunFilter::new(RunState::Completed)).await.unwrap();
    assert_eq!(ended.runs.len(), 20);
}

#[tokio::test]
async fn a_long_input_is_not_read_again_where_its_run_begins_at_once() {
    let here = Here::new();
    let text = Definition::<String>::builder("text")
        .step(STEP, async |ctx: StepContext<String>| Fallible::Ok(u32::try_from(ctx.input().len()).unwrap()));
    here.process.register(text.build().unwrap()).unwrap();
    let _worker = here.worker(64).await;
    here.watch.looks.shut();
    here.process.start("text", "r", &"x".repeat(5000)).await.unwrap();
    settle().await;
    let run = here.elsewhere().inspect("r").await.unwrap().unwrap();
    assert_eq!(run.get(STEP).unwrap(), Some(5000));
    assert_eq!(here.starts(), ["born"]);
}

#[tokio::test]
async fn without_a_worker_a_run_waits_in_the_queue() {
    let here = Here::new();
    here.gate.add_permits(10);
    // One of another process, and one that does not run yet.
    let _elsewhere = Running::start(&here.bench.choreographer());
    let idle = here.process.worker();
    settle().await;
    here.start("r").await.unwrap();
    drop(idle);
    let mut worker = here.worker(64).await;
    worker.kill().await;
    here.start("s").await.unwrap();
    assert_eq!(here.starts(), ["pushed", "pushed"]);
    let _worker = here.worker(64).await;
    assert_eq!(here.bench.outcome(&here.process, "r").await.state, RunState::Completed);
    assert_eq!(here.bench.outcome(&here.process, "s").await.state, RunState::Completed);
}

#[tokio::test]
async fn where_every_place_is_taken_a_run_waits_in_the_queue_and_a_place_is_given_back() {
    let here = Here::new();
    let _worker = here.worker(2).await;
    for run in ["a", "b", "c"] {
        here.start(run).await.unwrap();
        settle().await;
    }
    assert_eq!(here.starts(), ["born", "born", "pushed"]);
    assert_eq!(here.seen.take(), ["began"; 2]);
    here.gate.add_permits(3);
    for run in ["a", "b", "c"] {
        assert_eq!(here.bench.outcome(&here.process, run).await.state, RunState::Completed);
    }
    settle().await;
    here.start("d").await.unwrap();
    assert_eq!(here.starts(), ["born"]);
}

#[tokio::test]
async fn a_new_run_does_not_overtake_those_that_the_last_look_left_waiting() {
    let here = Here::new();
    let elsewhere = here.elsewhere();
    for n in 0..6 {
        elsewhere.start("one", &format!("waits{n}"), &1).await.unwrap();
    }
    // It takes four, and leaves two.
    let _worker = here.worker(4).await;
    assert_eq!(here.seen.take(), ["began"; 4]);
    here.watch.looks.shut();
    here.gate.add_permits(1);
    settle().await;
    // The place is the next look's, which is not answered yet; the next one is free.
    here.gate.add_permits(1);
    settle().await;
    here.start("r").await.unwrap();
    assert_eq!(here.starts(), ["pushed"]);
    settle().await;
    assert_eq!(here.seen.take(), Vec::<String>::new());
    here.watch.looks.open();
    settle().await;
    assert_eq!(here.seen.take(), ["began"; 2], "those that waited");
    assert_eq!(here.state("waits5").await, Some(RunState::Running));
    here.gate.add_permits(5);
    assert_eq!(here.bench.outcome(&here.process, "r").await.state, RunState::Completed);
    settle().await;
    here.start("s").await.unwrap();
    assert_eq!(here.starts(), ["born"], "once nobody waits");
}

#[tokio::test]
async fn a_start_that_is_dropped_in_the_middle_of_its_commit_goes_on_if_the_run_is_there() {
    for answered_late in [false, true] {
        let here = Here::new();
        let _worker = here.worker(64).await;
        here.watch.looks.shut();
        let gate = if answered_late { &here.watch.answers } else { &here.watch.commits };
        gate.shut();
        {
            let start = here.start("r");
            tokio::pin!(start);
            tokio::select! {
                biased;
                _ = &mut start => panic!("it is not committed yet"),
                () = settle() => {}
            }
        }
        assert_eq!(here.state("r").await.is_some(), answered_late);
        here.gate.add_permits(1);
        gate.open();
        settle().await;
        assert_eq!(here.state("r").await, Some(RunState::Completed));
        assert_eq!(here.start("r").await.unwrap(), Started::Existing);
    }
}

#[tokio::test]
async fn a_start_whose_worker_is_dropped_in_the_middle_of_its_commit_leaves_the_run_to_the_next_at_once() {
    for answered_late in [false, true] {
        let here = Here::new();
        let mut worker = here.worker(64).await;
        let gate = if answered_late { &here.watch.answers } else { &here.watch.commits };
        gate.shut();
        let start = here.start("r");
        tokio::pin!(start);
        tokio::select! {
            biased;
            _ = &mut start => panic!("it is not committed yet"),
            () = settle() => {}
        }
        worker.kill().await;
        gate.open();
        assert_eq!(start.await.unwrap(), Started::New);
        assert_eq!(here.seen.take(), Vec::<String>::new());
        here.gate.add_permits(1);
        // Nothing is in doubt, and no lease is waited for: the clock stands still.
        let _worker = here.worker(64).await;
        settle().await;
        assert_eq!(here.state("r").await, Some(RunState::Completed));
    }
}

#[tokio::test]
async fn a_lost_answer_is_found_again() {
    let here = Here::new();
    let _worker = here.worker(64).await;
    here.watch.looks.shut();
    here.gate.add_permits(2);
    here.watch.lost.store(1, Ordering::SeqCst);
    assert_eq!(here.bench.pass(here.start("r")).await.unwrap(), Started::New);
    assert_eq!(here.bench.outcome(&here.process, "r").await.state, RunState::Completed);
}

#[tokio::test]
async fn a_run_whose_start_has_no_answer_is_worked_on_if_the_store_has_it() {
    let here = Here::new();
    let _worker = here.worker(64).await;
    here.watch.looks.shut();
    here.gate.add_permits(2);
    // As often as it is sent.
    here.watch.lost.store(6, Ordering::SeqCst);
    let start = here.start("r");
    tokio::pin!(start);
    let error = loop {
        tokio::select! {
            biased;
            started = &mut start => break started.unwrap_err(),
            () = settle() => here.bench.clock.advance(Duration::from_secs(1)),
        }
    };
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    settle().await;
    assert_eq!(here.state("r").await, Some(RunState::Completed));
    assert_eq!(here.start("r").await.unwrap(), Started::Existing);
}

#[tokio::test]
async fn a_worker_that_closes_takes_no_new_run_in() {
    let here = Here::new();
    let mut worker = here.worker(64).await;
    here.start("under way").await.unwrap();
    settle().await;
    worker.shut_down();
    settle().await;
    assert!(!worker.task.is_finished(), "it lets the step come to its end");
    here.start("r").await.unwrap();
    assert_eq!(here.starts(), ["born", "pushed"]);
    here.gate.add_permits(2);
    settle().await;
    assert!(worker.task.is_finished());
    assert_eq!(here.state("under way").await, Some(RunState::Completed));
    assert_eq!(here.state("r").await, Some(RunState::Running));
    let _worker = here.worker(64).await;
    assert_eq!(here.bench.outcome(&here.process, "r").await.state, RunState::Completed);
}

#[tokio::test]
async fn a_worker_that_closes_while_a_run_is_committed_puts_it_back_for_the_next() {
    let here = Here::new();
    let mut worker = here.worker(64).await;
    here.watch.commits.shut();
    let start = here.start("r");
    tokio::pin!(start);
    tokio::select! {
        biased;
        _ = &mut start => panic!("it is not committed yet"),
        () = settle() => {}
    }
    worker.shut_down();
    settle().await;
    assert!(!worker.task.is_finished(), "it does not leave a run that may be its");
    here.watch.commits.open();
    assert_eq!(start.await.unwrap(), Started::New);
    settle().await;
    assert!(worker.task.is_finished());
    assert_eq!(here.seen.take(), Vec::<String>::new());
    here.gate.add_permits(1);
    let _worker = here.worker(64).await;
    settle().await;
    assert_eq!(here.state("r").await, Some(RunState::Completed));
}

#[tokio::test]
async fn a_run_that_begins_at_once_and_loses_its_worker_is_taken_over_after_its_lease() {
    let here = Here::new();
    let mut worker = here.worker(64).await;
    here.start("r").await.unwrap();
    settle().await;
    worker.kill().await;
    let elsewhere = here.elsewhere();
    let _worker = Running::start(&elsewhere);
    settle().await;
    assert_eq!(here.state("r").await, Some(RunState::Running));
    here.bench.clock.advance(Duration::from_secs(31));
    assert_eq!(here.bench.outcome(&elsewhere, "r").await.state, RunState::Parked, "its step is in doubt");
    assert_eq!(here.seen.take(), ["began"]);
}

#[tokio::test]
async fn who_had_nothing_to_do_for_long_still_takes_a_run_over_after_its_lease() {
    const LEASE: Duration = Duration::from_secs(6);
    let here = Here::new();
    let elsewhere = here.elsewhere().lease(LEASE);
    let _idle = Running::start(&elsewhere);
    for _ in 0..600 {
        settle().await;
        here.bench.clock.advance(Duration::from_secs(1));
    }
    let process = here.process.clone().lease(LEASE);
    let worker = tokio::spawn(process.worker().run(std::future::pending()));
    settle().await;
    process.start("one", "r", &1).await.unwrap();
    settle().await;
    assert_eq!(here.starts(), ["born"]);
    worker.abort();
    // Nothing hints at a job that is leased.
    for _ in 0..6 {
        settle().await;
        assert_eq!(here.state("r").await, Some(RunState::Running));
        here.bench.clock.advance(Duration::from_secs(1));
    }
    settle().await;
    assert_eq!(here.state("r").await, Some(RunState::Parked), "its step is in doubt");
}

#[tokio::test]
async fn a_start_gets_the_same_answers_with_a_worker_and_without() {
    for with_worker in [true, false] {
        let here = Here::new();
        let _worker = if with_worker { Some(here.worker(64).await) } else { None };
        assert_eq!(here.start("r").await.unwrap(), Started::New);
        for state in [RunState::Running, RunState::Completed] {
            assert_eq!(here.state("r").await, Some(state));
            assert_eq!(here.start("r").await.unwrap(), Started::Existing);
            let error = here.process.start("one", "r", &2).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
            assert!(error.to_string().contains("another input"), "{error}");
            here.gate.add_permits(1);
            let _other = (!with_worker).then(|| Running::start(&here.process));
            here.bench.outcome(&here.process, "r").await;
        }
        assert_eq!(here.seen.take(), ["began"]);
    }
}

#[tokio::test]
async fn a_job_that_was_left_of_a_run_is_no_obstacle_to_a_new_one() {
    let here = Here::new();
    let _worker = here.worker(64).await;
    let at = here.bench.store.partition_of("r");
    let mut batch = Batch::new(at, here.bench.clock.now());
    batch.push("choreograph.runs", "r", Timestamp::MAX, "", Merge::Keep);
    here.bench.store.commit(batch).await.unwrap();
    settle().await;
    here.gate.add_permits(1);
    assert_eq!(here.start("r").await.unwrap(), Started::New);
    assert_eq!(here.starts(), ["born", "pushed"]);
    assert_eq!(here.bench.outcome(&here.process, "r").await.state, RunState::Completed);
}

#[tokio::test]
async fn a_run_that_cannot_be_written_leaves_nothing_behind_and_no_place_taken() {
    let here = Here::new();
    let _worker = here.worker(1).await;
    let at = here.bench.store.partition_of("r");
    let key = || evenkeel_core::Key::new("choreograph.run", "r", "run");
    let mut batch = Batch::new(at.clone(), here.bench.clock.now());
    batch.put(key(), "no record of a run", Expect::Absent);
    here.bench.store.commit(batch).await.unwrap();
    let error = here.start("r").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    settle().await;
    here.start("s").await.unwrap();
    assert_eq!(here.starts(), ["born", "born"]);
}
