//! A version moves from what it is at, and what goes with it is in the same commit.

use std::sync::Mutex;

use evenkeel_core::{Batch, Clock, Error, ErrorKind, Expect, ManualClock, Partition, Result, Transactional};
use futures_util::future::try_join_all;

use super::{AT_ONCE, RESOURCE, balances, effect, effects, handler, take_effect};

cases![
    an_unknown_resource_is_absent,
    a_version_that_was_set_is_read_back,
    a_version_may_be_any_bytes_and_a_resource_any_text,
    an_absent_resource_is_created_once,
    a_resource_moves_on_from_its_version_only,
    a_resource_is_deleted_at_its_version_only,
    an_update_from_absent_to_absent_holds_where_absent,
    setting_the_empty_version_leaves_nothing_in_the_way,
    a_deleted_resource_leaves_nothing_in_the_way,
    handlers_never_collide,
    the_writes_and_the_version_are_one_commit,
    a_mismatch_writes_nothing_and_runs_nothing,
    a_resource_written_meanwhile_is_not_moved_on,
    a_failure_of_the_work_writes_nothing,
    a_conflict_of_the_works_writes_is_an_error_and_writes_nothing,
    work_that_keeps_its_transaction_writes_nothing,
    an_update_may_join_a_batch_of_its_partition,
    an_update_may_not_join_a_batch_of_another_partition,
    of_simultaneous_updates_exactly_one_succeeds,
    of_simultaneous_updates_with_writes_exactly_one_succeeds,
];

async fn an_unknown_resource_is_absent<S: Transactional + Clone>(store: S) -> Result<()> {
    assert!(balances(&store).version(RESOURCE).await?.is_empty());
    Ok(())
}

async fn a_version_that_was_set_is_read_back<S: Transactional + Clone>(store: S) -> Result<()> {
    for version in ["1", "a longer one", "1"] {
        balances(&store).set(RESOURCE, version.as_bytes()).await?;
        assert_eq!(balances(&store).version(RESOURCE).await?, version);
    }
    Ok(())
}

async fn a_version_may_be_any_bytes_and_a_resource_any_text<S: Transactional + Clone>(
    store: S,
) -> Result<()> {
    let every_byte: Vec<u8> = (0..=255).collect();
    let long = "https://example.com/".to_owned() + &"ä/".repeat(5_000);
    for resource in ["", "\0", "a b", &long] {
        let balances = balances(&store);
        balances.set(resource, &every_byte).await?;
        assert_eq!(balances.version(resource).await?, every_byte);
        assert!(balances.update(resource, &every_byte, b"\0").await?);
        assert_eq!(balances.version(resource).await?, &b"\0"[..]);
    }
    Ok(())
}

async fn an_absent_resource_is_created_once<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = balances(&store);
    assert!(balances.update(RESOURCE, b"", b"1").await?);
    assert!(!balances.update(RESOURCE, b"", b"2").await?);
    assert_eq!(balances.version(RESOURCE).await?, "1");
    Ok(())
}

async fn a_resource_moves_on_from_its_version_only<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = balances(&store);
    assert!(!balances.update(RESOURCE, b"1", b"2").await?, "it is absent");
    balances.set(RESOURCE, b"1").await?;
    assert!(!balances.update(RESOURCE, b"0", b"2").await?);
    assert!(!balances.update(RESOURCE, b"11", b"2").await?);
    assert_eq!(balances.version(RESOURCE).await?, "1");
    assert!(balances.update(RESOURCE, b"1", b"2").await?);
    assert!(balances.update(RESOURCE, b"2", b"2").await?, "the same version again is one too");
    assert_eq!(balances.version(RESOURCE).await?, "2");
    Ok(())
}

async fn a_resource_is_deleted_at_its_version_only<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = balances(&store);
    assert!(!balances.update(RESOURCE, b"1", b"").await?, "it is absent");
    balances.set(RESOURCE, b"1").await?;
    assert!(!balances.update(RESOURCE, b"2", b"").await?);
    assert_eq!(balances.version(RESOURCE).await?, "1");
    assert!(balances.update(RESOURCE, b"1", b"").await?);
    assert!(balances.version(RESOURCE).await?.is_empty());
    Ok(())
}

