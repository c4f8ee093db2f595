//! Workers that die, hang or lose their lease: what is known of a step that was cut off.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Fallible, Running, Seen, settle};
use evenkeel_choreograph::{
    Choreographer, Definition, Event, Join, OnInterrupted, RunFilter, RunState, StepContext, StepErrorKind,
    StepKey, timeline_svg,
};
use evenkeel_core::{Clock, ErrorKind};
use tokio::sync::Semaphore;

const FIRST: StepKey<()> = StepKey::new("first");
const FIND: StepKey<u32, String> = StepKey::new("find");
const DOUBLE: StepKey<u32> = StepKey::new("double");
const LAST: StepKey<u32> = StepKey::new("last");

#[tokio::test]
async fn a_dead_worker_is_replaced_when_its_lease_lapses_and_no_finished_step_runs_again() {
    let (bench, seen, gate) = (Bench::new(1), Seen::default(), Arc::new(Semaphore::new(0)));
    let choreographer = bench.choreographer();
    let definition = Definition::<()>::builder("dies")
        .step(FIND, seen.note(1))
        .step(DOUBLE, {
            let (seen, gate) = (seen.clone(), Arc::clone(&gate));
            move |ctx| {
                let (seen, gate) = (seen.clone(), Arc::clone(&gate));
                async move {
                    seen.add(format!("double, attempt {}", ctx.attempt()));
                    gate.acquire().await.unwrap().forget();
                    Fallible::Ok(*ctx.get(FIND).unwrap() * 2)
                }
            }
        })
        .build()
        .unwrap();
    choreographer.register(definition).unwrap();
    choreographer.start("dies", "r", &()).await.unwrap();
    let first = Running::start(&choreographer);
    settle().await;
    assert_eq!(seen.take(), ["find", "double, attempt 1"]);
    first.kill().await;
    gate.add_permits(1);

    let _second = Running::start(&choreographer);
    settle().await;
    bench.clock.advance(Duration::from_secs(29));
    settle().await;
    assert_eq!(seen.take(), [""; 0], "the lease has not lapsed");
    bench.clock.advance(Duration::from_secs(2));
    let run = bench.outcome(&choreographer, "r").await;
    assert_eq!(seen.take(), ["double, attempt 2"]);
    assert_eq!(run.get(DOUBLE).unwrap(), Some(2));
    let history = choreographer.history("r").await.unwrap().unwrap();
    let events: Vec<_> = history.iter().map(|entry| entry.event).collect();
    assert_eq!((events.len(), events[0], events[4]), (5, Event::Started, Event::Ended));
    assert_eq!(events.iter().filter(|event| **event == Event::Interrupted).count(), 1);
}

#[tokio::test]
async fn an_attempt_that_was_cut_off_lasts_from_what_was_before_it_to_where_that_is_found() {
    let (bench, seen) = (Bench::new(1), Seen::default());
    let choreographer = bench.choreographer();
    let definition = Definition::<()>::builder("beside")
        .sleep(Duration::from_secs(7))
        .parallel(Join::All, |group| {
            let group = group.step(DOUBLE, async |_| std::future::pending::<Fallible<u32>>().await);
            group.branch(|branch| branch.sleep(Duration::from_secs(7)).step(LAST, seen.note(1)))
        })
        .build()
        .unwrap();
    choreographer.register(definition).unwrap();
    choreographer.start("beside", "r", &()).await.unwrap();
    let mut found_at = Vec::new();
    for _ in 0..2 {
        let worker = Running::start(&choreographer);
        found_at.push(bench.clock.now());
        for _ in 0..3 {
            settle().await;
            bench.clock.advance(Duration::from_secs(7));
        }
        settle().await;
        worker.kill().await;
        bench.clock.advance(Duration::from_secs(31));
    }
    let _worker = Running::start(&choreographer);
    found_at.push(bench.clock.now());
    settle().await;
    let history = choreographer.history("r").await.unwrap().unwrap();
    let of = |event| history.iter().filter(move |entry| entry.event == event);
    let [slept, beside] = of(Event::Wait).map(|entry| entry.ended_at.unwrap()).collect::<Vec<_>>()[..] else {
        panic!("two waits in {history:#?}");
    };
    assert!(slept < beside);
    let cut_off: Vec<_> = of(Event::Interrupted)
        .map(|entry| (entry.attempt.unwrap(), entry.began_at, entry.ended_at.unwrap()))
        .collect();
    assert_eq!(cut_off, [(1, slept, found_at[1]), (2, found_at[1], found_at[2])]);
    // Bars without a right side.
    let svg = timeline_svg(&history);
    let bars: Vec<_> = svg.split("<g class=\"interrupted\">").skip(1).collect();
    assert_eq!(bars.len(), 2, "{svg}");
    for bar in bars {
        let (_, path) = bar.split_once("</title><path d=\"M").unwrap();
        let (path, _) = path.split_once('"').unwrap();
        let (right, rest) = path.split_once(' ').unwrap();
        assert!(rest.ends_with(&format!("H{right}")) && !rest.contains('z'), "{path}");
    }
}

