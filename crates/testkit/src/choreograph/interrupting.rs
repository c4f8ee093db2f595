use std::time::Duration;

use evenkeel_choreograph::{Definition, Event, OnInterrupted, RunState, StepErrorKind};
use evenkeel_core::{ErrorKind, ManualClock, Transactional};
use futures_util::future::ready;

use super::bench::{Bench, Ctx, Fallible, LEASE, ONE, Process, Seen, TWO, kind, work};
use crate::harness::Running;

super::cases![
    an_interrupted_step_is_probed_and_its_policy_decides_the_rest,
    a_step_that_was_not_begun_is_not_interrupted,
    a_parked_run_waits_for_a_person_and_then_goes_on,
    a_parked_run_is_not_worked_on,
    only_a_parked_run_can_be_resumed,
    a_resumed_step_that_is_cut_off_again_is_parked_again,
    a_zombie_records_nothing_and_begins_nothing,
    a_lease_is_renewed_while_a_step_takes_long,
    a_worker_that_is_asked_to_stop_leaves_nothing_in_doubt,
];

/// What a probe finds.
#[derive(Clone, Copy, Debug)]
enum Found {
    Value,
    Nothing,
    Unknown,
    NoProbe,
}

/// One step that is cut off at its first attempt, a probe or none, and what follows.
fn cut_off(seen: &Seen, found: Found, policy: OnInterrupted) -> Definition<u32> {
    let step = Definition::<u32>::builder("cut off").step(ONE, seen.hangs_once());
    let step = match found {
        Found::NoProbe => step,
        Found::Value | Found::Nothing | Found::Unknown => step.probe({
            let seen = seen.clone();
            move |_| {
                seen.add("probe");
                ready(match found {
                    Found::Value => Ok(Some(70)),
                    Found::Nothing => Ok(None),
                    Found::Unknown | Found::NoProbe => Err("nobody answers"),
                })
            }
        }),
    };
    step.on_interrupted(policy).step(TWO, seen.gives(2)).build().unwrap()
}

/// A run whose first step was begun by a worker that died; the next worker.
async fn interrupt<S: Transactional + Clone>(
    bench: &Bench<S>,
    definition: &Definition<u32>,
    run: &str,
) -> (Process<S>, Running) {
    let first = bench.process([definition]);
    first.start("cut off", run, &0).await.unwrap();
    let worker = work(&first);
    bench.until_seen("one 1").await;
    drop(worker);
    bench.lapse().await;
    let process = bench.process([definition]);
    let worker = work(&process);
    (process, worker)
}

async fn an_interrupted_step_is_probed_and_its_policy_decides_the_rest<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    use Found::{NoProbe, Nothing, Unknown, Value};
    use OnInterrupted::{Park, Retry};
    for (found, policy, expected, value) in [
        (Value, Retry, &["one 1", "probe", "two"][..], Some(70)),
        (Value, Park, &["one 1", "probe", "two"], Some(70)),
        (Nothing, Retry, &["one 1", "probe", "one 2", "two"], Some(2)),
        (Nothing, Park, &["one 1", "probe", "one 2", "two"], Some(2)),
        (Unknown, Retry, &["one 1", "probe", "one 2", "two"], Some(2)),
        (Unknown, Park, &["one 1", "probe"], None),
        (NoProbe, Retry, &["one 1", "one 2", "two"], Some(2)),
        (NoProbe, Park, &["one 1"], None),
    ] {
        let definition = cut_off(&bench.seen, found, policy);
        let run = format!("{found:?} {policy:?}");
        let (process, worker) = interrupt(&bench, &definition, &run).await;
        let outcome = bench.outcome(&process, &run).await;
        bench.rest(worker).await;
        assert_eq!(bench.seen.take(), expected, "{run}");
        match value {
            Some(value) => {
                assert_eq!(outcome.state, RunState::Completed, "{run}");
                assert_eq!(outcome.get(ONE).unwrap(), Some(value), "{run}");
            }
            None => {
                assert_eq!(outcome.state, RunState::Parked, "{run}");
                let error = outcome.error.unwrap();
                assert_eq!((error.step(), error.kind()), ("one", StepErrorKind::Interrupted), "{run}");
            }
        }
    }
}

async fn a_step_that_was_not_begun_is_not_interrupted<S: Transactional + Clone>(bench: Bench<S>) {
    // It waits for its next attempt when the worker dies.
    let definition = Definition::<u32>::builder("waits")
        .step(
            ONE,
            bench.seen.with(async |seen: Seen, ctx: Ctx| {
                seen.add(format!("attempt {}", ctx.attempt()));
                if ctx.attempt() == 1 { Err("not yet") } else { Ok(1) }
            }),
        )
        .retry(evenkeel_choreograph::RetryPolicy::attempts(2).first(Duration::from_mins(4)))
        .on_interrupted(OnInterrupted::Park)
        .sleep(Duration::from_hours(1))
        .step(TWO, bench.seen.gives(2))
        .on_interrupted(OnInterrupted::Park)
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("waits", "r", &0).await.unwrap();
    for wait in [0, 300, 3600] {
        let worker = work(&bench.process([&definition]));
        bench.jump(Duration::from_secs(wait)).await;
        bench.pass(Duration::from_secs(2)).await;
        drop(worker);
        bench.lapse().await;
    }
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Completed);
    assert_eq!(bench.seen.take(), ["attempt 1", "attempt 2", "two"]);
}

