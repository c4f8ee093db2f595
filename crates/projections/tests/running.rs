//! Projections that run, beside what the suite says of every store: nodes that come and go, panics, much to do.

mod kit;

use std::time::Duration;

use evenkeel_core::{BoxError, Draft, Filter, ManualClock, MemoryStore, Store, StoreExt, Tx};
use evenkeel_projections::{Context, Operations, Projection, Projector, Recorded};
use kit::{Bank, Mode, Sums};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const LEASE: Duration = Duration::from_secs(30);

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<evenkeel_core::Result<()>>,
}

impl Running {
    fn start<S>(projection: Projection<Sums, S>) -> Self
    where
        S: evenkeel_core::Transactional<Conn = evenkeel_core::Draft> + Clone,
    {
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            projection.lease(LEASE).run(shutdown).await
        });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

/// Lets everything run until a condition holds.
async fn until<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    for _ in 0..100_000 {
        if condition().await {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the condition never held");
}

#[tokio::test]
async fn two_nodes_share_the_partitions_and_one_that_leaves_hands_its_over() {
    let bank = Bank::with_partitions(4);
    let (one, two) = (Sums::default(), Sums::default());
    let first = Running::start(Mode::Stream.of(&bank.events, &one));
    let held = async || {
        let mut holders = std::collections::HashSet::new();
        for at in bank.store.partitions() {
            let page =
                evenkeel_core::Jobs::Page { queue: "projections.run/sums".into(), after: None, limit: 9 };
            let jobs = bank.store.jobs(&at, page).await.unwrap().jobs;
            let lease = jobs.first().and_then(|(_, job)| job.lease).map(|hold| hold.until);
            holders.insert((at, lease.is_some_and(|until| until > bank.now())));
        }
        holders.into_iter().filter(|(_, held)| *held).count()
    };
    kit::with_moving_clock(&bank.clock, until(async || held().await == 4)).await;

    let second = Running::start(Mode::Stream.of(&bank.events, &two));
    // Each learns of the other within a third of a lease, and one that has too much gives back what
    // is too much.
    let both = async {
        let mut account = 0;
        while one.seen().len() < 20 || two.seen().len() < 20 {
            bank.deposit(&format!("account-{account}"), &[1]).await;
            account += 1;
            assert!(held().await >= 2, "more is given back than another may take");
            assert!(account < 20_000, "one node has {}, the other {}", one.seen().len(), two.seen().len());
            tokio::task::yield_now().await;
        }
        account
    };
    let accounts = kit::with_moving_clock(&bank.clock, both).await;
    first.stop().await;
    let all = until(async || bank.rows("sums-1").await.len() == accounts);
    kit::with_moving_clock(&bank.clock, all).await;
    for (account, sum) in bank.rows("sums-1").await {
        assert_eq!(sum, "1", "{account}");
    }
    second.stop().await;
}

/// Panics where no handler is.
struct Panics {
    times: std::sync::atomic::AtomicU32,
}

impl Projector<Draft> for Panics {
    type State = ();

    fn filter(&self) -> Filter {
        use std::sync::atomic::Ordering::SeqCst;
        let again = self.times.fetch_update(SeqCst, SeqCst, |times| times.checked_sub(1));
        assert!(again.is_err(), "which events there are to be is beyond words");
        Filter::all()
    }

    async fn init(&self, _: u32, _: &mut Tx<Draft>) -> Result<(), BoxError> {
        use std::sync::atomic::Ordering::SeqCst;
        let again = self.times.fetch_update(SeqCst, SeqCst, |times| times.checked_sub(1));
        assert!(again.is_err(), "what tables there are to be is beyond words");
        Ok(())
    }

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        let stream = event.stream.clone();
        kit::add(context.conn().await?, "panics", &stream, 1).await
    }
}

#[tokio::test]
async fn no_partition_is_lost_by_a_panic() {
    let bank = Bank::with_partitions(2);
    let panics = Panics { times: 6.into() };
    let projection = Projection::stream(bank.events.clone(), "panics", panics);
    let running = tokio::spawn({
        let projection = projection.clone();
        async move { projection.run(std::future::pending()).await }
    });
    for account in ["a", "b", "c"] {
        let appended = bank.deposit(account, &[1]).await;
        kit::with_moving_clock(&bank.clock, projection.wait_for(&appended)).await.unwrap();
    }
    assert!(!running.is_finished());
    running.abort();
    assert_eq!(bank.rows("panics").await.len(), 3);
}

#[tokio::test]
async fn who_waits_where_the_projection_runs_is_told_at_once() {
    let bank = Bank::new();
    let projection = Mode::Stream.of(&bank.events, &Sums::default());
    let running = tokio::spawn({
        let projection = projection.clone();
        async move { projection.run(std::future::pending()).await }
    });
    let first = bank.deposit("a", &[1]).await;
    kit::with_moving_clock(&bank.clock, projection.wait_for(&first)).await.unwrap();
    let before = bank.now();
    let next = bank.deposit("a", &[2]).await;
    // No time passes, so whoever waits for some hangs.
    projection.wait_for(&next).await.unwrap();
    assert_eq!((bank.row("sums-1", "a").await, bank.now()), (Some(3), before));
    running.abort();
}

/// Pauses the projection at an event, in the middle of many.
struct Pausing {
    operations: Operations<MemoryStore>,
    clock: ManualClock,
}

impl Projector<Draft> for Pausing {
    type State = u64;

    async fn apply(&self, _: &Recorded, context: &mut Context<'_, Draft, u64>) -> Result<(), BoxError> {
        *context.state += 1;
        if *context.state == 10 {
            self.operations.pause().await?;
        }
        if *context.state > 10 {
            self.clock.advance(Duration::from_secs(2));
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_pause_is_heeded_in_the_middle_of_much_to_do() {
    let bank = Bank::new();
    for _ in 0..100 {
        bank.deposit("a", &[1; 10]).await;
    }
    let operations = Operations::new(bank.store.clone(), "pausing");
    let pausing = Pausing { operations: operations.clone(), clock: bank.clock.clone() };
    let projection = Projection::stream(bank.events.clone(), "pausing", pausing).most_events(10);
    let projection = projection.lease(Duration::from_secs(1_000_000));
    let running = tokio::spawn(async move { projection.run(std::future::pending()).await });
    let a_while = async {
        until(async || operations.status().await.is_ok_and(|status| status.paused)).await;
        let began = bank.now();
        until(async || bank.now().since(began) > Duration::from_secs(100)).await;
    };
    kit::with_moving_clock(&bank.clock, a_while).await;
    running.abort();
    let status = operations.status().await.unwrap();
    assert!(status.progress().0 <= 30, "{status:?}");
}
