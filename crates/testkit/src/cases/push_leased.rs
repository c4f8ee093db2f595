use evenkeel_core::{Batch, ErrorKind, Expect, Found, Hold, Job, Merge, Result, Timestamp, Token};

use super::{Case, cases, kind};
use crate::tested::{HOLD, Tested, key};

pub(super) const CASES: &[Case] = cases![
    a_job_pushed_leased_is_held_at_attempt_1,
    it_is_acknowledged_and_retried_like_any_that_is_held,
    it_goes_to_another_once_its_lease_has_run_out,
    a_push_on_it_waits_for_the_end_of_the_lease,
    where_a_job_exists_it_is_a_conflict_that_says_how_that_stands,
    sent_again_it_is_recognised_while_its_lease_stands,
    whatever_travels_with_it_applies_once,
    an_expectation_beside_it_that_fails_leaves_no_job,
    of_many_at_once_one_holds_the_job,
    after_an_acknowledgement_it_may_be_pushed_leased_anew,
];

/// A hold as long as those of the other cases.
fn hold(store: &Tested) -> Hold {
    Hold { token: Token::fresh(), until: store.now() + HOLD }
}

fn pushed(store: &Tested, hold: Hold) -> Batch {
    let due = store.now();
    store.batch(|batch| batch.push_leased("queue", "a", due, "payload", hold))
}

/// Pushes a job that is held from its birth.
async fn push(store: &Tested) -> Result<Hold> {
    let hold = hold(store);
    store.send(&pushed(store, hold)).await?;
    Ok(hold)
}

/// The job as it was pushed leased at `due`.
fn held(due: Timestamp, hold: Hold) -> Job {
    let mut job = Job::new(due, "payload".into());
    job.lease(hold);
    job
}

async fn a_job_pushed_leased_is_held_at_attempt_1(store: Tested) -> Result<()> {
    let hold = push(&store).await?;
    let job = store.job("a").await?.unwrap();
    assert_eq!(job, held(store.now(), hold));
    assert_eq!(job.attempt, 1);
    let leased = store.lease(10).await?;
    assert!(leased.jobs.is_empty());
    assert!(leased.next_due.is_some(), "others can have it once the lease has run out");
    Ok(())
}

async fn it_is_acknowledged_and_retried_like_any_that_is_held(store: Tested) -> Result<()> {
    let Hold { token, .. } = push(&store).await?;
    let nobodys = store.commit(|batch| batch.ack("queue", "a", Token::fresh())).await;
    assert_eq!(kind(nobodys), ErrorKind::LeaseLost);
    let until = store.in_seconds(90);
    store.commit(|batch| batch.extend("queue", "a", token, until)).await?;
    store.advance(HOLD);
    assert!(store.lease(10).await?.jobs.is_empty());
    let now = store.now();
    store.commit(|batch| batch.retry("queue", "a", token, now)).await?;
    let again = store.lease_one().await?;
    assert_eq!((again.attempt, &*again.payload), (2, &b"payload"[..]));
    store.commit(|batch| batch.ack("queue", "a", again.token)).await?;
    assert_eq!(store.job("a").await?, None);
    Ok(())
}

async fn it_goes_to_another_once_its_lease_has_run_out(store: Tested) -> Result<()> {
    let (due, hold) = (store.now(), push(&store).await?);
    store.advance(HOLD);
    let other = store.lease_one().await?;
    assert_eq!((other.due, other.attempt, &*other.payload), (due, 2, &b"payload"[..]));
    let late = store.commit(|batch| batch.ack("queue", "a", hold.token)).await;
    assert_eq!(kind(late), ErrorKind::LeaseLost);
    Ok(())
}

async fn a_push_on_it_waits_for_the_end_of_the_lease(store: Tested) -> Result<()> {
    let (now, hold) = (store.now(), push(&store).await?);
    store.commit(|batch| batch.push("queue", "a", now, "pushed", Merge::Keep)).await?;
    assert!(store.lease(10).await?.jobs.is_empty());
    store.commit(|batch| batch.ack("queue", "a", hold.token)).await?;
    let created = store.lease_one().await?;
    assert_eq!((created.attempt, &*created.payload), (1, &b"pushed"[..]));
    Ok(())
}

