//! What shuts out those who held a run before.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Fallible, Running, Seen, settle};
use evenkeel_choreograph::{Choreographer, Definition, RunState, StepContext, StepKey};
use evenkeel_core::layer::{Around, Call, Method};
use evenkeel_core::{Clock, ManualClock, Op, Result, StoreExt};
use tokio::sync::Semaphore;

const FIRST: StepKey<String> = StepKey::new("first");
const LAST: StepKey<u32> = StepKey::new("last");

/// Lets as many commits through as it has permits, and counts those that prove a lease by its token.
#[derive(Clone, Debug)]
struct Held {
    commits: Arc<Semaphore>,
    proofs: Arc<Semaphore>,
}

impl Held {
    fn new(commits: usize) -> Self {
        Self { commits: Arc::new(Semaphore::new(commits)), proofs: Arc::new(Semaphore::new(0)) }
    }
}

impl Around for Held {
    async fn call<T: Send>(&self, call: Call<'_>, made: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if call.method == Method::Commit {
            self.commits.acquire().await.unwrap().forget();
            let ops = call.batch.unwrap().ops();
            self.proofs.add_permits(ops.iter().filter(|op| matches!(op, Op::Extend { .. })).count());
        }
        made.await
    }
}

/// A zombie in the middle of its first step, and who is to take its run over.
struct Story {
    bench: Bench,
    seen: Seen,
    /// Lets the zombie's first step end.
    zombie_gate: Arc<Semaphore>,
    /// Lets the successor's first step end.
    gate: Arc<Semaphore>,
    zombie: Choreographer,
    successor: Choreographer,
    held: Held,
}