async fn an_update_from_absent_to_absent_holds_where_absent<S: Transactional + Clone>(
    store: S,
) -> Result<()> {
    let balances = balances(&store);
    assert!(balances.update_with(RESOURCE, b"", b"", async |mut tx| take_effect(&mut tx, "a").await).await?);
    assert_eq!(effects(&store).await?, ["a"]);
    assert!(balances.version(RESOURCE).await?.is_empty());
    balances.set(RESOURCE, b"1").await?;
    assert!(!balances.update(RESOURCE, b"", b"").await?);
    Ok(())
}

async fn setting_the_empty_version_leaves_nothing_in_the_way<S: Transactional + Clone>(
    store: S,
) -> Result<()> {
    let balances = balances(&store);
    balances.set(RESOURCE, b"1").await?;
    balances.set(RESOURCE, b"").await?;
    assert!(balances.version(RESOURCE).await?.is_empty());
    assert!(balances.update(RESOURCE, b"", b"2").await?);
    Ok(())
}

async fn a_deleted_resource_leaves_nothing_in_the_way<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = balances(&store);
    balances.delete(RESOURCE).await?;
    balances.set(RESOURCE, b"1").await?;
    balances.delete(RESOURCE).await?;
    assert!(balances.version(RESOURCE).await?.is_empty());
    assert!(balances.update(RESOURCE, b"", b"1").await?);
    Ok(())
}

async fn handlers_never_collide<S: Transactional + Clone>(store: S) -> Result<()> {
    let named = [("a", "b/c"), ("a/b", "c"), ("a", "b"), ("b", "b"), ("a/b/c", ""), ("a\u{1}b", "c")];
    for (n, (name, resource)) in named.into_iter().enumerate() {
        assert!(handler(&store, name).update(resource, b"", n.to_string().as_bytes()).await?);
    }
    for (n, (name, resource)) in named.into_iter().enumerate() {
        assert_eq!(handler(&store, name).version(resource).await?, n.to_string());
    }
    Ok(())
}

async fn the_writes_and_the_version_are_one_commit<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = balances(&store);
    for (id, current, next) in [("a", "", "1"), ("b", "1", "2"), ("c", "2", "")] {
        let work = async |mut tx| take_effect(&mut tx, id).await;
        assert!(balances.update_with(RESOURCE, current.as_bytes(), next.as_bytes(), work).await?);
        assert_eq!(balances.version(RESOURCE).await?, next);
    }
    assert_eq!(effects(&store).await?, ["a", "b", "c"]);
    Ok(())
}

async fn a_mismatch_writes_nothing_and_runs_nothing<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = balances(&store);
    balances.set(RESOURCE, b"1").await?;
    for current in ["", "2"] {
        let updated = balances.update_with(RESOURCE, current.as_bytes(), b"3", async |_| -> Result<()> {
            panic!("there is nothing to do at version {current:?}")
        });
        assert!(!updated.await?);
    }
    assert_eq!(balances.version(RESOURCE).await?, "1");
    Ok(())
}

async fn a_resource_written_meanwhile_is_not_moved_on<S: Transactional + Clone>(store: S) -> Result<()> {
    let (slow, quick) = (balances(&store), balances(&store));
    for (current, meanwhile, next) in [("", "1", "x"), ("1", "2", "x"), ("2", "", "x"), ("", "3", "")] {
        let work = async |mut tx| {
            assert!(quick.update(RESOURCE, current.as_bytes(), meanwhile.as_bytes()).await?);
            take_effect(&mut tx, "a").await
        };
        assert!(!slow.update_with(RESOURCE, current.as_bytes(), next.as_bytes(), work).await?);
        assert_eq!(slow.version(RESOURCE).await?, meanwhile);
    }
    assert!(effects(&store).await?.is_empty());
    Ok(())
}

async fn a_failure_of_the_work_writes_nothing<S: Transactional + Clone>(store: S) -> Result<()> {
    /// What only the work fails with.
    #[derive(Debug, PartialEq)]
    struct Declined;
    impl From<Error> for Declined {
        fn from(error: Error) -> Self {
            panic!("only the work was to fail: {error:?}")
        }
    }
    let balances = balances(&store);
    let failed = balances.update_with(RESOURCE, b"", b"1", async |mut tx| {
        take_effect(&mut tx, "a").await?;
        Err(Declined)
    });
    assert_eq!(failed.await, Err(Declined));
    assert!(effects(&store).await?.is_empty());
    assert!(balances.update(RESOURCE, b"", b"1").await?);
    Ok(())
}

