use bytes::Bytes;
use evenkeel_core::{Job, LeasedJob, Merge, Result, Store, Timestamp};

use super::{Case, cases};
use crate::tested::{HOLD, Tested};

pub(super) const CASES: &[Case] = cases![
    a_push_creates_a_job_at_attempt_0,
    keep_leaves_a_waiting_job_as_it_is,
    sooner_takes_the_earlier_due_time_and_the_new_payload,
    a_push_on_a_leased_job_waits_for_the_end_of_the_lease,
    a_push_on_a_lapsed_lease_is_in_the_job_that_the_next_holder_gets,
    pushes_during_a_lease_take_effect_as_if_they_came_right_after_it,
    a_job_rearmed_after_an_ack_starts_at_attempt_0,
    a_push_during_a_lease_is_gone_with_a_cancel,
    two_payloads_of_the_limit_wait_on_one_job,
    many_jobs_with_two_long_payloads_are_retried_and_acknowledged_at_once,
];

async fn push(store: &Tested, due: Timestamp, payload: &'static str, merge: Merge) -> Result<()> {
    store.commit(|batch| batch.push("queue", "a", due, payload, merge)).await?;
    Ok(())
}

async fn a_push_creates_a_job_at_attempt_0(store: Tested) -> Result<()> {
    for merge in [Merge::Keep, Merge::Sooner] {
        let due = store.in_seconds(7);
        push(&store, due, "new", merge).await?;
        assert_eq!(store.job("a").await?, Some(Job::new(due, "new".into())));
        store.commit(|batch| batch.cancel("queue", "a")).await?;
    }
    Ok(())
}

async fn keep_leaves_a_waiting_job_as_it_is(store: Tested) -> Result<()> {
    let due = store.in_seconds(10);
    push(&store, due, "first", Merge::Keep).await?;
    for seconds in [1, 10, 20] {
        push(&store, store.in_seconds(seconds), "second", Merge::Keep).await?;
        assert_eq!(store.job("a").await?, Some(Job::new(due, "first".into())));
    }
    Ok(())
}

async fn sooner_takes_the_earlier_due_time_and_the_new_payload(store: Tested) -> Result<()> {
    push(&store, store.in_seconds(10), "first", Merge::Keep).await?;
    for (seconds, due, payload) in [(20, 10, "later"), (5, 5, "sooner"), (6, 5, "later again")] {
        push(&store, store.in_seconds(seconds), payload, Merge::Sooner).await?;
        assert_eq!(store.job("a").await?, Some(Job::new(store.in_seconds(due), payload.into())));
    }
    store.advance(std::time::Duration::from_secs(5));
    assert_eq!(store.lease_one().await?.payload, "later again");
    Ok(())
}

async fn a_push_on_a_leased_job_waits_for_the_end_of_the_lease(store: Tested) -> Result<()> {
    for merge in [Merge::Keep, Merge::Sooner] {
        let held = store.hold_new("a").await?;
        push(&store, store.now(), "pushed", merge).await?;
        assert!(store.lease(10).await?.jobs.is_empty());
        let job = store.job("a").await?.unwrap();
        assert!(job.is_held_by(held.token));
        assert_eq!((job.due, &job.payload[..]), (held.due, &b"a"[..]));
        store.commit(|batch| batch.cancel("queue", "a")).await?;
    }
    Ok(())
}

async fn a_push_on_a_lapsed_lease_is_in_the_job_that_the_next_holder_gets(store: Tested) -> Result<()> {
    let held = store.hold_new("a").await?;
    store.advance(HOLD * 2);
    push(&store, store.now(), "pushed", Merge::Sooner).await?;
    assert!(store.job("a").await?.unwrap().is_held_by(held.token), "the clock alone ends no lease");
    let next = store.lease_one().await?;
    assert_eq!((next.attempt, &next.payload[..]), (2, &b"pushed"[..]));
    Ok(())
}

/// How a lease ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Ack,
    Retry,
    TakeOver,
}

/// The job after its lease of the first attempt ended so. It was due at 0 with payload "a"; a retry
/// makes it due at 50.
async fn end(store: &Tested, held: &LeasedJob, how: End, zero: Timestamp) -> Result<Option<Job>> {
    match how {
        End::Ack => drop(store.commit(|batch| batch.ack("queue", "a", held.token)).await?),
        End::Retry => {
            let due = zero + std::time::Duration::from_secs(50);
            store.commit(|batch| batch.retry("queue", "a", held.token, due)).await?;
        }
        End::TakeOver => {
            store.advance(HOLD);
            let next = store.lease_one().await?;
            assert_eq!(next.attempt, 2);
            let job = store.job("a").await?.unwrap();
            assert_eq!((next.due, &next.payload), (job.due, &job.payload));
            return Ok(Some(Job { lease: None, ..job }));
        }
    }
    store.job("a").await
}

