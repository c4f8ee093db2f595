use evenkeel_core::{Appended, Batch, ErrorKind, Expect, ExpectStream, Found, Merge, Read, Result};

use super::{Case, cases, kind};
use crate::tested::{Tested, key};

pub(super) const CASES: &[Case] = cases![
    a_put_that_expected_absence_applies_once,
    a_put_that_expected_a_version_applies_once,
    an_append_that_expected_no_stream_applies_once,
    an_append_that_expected_a_version_applies_once,
    whatever_travels_with_a_fenced_operation_applies_once,
    an_acknowledgement_that_travels_with_a_put_applies_once,
    an_acknowledgement_alone_is_a_lost_lease_the_second_time,
    a_put_that_another_replaced_is_a_conflict,
    an_append_that_others_followed_is_still_a_success,
    an_append_whatever_the_version_is_recognised_while_it_is_the_last,
    an_append_whatever_the_version_that_others_followed_is_left_out,
    a_batch_that_failed_may_be_sent_again,
    events_bear_the_id_of_their_batch,
];

/// Sends the batch three times; the answers are the same.
async fn send_thrice(store: &Tested, batch: &Batch) -> Result<()> {
    assert!(batch.is_fenced());
    let first = store.send(batch).await?;
    for _ in 0..2 {
        assert_eq!(store.send(batch).await?, first);
    }
    Ok(())
}

async fn a_put_that_expected_absence_applies_once(store: Tested) -> Result<()> {
    let batch = store.batch(|batch| batch.put(key("a"), "1", Expect::Absent));
    send_thrice(&store, &batch).await?;
    assert_eq!(store.value("a").await?.unwrap(), "1");
    Ok(())
}

async fn a_put_that_expected_a_version_applies_once(store: Tested) -> Result<()> {
    let version = store.put("a", "1").await?.version;
    let batch = store.batch(|batch| batch.put(key("a"), "2", Expect::Version(version)));
    send_thrice(&store, &batch).await?;
    assert_eq!(store.value("a").await?.unwrap(), "2");
    Ok(())
}

async fn an_append_that_expected_no_stream_applies_once(store: Tested) -> Result<()> {
    let events = store.events(2);
    let batch = store.batch(|batch| batch.append("a", ExpectStream::NoStream, events));
    send_thrice(&store, &batch).await?;
    assert_eq!(store.log_after(0).await?.len(), 2);
    Ok(())
}

async fn an_append_that_expected_a_version_applies_once(store: Tested) -> Result<()> {
    store.append("a", 2).await?;
    let events = store.events(3);
    let batch = store.batch(|batch| batch.append("a", ExpectStream::Version(2), events));
    send_thrice(&store, &batch).await?;
    assert_eq!(store.log_after(0).await?.len(), 5);
    Ok(())
}

async fn whatever_travels_with_a_fenced_operation_applies_once(store: Tested) -> Result<()> {
    let held = store.hold_new("acked").await?;
    store.put("deleted", "").await?;
    let (now, events, more) = (store.now(), store.events(1), store.events(2));
    let batch = store.batch(|batch| {
        batch
            .push("queue", "pushed", now, "", Merge::Keep)
            .append_any("any", events)
            .delete(key("deleted"), Expect::Present)
            .ack("queue", "acked", held.token)
            .append("fence", ExpectStream::NoStream, more)
    });
    send_thrice(&store, &batch).await?;
    let pushed = store.lease_one().await?;
    assert_eq!(pushed.id, "pushed");
    store.commit(|batch| batch.ack("queue", "pushed", pushed.token)).await?;
    store.send(&batch).await?;
    assert_eq!(store.job("pushed").await?, None, "the push did not happen again");
    assert_eq!(store.log_after(0).await?.len(), 3);
    Ok(())
}

async fn an_acknowledgement_that_travels_with_a_put_applies_once(store: Tested) -> Result<()> {
    let held = store.hold_new("a").await?;
    let batch = store.batch(|batch| batch.ack("queue", "a", held.token).put(key("a"), "1", Expect::Any));
    send_thrice(&store, &batch).await?;
    store.push("a").await?;
    store.send(&batch).await?;
    assert!(store.job("a").await?.is_some(), "the new job is not the one acknowledged");
    Ok(())
}

