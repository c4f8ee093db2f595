use std::time::Duration;

use evenkeel_core::{
    Batch, ErrorKind, Expect, ExpectStream, Hold, Jobs, Key, Lease, Limits, Merge, NewEvent, Partition, Read,
    Result, Scan, Store, StoreExt, Token,
};

use super::{Case, cases, kind};
use crate::tested::{HOLD, Tested, key};

pub(super) const CASES: &[Case] = cases![
    every_store_takes_at_least_the_minimum,
    as_many_units_as_the_store_allows_pass_and_no_more,
    an_append_of_500_events_passes_and_no_more,
    a_value_payload_or_event_of_the_longest_length_passes_and_no_longer,
    a_batch_of_the_largest_size_passes_and_no_larger,
    names_of_the_longest_length_pass,
    a_malformed_name_is_invalid_wherever_it_is_used,
    a_limit_of_zero_is_invalid,
    a_partition_that_the_store_does_not_have_is_invalid,
    metadata_that_is_not_finite_is_invalid,
    what_is_refused_writes_nothing,
];

async fn every_store_takes_at_least_the_minimum(store: Tested) -> Result<()> {
    let (limits, least) = (store.store.info().limits, Limits::MIN);
    assert!(limits.units >= least.units && limits.bytes >= least.bytes && limits.value >= least.value);

    let full = put_many(&store, least.units);
    assert_eq!(full.units(), least.units);
    store.send(&full).await?;
    assert_eq!(store.ids(store.scan(1000)).await?.len(), least.units);
    let last = key(format!("{:06}", least.units - 1));
    assert_eq!(store.record(&last).await?.unwrap().version, full.version());

    let large = of_bytes(&store, least.bytes);
    assert_eq!(large.bytes(), least.bytes);
    store.send(&large).await?;
    Ok(())
}

fn put_many(store: &Tested, count: usize) -> Batch {
    let mut batch = store.batch(|batch| batch);
    for n in 0..count {
        batch.put(key(format!("{n:06}")), "", Expect::Any);
    }
    batch
}

/// A batch of this many bytes exactly.
fn of_bytes(store: &Tested, bytes: usize) -> Batch {
    let mut batch = store.batch(|batch| batch);
    let mut n = 0;
    while batch.bytes() < bytes {
        let key = Key::new("test", "large", format!("{n:03}"));
        let name = "testlarge000".len();
        let value = (bytes - batch.bytes() - name).min(100_000);
        // What would be too short for another name belongs to this value.
        let rest = bytes - batch.bytes() - name - value;
        let value = if rest < 2 * name { value + rest } else { value };
        batch.put(key, vec![b'x'; value], Expect::Any);
        n += 1;
    }
    batch
}

async fn as_many_units_as_the_store_allows_pass_and_no_more(store: Tested) -> Result<()> {
    let units = store.store.info().limits.units;
    if units > 10_000 {
        // A store without a bound of its own: what would be beyond cannot be made.
        return store.send(&put_many(&store, 10_000)).await.map(drop);
    }
    store.send(&put_many(&store, units)).await?;
    assert_eq!(kind(store.send(&put_many(&store, units + 1)).await), ErrorKind::TooLarge);
    let mut appends = store.batch(|batch| batch);
    for n in 0..=units / 4 {
        appends.append_any(format!("stream {n}"), store.events(1));
    }
    assert!(appends.units() > units);
    assert_eq!(kind(store.send(&appends).await), ErrorKind::TooLarge);
    Ok(())
}

async fn an_append_of_500_events_passes_and_no_more(store: Tested) -> Result<()> {
    assert_eq!(Batch::MAX_EVENTS, 500);
    let committed = store.append("a", 500).await?;
    assert_eq!(committed.appended[0].count, 500);
    assert_eq!(store.log_after(0).await?.len(), 500);
    assert_eq!(kind(store.append("a", 501).await), ErrorKind::TooLarge);
    assert_eq!(store.stream_version("a").await?, 500);
    Ok(())
}

