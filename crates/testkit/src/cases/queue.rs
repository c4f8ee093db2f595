use std::time::Duration;

use evenkeel_core::{ErrorKind, Expect, Found, Hold, Job, Jobs, Lease, Merge, Result, Store, Timestamp};

use super::{Case, cases, kind};
use crate::tested::{HOLD, Tested, key};

pub(super) const CASES: &[Case] = cases![
    a_job_is_leased_from_the_instant_it_is_due,
    a_lease_says_all_about_its_job,
    a_queue_without_jobs_gives_none,
    a_job_held_by_one_is_not_leased_to_another,
    a_lapsed_lease_is_taken_over_with_the_next_attempt,
    a_token_stays_valid_past_its_time_until_taken_over,
    a_token_that_was_taken_over_writes_nothing,
    acknowledging_ends_the_job,
    retrying_gives_the_job_back_for_later,
    extending_moves_the_end_of_the_lease,
    cancelling_removes_a_job_whoever_holds_it,
    cancelling_an_absent_job_succeeds,
    a_job_never_vanishes_by_lapsing,
    at_most_as_many_as_asked_for_are_leased,
    jobs_come_roughly_earliest_first,
    the_answer_says_when_the_next_is_due,
    queues_are_separate,
    acknowledging_and_writing_is_one,
    looking_at_jobs_shows_them_as_they_stand,
    jobs_are_looked_at_by_id_in_the_order_asked_for,
    a_queue_is_paged_through_in_id_order,
];

const MICROSECOND: Duration = Duration::from_micros(1);

async fn a_job_is_leased_from_the_instant_it_is_due(store: Tested) -> Result<()> {
    let due = store.in_seconds(10);
    store.commit(|batch| batch.push("queue", "a", due, "", Merge::Keep)).await?;
    store.advance_to(due - MICROSECOND);
    assert!(store.lease(10).await?.jobs.is_empty());
    store.advance(MICROSECOND);
    assert_eq!(store.lease_one().await?.id, "a");
    Ok(())
}

async fn a_lease_says_all_about_its_job(store: Tested) -> Result<()> {
    let due = store.now();
    let payload = vec![0, 0xff, 0xfe];
    store.commit(|batch| batch.push("queue", "jöb", due, payload.clone(), Merge::Keep)).await?;
    store.advance(Duration::from_secs(5));
    let job = store.lease_one().await?;
    assert_eq!((job.id.as_str(), &job.payload[..]), ("jöb", &payload[..]));
    assert_eq!((job.due, job.attempt, job.until), (due, 1, store.now() + HOLD));
    Ok(())
}

async fn a_queue_without_jobs_gives_none(store: Tested) -> Result<()> {
    let leased = store.lease(10).await?;
    assert!(leased.jobs.is_empty());
    assert_eq!(leased.next_due, None);
    Ok(())
}

async fn a_job_held_by_one_is_not_leased_to_another(store: Tested) -> Result<()> {
    let job = store.hold_new("a").await?;
    store.advance_to(job.until - MICROSECOND);
    assert!(store.lease(10).await?.jobs.is_empty());
    store.advance(MICROSECOND);
    assert_eq!(store.lease_one().await?.id, "a");
    Ok(())
}

async fn a_lapsed_lease_is_taken_over_with_the_next_attempt(store: Tested) -> Result<()> {
    let mut tokens = vec![store.hold_new("a").await?.token];
    for attempt in 2..5 {
        store.advance(HOLD);
        let job = store.lease_one().await?;
        assert_eq!(job.attempt, attempt);
        assert!(!tokens.contains(&job.token), "each lease has another token");
        tokens.push(job.token);
    }
    Ok(())
}

async fn a_token_stays_valid_past_its_time_until_taken_over(store: Tested) -> Result<()> {
    let (acked, retried, extended) = {
        for id in ["acked", "retried", "extended"] {
            store.push(id).await?;
        }
        let jobs = store.lease(3).await?.jobs;
        let token = |id: &str| jobs.iter().find(|job| job.id == id).unwrap().token;
        (token("acked"), token("retried"), token("extended"))
    };
    store.advance(HOLD * 100);
    let later = store.in_seconds(10);
    store
        .commit(|batch| {
            batch
                .ack("queue", "acked", acked)
                .retry("queue", "retried", retried, later)
                .extend("queue", "extended", extended, later)
        })
        .await?;
    assert!(store.lease(10).await?.jobs.is_empty());
    store.commit(|batch| batch.ack("queue", "extended", extended)).await?;
    Ok(())
}