async fn pushes_during_a_lease_take_effect_as_if_they_came_right_after_it(store: Tested) -> Result<()> {
    use End::*;
    use Merge::*;
    // The pushes (merge, due, payload), how the lease ends, and what the job is then: attempt, due
    // and payload.
    type Row = (&'static [(Merge, u64, &'static str)], End, Option<(u32, u64, &'static str)>);
    let table: &[Row] = &[
        (&[], Ack, None),
        (&[], Retry, Some((1, 50, "a"))),
        (&[], TakeOver, Some((2, 0, "a"))),
        (&[(Keep, 20, "k")], Ack, Some((0, 20, "k"))),
        (&[(Keep, 20, "k")], Retry, Some((1, 50, "a"))),
        (&[(Keep, 20, "k")], TakeOver, Some((2, 0, "a"))),
        (&[(Sooner, 20, "s")], Ack, Some((0, 20, "s"))),
        (&[(Sooner, 20, "s")], Retry, Some((1, 20, "s"))),
        (&[(Sooner, 20, "s")], TakeOver, Some((2, 0, "s"))),
        (&[(Sooner, 70, "s")], Ack, Some((0, 70, "s"))),
        (&[(Sooner, 70, "s")], Retry, Some((1, 50, "s"))),
        (&[(Sooner, 70, "s")], TakeOver, Some((2, 0, "s"))),
        (&[(Keep, 20, "k"), (Keep, 10, "k2")], Ack, Some((0, 20, "k"))),
        (&[(Keep, 20, "k"), (Sooner, 30, "s")], Ack, Some((0, 20, "s"))),
        (&[(Keep, 20, "k"), (Sooner, 30, "s")], Retry, Some((1, 30, "s"))),
        (&[(Keep, 20, "k"), (Sooner, 30, "s")], TakeOver, Some((2, 0, "s"))),
        (&[(Sooner, 30, "s"), (Keep, 20, "k")], Ack, Some((0, 30, "s"))),
        (&[(Sooner, 30, "s"), (Keep, 20, "k")], Retry, Some((1, 30, "s"))),
        (&[(Sooner, 30, "s"), (Sooner, 40, "s2")], Ack, Some((0, 30, "s2"))),
        (&[(Sooner, 40, "s"), (Sooner, 30, "s2")], Retry, Some((1, 30, "s2"))),
    ];
    for row @ (pushes, how, expected) in table {
        let zero = store.now();
        let at = |seconds: u64| zero + std::time::Duration::from_secs(seconds);
        let held = store.hold_new("a").await?;
        for &(merge, due, payload) in *pushes {
            push(&store, at(due), payload, merge).await?;
        }
        let found = end(&store, &held, *how, zero).await?;
        let expected =
            expected.map(|(attempt, due, payload)| Job { attempt, ..Job::new(at(due), payload.into()) });
        assert_eq!(found, expected, "{row:?}");
        store.commit(|batch| batch.cancel("queue", "a")).await?;
    }
    Ok(())
}

async fn a_job_rearmed_after_an_ack_starts_at_attempt_0(store: Tested) -> Result<()> {
    let held = store.hold_new("a").await?;
    store.advance(HOLD);
    let held_again = store.lease_one().await?;
    push(&store, store.now(), "again", Merge::Keep).await?;
    store.commit(|batch| batch.ack("queue", "a", held_again.token)).await?;
    let rearmed = store.lease_one().await?;
    assert_eq!((rearmed.attempt, &rearmed.payload[..]), (1, &b"again"[..]));
    for lost in [held.token, held_again.token] {
        store.commit(|batch| batch.ack("queue", "a", lost)).await.unwrap_err();
    }
    Ok(())
}

async fn a_push_during_a_lease_is_gone_with_a_cancel(store: Tested) -> Result<()> {
    store.hold_new("a").await?;
    push(&store, store.now(), "pushed", Merge::Sooner).await?;
    store.commit(|batch| batch.cancel("queue", "a")).await?;
    assert_eq!(store.job("a").await?, None);
    store.advance(HOLD * 2);
    assert!(store.lease(10).await?.jobs.is_empty());
    Ok(())
}