async fn a_conflict_of_the_works_writes_is_an_error_and_writes_nothing<S: Transactional + Clone>(
    store: S,
) -> Result<()> {
    let balances = balances(&store);
    let work = async |mut tx| take_effect(&mut tx, "a").await;
    assert!(balances.update_with(RESOURCE, b"", b"1", work).await?);
    let again: Result<bool> = balances.update_with(RESOURCE, b"1", b"2", work).await;
    assert_eq!(again.map_err(|error| error.kind()), Err(ErrorKind::Conflict));
    assert_eq!(balances.version(RESOURCE).await?, "1");
    Ok(())
}

async fn work_that_keeps_its_transaction_writes_nothing<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = balances(&store);
    let kept = Mutex::new(None);
    let updated: Result<bool> = balances
        .update_with(RESOURCE, b"", b"1", async |mut tx| {
            take_effect(&mut tx, "a").await?;
            *kept.lock().expect("nobody panics with it") = Some(tx);
            Ok(())
        })
        .await;
    assert_eq!(updated.map_err(|error| error.kind()), Err(ErrorKind::InvalidInput));
    drop(kept);
    assert!(effects(&store).await?.is_empty());
    assert!(balances.version(RESOURCE).await?.is_empty());
    Ok(())
}

async fn an_update_may_join_a_batch_of_its_partition<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = balances(&store);
    let mut batch = Batch::new(balances.partition_of(RESOURCE), ManualClock::default().now());
    assert!(!balances.update_in(&mut batch, RESOURCE, b"1", b"2").await?);
    assert!(batch.is_empty());
    assert!(balances.update_in(&mut batch, RESOURCE, b"", b"1").await?);
    batch.put(effect("a"), "", Expect::Absent);
    store.commit(batch).await?;
    assert_eq!(balances.version(RESOURCE).await?, "1");
    assert_eq!(effects(&store).await?, ["a"]);

    let mut outrun = Batch::new(balances.partition_of(RESOURCE), ManualClock::default().now());
    assert!(balances.update_in(&mut outrun, RESOURCE, b"1", b"2").await?);
    balances.set(RESOURCE, b"3").await?;
    let outrun = store.commit(outrun).await;
    assert_eq!(outrun.map_err(|error| error.kind()), Err(ErrorKind::Conflict));
    Ok(())
}

async fn an_update_may_not_join_a_batch_of_another_partition<S: Transactional + Clone>(
    store: S,
) -> Result<()> {
    let balances = balances(&store);
    let elsewhere = Partition::new(store.info().namespace.clone(), store.info().partitions);
    let mut batch = Batch::new(elsewhere, ManualClock::default().now());
    let refused = balances.update_in(&mut batch, RESOURCE, b"", b"1").await;
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::InvalidInput));
    assert!(batch.is_empty());
    Ok(())
}

async fn of_simultaneous_updates_exactly_one_succeeds<S: Transactional + Clone>(store: S) -> Result<()> {
    for (current, next) in [("", "1"), ("1", "2"), ("2", "")] {
        let updates = (0..AT_ONCE).map(|_| {
            let balances = balances(&store);
            async move { balances.update(RESOURCE, current.as_bytes(), next.as_bytes()).await }
        });
        let succeeded = try_join_all(updates).await?.into_iter().filter(|updated| *updated).count();
        assert_eq!(succeeded, 1, "from {current:?} to {next:?}");
    }
    Ok(())
}

async fn of_simultaneous_updates_with_writes_exactly_one_succeeds<S: Transactional + Clone>(
    store: S,
) -> Result<()> {
    let updates = (0..AT_ONCE).map(|n| {
        let balances = balances(&store);
        async move {
            let id = n.to_string();
            balances.update_with(RESOURCE, b"", b"1", async |mut tx| take_effect(&mut tx, &id).await).await
        }
    });
    let succeeded: Vec<bool> = try_join_all(updates).await?;
    let winners: Vec<_> =
        succeeded.iter().enumerate().filter(|(_, won)| **won).map(|(n, _)| n.to_string()).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(effects(&store).await?, winners);
    Ok(())
}
