use std::time::Duration;

use evenkeel_core::{ExpectStream, Read, Result, Store};

use super::{Case, cases};
use crate::tested::Tested;

pub(super) const CASES: &[Case] = cases![
    trimmed_events_are_passed_over_at_once,
    trimming_beyond_the_end_forgets_all_and_no_more,
    trimming_less_than_before_brings_nothing_back,
    trimming_a_stream_that_does_not_exist_succeeds,
    trimming_leaves_other_streams_alone,
    positions_and_versions_stay_taken,
    sweep_reclaims_trimmed_events_at_most_its_limit,
];

async fn positions(store: &Tested) -> Result<Vec<u64>> {
    Ok(store.log_after(0).await?.iter().map(|event| event.position).collect())
}

/// Sweeps until nothing is left to reclaim; how much it was.
async fn sweep_all(store: &Tested) -> Result<usize> {
    store.advance(Duration::from_secs(1_000_000));
    let mut reclaimed = 0;
    loop {
        match store.store.sweep(&store.at, store.now(), 3).await? {
            0 => return Ok(reclaimed),
            some => {
                assert!(some <= 3);
                reclaimed += some;
            }
        }
    }
}

async fn trimmed_events_are_passed_over_at_once(store: Tested) -> Result<()> {
    store.append("a", 4).await?;
    store.commit(|batch| batch.trim("a", 3)).await?;

    let partition = store.read(Read::partition(0, 10)).await?;
    assert_eq!((partition.events.len(), partition.events[0].position), (1, 4));
    assert_eq!((partition.examined_to, partition.head), (4, 4));
    let forwards = store.read(Read::stream("a", 0, 10)).await?;
    assert_eq!((forwards.events.len(), forwards.examined_to, forwards.head), (1, 4, 4));
    let backwards = store.read(Read::stream_backwards("a", None, 10)).await?;
    assert_eq!((backwards.events.len(), backwards.events[0].version, backwards.head), (1, 4, 4));
    assert!(backwards.examined_to <= 1, "the beginning is reached");
    Ok(())
}

async fn trimming_beyond_the_end_forgets_all_and_no_more(store: Tested) -> Result<()> {
    store.append("a", 2).await?;
    store.commit(|batch| batch.trim("a", u64::MAX)).await?;
    assert!(positions(&store).await?.is_empty());
    store.append("a", 1).await?;
    assert_eq!(positions(&store).await?, [3]);
    Ok(())
}

async fn trimming_less_than_before_brings_nothing_back(store: Tested) -> Result<()> {
    store.append("a", 4).await?;
    store.commit(|batch| batch.trim("a", 3)).await?;
    store.commit(|batch| batch.trim("a", 1)).await?;
    store.commit(|batch| batch.trim("a", 0)).await?;
    assert_eq!(positions(&store).await?, [4]);
    Ok(())
}

async fn trimming_a_stream_that_does_not_exist_succeeds(store: Tested) -> Result<()> {
    store.commit(|batch| batch.trim("a", 7)).await?;
    assert_eq!(store.stream_version("a").await?, 0);
    let event = store.events(1);
    store.commit(|batch| batch.append("a", ExpectStream::NoStream, event)).await?;
    assert_eq!(positions(&store).await?, [1]);
    Ok(())
}

async fn trimming_leaves_other_streams_alone(store: Tested) -> Result<()> {
    for _ in 0..3 {
        store.append("a", 1).await?;
        store.append("b", 1).await?;
    }
    store.commit(|batch| batch.trim("a", 2)).await?;
    assert_eq!(positions(&store).await?, [2, 4, 5, 6]);
    sweep_all(&store).await?;
    assert_eq!(positions(&store).await?, [2, 4, 5, 6]);
    assert_eq!(store.read(Read::stream("b", 0, 10)).await?.events.len(), 3);
    Ok(())
}

async fn positions_and_versions_stay_taken(store: Tested) -> Result<()> {
    store.append("a", 3).await?;
    store.commit(|batch| batch.trim("a", 3)).await?;
    for round in 0..2 {
        assert_eq!(store.stream_version("a").await?, 3, "round {round}");
        store.commit(|batch| batch.append("a", ExpectStream::NoStream, [])).await.unwrap_err();
        store.commit(|batch| batch.append("a", ExpectStream::Version(3), [])).await?;
        let slice = store.read(Read::partition(0, 10)).await?;
        assert_eq!((slice.events.len(), slice.examined_to, slice.head), (0, 3, 3), "round {round}");
        sweep_all(&store).await?;
    }
    let committed = store.append("a", 1).await?;
    assert_eq!((committed.appended[0].version, committed.appended[0].position), (4, 4));
    assert_eq!(positions(&store).await?, [4]);
    Ok(())
}

async fn sweep_reclaims_trimmed_events_at_most_its_limit(store: Tested) -> Result<()> {
    store.append("a", 5).await?;
    store.append("b", 5).await?;
    assert_eq!(sweep_all(&store).await?, 0);
    store.commit(|batch| batch.trim("a", 4).trim("b", 3)).await?;
    assert_eq!(sweep_all(&store).await?, 7);
    assert_eq!(positions(&store).await?, [5, 9, 10]);
    store.commit(|batch| batch.trim("a", 5)).await?;
    assert_eq!(sweep_all(&store).await?, 1);
    assert_eq!(positions(&store).await?, [9, 10]);
    Ok(())
}
