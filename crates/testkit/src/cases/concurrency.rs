use std::collections::{BTreeMap, HashSet};

use evenkeel_core::{Batch, ErrorKind, Expect, Found, Hold, Merge, Read, Result, Token};
use futures_util::FutureExt;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Case, cases};
use crate::tested::{HOLD, Tested, key};

pub(super) const CASES: &[Case] = cases![
    of_simultaneous_claims_exactly_one_wins,
    increments_by_compare_and_set_lose_none,
    two_batches_that_check_what_the_other_writes_do_not_both_commit,
    a_fenced_batch_sent_by_many_at_once_applies_once,
    a_tailing_reader_misses_no_event,
    appends_to_one_stream_have_versions_without_gaps,
    a_job_is_leased_to_one_holder_at_a_time,
    a_push_during_a_lease_is_no_lost_wake_up,
    a_push_beside_one_that_holds_the_job_is_no_lost_wake_up,
    a_scan_during_writes_returns_what_exists_throughout,
    a_commit_whose_future_is_dropped_is_applied_whole_or_not_at_all,
];

/// Runs the tasks at the same time; their answers in the order they were given.
async fn all<T: Send + 'static>(
    tasks: impl Iterator<Item = impl Future<Output = Result<T>> + Send + 'static>,
) -> Result<Vec<T>> {
    let mut running = JoinSet::new();
    for (place, task) in tasks.enumerate() {
        running.spawn(async move { (place, task.await) });
    }
    let mut done = running.join_all().await;
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

async fn of_simultaneous_claims_exactly_one_wins(store: Tested) -> Result<()> {
    for round in 0..10 {
        let claims = (0..16).map(|who| {
            let store = store.clone();
            async move {
                let lock = key(format!("lock {round}"));
                match store.commit(|batch| batch.put(lock, vec![who], Expect::Absent)).await {
                    Ok(_) => Ok(Some(who)),
                    Err(error) => error.into_conflict().map(|_| None),
                }
            }
        });
        let winners: Vec<u8> = all(claims).await?.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(store.value(&format!("lock {round}")).await?.unwrap(), winners);
    }
    Ok(())
}

async fn increments_by_compare_and_set_lose_none(store: Tested) -> Result<()> {
    const TASKS: u32 = 8;
    const EACH: u32 = 10;
    let increments = (0..TASKS).map(|_| {
        let store = store.clone();
        async move {
            for _ in 0..EACH {
                while !increment(&store).await? {}
            }
            Ok(())
        }
    });
    all(increments).await?;
    assert_eq!(counter(&store).await?, TASKS * EACH);
    Ok(())
}

async fn counter(store: &Tested) -> Result<u32> {
    let value = store.value("counter").await?;
    Ok(value.map_or(0, |value| String::from_utf8_lossy(&value).parse().expect("the counter is a number")))
}

/// Whether nobody came between.
async fn increment(store: &Tested) -> Result<bool> {
    let before = store.record(&key("counter")).await?;
    let count = before.as_ref().map_or(0, |record| {
        String::from_utf8_lossy(&record.value).parse::<u32>().expect("the counter is a number")
    });
    let expect = Expect::unchanged(before.as_ref());
    match store.commit(|batch| batch.put(key("counter"), (count + 1).to_string(), expect)).await {
        Ok(_) => Ok(true),
        Err(error) => error.into_conflict().map(|_| false),
    }
}

async fn two_batches_that_check_what_the_other_writes_do_not_both_commit(store: Tested) -> Result<()> {
    for round in 0..25 {
        let (a, b) = (key(format!("{round} a")), key(format!("{round} b")));
        let skewed = [(a.clone(), b.clone()), (b, a)].into_iter().map(|(written, checked)| {
            let store = store.clone();
            async move {
                let batch =
                    store.batch(|batch| batch.put(written, "", Expect::Any).check(checked, Expect::Absent));
                match store.send(&batch).await {
                    Ok(_) => Ok(1),
                    Err(error) if error.kind() == ErrorKind::Conflict => Ok(0),
                    Err(error) => Err(error),
                }
            }
        });
        let committed: u32 = all(skewed).await?.into_iter().sum();
        assert_eq!(committed, 1, "round {round}");
    }
    Ok(())
}

async fn a_fenced_batch_sent_by_many_at_once_applies_once(store: Tested) -> Result<()> {
    for round in 0..10 {
        let lock = key(format!("lock {round}"));
        let (stream, event) = (format!("stream {round}"), store.event("Happened"));
        let batch =
            store.batch(|batch| batch.put(lock, "", Expect::Absent).append_any(stream.clone(), [event]));
        let sends = (0..8).map(|_| {
            let (store, batch) = (store.clone(), batch.clone());
            async move { store.send(&batch).await }
        });
        let answers = all(sends).await?;
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        assert_eq!(store.stream_version(&stream).await?, 1);
    }
    Ok(())
}

const APPENDERS: u64 = 8;
const APPENDS: u64 = 12;

/// Appends one and two events in turn, to a stream of its own or a common one.
async fn append_many(store: Tested, who: u64) -> Result<u64> {
    let mut appended = 0;
    for n in 0..APPENDS {
        let events = store.events(if n % 2 == 0 { 1 } else { 2 });
        let stream = if n % 3 == 0 { "common".to_owned() } else { format!("stream {who}") };
        let committed = store.commit(|batch| batch.append_any(stream, events)).await?;
        appended += committed.appended[0].count;
    }
    Ok(appended)
}

async fn a_tailing_reader_misses_no_event(store: Tested) -> Result<()> {
    let total = APPENDERS * APPENDS * 3 / 2;
    let tail = tokio::spawn(tail(store.clone(), total));
    let appended = all((0..APPENDERS).map(|who| append_many(store.clone(), who))).await?;
    assert_eq!(appended.iter().sum::<u64>(), total);
    let seen = tail.await.expect("the reader does not panic")?;
    let log: Vec<_> = store.log_after(0).await?.iter().map(|event| event.id).collect();
    assert_eq!(seen, log, "what a reader saw while it was written is what stands there");
    Ok(())
}

/// The ids of the events up to a position, read while they are written.
async fn tail(store: Tested, through: u64) -> Result<Vec<Uuid>> {
    let (mut after, mut seen) = (0, Vec::new());
    while after < through {
        let slice = store.read(Read::partition(after, 5)).await?;
        assert!(slice.examined_to <= slice.head);
        for event in slice.events {
            after += 1;
            assert_eq!(event.position, after, "a hole, or an event that came late");
            seen.push(event.id);
        }
        assert_eq!(slice.examined_to, after);
        tokio::task::yield_now().await;
    }
    Ok(seen)
}

async fn appends_to_one_stream_have_versions_without_gaps(store: Tested) -> Result<()> {
    all((0..APPENDERS).map(|who| append_many(store.clone(), who))).await?;
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    for event in store.log_after(0).await? {
        let version = versions.entry(event.stream).or_default();
        *version += 1;
        assert_eq!(event.version, *version);
    }
    assert_eq!(versions.len(), 9);
    Ok(())
}

async fn a_job_is_leased_to_one_holder_at_a_time(store: Tested) -> Result<()> {
    const JOBS: usize = 40;
    for n in 0..JOBS {
        store.push(&format!("{n}")).await?;
    }
    let workers = (0..6).map(|_| {
        let store = store.clone();
        async move {
            let mut mine = Vec::new();
            loop {
                let jobs = store.lease(3).await?.jobs;
                if jobs.is_empty() {
                    return Ok(mine);
                }
                mine.extend(jobs);
            }
        }
    });
    let leased: Vec<_> = all(workers).await?.into_iter().flatten().collect();
    let ids: HashSet<_> = leased.iter().map(|job| &job.id).collect();
    let tokens: HashSet<_> = leased.iter().map(|job| job.token).collect();
    assert_eq!((leased.len(), ids.len(), tokens.len()), (JOBS, JOBS, JOBS));
    assert!(leased.iter().all(|job| job.attempt == 1));
    Ok(())
}

async fn a_push_during_a_lease_is_no_lost_wake_up(store: Tested) -> Result<()> {
    const PUSHERS: u32 = 4;
    const EACH: u32 = 10;
    // A pusher raises the counter and pushes the job in one batch; a worker notes the counter it
    // saw and acknowledges. In the end the last one noted must be the last one raised.
    let pushers = (0..PUSHERS).map(|_| {
        let store = store.clone();
        async move {
            for _ in 0..EACH {
                while !raise_and_push(&store).await? {}
                tokio::task::yield_now().await;
            }
            Ok(())
        }
    });
    let workers = (0..2).map(|_| {
        let store = store.clone();
        async move { work_until(&store, PUSHERS * EACH).await }
    });
    let (pushed, worked) = tokio::join!(all(pushers), all(workers));
    pushed?;
    worked?;
    assert_eq!(store.value("noted").await?.unwrap(), (PUSHERS * EACH).to_string());
    Ok(())
}

async fn a_push_beside_one_that_holds_the_job_is_no_lost_wake_up(store: Tested) -> Result<()> {
    const PUSHERS: u32 = 4;
    const EACH: u32 = 10;
    // As above, but whoever finds no job works on its own at once.
    let pushers = (0..PUSHERS).map(|_| {
        let store = store.clone();
        async move {
            let mut held = 0;
            for _ in 0..EACH {
                held += raise_and_work(&store).await?;
            }
            Ok(held)
        }
    });
    let (held, worked) = tokio::join!(all(pushers), work_until(&store, PUSHERS * EACH));
    worked?;
    assert_ne!(held?.iter().sum::<u32>(), 0, "nobody held a job from its birth");
    assert_eq!(store.value("noted").await?.unwrap(), (PUSHERS * EACH).to_string());
    Ok(())
}

/// Raises the counter, and works on the job where there is none, or else pushes it; how often the
/// former.
async fn raise_and_work(store: &Tested) -> Result<u32> {
    let now = store.now();
    loop {
        let hold = Hold { token: Token::fresh(), until: now + HOLD };
        match raise(store, |batch| batch.push_leased("queue", "job", now, "", hold)).await? {
            None => return note(store, hold.token).await.map(|()| 1),
            Some(Found::Occupied { .. }) if raise_and_push(store).await? => return Ok(0),
            Some(_) => {}
        }
    }
}

/// Whether nobody came between.
async fn raise_and_push(store: &Tested) -> Result<bool> {
    let now = store.now();
    Ok(raise(store, |batch| batch.push("queue", "job", now, "", Merge::Keep)).await?.is_none())
}

/// Raises the counter and pushes the job; what was found where that is a conflict.
async fn raise(store: &Tested, push: impl FnOnce(&mut Batch) -> &mut Batch) -> Result<Option<Found>> {
    let before = store.record(&key("counter")).await?;
    let count = before.as_ref().map_or(0, |record| {
        String::from_utf8_lossy(&record.value).parse::<u32>().expect("the counter is a number")
    });
    let (count, expect) = ((count + 1).to_string(), Expect::unchanged(before.as_ref()));
    match store.commit(|batch| push(batch.put(key("counter"), count, expect))).await {
        Ok(_) => Ok(None),
        Err(error) => error.into_conflict().map(|conflict| Some(conflict.found)),
    }
}

/// Works until the counter is that high and nothing is left to do.
async fn work_until(store: &Tested, count: u32) -> Result<()> {
    while counter(store).await? < count || store.job("job").await?.is_some() {
        work(store).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn work(store: &Tested) -> Result<()> {
    for job in store.lease(1).await?.jobs {
        assert_eq!(job.until, store.now() + HOLD);
        note(store, job.token).await?;
    }
    Ok(())
}

/// Notes the counter and acknowledges the job.
async fn note(store: &Tested, token: Token) -> Result<()> {
    let seen = counter(store).await?.to_string();
    tokio::task::yield_now().await;
    store.commit(|batch| batch.put(key("noted"), seen, Expect::Any).ack("queue", "job", token)).await?;
    Ok(())
}

async fn a_scan_during_writes_returns_what_exists_throughout(store: Tested) -> Result<()> {
    let steady: Vec<String> = (0..30).map(|n| format!("{n:02}")).collect();
    for id in &steady {
        store.put(id, "").await?;
    }
    let writers = (0..3_u64).map(|seed| {
        let store = store.clone();
        async move {
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..40 {
                let passing = key(format!("{:02} passing {seed}", random.u8(0..30)));
                let steady = key(format!("{:02}", random.u8(0..30)));
                store
                    .commit(|batch| {
                        batch.put(passing.clone(), "", Expect::Any).put(steady, "new", Expect::Any)
                    })
                    .await?;
                store.commit(|batch| batch.delete(passing, Expect::Any)).await?;
            }
            Ok(())
        }
    });
    let scanner = async {
        for _ in 0..10 {
            let found = store.ids(store.scan(4)).await?;
            let kept: Vec<_> = found.into_iter().filter(|id| !id.contains("passing")).collect();
            assert_eq!(kept, steady);
            tokio::task::yield_now().await;
        }
        Ok(())
    };
    let (written, scanned) = tokio::join!(all(writers), scanner);
    written?;
    scanned
}

async fn a_commit_whose_future_is_dropped_is_applied_whole_or_not_at_all(store: Tested) -> Result<()> {
    for round in 0..20 {
        let (name, event) = (format!("{round:02}"), store.event("Happened"));
        let batch = store.batch(|batch| {
            let batch = batch.put(key(name.as_str()), "", Expect::Absent);
            batch.append_any(name.clone(), [event])
        });
        // Once it is looked at, it may be under way.
        drop(store.send(&batch).now_or_never());
        // It may be applied between any two of these reads.
        let recorded = store.value(&name).await?.is_some();
        let version = store.stream_version(&name).await?;
        assert!(!recorded || version == 1, "round {round}");
        assert!(version == 0 || store.value(&name).await?.is_some(), "round {round}");
        store.send(&batch).await?;
        assert_eq!(store.stream_version(&name).await?, 1, "round {round}");
    }
    Ok(())
}
