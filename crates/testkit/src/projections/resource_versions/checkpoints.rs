//! A checkpoint moves from where it stands, and says where that is.

use evenkeel_core::{
    Batch, Clock, Error, ErrorKind, Expect, ManualClock, Partition, Result, StoreExt, Transactional,
};
use evenkeel_projections::{Advance, ResourceVersions};
use futures_util::future::try_join_all;

use super::{AT_ONCE, RESOURCE as STREAM, balances, effect, effects, take_effect};
use crate::Chaos;

cases![
    a_stream_has_no_checkpoint_until_it_advances,
    a_checkpoint_advances_from_where_it_stands_only,
    a_checkpoint_moves_on_only,
    a_version_that_is_no_offset_is_corrupt,
    the_writes_of_many_events_and_their_checkpoint_are_one_commit,
    a_checkpoint_elsewhere_runs_nothing_and_is_told,
    a_checkpoint_moved_meanwhile_is_told_without_another_read,
    of_simultaneous_advances_one_moves_and_the_others_learn_where_to,
    streams_of_a_partition_advance_in_one_batch,
    an_advance_may_not_join_a_batch_of_another_partition,
    who_is_told_where_the_checkpoint_is_applies_each_event_once,
];

async fn a_stream_has_no_checkpoint_until_it_advances<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = balances(&store);
    assert_eq!(balances.checkpoint(STREAM).await?, None);
    assert_eq!(balances.advance(STREAM, Some(3), 4).await?, Advance::StandsAt(None));
    for (from, to) in [(None, 0), (Some(0), 1), (Some(1), u64::MAX)] {
        assert_eq!(balances.advance(STREAM, from, to).await?, Advance::Moved);
        assert_eq!(balances.checkpoint(STREAM).await?, Some(to));
    }
    Ok(())
}

async fn a_checkpoint_advances_from_where_it_stands_only<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = balances(&store);
    assert_eq!(balances.advance(STREAM, None, 10).await?, Advance::Moved);
    for from in [None, Some(1), Some(9), Some(11)] {
        assert_eq!(balances.advance(STREAM, from, 12).await?, Advance::StandsAt(Some(10)), "from {from:?}");
    }
    assert_eq!(balances.advance("another", None, 3).await?, Advance::Moved);
    assert_eq!(balances.checkpoint(STREAM).await?, Some(10));
    Ok(())
}

async fn a_checkpoint_moves_on_only<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = balances(&store);
    assert_eq!(balances.advance(STREAM, None, 10).await?, Advance::Moved);
    for to in [0, 9, 10] {
        let refused = balances.advance(STREAM, Some(10), to).await;
        assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::InvalidInput), "to {to}");
    }
    assert_eq!(balances.checkpoint(STREAM).await?, Some(10));
    Ok(())
}

async fn a_version_that_is_no_offset_is_corrupt<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = balances(&store);
    for version in ["x", "-1", "18446744073709551616", "1 "] {
        balances.set(STREAM, version.as_bytes()).await?;
        let read = balances.checkpoint(STREAM).await;
        assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::Corrupt), "{version:?}");
        let moved = balances.advance(STREAM, None, 1).await;
        assert_eq!(moved.map_err(|error| error.kind()), Err(ErrorKind::Corrupt), "{version:?}");
    }
    Ok(())
}

async fn the_writes_of_many_events_and_their_checkpoint_are_one_commit<S: Transactional + Clone>(
    store: S,
) -> Result<()> {
    let balances = balances(&store);
    for (from, to) in [(None, 40), (Some(40), 80)] {
        let events = from.unwrap_or(0)..to;
        let moved: Result<Advance> = balances
            .advance_with(STREAM, from, to, async |mut tx| {
                for event in events {
                    take_effect(&mut tx, &format!("{event:02}")).await?;
                }
                Ok(())
            })
            .await;
        assert_eq!(moved?, Advance::Moved);
        assert_eq!(balances.checkpoint(STREAM).await?, Some(to));
    }
    let all: Vec<String> = (0..80).map(|event| format!("{event:02}")).collect();
    assert_eq!(effects(&store).await?, all);
    Ok(())
}

async fn a_checkpoint_elsewhere_runs_nothing_and_is_told<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = balances(&store);
    assert_eq!(balances.advance(STREAM, None, 5).await?, Advance::Moved);
    for from in [None, Some(4)] {
        let moved = balances.advance_with(STREAM, from, 6, async |_| -> Result<()> {
            panic!("there is nothing to do from {from:?}")
        });
        assert_eq!(moved.await?, Advance::StandsAt(Some(5)));
    }
    assert_eq!(balances.checkpoint(STREAM).await?, Some(5));
    Ok(())
}

async fn a_checkpoint_moved_meanwhile_is_told_without_another_read<S: Transactional + Clone>(
    store: S,
) -> Result<()> {
    let counting = store.clone().layer(Chaos::new(0));
    let (slow, quick) = (balances(&counting), balances(&store));
    let moved = slow.advance_with(STREAM, None, 1, async |mut tx| take_effect(&mut tx, "a").await).await?;
    assert_eq!(moved, Advance::Moved);
    let calls = counting.calls();
    let moved = slow
        .advance_with(STREAM, Some(1), 2, async |mut tx| {
            assert_eq!(quick.advance(STREAM, Some(1), 7).await?, Advance::Moved);
            take_effect(&mut tx, "b").await
        })
        .await?;
    assert_eq!(moved, Advance::StandsAt(Some(7)));
    assert_eq!(counting.calls(), 2 * calls, "it takes no more than one that moves");

    let gone = slow
        .advance_with(STREAM, Some(7), 8, async |mut tx| {
            quick.delete(STREAM).await?;
            take_effect(&mut tx, "c").await
        })
        .await?;
    assert_eq!(gone, Advance::StandsAt(None));
    assert_eq!(effects(&store).await?, ["a"]);
    Ok(())
}