#[tokio::test]
async fn a_lease_is_renewed_while_a_step_takes_long() {
    let (bench, seen, gate) = (Bench::new(1), Seen::default(), Arc::new(Semaphore::new(0)));
    let choreographer = bench.choreographer();
    let definition = Definition::<()>::builder("long").step(DOUBLE, seen.gated(&gate, 1)).build().unwrap();
    choreographer.register(definition).unwrap();
    choreographer.start("long", "r", &()).await.unwrap();
    let (_one, _two) = (Running::start(&choreographer), Running::start(&choreographer));
    for _ in 0..60 {
        settle().await;
        bench.clock.advance(Duration::from_secs(9));
    }
    gate.add_permits(1);
    assert_eq!(bench.outcome(&choreographer, "r").await.state, RunState::Completed);
    assert_eq!(seen.take(), ["began"]);
}

#[tokio::test]
async fn a_zombie_records_nothing() {
    let (bench, seen, gate) = (Bench::new(1), Seen::default(), Arc::new(Semaphore::new(0)));
    let definition = || {
        Definition::<()>::builder("zombie")
            .step(DOUBLE, {
                let (seen, gate) = (seen.clone(), Arc::clone(&gate));
                move |ctx| {
                    let (seen, gate) = (seen.clone(), Arc::clone(&gate));
                    async move {
                        seen.add(format!("attempt {}", ctx.attempt()));
                        if ctx.attempt() == 1 {
                            gate.acquire().await.unwrap().forget();
                        }
                        Fallible::Ok(ctx.attempt())
                    }
                }
            })
            .step(LAST, seen.note(1))
            .build()
            .unwrap()
    };
    // The first worker's clock stands still: it believes in its lease.
    let stopped = evenkeel_core::ManualClock::at(bench.clock.now());
    let zombie = Choreographer::new(bench.store.clone()).clock(stopped.shared());
    zombie.register(definition()).unwrap();
    zombie.start("zombie", "r", &()).await.unwrap();
    let _zombie = Running::start(&zombie);
    settle().await;
    let choreographer = bench.choreographer();
    choreographer.register(definition()).unwrap();
    let _worker = Running::start(&choreographer);
    bench.clock.advance(Duration::from_secs(31));
    assert_eq!(bench.outcome(&choreographer, "r").await.get(DOUBLE).unwrap(), Some(2));
    gate.add_permits(1);
    settle().await;
    assert_eq!(seen.take(), ["attempt 1", "attempt 2", "last"]);
    assert_eq!(choreographer.inspect("r").await.unwrap().unwrap().get(DOUBLE).unwrap(), Some(2));
}

/// A run whose step was cut off by the death of its worker.
async fn cut_off(bench: &Bench, definition: Definition<()>, seen: &Seen) -> (Choreographer, Running) {
    let choreographer = bench.choreographer();
    let name = definition.name();
    choreographer.register(definition).unwrap();
    choreographer.start(name, "r", &()).await.unwrap();
    let worker = Running::start(&choreographer);
    settle().await;
    assert_eq!(seen.take(), ["job"]);
    worker.kill().await;
    let worker = Running::start(&choreographer);
    bench.clock.advance(Duration::from_secs(31));
    (choreographer, worker)
}

/// Hangs at its first attempt.
fn hangs(
    seen: &Seen,
) -> impl Fn(StepContext<()>) -> std::pin::Pin<Box<dyn Future<Output = Fallible<u32>> + Send>> + use<> {
    let seen = seen.clone();
    move |ctx| {
        seen.add("job");
        let first = seen.count("job") == 1 && ctx.attempt() == 1;
        Box::pin(async move { if first { std::future::pending().await } else { Ok(7) } })
    }
}

#[tokio::test]
async fn a_probe_says_whether_an_interrupted_step_happened() {
    for (found, expected, calls) in [(Some(3), Some(3), vec!["probe"]), (None, Some(7), vec!["probe", "job"])]
    {
        let (bench, seen) = (Bench::new(1), Seen::default());
        let definition = Definition::<()>::builder("probed")
            .step(DOUBLE, hangs(&seen))
            .probe({
                let seen = seen.clone();
                move |_| {
                    seen.add("probe");
                    std::future::ready(Fallible::Ok(found))
                }
            })
            .build()
            .unwrap();
        let (choreographer, _worker) = cut_off(&bench, definition, &seen).await;
        assert_eq!(bench.outcome(&choreographer, "r").await.get(DOUBLE).unwrap(), expected);
        assert_eq!(seen.take(), calls);
    }
}

