use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::{Appended, Event, ExpectStream, NewEvent, Read, Result, Scalar, Store, StoreExt};

use super::{Case, cases, kind};
use crate::tested::{Tested, key};

pub(super) const CASES: &[Case] = cases![
    an_empty_log_has_head_0,
    positions_are_gap_free_from_1_in_commit_order,
    a_batch_that_fails_takes_no_position,
    each_stream_has_versions_of_its_own_from_1,
    a_commit_says_where_its_events_went,
    an_event_survives_whole,
    metadata_keeps_its_types,
    an_event_is_recorded_at_the_now_of_its_batch,
    an_append_of_no_events_only_expects,
    a_read_holds_at_most_its_limit_and_goes_on_where_it_ended,
    a_read_begins_strictly_after_its_position,
    reading_after_a_position_beyond_the_head_is_corrupt,
    a_stream_that_does_not_exist_is_empty_with_head_0,
    a_stream_is_read_forwards_after_a_version,
    a_stream_is_read_backwards_before_a_version,
    a_stream_holds_only_its_own_events,
    each_partition_has_a_log_of_its_own,
];

fn places(events: &[Event]) -> Vec<(u64, &str, u64)> {
    events.iter().map(|event| (event.position, event.stream.as_str(), event.version)).collect()
}

fn versions(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.version).collect()
}

async fn an_empty_log_has_head_0(store: Tested) -> Result<()> {
    let slice = store.read(Read::partition(0, 10)).await?;
    assert!(slice.events.is_empty());
    assert_eq!((slice.examined_to, slice.head), (0, 0));
    Ok(())
}

async fn positions_are_gap_free_from_1_in_commit_order(store: Tested) -> Result<()> {
    let mut ids = Vec::new();
    for round in 0..10 {
        let events = store.events(1 + round % 3);
        ids.extend(events.iter().map(|event| event.id));
        store.commit(|batch| batch.append_any(format!("stream {}", round % 4), events)).await?;
    }
    let log = store.log_after(0).await?;
    assert_eq!(log.iter().map(|event| event.id).collect::<Vec<_>>(), ids);
    for (event, position) in log.iter().zip(1..) {
        assert_eq!(event.position, position);
    }
    Ok(())
}

async fn a_batch_that_fails_takes_no_position(store: Tested) -> Result<()> {
    store.append("a", 1).await?;
    for _ in 0..3 {
        let (one, two) = (store.events(2), store.events(2));
        let failing =
            store.commit(|batch| batch.append_any("b", one).append("a", ExpectStream::Version(7), two)).await;
        failing.unwrap_err();
    }
    let committed = store.append("b", 1).await?;
    assert_eq!((committed.appended[0].position, committed.appended[0].version), (2, 1));
    assert_eq!(store.read(Read::partition(0, 10)).await?.head, 2);
    Ok(())
}

async fn each_stream_has_versions_of_its_own_from_1(store: Tested) -> Result<()> {
    store.append("a", 2).await?;
    store.append("b", 1).await?;
    store.append("a", 1).await?;
    let log = store.log_after(0).await?;
    assert_eq!(places(&log), [(1, "a", 1), (2, "a", 2), (3, "b", 1), (4, "a", 3)]);
    Ok(())
}

async fn a_commit_says_where_its_events_went(store: Tested) -> Result<()> {
    store.append("b", 2).await?;
    let (three, two) = (store.events(3), store.events(2));
    let committed = store
        .commit(|batch| {
            batch
                .append_any("b", three)
                .put(key("a"), "", evenkeel_core::Expect::Any)
                .append("c", ExpectStream::NoStream, [])
                .append_any("a", two)
        })
        .await?;
    let place =
        |stream: &str, version, position, count| Appended { stream: stream.into(), version, position, count };
    assert_eq!(committed.appended, [place("b", 3, 3, 3), place("a", 1, 6, 2)]);
    let log = store.log_after(2).await?;
    assert_eq!(places(&log), [(3, "b", 3), (4, "b", 4), (5, "b", 5), (6, "a", 1), (7, "a", 2)]);
    Ok(())
}

