use std::time::Duration;

use evenkeel_core::{Jobs, Store, StoreExt, Transactional};

use super::accounts::{Mode, Sums};
use super::bench::{Bank, LEASE, run};

super::cases![
    events_are_applied_as_they_are_appended_and_waited_for,
    two_nodes_share_the_partitions,
    the_partitions_of_a_node_that_dies_move_within_one_lease,
    a_new_version_is_built_beside_the_active_one_while_events_are_appended,
];

async fn events_are_applied_as_they_are_appended_and_waited_for<S: Transactional + Clone>(bank: Bank<S>) {
    for mode in Mode::BOTH {
        let bank = bank.fresh();
        let projection = mode.of(&bank.events, &Sums::default());
        let _running = run(mode.of(&bank.events, &Sums::default()));
        for round in 1..=3 {
            for account in ["a", "b", "c"] {
                let appended = bank.deposit(account, &[round]).await;
                bank.passing(projection.wait_for(&appended)).await.unwrap();
                assert_eq!(bank.row("sums-1-count", account).await, Some(round));
            }
        }
    }
}

/// How many partitions are held by a node.
async fn held<S: Transactional + Clone>(bank: &Bank<S>) -> usize {
    let mut held = 0;
    for at in bank.store.partitions() {
        let page = Jobs::Page { queue: "projections.run/sums".into(), after: None, limit: 9 };
        let jobs = bank.store.jobs(&at, page).await.unwrap().jobs;
        let lease = jobs.first().and_then(|(_, job)| job.lease);
        held += usize::from(lease.is_some_and(|hold| hold.until > bank.now()));
    }
    held
}

async fn two_nodes_share_the_partitions<S: Transactional + Clone>(bank: Bank<S>) {
    let partitions = bank.store.partitions().len();
    let (one, two) = (Sums::default(), Sums::default());
    let _first = run(Mode::Stream.of(&bank.events, &one));
    bank.until(async || held(&bank).await == partitions).await;
    let _second = run(Mode::Stream.of(&bank.events, &two));
    // Each learns of the other within a third of a lease.
    bank.pass(LEASE).await;
    bank.until(async || held(&bank).await == partitions).await;
    for account in 0..40 {
        let appended = bank.deposit(&format!("account-{account}"), &[1]).await;
        let projection = Mode::Stream.of(&bank.events, &Sums::default());
        bank.passing(projection.wait_for(&appended)).await.unwrap();
    }
    assert_eq!(one.seen().len() + two.seen().len(), 40, "no two do the same");
    assert_eq!(two.seen().is_empty(), partitions == 1);
    assert!(!one.seen().is_empty());
}

async fn the_partitions_of_a_node_that_dies_move_within_one_lease<S: Transactional + Clone>(bank: Bank<S>) {
    let (dying, surviving) = (Sums::default(), Sums::default());
    let first = run(Mode::Stream.of(&bank.events, &dying));
    bank.deposit("a", &[1]).await;
    bank.until(async || bank.row("sums-1", "a").await == Some(1)).await;
    // It says nothing more, and its lease stands.
    drop(first);
    let died_at = bank.now();

    let _second = run(Mode::Stream.of(&bank.events, &surviving));
    let appended = bank.deposit("a", &[2]).await;
    let projection = Mode::Stream.of(&bank.events, &surviving);
    bank.passing(projection.wait_for(&appended)).await.unwrap();
    let waited = bank.now().since(died_at);
    assert!(waited <= LEASE + Duration::from_secs(3), "{waited:?}");
    assert_eq!(surviving.seen(), [2]);
    assert_eq!(bank.row("sums-1", "a").await, Some(3));
}

async fn a_new_version_is_built_beside_the_active_one_while_events_are_appended<S: Transactional + Clone>(
    bank: Bank<S>,
) {
    for mode in Mode::BOTH {
        let bank = bank.fresh();
        let projection = mode.of(&bank.events, &Sums::default());
        for account in ["a", "b", "c"] {
            bank.deposit(account, &[1; 10]).await;
        }
        let first = bank.deposit("a", &[1]).await;
        let running = run(mode.of(&bank.events, &Sums::default()));
        bank.passing(projection.wait_for(&first)).await.unwrap();
        let version = projection.operations().start_rebuild().await.unwrap();
        let switched = async || {
            for account in ["a", "b", "c"] {
                bank.deposit(account, &[1]).await;
            }
            projection.operations().status().await.unwrap().active == version
        };
        bank.until(switched).await;
        let last = bank.deposit("a", &[1]).await;
        bank.passing(projection.wait_for(&last)).await.unwrap();
        drop(running);
        bank.passing(projection.catch_up()).await.unwrap();
        for account in ["a", "b", "c"] {
            let events = bank.events.version(account).await.unwrap();
            let counted = bank.row("sums-2-count", account).await;
            assert_eq!(counted, Some(i64::try_from(events).unwrap()));
        }
    }
}