async fn a_token_that_was_taken_over_writes_nothing(store: Tested) -> Result<()> {
    let lost = store.hold_new("a").await?.token;
    store.advance(HOLD);
    let successor = store.lease_one().await?;
    let later = store.in_seconds(1000);
    let uses = [
        store.batch(|batch| batch.put(key("a"), "", Expect::Any).ack("queue", "a", lost)),
        store.batch(|batch| batch.put(key("a"), "", Expect::Any).retry("queue", "a", lost, later)),
        store.batch(|batch| batch.put(key("a"), "", Expect::Any).extend("queue", "a", lost, later)),
    ];
    let held = store.job("a").await?;
    assert_eq!(held.as_ref().unwrap().lease.unwrap().token, successor.token);
    for batch in uses {
        let error = store.send(&batch).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LeaseLost, "{batch:?}");
        let conflict = error.into_conflict()?;
        assert_eq!(conflict.op, 1);
        assert_eq!(conflict.found, Found::Job { queue: "queue".into(), id: "a".into(), job: held.clone() });
        assert_eq!(store.value("a").await?, None);
        assert_eq!(store.job("a").await?, held);
    }
    store.commit(|batch| batch.ack("queue", "a", successor.token)).await?;
    Ok(())
}

async fn acknowledging_ends_the_job(store: Tested) -> Result<()> {
    let job = store.hold_new("a").await?;
    store.commit(|batch| batch.ack("queue", "a", job.token)).await?;
    assert_eq!(store.job("a").await?, None);
    store.advance(HOLD * 100);
    assert!(store.lease(10).await?.jobs.is_empty());
    let again = store.commit(|batch| batch.ack("queue", "a", job.token)).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::LeaseLost);
    assert_eq!(again.into_conflict()?.found, Found::Job { queue: "queue".into(), id: "a".into(), job: None });
    Ok(())
}

async fn retrying_gives_the_job_back_for_later(store: Tested) -> Result<()> {
    let job = store.hold_new("a").await?;
    let later = store.in_seconds(5);
    store.commit(|batch| batch.retry("queue", "a", job.token, later)).await?;
    let waiting = store.job("a").await?.unwrap();
    assert_eq!((waiting.due, waiting.attempt, waiting.lease), (later, 1, None));

    store.advance_to(later - MICROSECOND);
    assert!(store.lease(10).await?.jobs.is_empty());
    store.advance(MICROSECOND);
    let again = store.lease_one().await?;
    assert_eq!((again.attempt, again.due, &again.payload[..]), (2, later, &b"a"[..]));

    let lost = store.commit(|batch| batch.ack("queue", "a", job.token)).await;
    assert_eq!(kind(lost), ErrorKind::LeaseLost);
    let now = store.now();
    store.commit(|batch| batch.retry("queue", "a", again.token, now)).await?;
    let lost = store.commit(|batch| batch.ack("queue", "a", again.token)).await;
    assert_eq!(kind(lost), ErrorKind::LeaseLost, "a token ends with the retry");
    assert_eq!(store.lease_one().await?.attempt, 3);
    Ok(())
}

async fn extending_moves_the_end_of_the_lease(store: Tested) -> Result<()> {
    let job = store.hold_new("a").await?;
    let longer = job.until + HOLD;
    store.commit(|batch| batch.extend("queue", "a", job.token, longer)).await?;
    let held = store.job("a").await?.unwrap();
    assert_eq!((held.lease, held.attempt), (Some(Hold { token: job.token, until: longer }), 1));
    store.advance_to(longer - MICROSECOND);
    assert!(store.lease(10).await?.jobs.is_empty());

    let shorter = store.now();
    store.commit(|batch| batch.extend("queue", "a", job.token, shorter)).await?;
    assert_eq!(store.lease_one().await?.attempt, 2);
    Ok(())
}

