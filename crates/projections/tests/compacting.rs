//! Read models that are made smaller, a step at a time, beside what is applied.

mod kit;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_core::{
    BoxError, Draft, Error, ErrorKind, Key, MemoryStore, Partition, Scan, Store, StoreExt, Tx,
};
use evenkeel_projections::{Compacted, Context, Projection, Projector, Recorded};
use kit::Bank;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const HOUR: Duration = Duration::from_secs(3600);

/// How many lines a step takes away at most.
const STEP: usize = 2;

/// Keeps a line an event; compacted, only the last line of each partition.
#[derive(Clone)]
struct Lines {
    bank: Bank,
    /// What goes wrong with the next step.
    trouble: Arc<Mutex<Option<Trouble>>>,
    /// How many steps were taken in each version and partition.
    steps: Arc<Mutex<Vec<(u32, Partition)>>>,
    /// The partitions of which a step is under way.
    under_way: Arc<Mutex<HashSet<Partition>>>,
    /// How often a step was begun where another was under way.
    overlaps: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    Fails,
    Panics,
    Hangs,
    /// What it has read is written by another.
    Outrun,
    /// Another version takes over.
    Reset,
}

fn line(id: &str) -> Key {
    Key::new("test.model", "lines", id)
}

impl Lines {
    fn new(bank: &Bank) -> Self {
        let (trouble, steps, under_way, overlaps) = Default::default();
        Self { bank: bank.clone(), trouble, steps, under_way, overlaps }
    }

    fn with(bank: &Bank, trouble: Trouble) -> Self {
        let lines = Self::new(bank);
        *lines.trouble.lock().unwrap() = Some(trouble);
        lines
    }

    fn projection(&self) -> Projection<Self, MemoryStore> {
        let projection = Projection::stream(self.bank.events.clone(), "lines", self.clone());
        projection.lease(100 * HOUR)
    }

    fn steps(&self) -> usize {
        self.steps.lock().unwrap().len()
    }

    async fn meet(&self, trouble: Trouble, at: &Partition) {
        match trouble {
            Trouble::Fails | Trouble::Panics => {}
            Trouble::Hangs => std::future::pending().await,
            Trouble::Outrun => {
                let mut batch = evenkeel_core::Batch::new(at.clone(), self.bank.now());
                for (id, _) in self.lines(at).await {
                    batch.put(line(&id), "seen", evenkeel_core::Expect::Any);
                }
                self.bank.store.commit(batch).await.unwrap();
            }
            Trouble::Reset => {
                let projection = self.projection();
                projection.operations().reset().await.unwrap();
                projection.catch_up().await.unwrap();
            }
        }
    }

    /// The lines of a partition, oldest first.
    async fn lines(&self, at: &Partition) -> Vec<(String, evenkeel_core::Record)> {
        let scan = Scan::new("test.model", "lines", 1_000, self.bank.now());
        self.bank.store.scan(at, scan).await.unwrap().records
    }
}

impl Projector<Draft> for Lines {
    type State = ();

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        let id = format!("{:04}-{}", event.position, context.partition().index());
        context.conn().await?.put(line(&id), "");
        Ok(())
    }

    async fn compact(&self, version: u32, tx: &mut Tx<Draft>) -> Result<Compacted, BoxError> {
        let at = tx.partition().clone();
        if !self.under_way.lock().unwrap().insert(at.clone()) {
            self.overlaps.fetch_add(1, SeqCst);
        }
        self.steps.lock().unwrap().push((version, at.clone()));
        let lines = self.lines(&at).await;
        let old = &lines[..lines.len().saturating_sub(1)];
        let draft = tx.conn().await?;
        for (id, _) in old.iter().take(STEP) {
            draft.get(&line(id)).await?;
            draft.delete(line(id));
        }
        let trouble = self.trouble.lock().unwrap().take();
        if let Some(trouble) = trouble {
            self.meet(trouble, &at).await;
        }
        // For another to come in between, where it may.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        self.under_way.lock().unwrap().remove(&at);
        match trouble {
            Some(Trouble::Fails) => Err("there is no making it smaller".into()),
            Some(Trouble::Panics) => panic!("how large it is is beyond words"),
            _ if old.len() > STEP => Ok(Compacted::More),
            _ => Ok(Compacted::All),
        }
    }
}

