use evenkeel_core::{Comparison, Filter, Read, Result, Slice};

use super::{Case, cases};
use crate::tested::Tested;

pub(super) const CASES: &[Case] = cases![
    only_events_of_the_kinds_named_are_read,
    metadata_compares_by_type,
    all_conditions_must_hold,
    a_missing_key_matches_nothing,
    examined_to_moves_past_what_the_filter_dropped,
    a_filtered_read_stops_at_its_limit_and_goes_on_there,
    a_stream_is_filtered_in_both_directions,
];

fn positions(slice: &Slice) -> Vec<u64> {
    slice.events.iter().map(|event| event.position).collect()
}

async fn matching(store: &Tested, filter: Filter) -> Result<Vec<u64>> {
    Ok(positions(&store.read(Read::partition(0, 100).filter(filter)).await?))
}

async fn only_events_of_the_kinds_named_are_read(store: Tested) -> Result<()> {
    let events = ["Placed", "Paid", "placed", "Placed", "PaidBack"].map(|kind| store.event(kind));
    store.commit(|batch| batch.append_any("a", events)).await?;
    assert_eq!(matching(&store, Filter::all()).await?, [1, 2, 3, 4, 5]);
    assert_eq!(matching(&store, Filter::all().kind("Placed")).await?, [1, 4]);
    assert_eq!(matching(&store, Filter::all().kind("Placed").kind("Paid")).await?, [1, 2, 4]);
    assert!(matching(&store, Filter::all().kind("Shipped")).await?.is_empty());
    Ok(())
}

async fn metadata_compares_by_type(store: Tested) -> Result<()> {
    let events = [
        store.event("E").with("x", 1_i64),
        store.event("E").with("x", 2.5),
        store.event("E").with("x", "2"),
        store.event("E").with("x", true),
        store.event("E").with("x", 10_i64),
    ];
    store.commit(|batch| batch.append_any("a", events)).await?;
    let numeric = |comparison| Filter::all().metadata("x", comparison, 2.5);
    assert_eq!(matching(&store, numeric(Comparison::Equal)).await?, [2]);
    assert_eq!(matching(&store, numeric(Comparison::NotEqual)).await?, [1, 5]);
    assert_eq!(matching(&store, numeric(Comparison::Less)).await?, [1]);
    assert_eq!(matching(&store, numeric(Comparison::AtMost)).await?, [1, 2]);
    assert_eq!(matching(&store, numeric(Comparison::Greater)).await?, [5]);
    assert_eq!(matching(&store, numeric(Comparison::AtLeast)).await?, [2, 5]);
    assert_eq!(matching(&store, Filter::all().metadata("x", Comparison::Greater, "10")).await?, [3]);
    assert_eq!(matching(&store, Filter::all().metadata("x", Comparison::NotEqual, false)).await?, [4]);
    Ok(())
}

async fn all_conditions_must_hold(store: Tested) -> Result<()> {
    let events =
        [(1, "a"), (2, "a"), (3, "b"), (4, "a")].map(|(x, y)| store.event("E").with("x", x).with("y", y));
    store.commit(|batch| batch.append_any("a", events)).await?;
    let filter = Filter::all().metadata("x", Comparison::Greater, 1).metadata("y", Comparison::Equal, "a");
    assert_eq!(matching(&store, filter.clone()).await?, [2, 4]);
    assert_eq!(matching(&store, filter.clone().kind("E")).await?, [2, 4]);
    assert!(matching(&store, filter.kind("F")).await?.is_empty());
    Ok(())
}

async fn a_missing_key_matches_nothing(store: Tested) -> Result<()> {
    let events = [store.event("E"), store.event("E").with("x", 1_i64)];
    store.commit(|batch| batch.append_any("a", events)).await?;
    assert_eq!(matching(&store, Filter::all().metadata("x", Comparison::NotEqual, 2)).await?, [2]);
    assert!(matching(&store, Filter::all().metadata("y", Comparison::NotEqual, 2)).await?.is_empty());
    Ok(())
}

async fn examined_to_moves_past_what_the_filter_dropped(store: Tested) -> Result<()> {
    let events = ["Wanted", "Other", "Other", "Other"].map(|kind| store.event(kind));
    store.commit(|batch| batch.append_any("a", events)).await?;
    let filter = Filter::all().kind("Wanted");

    let (mut after, mut found) = (0, Vec::new());
    for _ in 0..10 {
        let slice = store.read(Read::partition(after, 2).filter(filter.clone())).await?;
        found.extend(positions(&slice));
        after = slice.examined_to;
    }
    assert_eq!((found, after), (vec![1], 4));

    let slice = store.read(Read::stream("a", 1, 100).filter(filter)).await?;
    assert_eq!((positions(&slice), slice.examined_to, slice.head), (vec![], 4, 4));
    Ok(())
}

async fn a_filtered_read_stops_at_its_limit_and_goes_on_there(store: Tested) -> Result<()> {
    let kinds = ["W", "o", "W", "o", "o", "W", "W", "o", "W", "o"];
    let events = kinds.map(|kind| store.event(kind));
    store.commit(|batch| batch.append_any("a", events)).await?;
    for limit in 1..=6 {
        let (mut after, mut found) = (0, Vec::new());
        while after < 10 {
            let slice = store.read(Read::partition(after, limit).filter(Filter::all().kind("W"))).await?;
            assert!(slice.events.len() <= limit);
            assert!(slice.events.iter().all(|event| event.position > after), "nothing comes twice");
            assert!(slice.events.iter().all(|event| event.position <= slice.examined_to));
            found.extend(positions(&slice));
            assert!(slice.examined_to > after, "a read gets on");
            after = slice.examined_to;
        }
        assert_eq!(found, [1, 3, 6, 7, 9], "by {limit}");
    }
    Ok(())
}

async fn a_stream_is_filtered_in_both_directions(store: Tested) -> Result<()> {
    let kinds = ["W", "o", "W", "o", "W", "o"];
    let events = kinds.map(|kind| store.event(kind));
    store.commit(|batch| batch.append_any("a", events)).await?;
    let wanted = Filter::all().kind("W");
    let forwards = store.read(Read::stream("a", 1, 10).filter(wanted.clone())).await?;
    assert_eq!((positions(&forwards), forwards.examined_to), (vec![3, 5], 6));
    let backwards = store.read(Read::stream_backwards("a", Some(5), 10).filter(wanted.clone())).await?;
    assert_eq!(positions(&backwards), [3, 1]);
    let one = store.read(Read::stream_backwards("a", None, 1).filter(wanted)).await?;
    assert_eq!((positions(&one), one.examined_to), (vec![5], 5));
    Ok(())
}