async fn cancelling_removes_a_job_whoever_holds_it(store: Tested) -> Result<()> {
    let held = store.hold_new("held").await?;
    store.push("waiting").await?;
    store.commit(|batch| batch.cancel("queue", "held").cancel("queue", "waiting")).await?;
    assert_eq!(store.job("held").await?, None);
    assert_eq!(store.job("waiting").await?, None);
    store.advance(HOLD * 100);
    assert!(store.lease(10).await?.jobs.is_empty());
    let lost = store.commit(|batch| batch.ack("queue", "held", held.token)).await;
    assert_eq!(kind(lost), ErrorKind::LeaseLost);

    store.push("held").await?;
    let lost = store.commit(|batch| batch.ack("queue", "held", held.token)).await;
    assert_eq!(kind(lost), ErrorKind::LeaseLost, "a new job of the id is another job");
    assert_eq!(store.lease_one().await?.attempt, 1);
    Ok(())
}

async fn cancelling_an_absent_job_succeeds(store: Tested) -> Result<()> {
    store.commit(|batch| batch.cancel("queue", "a")).await?;
    assert_eq!(store.job("a").await?, None);
    Ok(())
}

async fn a_job_never_vanishes_by_lapsing(store: Tested) -> Result<()> {
    store.push("a").await?;
    for attempt in 1..=50 {
        assert_eq!(store.lease_one().await?.attempt, attempt);
        store.advance(HOLD * 10);
        store.store.sweep(&store.at, store.now(), 100).await?;
    }
    Ok(())
}