async fn an_acknowledgement_alone_is_a_lost_lease_the_second_time(store: Tested) -> Result<()> {
    let held = store.hold_new("a").await?;
    let now = store.now();
    let batch =
        store.batch(|batch| batch.ack("queue", "a", held.token).push("queue", "b", now, "", Merge::Keep));
    assert!(batch.is_fenced());
    store.send(&batch).await?;
    store.commit(|batch| batch.cancel("queue", "b")).await?;
    assert_eq!(kind(store.send(&batch).await), ErrorKind::LeaseLost);
    assert_eq!(store.job("b").await?, None);
    Ok(())
}

async fn a_put_that_another_replaced_is_a_conflict(store: Tested) -> Result<()> {
    let version = store.put("a", "0").await?.version;
    for expect in [Expect::Version(version), Expect::Absent] {
        if expect == Expect::Absent {
            store.commit(|batch| batch.delete(key("a"), Expect::Any)).await?;
        }
        let batch = store.batch(|batch| batch.put(key("a"), "mine", expect));
        store.send(&batch).await?;
        store.put("a", "another's").await?;
        let conflict = store.send(&batch).await.unwrap_err().into_conflict()?;
        let Found::Record { record: Some(found), .. } = conflict.found else { panic!("{conflict:?}") };
        assert_eq!(found.value, "another's");
        assert_eq!(store.value("a").await?.unwrap(), "another's");
    }
    Ok(())
}

async fn an_append_that_others_followed_is_still_a_success(store: Tested) -> Result<()> {
    store.append("a", 1).await?;
    let events = store.events(2);
    let batch = store.batch(|batch| batch.append("a", ExpectStream::Version(1), events));
    let first = store.send(&batch).await?;
    assert_eq!(first.appended, [Appended { stream: "a".into(), version: 2, position: 2, count: 2 }]);
    store.append("a", 3).await?;
    assert_eq!(store.send(&batch).await?, first);
    assert_eq!(store.stream_version("a").await?, 6);
    Ok(())
}

async fn an_append_whatever_the_version_is_recognised_while_it_is_the_last(store: Tested) -> Result<()> {
    store.append("a", 1).await?;
    let events = store.events(2);
    let batch = store.batch(|batch| batch.append_any("a", events));
    assert!(!batch.is_fenced());
    let first = store.send(&batch).await?;
    assert_eq!(store.send(&batch).await?, first);
    assert_eq!(store.stream_version("a").await?, 3);
    Ok(())
}

async fn an_append_whatever_the_version_that_others_followed_is_left_out(store: Tested) -> Result<()> {
    for others in 1..=2 {
        let (stream, events) = (format!("{others} followed"), store.events(2));
        let batch = store.batch(|batch| {
            batch.put(key(stream.as_str()), "", Expect::Absent).append_any(stream.clone(), events)
        });
        store.send(&batch).await?;
        store.append(&stream, others).await?;
        assert!(store.send(&batch).await?.appended.is_empty());
        assert_eq!(store.stream_version(&stream).await?, 2 + u64::try_from(others).unwrap());
    }
    Ok(())
}

async fn a_batch_that_failed_may_be_sent_again(store: Tested) -> Result<()> {
    let events = store.events(1);
    let batch = store
        .batch(|batch| batch.append("a", ExpectStream::NoStream, events).check(key("a"), Expect::Present));
    assert_eq!(kind(store.send(&batch).await), ErrorKind::Conflict);
    store.put("a", "").await?;
    send_thrice(&store, &batch).await?;
    assert_eq!(store.stream_version("a").await?, 1);
    Ok(())
}

async fn events_bear_the_id_of_their_batch(store: Tested) -> Result<()> {
    let (one, two) = (store.events(1), store.events(2));
    let first = store.batch(|batch| batch.append_any("a", one));
    let second = store.batch(|batch| batch.append_any("a", two));
    store.send(&first).await?;
    store.send(&second).await?;
    let slice = store.read(Read::stream("a", 0, 10)).await?;
    let ids: Vec<_> = slice.events.iter().map(|event| event.batch).collect();
    assert_eq!(ids, [first.id(), second.id(), second.id()]);
    Ok(())
}
