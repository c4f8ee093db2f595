//! A reset forgets all of a handler, a page in each commit.

use std::collections::HashSet;

use evenkeel_core::{Clock, Error, Expect, Key, ManualClock, Result, Scan, StoreExt, Transactional, Tx};
use evenkeel_projections::{Advance, ResourceVersions};
use futures_util::future::try_join_all;

use super::{balances, handler};

cases![
    a_reset_forgets_every_version_of_its_handler_and_of_no_other,
    a_reset_of_nothing_is_done_at_once,
    each_step_is_a_page_and_says_how_far_it_is,
    a_reset_that_was_cut_off_is_carried_on_by_another,
    what_a_resource_has_goes_with_its_version,
    a_failure_of_the_work_forgets_nothing,
    a_handler_learns_of_a_reset_from_its_next_update,
    a_reset_beside_a_handler_at_work_keeps_version_and_read_model_together,
];

const MANY: usize = 60;

fn name(n: usize) -> String {
    format!("account-{n}")
}

/// A handler that has come to 1 in many streams.
async fn advanced<S: Transactional + Clone>(store: &S) -> Result<ResourceVersions<S>> {
    let balances = balances(store);
    try_join_all((0..MANY).map(|n| {
        let balances = balances.clone();
        async move {
            let row = async |tx| put_row(tx, &name(n)).await;
            assert_eq!(balances.advance_with(&name(n), None, 1, row).await?, Advance::Moved);
            Ok::<_, Error>(())
        }
    }))
    .await?;
    Ok(balances)
}

/// How many of the streams have a checkpoint.
async fn checkpoints<S: Transactional + Clone>(balances: &ResourceVersions<S>) -> Result<usize> {
    let found = try_join_all((0..MANY).map(|n| async move { balances.checkpoint(&name(n)).await }));
    Ok(found.await?.into_iter().flatten().count())
}

fn row(stream: &str) -> Key {
    Key::new("test", "rows", stream)
}

/// Writes a read model's row, over the live connection's head.
async fn put_row<C: Send + 'static>(mut tx: Tx<C>, stream: &str) -> Result<()> {
    tx.conn().await?;
    tx.batch().put(row(stream), "", Expect::Absent);
    Ok(())
}

async fn remove_rows<C: Send + 'static>(mut tx: Tx<C>, streams: Vec<String>) -> Result<()> {
    tx.conn().await?;
    for stream in streams {
        tx.batch().delete(row(&stream), Expect::Present);
    }
    Ok(())
}

async fn rows<S: Transactional>(store: &S) -> Result<HashSet<String>> {
    let scan = Scan::new("test", "rows", 1_000, ManualClock::default().now());
    Ok(store.scan_merged(scan).await?.into_iter().map(|row| row.id).collect())
}

async fn a_reset_forgets_every_version_of_its_handler_and_of_no_other<S: Transactional + Clone>(
    store: S,
) -> Result<()> {
    let balances = advanced(&store).await?;
    let others = [handler(&store, "balance"), handler(&store, "balances-2"), handler(&store, "balances/1")];
    for other in &others {
        other.set(&name(0), b"x").await?;
    }
    balances.set("no stream", b"any version").await?;
    assert_eq!(balances.reset().run().await?, 61);
    assert_eq!(checkpoints(&balances).await?, 0);
    assert!(balances.version("no stream").await?.is_empty());
    for other in &others {
        assert_eq!(other.version(&name(0)).await?, "x");
    }
    assert_eq!(balances.advance(&name(0), None, 1).await?, Advance::Moved);
    Ok(())
}

async fn a_reset_of_nothing_is_done_at_once<S: Transactional + Clone>(store: S) -> Result<()> {
    let mut reset = balances(&store).reset();
    assert_eq!(reset.step().await?, None);
    assert_eq!((reset.forgotten(), reset.partitions_left()), (0, 0));
    Ok(())
}

