use evenkeel_core::{Batch, ErrorKind, Expect, ExpectStream, Hold, Merge, Op, Read, Result, Token};
use futures_util::future::join_all;

use super::{Case, cases, kind};
use crate::tested::{HOLD, Tested, key};

pub(super) const CASES: &[Case] = cases![
    an_empty_batch_commits,
    a_batch_of_every_operation_commits_whole,
    a_batch_that_fails_writes_nothing,
    a_key_stream_or_job_is_named_once,
    the_same_id_in_another_group_stream_or_queue_is_another_name,
    a_commit_answers_with_the_version_it_wrote,
    an_unsynced_batch_is_whole_and_seen_like_any,
];

async fn an_empty_batch_commits(store: Tested) -> Result<()> {
    let committed = store.commit(|batch| batch).await?;
    assert!(committed.appended.is_empty());
    Ok(())
}

async fn a_batch_of_every_operation_commits_whole(store: Tested) -> Result<()> {
    for id in ["acked", "retried", "extended"] {
        store.push(id).await?;
    }
    let held = store.lease(3).await?.jobs;
    let token = |id: &str| held.iter().find(|job| job.id == id).unwrap().token;
    store.put("deleted", "").await?;
    store.put("checked", "").await?;
    store.append("trimmed", 2).await?;
    store.push("cancelled").await?;

    let (now, later, event) = (store.now(), store.in_seconds(10), store.events(1));
    let hold = Hold { token: Token::fresh(), until: later };
    store
        .commit(|batch| {
            batch
                .put(key("put"), "new", Expect::Absent)
                .delete(key("deleted"), Expect::Present)
                .check(key("checked"), Expect::Present)
                .append("appended", ExpectStream::NoStream, event)
                .trim("trimmed", 1)
                .push("queue", "pushed", now, "", Merge::Keep)
                .push_leased("queue", "pushed leased", now, "", hold)
                .ack("queue", "acked", token("acked"))
                .retry("queue", "retried", token("retried"), later)
                .extend("queue", "extended", token("extended"), later)
                .cancel("queue", "cancelled")
        })
        .await?;

    assert_eq!(store.value("put").await?.unwrap(), "new");
    assert_eq!(store.value("deleted").await?, None);
    assert_eq!(store.value("checked").await?.unwrap(), "");
    assert_eq!(store.stream_version("appended").await?, 1);
    assert_eq!(store.read(Read::stream("trimmed", 0, 10)).await?.events.len(), 1);
    assert_eq!(store.job("pushed").await?.unwrap().due, now);
    assert_eq!(store.job("pushed leased").await?.unwrap().lease, Some(hold));
    assert_eq!(store.job("acked").await?, None);
    assert_eq!(store.job("retried").await?.unwrap().due, later);
    assert_eq!(store.job("extended").await?.unwrap().lease.unwrap().until, later);
    assert_eq!(store.job("cancelled").await?, None);
    Ok(())
}

async fn a_batch_that_fails_writes_nothing(store: Tested) -> Result<()> {
    let held = store.hold_new("held").await?;
    store.push("waiting").await?;
    store.push("other").await?;
    store.put("there", "before").await?;
    store.append("stream", 2).await?;
    let before = store.job("held").await?;

    type Fail = fn(&mut Batch) -> &mut Batch;
    let failing: [(Fail, ErrorKind); 4] = [
        (|batch| batch.check(key("missing"), Expect::Present), ErrorKind::Conflict),
        (|batch| batch.append("other", ExpectStream::Exists, []), ErrorKind::Conflict),
        (|batch| batch.ack("queue", "missing", Token::fresh()), ErrorKind::LeaseLost),
        (
            |batch| {
                let (now, token) = (batch.now(), Token::fresh());
                batch.push_leased("queue", "other", now, "", Hold { token, until: now })
            },
            ErrorKind::Conflict,
        ),
    ];
    for (fail, expected) in failing {
        let (now, event) = (store.now(), store.events(1));
        let batch = store.batch(|batch| {
            let batch = batch
                .put(key("new"), "", Expect::Absent)
                .put(key("there"), "after", Expect::Any)
                .append_any("stream", event)
                .push("queue", "new", now, "", Merge::Keep)
                .ack("queue", "held", held.token)
                .cancel("queue", "waiting");
            fail(batch)
        });
        assert_eq!(kind(store.send(&batch).await), expected);
        assert_eq!(store.value("new").await?, None);
        assert_eq!(store.value("there").await?.unwrap(), "before");
        assert_eq!(store.stream_version("stream").await?, 2);
        assert_eq!(store.read(Read::partition(0, 10)).await?.head, 2);
        assert_eq!(store.job("new").await?, None);
        assert_eq!(store.job("held").await?, before);
        assert!(store.job("waiting").await?.is_some());
    }
    let trimming = store.commit(|batch| batch.trim("stream", 2).check(key("missing"), Expect::Present)).await;
    assert_eq!(kind(trimming), ErrorKind::Conflict);
    assert_eq!(store.read(Read::stream("stream", 0, 10)).await?.events.len(), 2);
    let deleting = store
        .commit(|batch| batch.delete(key("there"), Expect::Any).check(key("missing"), Expect::Present))
        .await;
    assert_eq!(kind(deleting), ErrorKind::Conflict);
    assert_eq!(store.value("there").await?.unwrap(), "before");
    Ok(())
}