async fn at_most_as_many_as_asked_for_are_leased(store: Tested) -> Result<()> {
    for n in 0..10 {
        store.push(&format!("{n}")).await?;
    }
    let mut ids = Vec::new();
    for expected in [3, 3, 3, 1, 0] {
        let jobs = store.lease(3).await?.jobs;
        assert_eq!(jobs.len(), expected);
        ids.extend(jobs.into_iter().map(|job| job.id));
    }
    ids.sort();
    assert_eq!(ids, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    Ok(())
}

async fn jobs_come_roughly_earliest_first(store: Tested) -> Result<()> {
    let mut order: Vec<u64> = (0..40).collect();
    fastrand::Rng::with_seed(3).shuffle(&mut order);
    for n in order {
        let due = store.in_seconds(n);
        store.commit(|batch| batch.push("queue", format!("{:02}", 40 - n), due, "", Merge::Keep)).await?;
    }
    let latest_10 = store.in_seconds(30);
    store.advance(Duration::from_secs(100));
    let jobs = store.lease(10).await?.jobs;
    assert_eq!(jobs.len(), 10);
    assert!(jobs.iter().all(|job| job.due < latest_10), "{jobs:?}");
    Ok(())
}

async fn the_answer_says_when_the_next_is_due(store: Tested) -> Result<()> {
    let (soon, late) = (store.in_seconds(10), store.in_seconds(1000));
    let now = store.now();
    store
        .commit(|batch| {
            batch
                .push("queue", "now", now, "", Merge::Keep)
                .push("queue", "soon", soon, "", Merge::Keep)
                .push("queue", "late", late, "", Merge::Keep)
        })
        .await?;
    let leased = store.lease(10).await?;
    assert_eq!((leased.jobs.len(), leased.next_due), (1, Some(soon)));
    store.commit(|batch| batch.cancel("queue", "soon")).await?;
    let leased = store.lease(10).await?;
    assert_eq!(leased.next_due, Some(now + HOLD), "a lease that may lapse counts");
    Ok(())
}

async fn queues_are_separate(store: Tested) -> Result<()> {
    let queues = ["queue", "Queue", "queue/a", "queue2"];
    for queue in queues {
        let now = store.now();
        store.commit(|batch| batch.push(queue, "a", now, queue, Merge::Sooner)).await?;
    }
    for queue in queues {
        let want = Lease { queue: queue.into(), max: 10, hold_for: HOLD, now: store.now() };
        let jobs = store.store.lease(&store.at, want).await?.jobs;
        assert_eq!((jobs.len(), &jobs[0].payload[..]), (1, queue.as_bytes()));
        store.commit(|batch| batch.ack(queue, "a", jobs[0].token)).await?;
    }
    Ok(())
}

async fn acknowledging_and_writing_is_one(store: Tested) -> Result<()> {
    let job = store.hold_new("a").await?;
    let ack_and =
        |expect| store.batch(|batch| batch.ack("queue", "a", job.token).put(key("a"), "done", expect));
    assert_eq!(kind(store.send(&ack_and(Expect::Present)).await), ErrorKind::Conflict);
    assert!(store.job("a").await?.unwrap().is_held_by(job.token));
    store.send(&ack_and(Expect::Absent)).await?;
    assert_eq!(store.job("a").await?, None);
    assert_eq!(store.value("a").await?.unwrap(), "done");
    Ok(())
}

async fn looking_at_jobs_shows_them_as_they_stand(store: Tested) -> Result<()> {
    let later = store.in_seconds(1000);
    store.commit(|batch| batch.push("queue", "b", later, vec![0xff], Merge::Keep)).await?;
    let waiting = Job::new(later, vec![0xff].into());
    assert_eq!(store.job("b").await?, Some(waiting));

    let held = store.hold_new("a").await?;
    for _ in 0..2 {
        let job = store.job("a").await?.unwrap();
        assert_eq!((job.due, job.attempt, &job.payload[..]), (store.now(), 1, &b"a"[..]));
        assert_eq!(job.lease, Some(Hold { token: held.token, until: held.until }));
    }
    store.commit(|batch| batch.push("queue", "a", later, "pushed", Merge::Sooner)).await?;
    let pending = store.job("a").await?.unwrap().pending.unwrap();
    assert_eq!((pending.due, &pending.payload[..], pending.sooner), (later, &b"pushed"[..], Some(later)));
    Ok(())
}

async fn jobs_are_looked_at_by_id_in_the_order_asked_for(store: Tested) -> Result<()> {
    for id in ["a", "b", "c"] {
        store.push(id).await?;
    }
    let by_ids =
        |ids: &[&str]| Jobs::ByIds { queue: "queue".into(), ids: ids.iter().map(|&id| id.into()).collect() };
    let page = store.store.jobs(&store.at, by_ids(&["c", "missing", "a"])).await?;
    let ids: Vec<_> = page.jobs.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!((ids, page.cursor), (vec!["c", "a"], None));
    assert!(store.store.jobs(&store.at, by_ids(&[])).await?.jobs.is_empty());
    assert_eq!(store.lease(10).await?.jobs.len(), 3, "looking leased nothing");
    Ok(())
}

async fn a_queue_is_paged_through_in_id_order(store: Tested) -> Result<()> {
    let ids = ["10", "9", "A", "a", "b", "ä", "\u{10000}"];
    for id in ids.iter().rev() {
        store.push(id).await?;
    }
    store.push("cancelled").await?;
    store.commit(|batch| batch.cancel("queue", "cancelled")).await?;
    store.lease(3).await?;
    for limit in [1, 2, 6, 7, 8] {
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let want = Jobs::Page { queue: "queue".into(), after, limit };
            let page = store.store.jobs(&store.at, want).await?;
            assert!(page.jobs.len() <= limit);
            found.extend(page.jobs.into_iter().map(|(id, _)| id));
            match page.cursor {
                Some(cursor) => after = Some(cursor),
                None => break,
            }
        }
        assert_eq!(found, ids, "by {limit}");
    }
    let beyond = Jobs::Page { queue: "queue".into(), after: Some("b".into()), limit: 1 };
    assert_eq!(store.store.jobs(&store.at, beyond).await?.jobs[0].0, "ä");
    let none = Jobs::Page { queue: "none".into(), after: None, limit: 1 };
    assert_eq!(store.store.jobs(&store.at, none).await?, evenkeel_core::JobPage::default());
    let never = Timestamp::MAX;
    store.commit(|batch| batch.push("queue", "never", never, "", Merge::Keep)).await?;
    assert_eq!(store.job("never").await?.unwrap().due, never);
    Ok(())
}