/// Five lines in each of so many partitions.
async fn filled(partitions: u32) -> Bank {
    let bank = Bank::with_partitions(partitions);
    for at in bank.store.partitions() {
        let mut names = (0..).map(|n| format!("account-{n}"));
        let account = names.find(|name| bank.store.partition_of(name) == at).unwrap();
        bank.deposit(&account, &[1; 5]).await;
    }
    bank
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<evenkeel_core::Result<()>>,
}

impl Running {
    fn start(lines: &Lines) -> Self {
        Self::run(lines.projection().compact_every(HOUR))
    }

    fn run(projection: Projection<Lines, MemoryStore>) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move { projection.run(async { drop(stopped.await) }).await });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

/// Lets everything run, and time pass in small steps, until a condition holds.
async fn until<F: Future<Output = bool>>(bank: &Bank, condition: impl Fn() -> F) {
    let holds = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    let deadline = bank.now() + HOUR / 4;
    tokio::select! {
        () = kit::with_moving_clock(&bank.clock, holds) => {}
        () = bank.clock.shared().sleep_until(deadline) => panic!("the condition never held"),
    }
}

async fn rows(bank: &Bank) -> usize {
    bank.rows("lines").await.len()
}

#[tokio::test]
async fn a_read_model_is_compacted_in_small_steps_in_each_partition() {
    let bank = filled(4).await;
    let lines = Lines::new(&bank);
    let projection = lines.projection();
    projection.catch_up().await.unwrap();
    assert_eq!(rows(&bank).await, 20);
    projection.compact().await.unwrap();
    assert_eq!((rows(&bank).await, lines.steps()), (4, 8));
    let each: HashSet<_> = lines.steps.lock().unwrap().iter().cloned().collect();
    assert_eq!(each.len(), 4);
}

#[tokio::test]
async fn nothing_is_compacted_unless_that_is_asked_for() {
    let bank = filled(1).await;
    let lines = Lines::new(&bank);
    let appended = bank.deposit("account-0", &[1]).await;
    let projection = lines.projection();
    let running = tokio::spawn({
        let projection = projection.clone();
        async move { projection.run(std::future::pending()).await }
    });
    kit::with_moving_clock(&bank.clock, projection.wait_for(&appended)).await.unwrap();
    bank.clock.advance(100 * HOUR);
    let appended = bank.deposit("account-0", &[1]).await;
    kit::with_moving_clock(&bank.clock, projection.wait_for(&appended)).await.unwrap();
    running.abort();
    assert_eq!(lines.steps(), 0);
}

#[tokio::test]
async fn it_is_compacted_as_often_as_was_said_whoever_runs_it() {
    let bank = filled(2).await;
    let lines = Lines::new(&bank);
    lines.projection().catch_up().await.unwrap();
    let first = Running::start(&lines);
    until(&bank, async || rows(&bank).await == 2).await;
    first.stop().await;
    assert_eq!(lines.steps(), 4);

    // Another node, before it is time.
    let second = Running::start(&lines);
    for account in ["a", "b", "c", "d"] {
        bank.deposit(account, &[1; 3]).await;
    }
    until(&bank, async || rows(&bank).await == 14).await;
    bank.clock.advance(HOUR / 4);
    until(&bank, async || bank.rows("lines").await.len() == 14).await;
    assert_eq!(lines.steps(), 4);
    bank.clock.advance(HOUR / 4 * 3);
    until(&bank, async || rows(&bank).await == 2).await;
    let steps = lines.steps();
    assert!(steps > 4);

    // The same node, an hour later.
    bank.clock.advance(HOUR);
    until(&bank, async || lines.steps() == steps + 2).await;
    second.stop().await;
}

#[tokio::test]
async fn a_failure_is_counted_and_stops_nothing_and_an_interval_later_it_is_tried_again() {
    for trouble in [Trouble::Fails, Trouble::Panics] {
        let recorder = DebuggingRecorder::new();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let bank = filled(1).await;
        let lines = Lines::with(&bank, trouble);
        let running = Running::start(&lines);
        until(&bank, async || counted(&recorder) == ["failed"]).await;
        bank.deposit("account-0", &[1]).await;
        until(&bank, async || rows(&bank).await == 6).await;
        assert_eq!(lines.steps(), 1, "{trouble:?}");
        bank.clock.advance(HOUR);
        until(&bank, async || counted(&recorder) == ["done"]).await;
        assert_eq!(rows(&bank).await, 1);
        running.stop().await;
    }
}