/// The longest payload that the store takes, made of one letter.
fn longest(store: &Tested, letter: u8) -> Bytes {
    vec![letter; store.store.info().limits.value].into()
}

/// Pushes a job of the longest payload, leases it, and pushes another such payload.
async fn push_twice_the_longest(store: &Tested) -> Result<LeasedJob> {
    let (first, second) = (longest(store, b'1'), longest(store, b'2'));
    let now = store.now();
    store.commit(|batch| batch.push("queue", "a", now, first.clone(), Merge::Sooner)).await?;
    let held = store.lease_one().await?;
    assert!(held.payload == first, "the lease shows the payload that the job had");
    let due = now + std::time::Duration::from_secs(20);
    store.commit(|batch| batch.push("queue", "a", due, second.clone(), Merge::Sooner)).await?;
    let job = store.job("a").await?.unwrap();
    let pending = job.pending.as_ref().unwrap();
    assert!(job.is_held_by(held.token) && job.payload == first, "what is leased stays");
    assert!(pending.payload == second && pending.sooner == Some(due), "what was pushed waits");
    Ok(held)
}

async fn two_payloads_of_the_limit_wait_on_one_job(store: Tested) -> Result<()> {
    let (second, third) = (longest(&store, b'2'), longest(&store, b'3'));
    for how in [End::Ack, End::Retry, End::TakeOver] {
        let zero = store.now();
        let held = push_twice_the_longest(&store).await?;
        let job = end(&store, &held, how, zero).await?.unwrap();
        let attempt = match how {
            End::Ack => 0,
            End::Retry => 1,
            End::TakeOver => 2,
        };
        assert!(job.payload == second, "{how:?}");
        assert_eq!((job.attempt, job.pending.is_some()), (attempt, false), "{how:?}");

        // And once more on the job that this left.
        store.advance(HOLD * 2);
        let held = store.lease_one().await?;
        assert!(held.payload == second, "{how:?}");
        let now = store.now();
        store.commit(|batch| batch.push("queue", "a", now, third.clone(), Merge::Sooner)).await?;
        store.commit(|batch| batch.retry("queue", "a", held.token, now)).await?;
        let held = store.lease_one().await?;
        assert!(held.payload == third, "{how:?}");
        store.commit(|batch| batch.ack("queue", "a", held.token)).await?;
        assert_eq!(store.job("a").await?, None, "{how:?}");
    }
    push_twice_the_longest(&store).await?;
    store.commit(|batch| batch.cancel("queue", "a")).await?;
    assert_eq!(store.job("a").await?, None);
    store.push("a").await?;
    let held = store.lease_one().await?;
    assert_eq!((held.attempt, &held.payload[..]), (1, &b"a"[..]), "nothing is left of what was cancelled");
    Ok(())
}

/// Leases jobs until as many are held; one lease may be of fewer.
async fn lease_so_many(store: &Tested, count: usize) -> Result<Vec<LeasedJob>> {
    let mut held = Vec::new();
    while held.len() < count {
        let leased = store.lease(count - held.len()).await?.jobs;
        assert!(!leased.is_empty(), "{} of {count} jobs are due", held.len());
        held.extend(leased);
    }
    Ok(held)
}

async fn many_jobs_with_two_long_payloads_are_retried_and_acknowledged_at_once(store: Tested) -> Result<()> {
    // Their payloads are more than any batch may have.
    const JOBS: usize = 16;
    let now = store.now();
    let ids: Vec<String> = (0..JOBS).map(|n| format!("{n:02}")).collect();
    for id in &ids {
        let first = longest(&store, b'1');
        store.commit(|batch| batch.push("queue", id.as_str(), now, first, Merge::Keep)).await?;
    }
    let held = lease_so_many(&store, JOBS).await?;
    for id in &ids {
        let second = longest(&store, b'2');
        store.commit(|batch| batch.push("queue", id.as_str(), now, second, Merge::Sooner)).await?;
    }
    let (retried, acknowledged) = held.split_at(JOBS / 2);
    let mut batch = store.batch(|batch| batch);
    for job in retried {
        batch.retry("queue", &*job.id, job.token, now);
    }
    for job in acknowledged {
        batch.ack("queue", &*job.id, job.token);
    }
    store.send(&batch).await?;
    let second = longest(&store, b'2');
    let held = lease_so_many(&store, JOBS).await?;
    assert!(held.iter().all(|job| job.payload == second), "each has what was pushed to it");
    Ok(())
}