async fn a_parked_run_waits_for_a_person_and_then_goes_on<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = cut_off(&bench.seen, Found::NoProbe, OnInterrupted::Park);
    let (process, _worker) = interrupt(&bench, &definition, "r").await;
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Parked);
    bench.stranger().resume("r").await.unwrap();
    let run = bench.outcome(&process, "r").await;
    assert_eq!((run.state, run.error.map(|error| error.to_string())), (RunState::Completed, None));
    let history = process.history("r").await.unwrap().unwrap();
    let events: Vec<_> = history.iter().map(|entry| entry.event).collect();
    let place = |event| events.iter().position(|it| *it == event).expect("the history tells of it");
    assert!(
        place(Event::Parked) < place(Event::Resumed) && place(Event::Resumed) < place(Event::Ended),
        "{events:?}"
    );
}

async fn a_parked_run_is_not_worked_on<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = cut_off(&bench.seen, Found::NoProbe, OnInterrupted::Park);
    let (process, worker) = interrupt(&bench, &definition, "r").await;
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Parked);
    bench.seen.take();
    bench.pass(Duration::from_mins(2)).await;
    drop(worker);
    let _worker = work(&bench.process([&definition]));
    bench.pass(Duration::from_mins(2)).await;
    assert_eq!((bench.state(&process, "r").await, bench.seen.take().len()), (RunState::Parked, 0));
}

async fn only_a_parked_run_can_be_resumed<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = cut_off(&bench.seen, Found::NoProbe, OnInterrupted::Retry);
    let process = bench.process([&definition]);
    process.start("cut off", "r", &0).await.unwrap();
    assert_eq!(kind(process.resume("r").await), ErrorKind::Conflict);
    assert_eq!(kind(process.resume("nobody").await), ErrorKind::NotFound);
}

async fn a_resumed_step_that_is_cut_off_again_is_parked_again<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("cut off")
        .step(
            ONE,
            bench.seen.with(async |seen: Seen, _: Ctx| {
                seen.add("one 1");
                std::future::pending::<Fallible<u32>>().await
            }),
        )
        .on_interrupted(OnInterrupted::Park)
        .build()
        .unwrap();
    let (process, worker) = interrupt(&bench, &definition, "r").await;
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Parked);
    process.resume("r").await.unwrap();
    bench.until(async || bench.seen.count("one 1") == 2).await;
    drop(worker);
    bench.lapse().await;
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Parked);
    assert_eq!(bench.seen.take().len(), 2);
}

/// A step whose first attempt waits until it is let go, and another.
fn outlived(seen: &Seen) -> Definition<u32> {
    Definition::<u32>::builder("outlived")
        .step(
            ONE,
            seen.with(async |seen: Seen, _: Ctx| {
                seen.add("one");
                let attempt = seen.count("one");
                if attempt == 1 {
                    seen.wait().await;
                    seen.add("the zombie is done");
                }
                Fallible::Ok(u32::try_from(attempt).unwrap())
            }),
        )
        .step(TWO, seen.gives(2))
        .compensate(seen.takes_back())
        .build()
        .unwrap()
}

async fn a_zombie_records_nothing_and_begins_nothing<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = outlived(&bench.seen);
    // Its clock stands still: it believes in its lease for ever.
    let zombie = bench.process([&definition]).clock(ManualClock::at(bench.now()).shared());
    zombie.start("outlived", "r", &0).await.unwrap();
    let _zombie = work(&zombie);
    bench.until(async || bench.seen.count("one") == 1).await;
    bench.lapse().await;
    let process = bench.process([&definition]);
    let _worker = work(&process);
    let run = bench.outcome(&process, "r").await;
    assert_eq!(run.get(ONE).unwrap(), Some(2));
    bench.seen.let_go(1);
    bench.pass(Duration::from_secs(60)).await;
    assert_eq!(bench.seen.take(), ["one", "one", "two", "the zombie is done"]);
    assert_eq!(bench.inspect(&process, "r").await.get(ONE).unwrap(), Some(2));
}

async fn a_lease_is_renewed_while_a_step_takes_long<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = outlived(&bench.seen);
    let process = bench.process([&definition]);
    process.start("outlived", "r", &0).await.unwrap();
    let _worker = work(&process);
    bench.until(async || bench.seen.count("one") == 1).await;
    let _other = work(&bench.process([&definition]));
    bench.pass(LEASE * 10).await;
    bench.seen.let_go(1);
    assert_eq!(bench.outcome(&process, "r").await.get(ONE).unwrap(), Some(1));
    assert_eq!(bench.seen.take(), ["one", "the zombie is done", "two"]);
}

async fn a_worker_that_is_asked_to_stop_leaves_nothing_in_doubt<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("drains")
        .step(
            ONE,
            bench.seen.with(async |seen: Seen, _: Ctx| {
                seen.add("one");
                seen.wait().await;
                Fallible::Ok(1)
            }),
        )
        .on_interrupted(OnInterrupted::Park)
        .step(TWO, bench.seen.gives(2))
        .on_interrupted(OnInterrupted::Park)
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("drains", "r", &0).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (end, mut ended) = tokio::sync::oneshot::channel::<()>();
    let worker = process.worker();
    let _worker = Running::spawn(async move {
        worker.run(async { drop(stopped.await) }).await;
        end.send(()).unwrap();
    });
    bench.until_seen("one").await;
    stop.send(()).unwrap();
    bench.settle().await;
    assert!(ended.try_recv().is_err(), "it waits for what is under way");
    bench.seen.let_go(1);
    bench.passing(ended).await.unwrap();
    assert_eq!(bench.seen.take(), ["one"], "and begins nothing more");

    let began = bench.now();
    let process = bench.process([&definition]);
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Completed);
    assert!(bench.now().since(began) < LEASE, "the next worker need not wait for its lease");
    assert_eq!(bench.seen.take(), ["two"]);
}