async fn an_event_survives_whole(store: Tested) -> Result<()> {
    let mut event = NewEvent::new("Ünïcode \u{10ffff}", vec![0, 0xff, 0xc3, 0x28], store.now())
        .with("key with spaces", "text")
        .with("", true);
    event.content_type = "application/octet-stream; q=\"1\"".into();
    let empty = NewEvent::new("Empty", Bytes::new(), store.now());
    let (event_id, empty_id) = (event.id, empty.id);
    let batch = store.batch(|batch| batch.append_any("strëam", [event.clone(), empty]));
    store.send(&batch).await?;

    let by_stream = store.read(Read::stream("strëam", 0, 10)).await?.events;
    assert_eq!(by_stream, store.log_after(0).await?);
    let expected = Event {
        id: event_id,
        stream: "strëam".into(),
        version: 1,
        position: 1,
        kind: event.kind.into_owned(),
        payload: event.payload,
        content_type: event.content_type.into_owned(),
        metadata: event.metadata,
        recorded_at: store.now(),
        batch: batch.id(),
    };
    assert_eq!(by_stream[0], expected);
    assert_eq!((by_stream[1].id, &by_stream[1].payload[..]), (empty_id, &b""[..]));
    Ok(())
}

async fn metadata_keeps_its_types(store: Tested) -> Result<()> {
    let scalars = [
        Scalar::from(true),
        false.into(),
        0_i64.into(),
        1_i64.into(),
        i64::MIN.into(),
        i64::MAX.into(),
        1.0.into(),
        0.1.into(),
        f64::MAX.into(),
        f64::MIN_POSITIVE.into(),
        (-1e300).into(),
        9_007_199_254_740_993_i64.into(),
        "".into(),
        "1".into(),
        "true".into(),
        "null".into(),
        "\u{1f600} \" \\ \u{1}".into(),
    ];
    let event = scalars
        .iter()
        .enumerate()
        .fold(store.event("Typed"), |event, (place, scalar)| event.with(place.to_string(), scalar.clone()));
    let expected = event.metadata.clone();
    store.commit(|batch| batch.append_any("a", [event])).await?;
    assert_eq!(store.log_after(0).await?[0].metadata, expected);
    Ok(())
}

async fn an_event_is_recorded_at_the_now_of_its_batch(store: Tested) -> Result<()> {
    let event = store.event("Happened");
    store.advance(Duration::from_micros(1_234_567));
    store.commit(|batch| batch.append_any("a", [event])).await?;
    store.advance(Duration::from_secs(1000));
    let recorded_at = store.now() - Duration::from_secs(1000);
    assert_eq!(store.log_after(0).await?[0].recorded_at, recorded_at);
    Ok(())
}

async fn an_append_of_no_events_only_expects(store: Tested) -> Result<()> {
    let committed = store.commit(|batch| batch.append("a", ExpectStream::NoStream, [])).await?;
    assert!(committed.appended.is_empty());
    assert_eq!(store.stream_version("a").await?, 0);
    store.append("a", 1).await?;
    let failed = store.commit(|batch| batch.append("a", ExpectStream::NoStream, [])).await;
    assert_eq!(kind(failed), evenkeel_core::ErrorKind::Conflict);
    store.commit(|batch| batch.append("a", ExpectStream::Version(1), [])).await?;
    assert_eq!(store.read(Read::partition(0, 10)).await?.head, 1);
    Ok(())
}

async fn a_read_holds_at_most_its_limit_and_goes_on_where_it_ended(store: Tested) -> Result<()> {
    store.append("a", 11).await?;
    for limit in [1, 2, 3, 10, 11, 12] {
        let (mut after, mut seen) = (0, Vec::new());
        loop {
            let slice = store.read(Read::partition(after, limit)).await?;
            assert!(slice.events.len() <= limit);
            assert_eq!(slice.head, 11);
            seen.extend(slice.events.iter().map(|event| event.position));
            assert!(slice.examined_to > after, "a read gets on");
            after = slice.examined_to;
            if after == slice.head {
                break;
            }
        }
        assert_eq!(seen, (1..=11).collect::<Vec<u64>>(), "by {limit}");
    }
    Ok(())
}

