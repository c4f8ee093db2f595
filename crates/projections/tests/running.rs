//! Projections that run: hints, nodes that share partitions, and nodes that die.

mod kit;

use std::time::Duration;

use evenkeel_core::{Store, StoreExt};
use evenkeel_projections::Projection;
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
async fn events_are_applied_as_they_are_appended_and_waited_for() {
    for mode in Mode::BOTH {
        let (bank, sums) = (Bank::with_partitions(2), Sums::default());
        let projection = mode.of(&bank, &sums);
        let waiting = projection.clone();
        let running = Running::start(mode.of(&bank, &sums));
        for round in 1..=5 {
            for account in ["a", "b", "c"] {
                let appended = bank.deposit(account, &[round]).await;
                // The clock stands: it is the hint that makes it happen, and the look that is slow.
                kit::with_moving_clock(&bank.clock, waiting.wait_for(&appended)).await.unwrap();
                assert_eq!(bank.row("sums-1-count", account).await, Some(round));
            }
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn two_nodes_share_the_partitions_and_one_that_leaves_hands_its_over() {
    let bank = Bank::with_partitions(4);
    let (one, two) = (Sums::default(), Sums::default());
    let first = Running::start(Mode::Stream.of(&bank, &one));
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

    let second = Running::start(Mode::Stream.of(&bank, &two));
    // Each learns of the other within a third of a lease, and one that has too much gives back.
    let both = async {
        let mut account = 0;
        while one.seen().len() < 20 || two.seen().len() < 20 {
            bank.deposit(&format!("account-{account}"), &[1]).await;
            account += 1;
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

#[tokio::test]
async fn the_partitions_of_a_node_that_dies_move_within_one_lease() {
    let bank = Bank::new();
    let (dying, surviving) = (Sums::default(), Sums::default());
    let first = Running::start(Mode::Stream.of(&bank, &dying));
    bank.deposit("a", &[1]).await;
    kit::with_moving_clock(&bank.clock, until(async || !dying.seen().is_empty())).await;
    // It says nothing more, and its lease stands.
    first.task.abort();
    let died_at = bank.now();

    let second = Running::start(Mode::Stream.of(&bank, &surviving));
    let appended = bank.deposit("a", &[2]).await;
    let projection = Mode::Stream.of(&bank, &surviving);
    kit::with_moving_clock(&bank.clock, projection.wait_for(&appended)).await.unwrap();
    assert!(bank.now().since(died_at) <= LEASE + Duration::from_secs(3), "{:?}", bank.now().since(died_at));
    assert_eq!(surviving.seen(), [2]);
    assert_eq!(bank.row("sums-1", "a").await, Some(3));
    second.stop().await;
}

#[tokio::test]
async fn a_stopped_partition_goes_on_when_it_is_resumed() {
    let (bank, sums) = (Bank::new(), Sums::poisoned_by(3));
    let running = Running::start(Mode::Stream.of(&bank, &sums));
    let projection = Mode::Stream.of(&bank, &sums);
    let appended = bank.deposit("a", &[1, 3, 5]).await;
    let error = kit::with_moving_clock(&bank.clock, projection.wait_for(&appended)).await.unwrap_err();
    assert!(error.to_string().contains("3 cents are poison"), "{error}");

    let operations = projection.operations();
    let status = operations.status().await.unwrap();
    assert_eq!((status.lag(), status.progress()), (2, (1, 3)));
    let failed = status.partitions[0].failed.clone().unwrap();
    assert_eq!((failed.position, failed.version, failed.stream.as_str()), (2, 2, "a"));
    assert!(!status.is_healthy(Duration::MAX));

    sums.heal();
    operations.resume().await.unwrap();
    kit::with_moving_clock(&bank.clock, projection.wait_for(&appended)).await.unwrap();
    let status = operations.status().await.unwrap();
    assert!(status.is_healthy(Duration::ZERO) && status.lag() == 0, "{status:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_paused_projection_applies_nothing_until_it_is_resumed() {
    let (bank, sums) = (Bank::new(), Sums::default());
    let projection = Mode::Stream.of(&bank, &sums);
    projection.catch_up().await.unwrap();
    projection.operations().pause().await.unwrap();
    assert!(projection.catch_up().await.unwrap_err().to_string().contains("paused"));

    let running = Running::start(Mode::Stream.of(&bank, &sums));
    let appended = bank.deposit("a", &[1]).await;
    let a_while = async {
        let began = bank.now();
        until(async || bank.now().since(began) > Duration::from_secs(100)).await;
    };
    kit::with_moving_clock(&bank.clock, a_while).await;
    assert!(sums.seen().is_empty());
    assert!(projection.operations().status().await.unwrap().is_healthy(Duration::ZERO));

    projection.operations().resume().await.unwrap();
    kit::with_moving_clock(&bank.clock, projection.wait_for(&appended)).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn health_turns_when_the_head_moves_and_the_position_does_not() {
    let (bank, sums) = (Bank::new(), Sums::default());
    let projection = Mode::Stream.of(&bank, &sums);
    bank.deposit("a", &[1]).await;
    projection.catch_up().await.unwrap();
    let patience = Duration::from_secs(60);
    bank.clock.advance(10 * patience);
    assert!(projection.operations().status().await.unwrap().is_healthy(patience), "nothing is to be done");
    bank.deposit("a", &[2]).await;
    assert!(projection.operations().status().await.unwrap().is_healthy(patience), "it has just come");
    bank.clock.advance(2 * patience);
    let status = projection.operations().status().await.unwrap();
    assert!(!status.is_healthy(patience));
    assert_eq!((status.lag(), status.partitions[0].behind), (1, 2 * patience));
    projection.catch_up().await.unwrap();
    assert!(projection.operations().status().await.unwrap().is_healthy(patience));
}

#[tokio::test]
async fn a_new_version_is_built_beside_the_active_one_while_events_are_appended() {
    for mode in Mode::BOTH {
        let (bank, sums) = (Bank::with_partitions(2), Sums::default());
        let projection = mode.of(&bank, &sums);
        for round in 0..5 {
            for account in ["a", "b", "c"] {
                bank.deposit(account, &[round, 1]).await;
            }
        }
        let running = Running::start(mode.of(&bank, &sums));
        let version = projection.start_rebuild().await.unwrap();
        let switched = async {
            let mut account = 0;
            while projection.operations().status().await.map_or(1, |status| status.active) != version {
                bank.deposit(["a", "b", "c"][account % 3], &[1]).await;
                account += 1;
                tokio::task::yield_now().await;
            }
            bank.deposit("a", &[1]).await
        };
        let last = kit::with_moving_clock(&bank.clock, switched).await;
        kit::with_moving_clock(&bank.clock, projection.wait_for(&last)).await.unwrap();
        let mut events = 0;
        for account in ["a", "b", "c"] {
            events += bank.events.version(account).await.unwrap();
        }
        running.stop().await;
        projection.catch_up().await.unwrap();
        let counted: u64 =
            bank.rows("sums-2-count").await.iter().map(|(_, count)| count.parse::<u64>().unwrap()).sum();
        assert_eq!(counted, events);
    }
}