/// The outcomes of the compactions that were counted since it was asked last.
fn counted(recorder: &DebuggingRecorder) -> Vec<String> {
    let found = recorder.snapshotter().snapshot().into_vec().into_iter();
    let counted = found.filter(|(key, _, _, value)| {
        key.key().name() == "evenkeel_projections_compactions_total" && *value != DebugValue::Counter(0)
    });
    let outcomes = counted.flat_map(|(key, ..)| {
        assert!(key.key().labels().any(|label| (label.key(), label.value()) == ("projection", "lines")));
        let mut labels = key.key().labels().filter(|label| label.key() == "outcome");
        labels.next().map(|label| label.value().to_owned())
    });
    outcomes.collect()
}

#[tokio::test]
async fn events_are_applied_while_a_step_is_under_way() {
    let bank = filled(1).await;
    let lines = Lines::with(&bank, Trouble::Hangs);
    let running = Running::start(&lines);
    until(&bank, async || lines.steps() == 1).await;
    bank.deposit("account-0", &[1]).await;
    until(&bank, async || rows(&bank).await == 6).await;
    running.stop().await;
    assert_eq!(rows(&bank).await, 6, "what the step was to write is gone with it");
}

#[tokio::test]
async fn two_nodes_share_the_work_and_never_take_a_step_in_one_partition_at_once() {
    let bank = filled(4).await;
    let one = Lines::new(&bank);
    let two = Lines { steps: Arc::default(), ..one.clone() };
    let (lease, interval) = (Duration::from_secs(30), Duration::from_secs(60));
    let nodes = [&one, &two].map(|node| Running::run(node.projection().lease(lease).compact_every(interval)));
    until(&bank, async || one.steps() >= 10 && two.steps() >= 10).await;
    assert_eq!((rows(&bank).await, one.overlaps.load(SeqCst)), (4, 0));
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_step_that_others_got_in_the_way_of_is_taken_again() {
    let bank = filled(1).await;
    let lines = Lines::with(&bank, Trouble::Outrun);
    lines.projection().catch_up().await.unwrap();
    lines.projection().compact().await.unwrap();
    assert_eq!(lines.steps(), 3);
    assert_eq!(bank.rows("lines").await, [("0005-0".to_owned(), "seen".to_owned())]);
}

#[tokio::test]
async fn a_version_that_another_has_taken_over_from_is_compacted_no_more() {
    let bank = filled(1).await;
    let lines = Lines::with(&bank, Trouble::Reset);
    lines.projection().catch_up().await.unwrap();
    lines.projection().compact().await.unwrap();
    assert_eq!((rows(&bank).await, lines.steps()), (5, 1));
    lines.projection().compact().await.unwrap();
    assert_eq!(rows(&bank).await, 1);
    let versions: Vec<u32> = lines.steps.lock().unwrap().iter().map(|(version, _)| *version).collect();
    assert_eq!(versions, [1, 2, 2]);
}

#[tokio::test]
async fn what_is_paused_is_not_compacted() {
    let bank = filled(1).await;
    let lines = Lines::new(&bank);
    let projection = lines.projection();
    projection.catch_up().await.unwrap();
    projection.operations().pause().await.unwrap();
    let refused: Result<(), Error> = projection.compact().await;
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::InvalidInput));
    let running = Running::start(&lines);
    bank.clock.wait_for_sleepers(1).await;
    bank.clock.advance(HOUR);
    bank.clock.wait_for_sleepers(1).await;
    assert_eq!(lines.steps(), 0);
    projection.operations().resume().await.unwrap();
    until(&bank, async || rows(&bank).await == 1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_failure_is_told_to_who_asked_for_it() {
    let bank = filled(1).await;
    let lines = Lines::with(&bank, Trouble::Fails);
    lines.projection().catch_up().await.unwrap();
    let failed = lines.projection().compact().await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unexpected);
    let source = std::error::Error::source(&failed).unwrap();
    assert_eq!(source.to_string(), "there is no making it smaller");
    assert_eq!(rows(&bank).await, 5);
}