async fn a_value_payload_or_event_of_the_longest_length_passes_and_no_longer(store: Tested) -> Result<()> {
    let longest = store.store.info().limits.value;
    let now = store.now();
    let event = |length: usize| {
        let mut event = NewEvent::new("E", vec![7; length], now);
        event.content_type = "t".into();
        event
    };
    let name = 2;
    let hold = Hold { token: Token::fresh(), until: now + HOLD };
    for (extra, passes) in [(0, true), (1, false)] {
        let put = store.commit(|batch| batch.put(key("a"), vec![7; longest + extra], Expect::Any)).await;
        let push =
            store.commit(|batch| batch.push("queue", "a", now, vec![7; longest + extra], Merge::Keep)).await;
        let held = vec![7; longest + extra];
        let push_leased = store.commit(|batch| batch.push_leased("held", "a", now, held, hold)).await;
        let append = store.commit(|batch| batch.append_any("a", [event(longest + extra - name)])).await;
        for result in [put, push, push_leased, append] {
            match passes {
                true => drop(result?),
                false => assert_eq!(kind(result), ErrorKind::TooLarge),
            }
        }
    }
    assert_eq!(store.value("a").await?.unwrap(), vec![7; longest]);
    assert_eq!(store.lease_one().await?.payload, vec![7; longest]);
    let held = Jobs::ByIds { queue: "held".into(), ids: vec!["a".into()] };
    assert_eq!(store.store.jobs(&store.at, held).await?.jobs[0].1.payload, vec![7; longest]);
    assert_eq!(store.log_after(0).await?[0].payload.len(), longest - name);
    Ok(())
}

async fn a_batch_of_the_largest_size_passes_and_no_larger(store: Tested) -> Result<()> {
    let bytes = store.store.info().limits.bytes.min(8_000_000);
    let largest = of_bytes(&store, bytes);
    assert_eq!(largest.bytes(), bytes);
    store.send(&largest).await?;
    if bytes == store.store.info().limits.bytes {
        assert_eq!(kind(store.send(&of_bytes(&store, bytes + 1)).await), ErrorKind::TooLarge);
    }
    Ok(())
}

async fn names_of_the_longest_length_pass(store: Tested) -> Result<()> {
    let (space, part) = ("s".repeat(Key::MAX_SPACE), "ä".repeat(Key::MAX_PART / 2));
    let key = Key::new(space.clone(), part.clone(), part.clone());
    let (now, mut event) = (store.now(), store.event("E"));
    event.kind = part.clone().into();
    event.content_type = part.clone().into();
    store
        .commit(|batch| {
            batch
                .put(key.clone(), "", Expect::Absent)
                .append(part.clone(), ExpectStream::NoStream, [event])
                .push(part.clone(), part.clone(), now, "", Merge::Keep)
        })
        .await?;
    assert!(store.record(&key).await?.is_some());
    assert_eq!(store.ids(Scan::new(space, part.clone(), 10, now)).await?, std::slice::from_ref(&part));
    assert_eq!(store.read(Read::stream(part.clone(), 0, 10)).await?.events[0].kind, part);
    let want = Lease { queue: part.clone(), max: 10, hold_for: Duration::from_secs(1), now };
    assert_eq!(store.store.lease(&store.at, want).await?.jobs[0].id, part);
    Ok(())
}

async fn a_malformed_name_is_invalid_wherever_it_is_used(store: Tested) -> Result<()> {
    let (now, token) = (store.now(), Token::fresh());
    let hold = Hold { token, until: now };
    let invalid = ErrorKind::InvalidInput;
    for bad in [String::new(), "x".repeat(Key::MAX_PART + 1), "a\0b".into(), "ä".repeat(257)] {
        let keys = [
            Key::new("test", bad.clone(), "id"),
            Key::new("test", "group", bad.clone()),
            Key::new(bad.clone(), "group", "id"),
            Key::new("s".repeat(Key::MAX_SPACE + 1), "group", "id"),
        ];
        for key in keys {
            let get = store.store.get(&store.at, now, &[Key::new("test", "group", "id"), key.clone()]).await;
            assert_eq!(kind(get), invalid);
            let scan = Scan::new(key.space.clone(), key.group.clone(), 10, now);
            if key.id != bad {
                assert_eq!(kind(store.store.scan(&store.at, scan).await), invalid);
            }
            assert_eq!(kind(store.commit(|batch| batch.put(key.clone(), "", Expect::Any)).await), invalid);
            assert_eq!(kind(store.commit(|batch| batch.delete(key.clone(), Expect::Any)).await), invalid);
            assert_eq!(kind(store.commit(|batch| batch.check(key, Expect::Any)).await), invalid);
        }
        assert_eq!(kind(store.append(&bad, 1).await), invalid);
        assert_eq!(kind(store.commit(|batch| batch.trim(bad.clone(), 1)).await), invalid);
        assert_eq!(kind(store.read(Read::stream(bad.clone(), 0, 1)).await), invalid);
        let mut event = store.event("E");
        event.kind = bad.clone().into();
        assert_eq!(kind(store.commit(|batch| batch.append_any("a", [event])).await), invalid);
        let mut event = store.event("E");
        event.content_type = bad.clone().into();
        assert_eq!(kind(store.commit(|batch| batch.append_any("a", [event])).await), invalid);
        for (queue, id) in [(bad.clone(), "id".to_owned()), ("queue".to_owned(), bad.clone())] {
            let name = |batch: &mut Batch, op: usize| match op {
                0 => drop(batch.push(queue.clone(), id.clone(), now, "", Merge::Keep)),
                1 => drop(batch.ack(queue.clone(), id.clone(), token)),
                2 => drop(batch.retry(queue.clone(), id.clone(), token, now)),
                3 => drop(batch.extend(queue.clone(), id.clone(), token, now)),
                4 => drop(batch.push_leased(queue.clone(), id.clone(), now, "", hold)),
                _ => drop(batch.cancel(queue.clone(), id.clone())),
            };
            for op in 0..6 {
                let mut batch = store.batch(|batch| batch);
                name(&mut batch, op);
                assert_eq!(kind(store.send(&batch).await), invalid, "{batch:?}");
            }
            let by_id = Jobs::ByIds { queue: queue.clone(), ids: vec![id] };
            assert_eq!(kind(store.store.jobs(&store.at, by_id).await), invalid);
        }
        let page = Jobs::Page { queue: bad.clone(), after: None, limit: 1 };
        assert_eq!(kind(store.store.jobs(&store.at, page).await), invalid);
        let lease = Lease { queue: bad, max: 1, hold_for: Duration::from_secs(1), now };
        assert_eq!(kind(store.store.lease(&store.at, lease).await), invalid);
    }
    Ok(())
}