impl Story {
    /// A run under way, with a value of so many bytes to come of its first step.
    async fn new(bytes: usize) -> (Self, Running) {
        let (bench, seen) = (Bench::new(1), Seen::default());
        let (zombie_gate, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let held = Held::new(0);
        // Its clock stands still: it believes in its lease.
        let zombie =
            Choreographer::new(bench.store.clone()).clock(ManualClock::at(bench.clock.now()).shared());
        zombie.register(definition(&seen, "zombie", &zombie_gate, bytes)).unwrap();
        let successor =
            Choreographer::new(bench.store.clone().layer(held.clone()).any()).clock(bench.clock.shared());
        successor.register(definition(&seen, "successor", &gate, bytes)).unwrap();
        zombie.start("two", "r", &()).await.unwrap();
        let worker = Running::start(&zombie);
        settle().await;
        assert_eq!(seen.take(), ["zombie begins"]);
        bench.clock.advance(Duration::from_secs(31));
        (Self { bench, seen, zombie_gate, gate, zombie, successor, held }, worker)
    }

    async fn first(&self) -> Option<String> {
        let run = self.bench.choreographer().inspect("r").await.unwrap().unwrap();
        run.get(FIRST).unwrap().map(|value| value.trim().to_owned())
    }
}

fn definition(seen: &Seen, who: &'static str, gate: &Arc<Semaphore>, bytes: usize) -> Definition<()> {
    let (begins, gate) = (seen.clone(), Arc::clone(gate));
    let first = move |_: StepContext<()>| {
        let (seen, gate) = (begins.clone(), Arc::clone(&gate));
        async move {
            seen.add(format!("{who} begins"));
            gate.acquire().await.unwrap().forget();
            Fallible::Ok(format!("{who:bytes$}"))
        }
    };
    Definition::<()>::builder("two").step(FIRST, first).step(LAST, seen.note(1)).build().unwrap()
}

#[tokio::test]
async fn what_is_recorded_before_the_successor_writes_is_not_done_again() {
    let (story, _zombie) = Story::new(10).await;
    let _successor = Running::start(&story.successor);
    settle().await;
    // The successor has the lease, has read the run, and is about to write.
    story.zombie_gate.add_permits(1);
    settle().await;
    assert_eq!(story.first().await.as_deref(), Some("zombie"));
    story.held.commits.add_permits(100);
    story.gate.add_permits(1);
    let run = story.bench.outcome(&story.successor, "r").await;
    assert_eq!(run.state, RunState::Completed);
    assert!(!story.seen.take().contains(&"successor begins".to_owned()));
    assert_eq!(story.first().await.as_deref(), Some("zombie"));
}

#[tokio::test]
async fn what_has_a_record_of_its_own_is_recorded_by_nobody_whose_lease_is_lost() {
    let (story, _zombie) = Story::new(3000).await;
    let _successor = Running::start(&story.successor);
    settle().await;
    story.zombie_gate.add_permits(1);
    settle().await;
    assert_eq!(story.first().await, None);
    story.held.commits.add_permits(100);
    story.gate.add_permits(1);
    assert_eq!(story.bench.outcome(&story.successor, "r").await.state, RunState::Completed);
    assert_eq!(story.seen.take(), ["successor begins", "last"]);
    assert_eq!(story.first().await.as_deref(), Some("successor"));
}

#[tokio::test]
async fn once_the_successor_has_written_nobody_else_records_anything() {
    for bytes in [10, 3000] {
        for looks_again in [false, true] {
            let (story, _zombie) = Story::new(bytes).await;
            story.held.commits.add_permits(100);
            let _successor = Running::start(&story.successor);
            settle().await;
            assert_eq!(story.seen.take(), ["successor begins"]);
            if looks_again {
                // Told of a signal, the zombie reads the run, with the version that the successor wrote.
                story.zombie.signal("r", "news", &1).await.unwrap();
                settle().await;
            }
            story.zombie_gate.add_permits(1);
            settle().await;
            assert_eq!((story.first().await, story.seen.take()), (None, Vec::new()));
            story.gate.add_permits(1);
            assert_eq!(story.bench.outcome(&story.successor, "r").await.state, RunState::Completed);
            assert_eq!(story.first().await.as_deref(), Some("successor"));
            assert_eq!(story.seen.take(), ["last"]);
        }
    }
}

#[tokio::test]
async fn a_successor_of_a_successor_shuts_both_out() {
    let (story, _zombie) = Story::new(10).await;
    // It leases the run and stands still before it has written.
    let stopped = ManualClock::at(story.bench.clock.now());
    let second = Choreographer::new(story.bench.store.clone().layer(story.held.clone()).any());
    let second = second.clock(stopped.shared());
    second.register(definition(&story.seen, "second", &story.gate, 10)).unwrap();
    let _second = Running::start(&second);
    settle().await;
    story.bench.clock.advance(Duration::from_secs(31));
    let gate = Arc::new(Semaphore::new(0));
    let third = story.bench.choreographer();
    third.register(definition(&story.seen, "third", &gate, 10)).unwrap();
    let _third = Running::start(&third);
    settle().await;
    assert_eq!(story.seen.take(), ["third begins"]);
    story.held.commits.add_permits(100);
    story.zombie_gate.add_permits(1);
    settle().await;
    assert_eq!((story.first().await, story.seen.take()), (None, Vec::new()));
    gate.add_permits(1);
    assert_eq!(story.bench.outcome(&third, "r").await.state, RunState::Completed);
    assert_eq!(story.seen.take(), ["last"]);
    assert_eq!(story.first().await.as_deref(), Some("third"));
}

#[tokio::test]
async fn a_lease_is_proved_once_by_who_takes_a_run_over_and_again_when_somebody_else_writes() {
    let (story, zombie) = Story::new(10).await;
    zombie.kill().await;
    story.held.commits.add_permits(100);
    let _successor = Running::start(&story.successor);
    settle().await;
    assert_eq!(story.seen.take(), ["successor begins"]);
    assert_eq!(story.held.proofs.available_permits(), 1);
    story.bench.choreographer().cancel("r").await.unwrap();
    story.gate.add_permits(1);
    assert_eq!(story.bench.outcome(&story.successor, "r").await.state, RunState::Cancelled);
    assert_eq!(story.held.proofs.available_permits(), 2);
}