async fn each_step_is_a_page_and_says_how_far_it_is<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = advanced(&store).await?;
    let mut reset = balances.reset().page(7);
    let partitions = store.partitions().len();
    assert_eq!((reset.forgotten(), reset.partitions_left()), (0, partitions));
    let mut left = MANY;
    while let Some(forgotten) = reset.step().await? {
        assert!((1..=7).contains(&forgotten), "{forgotten}");
        left -= forgotten;
        assert_eq!(checkpoints(&balances).await?, left);
        assert_eq!(reset.forgotten(), u64::try_from(MANY - left).expect("a usize fits a u64"));
        assert!(reset.partitions_left() <= partitions);
    }
    assert_eq!((left, reset.partitions_left()), (0, 0));
    assert_eq!(reset.step().await?, None);
    Ok(())
}

async fn a_reset_that_was_cut_off_is_carried_on_by_another<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = advanced(&store).await?;
    let mut cut_off = balances.reset().page(10);
    for _ in 0..3 {
        cut_off.step().await?;
    }
    let forgotten = cut_off.forgotten();
    drop(cut_off);
    assert!(forgotten > 0);
    // As many in each commit as the store takes.
    assert_eq!(forgotten + balances.reset().page(usize::MAX).run().await?, 60);
    assert_eq!(checkpoints(&balances).await?, 0);
    Ok(())
}

async fn what_a_resource_has_goes_with_its_version<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = advanced(&store).await?;
    let mut reset = balances.reset().page(9);
    while reset.step_with(remove_rows).await?.is_some() {
        assert_eq!(rows(&store).await?.len(), checkpoints(&balances).await?);
    }
    assert_eq!((reset.forgotten(), rows(&store).await?.len()), (60, 0));
    Ok(())
}

async fn a_failure_of_the_work_forgets_nothing<S: Transactional + Clone>(store: S) -> Result<()> {
    /// What only the work fails with.
    #[derive(Debug, PartialEq)]
    struct Declined;
    impl From<Error> for Declined {
        fn from(error: Error) -> Self {
            panic!("only the work was to fail: {error:?}")
        }
    }
    let balances = advanced(&store).await?;
    let mut reset = balances.reset();
    let failed = reset.step_with(async |tx, streams| {
        remove_rows(tx, streams).await.expect("nothing is in the way");
        Err(Declined)
    });
    assert_eq!(failed.await, Err(Declined));
    assert_eq!(
        (reset.forgotten(), checkpoints(&balances).await?, rows(&store).await?.len()),
        (0, MANY, MANY)
    );
    while reset.step_with(remove_rows).await?.is_some() {}
    assert_eq!((reset.forgotten(), rows(&store).await?.len()), (60, 0));
    Ok(())
}

async fn a_handler_learns_of_a_reset_from_its_next_update<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = advanced(&store).await?;
    let first = name(0);
    let moved = balances.advance_with(&first, Some(1), 2, async |_| balances.reset().run().await.map(drop));
    assert_eq!(moved.await?, Advance::StandsAt(None));
    assert_eq!(balances.advance(&name(1), Some(1), 2).await?, Advance::StandsAt(None));
    assert!(!balances.update(&name(2), b"1", b"2").await?);
    Ok(())
}

async fn a_reset_beside_a_handler_at_work_keeps_version_and_read_model_together<S: Transactional + Clone>(
    store: S,
) -> Result<()> {
    let balances = advanced(&store).await?;
    let mut reset = balances.reset().page(8);
    for at in 1..4 {
        // The handler moves one of the page before that is committed.
        let outrun = reset.step_with(async |tx, streams: Vec<String>| {
            assert_eq!(balances.advance(&streams[0], Some(at), at + 1).await?, Advance::Moved);
            remove_rows(tx, streams).await
        });
        assert_eq!(outrun.await?, Some(0));
        assert_eq!((rows(&store).await?.len(), checkpoints(&balances).await?), (MANY, MANY));
    }
    while reset.step_with(remove_rows).await?.is_some() {}
    assert_eq!((reset.forgotten(), rows(&store).await?.len()), (60, 0));
    Ok(())
}