#[tokio::test]
async fn where_nobody_knows_the_policy_decides_and_a_person_resumes() {
    for (policy, probe) in
        [(OnInterrupted::Retry, true), (OnInterrupted::Park, true), (OnInterrupted::Park, false)]
    {
        let (bench, seen) = (Bench::new(1), Seen::default());
        let step = Definition::<()>::builder("doubtful").step(DOUBLE, hangs(&seen)).on_interrupted(policy);
        let step = if probe { step.probe(async |_| Err::<Option<u32>, _>("no answer")) } else { step };
        let (choreographer, _worker) = cut_off(&bench, step.build().unwrap(), &seen).await;
        let run = bench.outcome(&choreographer, "r").await;
        if policy == OnInterrupted::Retry {
            assert_eq!((run.state, seen.take()), (RunState::Completed, vec!["job".to_owned()]));
            continue;
        }
        assert_eq!((run.state, seen.take()), (RunState::Parked, vec![]));
        assert_eq!(run.error.unwrap().kind(), StepErrorKind::Interrupted);
        let parked = choreographer.list(RunFilter::new(RunState::Parked)).await.unwrap().runs;
        assert_eq!(parked.iter().map(|run| &*run.id).collect::<Vec<_>>(), ["r"]);
        assert_eq!(choreographer.retry("r").await.unwrap_err().kind(), ErrorKind::Conflict);

        choreographer.resume("r").await.unwrap();
        assert_eq!(bench.outcome(&choreographer, "r").await.get(DOUBLE).unwrap(), Some(7));
        assert_eq!(choreographer.resume("r").await.unwrap_err().kind(), ErrorKind::Conflict);
        let history = choreographer.history("r").await.unwrap().unwrap();
        assert!(history.iter().any(|entry| entry.event == Event::Resumed));
        assert!(choreographer.list(RunFilter::new(RunState::Parked)).await.unwrap().runs.is_empty());
    }
}

/// What is known of a step that was cut off, and what is to become of it.
#[derive(Clone, Copy, Debug)]
struct Cut {
    probe: Option<Result<Option<u32>, &'static str>>,
    policy: OnInterrupted,
    /// What is called, in order, and whether a person is asked.
    then: (&'static [&'static str], bool),
}

/// A run that is stopped after its second step was cut off.
async fn stopped_in_doubt(cut: Cut, by_deadline: bool) {
    let Cut { probe, policy, then: (calls, parks) } = cut;
    let (bench, seen) = (Bench::new(1), Seen::default());
    let undo = |what: &'static str| {
        let seen = seen.clone();
        move |_: StepContext<()>| {
            seen.add(what);
            std::future::ready(Fallible::Ok(()))
        }
    };
    let builder = Definition::<()>::builder("stopped").step(FIRST, async |_| Fallible::Ok(()));
    let builder = builder.compensate(undo("undo first")).step(DOUBLE, hangs(&seen)).on_interrupted(policy);
    let builder = builder.compensate(undo("undo double"));
    let builder = match probe {
        None => builder,
        Some(answer) => {
            let seen = seen.clone();
            builder.probe(move |_| {
                seen.add("probe");
                std::future::ready(answer)
            })
        }
    };
    let builder = builder.step(LAST, async |_| Fallible::Ok(1));
    let builder = if by_deadline { builder.deadline(Duration::from_secs(20)) } else { builder };
    let choreographer = bench.choreographer();
    choreographer.register(builder.build().unwrap()).unwrap();
    choreographer.start("stopped", "r", &()).await.unwrap();
    let worker = Running::start(&choreographer);
    settle().await;
    assert_eq!(seen.take(), ["job"]);
    worker.kill().await;
    if !by_deadline {
        choreographer.cancel("r").await.unwrap();
    }
    let _worker = Running::start(&choreographer);
    bench.clock.advance(Duration::from_secs(31));
    let mut run = bench.outcome(&choreographer, "r").await;
    if parks {
        assert_eq!(run.state, RunState::Parked, "{cut:?}");
        assert_eq!(run.error.unwrap().kind(), StepErrorKind::Interrupted);
        choreographer.cancel("r").await.unwrap();
        run = bench.outcome(&choreographer, "r").await;
    }
    assert_eq!(run.state, RunState::Compensated, "{cut:?}");
    let kind = if by_deadline && !parks { StepErrorKind::DeadlineExceeded } else { StepErrorKind::Cancelled };
    assert_eq!(run.error.unwrap().kind(), kind, "{cut:?}");
    assert_eq!(seen.take(), calls, "{cut:?}");
}