async fn a_limit_of_zero_is_invalid(store: Tested) -> Result<()> {
    store.put("a", "").await?;
    assert_eq!(kind(store.store.scan(&store.at, store.scan(0)).await), ErrorKind::InvalidInput);
    assert_eq!(kind(store.read(Read::partition(0, 0)).await), ErrorKind::InvalidInput);
    assert_eq!(kind(store.read(Read::stream("a", 0, 0)).await), ErrorKind::InvalidInput);
    assert_eq!(kind(store.lease(0).await), ErrorKind::InvalidInput);
    let page = Jobs::Page { queue: "queue".into(), after: None, limit: 0 };
    assert_eq!(kind(store.store.jobs(&store.at, page).await), ErrorKind::InvalidInput);
    Ok(())
}

async fn a_partition_that_the_store_does_not_have_is_invalid(store: Tested) -> Result<()> {
    let info = store.store.info();
    let beyond = Partition::new(info.namespace.clone(), info.partitions);
    let invalid = ErrorKind::InvalidInput;
    let now = store.now();
    let page = Jobs::Page { queue: "queue".into(), after: None, limit: 1 };
    let lease = Lease { queue: "queue".into(), max: 1, hold_for: Duration::from_secs(1), now };
    let mut batch = Batch::new(beyond.clone(), now);
    batch.put(key("a"), "", Expect::Any);
    assert_eq!(kind(store.store.get(&beyond, now, &[key("a")]).await), invalid);
    assert_eq!(kind(store.store.scan(&beyond, store.scan(1)).await), invalid);
    assert_eq!(kind(store.store.read(&beyond, Read::partition(0, 1)).await), invalid);
    assert_eq!(kind(store.store.jobs(&beyond, page).await), invalid);
    assert_eq!(kind(store.store.lease(&beyond, lease).await), invalid);
    assert_eq!(kind(store.store.commit(batch).await), invalid);
    assert_eq!(kind(store.store.sweep(&beyond, now, 1).await), invalid);
    assert!(!store.store.partitions().contains(&beyond));
    Ok(())
}

async fn metadata_that_is_not_finite_is_invalid(store: Tested) -> Result<()> {
    for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let event = store.event("E").with("x", float);
        assert_eq!(kind(store.commit(|batch| batch.append_any("a", [event])).await), ErrorKind::InvalidInput);
    }
    assert_eq!(store.stream_version("a").await?, 0);
    Ok(())
}

async fn what_is_refused_writes_nothing(store: Tested) -> Result<()> {
    let events = store.events(501);
    let too_large = store.batch(|batch| batch.put(key("a"), "", Expect::Any).append_any("a", events));
    assert_eq!(kind(store.send(&too_large).await), ErrorKind::TooLarge);
    let invalid = store.batch(|batch| batch.put(key("a"), "", Expect::Any).trim("", 1));
    assert_eq!(kind(store.send(&invalid).await), ErrorKind::InvalidInput);
    assert_eq!(store.value("a").await?, None);
    Ok(())
}
