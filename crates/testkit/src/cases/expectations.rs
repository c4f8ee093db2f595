use evenkeel_core::{Conflict, ErrorKind, Expect, ExpectStream, Found, Key, Merge, Result, Token, Version};
use uuid::Uuid;

use super::{Case, cases, kind};
use crate::tested::{Tested, key};

pub(super) const CASES: &[Case] = cases![
    each_expectation_of_a_record_is_judged,
    each_expectation_of_a_stream_is_judged,
    a_check_writes_nothing,
    a_conflict_carries_the_record_that_stood_there,
    a_conflict_carries_the_version_of_the_stream,
    a_lost_lease_carries_the_job,
    the_first_operation_that_fails_is_reported,
    one_call_claims_or_shows_who_has_it,
    expectations_are_judged_against_the_state_before_the_batch,
];

fn other_version() -> Version {
    Version(Uuid::from_u128(7))
}

async fn each_expectation_of_a_record_is_judged(store: Tested) -> Result<()> {
    let version = store.put("there", "1").await?.version;
    for (expect, there, absent) in [
        (Expect::Any, true, true),
        (Expect::Absent, false, true),
        (Expect::Present, true, false),
        (Expect::Version(version), true, false),
        (Expect::Version(other_version()), false, false),
    ] {
        for (id, holds) in [("there", there), ("absent", absent)] {
            let checked = store.commit(|batch| batch.check(key(id), expect)).await;
            assert_eq!(checked.is_ok(), holds, "check {id} {expect:?}");
        }
    }
    for (expect, holds) in [
        (Expect::Version(other_version()), false),
        (Expect::Present, false),
        (Expect::Absent, true),
        (Expect::Absent, false),
        (Expect::Present, true),
        (Expect::Any, true),
    ] {
        let put = store.commit(|batch| batch.put(key("put"), "", expect)).await;
        assert_eq!(put.is_ok(), holds, "put {expect:?}");
    }
    for (expect, holds) in [
        (Expect::Absent, false),
        (Expect::Version(other_version()), false),
        (Expect::Present, true),
        (Expect::Present, false),
        (Expect::Version(other_version()), false),
        (Expect::Absent, true),
        (Expect::Any, true),
    ] {
        let deleted = store.commit(|batch| batch.delete(key("put"), expect)).await;
        assert_eq!(deleted.is_ok(), holds, "delete {expect:?}");
    }
    Ok(())
}

async fn each_expectation_of_a_stream_is_judged(store: Tested) -> Result<()> {
    for (expect, at_0, at_2) in [
        (ExpectStream::Any, true, true),
        (ExpectStream::NoStream, true, false),
        (ExpectStream::Exists, false, true),
        (ExpectStream::Version(0), true, false),
        (ExpectStream::Version(1), false, false),
        (ExpectStream::Version(2), false, true),
        (ExpectStream::Version(3), false, false),
        (ExpectStream::Version(u64::MAX), false, false),
    ] {
        for (before, holds) in [(0, at_0), (2, at_2)] {
            for count in [0, 1] {
                let stream = format!("{expect:?} on {before} of {count}");
                if before > 0 {
                    store.append(&stream, before).await?;
                }
                let events = store.events(count);
                let appended = store.commit(|batch| batch.append(stream.clone(), expect, events)).await;
                assert_eq!(appended.is_ok(), holds, "{stream}: {appended:?}");
                let version = if holds { before + count } else { before };
                assert_eq!(store.stream_version(&stream).await?, u64::try_from(version).unwrap(), "{stream}");
            }
        }
    }
    Ok(())
}

async fn a_check_writes_nothing(store: Tested) -> Result<()> {
    store.put("a", "1").await?;
    let before = store.record(&key("a")).await?;
    store.commit(|batch| batch.check(key("a"), Expect::Present).check(key("b"), Expect::Absent)).await?;
    assert_eq!(store.record(&key("a")).await?, before);
    assert_eq!(store.record(&key("b")).await?, None);
    Ok(())
}

async fn conflict(store: &Tested, expected: ErrorKind, batch: evenkeel_core::Batch) -> Result<Conflict> {
    let error = store.send(&batch).await.expect_err("the batch was to fail");
    assert_eq!(error.kind(), expected, "{error}");
    error.into_conflict()
}

async fn a_conflict_carries_the_record_that_stood_there(store: Tested) -> Result<()> {
    let expires_at = store.in_seconds(100);
    store.commit(|batch| batch.put_until(key("a"), vec![0, 0xff], Expect::Any, expires_at)).await?;
    let there = store.record(&key("a")).await?;
    assert!(there.is_some());
    type Fail = fn(&mut evenkeel_core::Batch, Key, Expect) -> &mut evenkeel_core::Batch;
    let ops: [Fail; 3] = [
        |batch, key, expect| batch.put(key, "", expect),
        |batch, key, expect| batch.delete(key, expect),
        |batch, key, expect| batch.check(key, expect),
    ];
    for op in ops {
        for expect in [Expect::Absent, Expect::Version(other_version())] {
            let batch = store.batch(|batch| op(batch, key("a"), expect));
            let conflict = conflict(&store, ErrorKind::Conflict, batch).await?;
            let found = Found::Record { key: key("a"), record: there.clone() };
            assert_eq!(conflict, Conflict { op: 0, found });
        }
        for expect in [Expect::Present, Expect::Version(other_version())] {
            let batch = store.batch(|batch| op(batch, key("b"), expect));
            let conflict = conflict(&store, ErrorKind::Conflict, batch).await?;
            assert_eq!(conflict, Conflict { op: 0, found: Found::Record { key: key("b"), record: None } });
        }
    }
    Ok(())
}