async fn where_a_job_exists_it_is_a_conflict_that_says_how_that_stands(store: Tested) -> Result<()> {
    let refuse = async || {
        let job = store.job("a").await?.unwrap();
        let error = store.send(&pushed(&store, hold(&store))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let found = Found::Occupied { queue: "queue".into(), id: "a".into(), job: job.clone() };
        assert_eq!(error.into_conflict()?.found, found);
        assert_eq!(store.job("a").await?, Some(job), "and it stays as it is");
        Result::Ok(())
    };
    store.push("a").await?;
    refuse().await?;
    store.lease_one().await?;
    refuse().await?;
    store.push("a").await?;
    refuse().await?;
    store.advance(HOLD * 2);
    refuse().await
}

async fn sent_again_it_is_recognised_while_its_lease_stands(store: Tested) -> Result<()> {
    let (due, hold) = (store.now(), hold(&store));
    let batch = pushed(&store, hold);
    assert!(batch.is_fenced());
    for _ in 0..3 {
        store.send(&batch).await?;
        assert_eq!(store.job("a").await?, Some(held(due, hold)));
    }
    store.advance(HOLD);
    store.send(&batch).await?;
    store.lease_one().await?;
    assert_eq!(kind(store.send(&batch).await), ErrorKind::Conflict);
    Ok(())
}

async fn whatever_travels_with_it_applies_once(store: Tested) -> Result<()> {
    let other = store.hold_new("acked").await?;
    let (now, hold, events) = (store.now(), hold(&store), store.events(2));
    let batch = store.batch(|batch| {
        batch
            .put(key("a"), "1", Expect::Any)
            .append_any("a", events)
            .push("queue", "pushed", now, "", Merge::Keep)
            .push_leased("queue", "a", now, "payload", hold)
            .ack("queue", "acked", other.token)
    });
    let first = store.send(&batch).await?;
    // Nothing but the job is left to know it by.
    store.put("a", "another's").await?;
    store.append("a", 1).await?;
    store.commit(|batch| batch.cancel("queue", "pushed")).await?;
    for _ in 0..2 {
        let again = store.send(&batch).await?;
        assert_eq!((again.version, again.appended), (first.version, vec![]), "its events are not the last");
        assert_eq!(store.job("a").await?, Some(held(now, hold)));
        assert_eq!(store.job("pushed").await?, None);
        assert_eq!(store.value("a").await?.unwrap(), "another's");
        assert_eq!(store.stream_version("a").await?, 3);
    }
    Ok(())
}

async fn an_expectation_beside_it_that_fails_leaves_no_job(store: Tested) -> Result<()> {
    let (now, hold) = (store.now(), hold(&store));
    let batch = store.batch(|batch| {
        batch.push_leased("queue", "a", now, "payload", hold).check(key("missing"), Expect::Present)
    });
    assert_eq!(store.send(&batch).await.unwrap_err().into_conflict()?.op, 1);
    assert_eq!(store.job("a").await?, None);
    store.put("missing", "").await?;
    store.send(&batch).await?;
    assert_eq!(store.job("a").await?, Some(held(now, hold)), "it was not applied before");
    Ok(())
}

async fn of_many_at_once_one_holds_the_job(store: Tested) -> Result<()> {
    let holds: Vec<_> = (0..10).map(|_| hold(&store)).collect();
    let batches: Vec<_> = holds.iter().map(|hold| pushed(&store, *hold)).collect();
    let verdicts = futures_util::future::join_all(batches.iter().map(|batch| store.send(batch))).await;
    let done: Vec<_> = holds.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_ok()).collect();
    assert_eq!(done.len(), 1);
    assert!(store.job("a").await?.unwrap().is_held_by(done[0].0.token));
    for refused in verdicts.into_iter().filter_map(Result::err) {
        assert_eq!(refused.kind(), ErrorKind::Conflict);
    }
    Ok(())
}

async fn after_an_acknowledgement_it_may_be_pushed_leased_anew(store: Tested) -> Result<()> {
    for _ in 0..3 {
        let hold = push(&store).await?;
        assert_eq!(store.job("a").await?, Some(held(store.now(), hold)));
        store.commit(|batch| batch.ack("queue", "a", hold.token)).await?;
    }
    Ok(())
}