async fn a_key_stream_or_job_is_named_once(store: Tested) -> Result<()> {
    let (now, token) = (store.now(), Token::fresh());
    let hold = Hold { token, until: now };
    let (queue, id) = (|| "queue".to_owned(), || "a".to_owned());
    let record = vec![
        Op::Put { key: key("a"), value: "".into(), expect: Expect::Any, expires_at: None },
        Op::Delete { key: key("a"), expect: Expect::Any },
        Op::Check { key: key("a"), expect: Expect::Any },
    ];
    let stream = vec![
        Op::Append { stream: id(), expect: ExpectStream::Any, events: Vec::new() },
        Op::Trim { stream: id(), through: 1 },
    ];
    let job = vec![
        Op::Push { queue: queue(), id: id(), due: now, payload: "".into(), merge: Merge::Keep },
        Op::PushLeased { queue: queue(), id: id(), due: now, payload: "".into(), hold },
        Op::Ack { queue: queue(), id: id(), token },
        Op::Retry { queue: queue(), id: id(), token, due: now },
        Op::Extend { queue: queue(), id: id(), token, until: now },
        Op::Cancel { queue: queue(), id: id() },
    ];
    for mentions in [record, stream, job] {
        for first in &mentions {
            for second in &mentions {
                let other =
                    Op::Put { key: key("other"), value: "".into(), expect: Expect::Any, expires_at: None };
                let batch = store.batch(|batch| batch.op(first.clone()).op(other).op(second.clone()));
                assert_eq!(kind(store.send(&batch).await), ErrorKind::InvalidInput, "{batch:?}");
                assert_eq!(store.value("other").await?, None);
            }
        }
    }
    Ok(())
}

async fn the_same_id_in_another_group_stream_or_queue_is_another_name(store: Tested) -> Result<()> {
    let (now, one, two) = (store.now(), store.events(1), store.events(1));
    store
        .commit(|batch| {
            batch
                .put(key("a"), "", Expect::Any)
                .put(evenkeel_core::Key::new("test", "other", "a"), "", Expect::Any)
                .put(evenkeel_core::Key::new("other", "group", "a"), "", Expect::Any)
                .append_any("a", one)
                .append_any("b", two)
                .push("a", "a", now, "", Merge::Keep)
                .push("b", "a", now, "", Merge::Keep)
        })
        .await?;
    assert!(store.value("a").await?.is_some());
    assert_eq!(store.read(Read::partition(0, 10)).await?.head, 2);
    Ok(())
}

async fn a_commit_answers_with_the_version_it_wrote(store: Tested) -> Result<()> {
    let first = store.put("a", "1").await?.version;
    let second = store.commit(|batch| batch.put(key("a"), "2", Expect::Version(first))).await?.version;
    store.commit(|batch| batch.delete(key("a"), Expect::Version(second))).await?;
    // What wrote no record has a version that no record bears.
    store.push("a").await?;
    let acked = store.lease_one().await?;
    assert_eq!(acked.until, store.now() + HOLD);
    let third = store.commit(|batch| batch.ack("queue", "a", acked.token)).await?.version;
    assert!(third != first && third != second);
    Ok(())
}

async fn an_unsynced_batch_is_whole_and_seen_like_any(store: Tested) -> Result<()> {
    let batches: Vec<Batch> = (0..8)
        .map(|n| {
            let (id, now, event) = (n.to_string(), store.now(), store.events(1));
            let mut batch = store.batch(|batch| {
                batch.put(key(&*id), "", Expect::Absent).append_any(&*id, event).push(
                    "queue",
                    &*id,
                    now,
                    "",
                    Merge::Keep,
                )
            });
            if n % 2 == 0 {
                batch.set_unsynced();
            }
            batch
        })
        .collect();
    // Beside synced ones, and again.
    for _ in 0..2 {
        for committed in join_all(batches.iter().map(|batch| store.send(batch))).await {
            assert_eq!(committed?.appended.len(), 1);
        }
    }
    for n in 0..8 {
        let id = n.to_string();
        assert!(store.value(&id).await?.is_some());
        assert_eq!(store.stream_version(&id).await?, 1);
        assert!(store.job(&id).await?.is_some());
    }
    let mut refused =
        store.batch(|batch| batch.put(key("a"), "", Expect::Any).check(key("missing"), Expect::Present));
    refused.set_unsynced();
    assert_eq!(kind(store.send(&refused).await), ErrorKind::Conflict);
    assert_eq!(store.value("a").await?, None);
    Ok(())
}