#[tokio::test]
async fn a_step_in_doubt_is_asked_for_before_a_stopped_run_is_taken_back() {
    use OnInterrupted::{Park, Retry};
    for by_deadline in [false, true] {
        for (probe, policy, then) in [
            (Some(Ok(Some(3))), Retry, (&["probe", "undo double", "undo first"][..], false)),
            (Some(Ok(None)), Park, (&["probe", "undo first"][..], false)),
            (Some(Err("no answer")), Retry, (&["probe", "undo first"][..], false)),
            (Some(Err("no answer")), Park, (&["probe", "undo first"][..], true)),
            (None, Retry, (&["undo first"][..], false)),
            (None, Park, (&["undo first"][..], true)),
        ] {
            stopped_in_doubt(Cut { probe, policy, then }, by_deadline).await;
        }
    }
}

#[tokio::test]
async fn a_doubt_about_a_step_that_cannot_be_taken_back_stops_nobody() {
    let (bench, seen) = (Bench::new(1), Seen::default());
    let choreographer = bench.choreographer();
    let definition = Definition::<()>::builder("stopped")
        .step(DOUBLE, hangs(&seen))
        .on_interrupted(OnInterrupted::Park)
        .step(LAST, async |_| Fallible::Ok(1))
        .build()
        .unwrap();
    choreographer.register(definition).unwrap();
    choreographer.start("stopped", "r", &()).await.unwrap();
    let worker = Running::start(&choreographer);
    settle().await;
    worker.kill().await;
    choreographer.cancel("r").await.unwrap();
    let _worker = Running::start(&choreographer);
    bench.clock.advance(Duration::from_secs(31));
    assert_eq!(bench.outcome(&choreographer, "r").await.state, RunState::Cancelled);
}

#[tokio::test]
async fn a_step_in_doubt_beside_one_that_failed_is_asked_for_too() {
    let (bench, seen) = (Bench::new(1), Seen::default());
    let choreographer = bench.choreographer();
    let definition = Definition::<()>::builder("beside")
        .parallel(Join::FailFast, |group| {
            let (probed, undone) = (seen.clone(), seen.clone());
            group
                .step(DOUBLE, hangs(&seen))
                .probe(move |_| {
                    probed.add("probe");
                    std::future::ready(Fallible::Ok(Some(1)))
                })
                .compensate(move |_| {
                    undone.add("undo");
                    std::future::ready(Fallible::Ok(()))
                })
                .step(LAST, async |_| Err::<u32, _>("no"))
        })
        .build()
        .unwrap();
    choreographer.register(definition).unwrap();
    choreographer.start("beside", "r", &()).await.unwrap();
    let worker = Running::start(&choreographer);
    settle().await;
    worker.kill().await;
    let _worker = Running::start(&choreographer);
    bench.clock.advance(Duration::from_secs(31));
    let run = bench.outcome(&choreographer, "r").await;
    assert_eq!(
        (run.state, seen.take()),
        (RunState::Compensated, ["job", "probe", "undo"].map(str::to_owned).to_vec())
    );
    assert_eq!(run.error.unwrap().step(), "last");
}

#[tokio::test]
async fn a_worker_waits_for_a_callback_no_longer_than_a_lease() {
    let (bench, seen) = (Bench::new(1), Seen::default());
    let definition = Definition::<()>::builder("hangs").step(DOUBLE, hangs(&seen)).build().unwrap();
    let choreographer = bench.choreographer();
    choreographer.register(definition).unwrap();
    choreographer.start("hangs", "r", &()).await.unwrap();
    let worker = Running::start(&choreographer);
    settle().await;
    let ending = worker.shutdown();
    settle().await;
    bench.clock.advance(Duration::from_secs(30));
    ending.await.unwrap();
}

#[tokio::test]
async fn a_pre_check_without_a_value_is_still_known_after_a_restart() {
    let (bench, seen) = (Bench::new(1), Seen::default());
    let definition = Definition::<()>::builder("checked")
        .step(FIRST, async |_| Fallible::Ok(()))
        .pre_check(async |_| Fallible::Ok(()))
        .step(DOUBLE, hangs(&seen))
        .step(LAST, async |ctx| Fallible::Ok(u32::from(ctx.pre_check(FIRST).is_some())))
        .build()
        .unwrap();
    let (choreographer, _worker) = cut_off(&bench, definition, &seen).await;
    assert_eq!(bench.outcome(&choreographer, "r").await.get(LAST).unwrap(), Some(1));
}