async fn a_read_begins_strictly_after_its_position(store: Tested) -> Result<()> {
    store.append("a", 3).await?;
    assert_eq!(store.log_after(2).await?[0].position, 3);
    let slice = store.read(Read::partition(3, 10)).await?;
    assert!(slice.events.is_empty());
    assert_eq!((slice.examined_to, slice.head), (3, 3));
    Ok(())
}

async fn reading_after_a_position_beyond_the_head_is_corrupt(store: Tested) -> Result<()> {
    let beyond = |after| store.read(Read::partition(after, 10));
    assert_eq!(kind(beyond(1).await), evenkeel_core::ErrorKind::Corrupt);
    store.append("a", 2).await?;
    assert_eq!(kind(beyond(3).await), evenkeel_core::ErrorKind::Corrupt);
    assert_eq!(kind(beyond(u64::MAX).await), evenkeel_core::ErrorKind::Corrupt);
    Ok(())
}

async fn a_stream_that_does_not_exist_is_empty_with_head_0(store: Tested) -> Result<()> {
    store.append("a", 2).await?;
    for read in [Read::stream("none", 0, 10), Read::stream_backwards("none", None, 10)] {
        let slice = store.read(read).await?;
        assert!(slice.events.is_empty());
        assert_eq!((slice.examined_to, slice.head), (0, 0));
    }
    Ok(())
}

async fn a_stream_is_read_forwards_after_a_version(store: Tested) -> Result<()> {
    for _ in 0..5 {
        store.append("a", 1).await?;
        store.append("b", 1).await?;
    }
    for (after, limit, expected, examined_to) in
        [(0, 10, &[1, 2, 3, 4, 5][..], 5), (2, 10, &[3, 4, 5], 5), (2, 2, &[3, 4], 4), (5, 10, &[], 5)]
    {
        let slice = store.read(Read::stream("a", after, limit)).await?;
        assert_eq!(versions(&slice.events), expected, "after {after} by {limit}");
        assert_eq!((slice.examined_to, slice.head), (examined_to, 5), "after {after} by {limit}");
    }
    Ok(())
}

async fn a_stream_is_read_backwards_before_a_version(store: Tested) -> Result<()> {
    for _ in 0..5 {
        store.append("a", 1).await?;
        store.append("b", 1).await?;
    }
    for (before, limit, expected) in [
        (None, 10, &[5, 4, 3, 2, 1][..]),
        (Some(4), 10, &[3, 2, 1]),
        (Some(4), 2, &[3, 2]),
        (Some(100), 1, &[5]),
        (Some(1), 10, &[]),
    ] {
        let slice = store.read(Read::stream_backwards("a", before, limit)).await?;
        assert_eq!(versions(&slice.events), expected, "before {before:?} by {limit}");
        assert_eq!(slice.head, 5);
        match expected.len() == limit {
            true => assert_eq!(slice.examined_to, *expected.last().unwrap(), "goes on before what it gave"),
            false => assert!(slice.examined_to <= 1, "the beginning is reached"),
        }
    }
    Ok(())
}

async fn a_stream_holds_only_its_own_events(store: Tested) -> Result<()> {
    let names = ["a", "A", "ab", "a/b", "a%", "ä", "a\u{308}"];
    for name in names {
        store.append(name, 1).await?;
    }
    for (name, position) in names.into_iter().zip(1..) {
        let slice = store.read(Read::stream(name, 0, 10)).await?;
        assert_eq!(places(&slice.events), [(position, name, 1)]);
    }
    Ok(())
}

async fn each_partition_has_a_log_of_its_own(store: Tested) -> Result<()> {
    let before = {
        let mut heads = Vec::new();
        for at in store.store.partitions() {
            heads.push(store.store.read(&at, Read::partition(0, 1)).await?.head);
        }
        heads
    };
    store.append("a", 3).await?;
    for (at, before) in store.store.partitions().into_iter().zip(before) {
        let head = store.store.read(&at, Read::partition(0, 1)).await?.head;
        assert_eq!(head, if at == store.at { 3 } else { before }, "{at}");
    }
    Ok(())
}