async fn a_conflict_carries_the_version_of_the_stream(store: Tested) -> Result<()> {
    store.append("a", 3).await?;
    for (stream, expect, version) in [
        ("a", ExpectStream::NoStream, 3),
        ("a", ExpectStream::Version(2), 3),
        ("b", ExpectStream::Exists, 0),
        ("b", ExpectStream::Version(1), 0),
    ] {
        let events = store.events(1);
        let batch = store.batch(|batch| batch.append(stream, expect, events));
        let conflict = conflict(&store, ErrorKind::Conflict, batch).await?;
        assert_eq!(conflict, Conflict { op: 0, found: Found::Stream { stream: stream.into(), version } });
    }
    Ok(())
}

async fn a_lost_lease_carries_the_job(store: Tested) -> Result<()> {
    store.hold_new("held").await?;
    let now = store.now();
    store.commit(|batch| batch.push("queue", "waiting", store.in_seconds(9), "w", Merge::Keep)).await?;
    for id in ["held", "waiting", "missing"] {
        let token = Token::fresh();
        let job = store.job(id).await?;
        assert_eq!(job.is_none(), id == "missing");
        for batch in [
            store.batch(|batch| batch.ack("queue", id, token)),
            store.batch(|batch| batch.retry("queue", id, token, now)),
            store.batch(|batch| batch.extend("queue", id, token, now)),
        ] {
            let conflict = conflict(&store, ErrorKind::LeaseLost, batch).await?;
            let found = Found::Job { queue: "queue".into(), id: id.into(), job: job.clone() };
            assert_eq!(conflict, Conflict { op: 0, found });
        }
    }
    Ok(())
}

async fn the_first_operation_that_fails_is_reported(store: Tested) -> Result<()> {
    store.append("a", 1).await?;
    let token = Token::fresh();
    let fine = |batch: &mut evenkeel_core::Batch| {
        batch.put(key("fine"), "", Expect::Any).append("a", ExpectStream::Exists, []);
    };
    let record_first = store.batch(|batch| {
        fine(batch);
        batch
            .check(key("missing"), Expect::Present)
            .append("b", ExpectStream::Exists, [])
            .ack("queue", "missing", token)
    });
    let stream_first = store.batch(|batch| {
        fine(batch);
        batch
            .append("b", ExpectStream::Exists, [])
            .ack("queue", "missing", token)
            .check(key("missing"), Expect::Present)
    });
    let job_first = store.batch(|batch| {
        fine(batch);
        batch.ack("queue", "missing", token).check(key("missing"), Expect::Present).append(
            "b",
            ExpectStream::Exists,
            [],
        )
    });
    let reported = conflict(&store, ErrorKind::Conflict, record_first).await?;
    assert_eq!(reported, Conflict { op: 2, found: Found::Record { key: key("missing"), record: None } });
    let reported = conflict(&store, ErrorKind::Conflict, stream_first).await?;
    assert_eq!(reported, Conflict { op: 2, found: Found::Stream { stream: "b".into(), version: 0 } });
    let reported = conflict(&store, ErrorKind::LeaseLost, job_first).await?;
    let found = Found::Job { queue: "queue".into(), id: "missing".into(), job: None };
    assert_eq!(reported, Conflict { op: 2, found });
    Ok(())
}

async fn one_call_claims_or_shows_who_has_it(store: Tested) -> Result<()> {
    let claim = |who: &'static str| store.batch(|batch| batch.put(key("lock"), who, Expect::Absent));
    store.send(&claim("me")).await?;
    let conflict = conflict(&store, ErrorKind::Conflict, claim("you")).await?;
    let Found::Record { record: Some(record), .. } = conflict.found else { panic!("{conflict:?}") };
    assert_eq!(record.value, "me");
    store.commit(|batch| batch.put(key("lock"), "mine now", Expect::Version(record.version))).await?;
    Ok(())
}

async fn expectations_are_judged_against_the_state_before_the_batch(store: Tested) -> Result<()> {
    // A batch that creates everything it names finds nothing of its own.
    let (one, two, now) = (store.events(1), store.events(1), store.now());
    store
        .commit(|batch| {
            batch
                .put(key("a"), "", Expect::Absent)
                .put(key("b"), "", Expect::Absent)
                .append("a", ExpectStream::NoStream, one)
                .append("b", ExpectStream::NoStream, two)
                .push("queue", "a", now, "", Merge::Keep)
        })
        .await?;
    // A push does not make up for a lost lease on another job, nor a put for another's absence.
    let batch = store.batch(|batch| {
        batch
            .push("queue", "b", now, "", Merge::Keep)
            .ack("queue", "a", Token::fresh())
            .delete(key("a"), Expect::Any)
    });
    assert_eq!(kind(store.send(&batch).await), ErrorKind::LeaseLost);
    Ok(())
}