async fn of_simultaneous_advances_one_moves_and_the_others_learn_where_to<S: Transactional + Clone>(
    store: S,
) -> Result<()> {
    let mut from = None;
    for round in 0..3 {
        let advances = (1..=AT_ONCE).map(|n| {
            let balances = balances(&store);
            let to = u64::try_from(round * 100 + n).expect("a usize fits a u64");
            async move { Ok::<_, Error>((to, balances.advance(STREAM, from, to).await?)) }
        });
        let outcomes = try_join_all(advances).await?;
        let at = balances(&store).checkpoint(STREAM).await?;
        let moved: Vec<_> = outcomes
            .iter()
            .filter(|(_, outcome)| *outcome == Advance::Moved)
            .map(|(to, _)| Some(*to))
            .collect();
        assert_eq!(moved, [at]);
        let told = outcomes.iter().filter(|(_, outcome)| *outcome == Advance::StandsAt(at)).count();
        assert_eq!(told, AT_ONCE - 1);
        from = at;
    }
    Ok(())
}

/// A stream beside the usual one, in its partition.
fn neighbour<S: Transactional + Clone>(balances: &ResourceVersions<S>) -> String {
    let others = (0..).map(|n| format!("neighbour-{n}"));
    let mut near = others.filter(|other| balances.partition_of(other) == balances.partition_of(STREAM));
    near.next().expect("names go on for ever")
}

async fn streams_of_a_partition_advance_in_one_batch<S: Transactional + Clone>(store: S) -> Result<()> {
    let balances = balances(&store);
    let (beside, now) = (neighbour(&balances), ManualClock::default().now());
    let mut batch = Batch::new(balances.partition_of(STREAM), now);
    assert_eq!(balances.advance_in(&mut batch, STREAM, Some(1), 2).await?, Advance::StandsAt(None));
    assert!(batch.is_empty());
    for (stream, to) in [(STREAM, 5), (&beside, 9)] {
        assert_eq!(balances.advance_in(&mut batch, stream, None, to).await?, Advance::Moved);
    }
    batch.put(effect("a"), "", Expect::Absent);
    store.commit(batch).await?;
    assert_eq!(balances.checkpoint(STREAM).await?, Some(5));
    assert_eq!(balances.checkpoint(&beside).await?, Some(9));

    let mut outrun = Batch::new(balances.partition_of(STREAM), now);
    for (stream, from) in [(STREAM, 5), (&beside, 9)] {
        assert_eq!(balances.advance_in(&mut outrun, stream, Some(from), from + 1).await?, Advance::Moved);
    }
    outrun.put(effect("b"), "", Expect::Absent);
    assert_eq!(balances.advance(&beside, Some(9), 20).await?, Advance::Moved);
    let error = store.commit(outrun).await.expect_err("a checkpoint of it has moved");
    let error = balances.checkpoint_found(STREAM, error).expect_err("that one has not");
    assert_eq!(balances.checkpoint_found(&beside, error)?, Some(20));
    assert_eq!((balances.checkpoint(STREAM).await?, effects(&store).await?), (Some(5), vec!["a".to_owned()]));
    Ok(())
}

async fn an_advance_may_not_join_a_batch_of_another_partition<S: Transactional + Clone>(
    store: S,
) -> Result<()> {
    let balances = balances(&store);
    // One that no stream is in: it does not exist.
    let elsewhere = Partition::new(store.info().namespace.clone(), store.info().partitions);
    let mut batch = Batch::new(elsewhere, ManualClock::default().now());
    let refused = balances.advance_in(&mut batch, STREAM, None, 1).await;
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::InvalidInput));
    assert!(batch.is_empty());
    Ok(())
}

/// Handlers that share nothing but the store, each of which goes on from where it is told.
async fn who_is_told_where_the_checkpoint_is_applies_each_event_once<S: Transactional + Clone>(
    store: S,
) -> Result<()> {
    const EVENTS: u64 = 20;
    let handlers = (1..=4).map(|batch| {
        let balances = balances(&store);
        async move {
            let mut at = None;
            while at < Some(EVENTS) {
                let next = at.unwrap_or(0)..EVENTS.min(at.unwrap_or(0) + batch);
                let to = next.end;
                let work = async |mut tx| {
                    for event in next {
                        take_effect(&mut tx, &format!("{event:02}")).await?;
                    }
                    Ok::<_, Error>(())
                };
                at = match balances.advance_with(STREAM, at, to, work).await? {
                    Advance::Moved => Some(to),
                    Advance::StandsAt(elsewhere) => elsewhere,
                };
            }
            Ok::<_, Error>(())
        }
    });
    try_join_all(handlers).await?;
    // An event that was applied twice would have found its effect there.
    assert_eq!(effects(&store).await?.len(), usize::try_from(EVENTS).expect("it is small"));
    Ok(())
}
