//! What a linear definition does on a store.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Fallible, Running, Seen, settle};
use evenkeel_choreograph::{
    Cancellation, Choreographer, Definition, Event, Join, OnInterrupted, RetryPolicy, RunFilter, RunState,
    Skip, Started, StepContext, StepErrorKind, StepKey, VersionPolicy,
};
use evenkeel_core::{Batch, Clock, ErrorKind, Store, StoreExt};
use tokio::sync::Semaphore;

const FIRST: StepKey<()> = StepKey::new("first");
const FIND: StepKey<u32, String> = StepKey::new("find");
const DOUBLE: StepKey<u32> = StepKey::new("double");
const LAST: StepKey<u32> = StepKey::new("last");

#[tokio::test]
async fn a_run_hands_on_input_and_values_and_its_outcome_has_them() {
    let bench = Bench::new(4);
    let choreographer = bench.choreographer();
    let definition = Definition::<u32>::builder("sums")
        .step(FIND, async |ctx| {
            assert_eq!((ctx.run_id(), ctx.attempt()), ("run-1", 1));
            ctx.set(LAST, 5).unwrap();
            Fallible::Ok(ctx.input() + 1)
        })
        .pre_check(async |_| Fallible::Ok("looked".to_owned()))
        .step(DOUBLE, async |ctx| Fallible::Ok(*ctx.get(FIND).unwrap() * 2))
        .step(LAST, async |_| Fallible::Ok(1))
        .pre_check(async |_| Err::<(), _>("not needed"))
        .build()
        .unwrap();
    choreographer.register(definition).unwrap();
    assert_eq!(choreographer.start("sums", "run-1", &20).await.unwrap(), Started::New);
    let _worker = Running::start(&choreographer);
    let run = bench.outcome(&choreographer, "run-1").await;
    assert_eq!(
        (run.state, run.get(FIND).unwrap(), run.get(DOUBLE).unwrap()),
        (RunState::Completed, Some(21), Some(42))
    );
    assert_eq!(run.get(LAST).unwrap(), Some(5), "a value set for a step that is skipped");
    assert_eq!(run.pre_check(FIND).unwrap().as_deref(), Some("looked"));
    assert_eq!(run.errors.len(), 1);
    assert_eq!(run.errors[0].to_string(), "step \"last\": pre-check skipped: not needed");
    assert_eq!(run.input.get(), "20");
}

#[tokio::test]
async fn the_same_id_is_the_same_run_and_another_input_is_refused() {
    let bench = Bench::new(1);
    let choreographer = bench.choreographer();
    let step = |name| {
        Definition::<serde_json::Value>::builder(name).unnamed(async |_| Fallible::Ok(())).build().unwrap()
    };
    choreographer.register(step("a")).unwrap();
    choreographer.register(step("b")).unwrap();
    let input = serde_json::json!({"x": 1, "y": 2});
    assert_eq!(choreographer.start("a", "r", &input).await.unwrap(), Started::New);
    assert_eq!(
        choreographer.start("a", "r", &serde_json::json!({"y": 2, "x": 1})).await.unwrap(),
        Started::Existing
    );
    let _worker = Running::start(&choreographer);
    assert_eq!(bench.outcome(&choreographer, "r").await.state, RunState::Completed);
    assert_eq!(choreographer.start("a", "r", &input).await.unwrap(), Started::Existing);

    let error = choreographer.start("a", "r", &7).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("another input"), "{error}");
    let error = choreographer.start("b", "r", &input).await.unwrap_err();
    assert!(error.to_string().contains("another definition"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_started_is_refused() {
    let bench = Bench::new(1);
    let choreographer = bench.choreographer();
    choreographer
        .register(Definition::<u32>::builder("a").unnamed(async |_| Fallible::Ok(())).build().unwrap())
        .unwrap();
    let long = "r".repeat(257);
    for (definition, run, input, kind) in [
        ("a", "r", serde_json::json!("text"), ErrorKind::InvalidInput),
        ("a", "", serde_json::json!(1), ErrorKind::InvalidInput),
        ("a", &long, serde_json::json!(1), ErrorKind::InvalidInput),
        ("b", "r", serde_json::json!(1), ErrorKind::NotFound),
    ] {
        assert_eq!(choreographer.start(definition, run, &input).await.unwrap_err().kind(), kind);
    }
    assert_eq!(choreographer.outcome("nobody").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(choreographer.inspect("nobody").await.unwrap().is_none());
    assert!(choreographer.history("nobody").await.unwrap().is_none());
}

#[tokio::test]
async fn a_run_starts_with_the_callers_batch_at_home_and_elsewhere() {
    let bench = Bench::new(4);
    let choreographer = bench.choreographer();
    choreographer
        .register(
            Definition::<u32>::builder("a")
                .step(DOUBLE, async |ctx| Fallible::Ok(ctx.input() * 2))
                .build()
                .unwrap(),
        )
        .unwrap();
    let _worker = Running::start(&choreographer);
    for (run, index) in [
        ("home", bench.store.partition_of("home").index()),
        ("elsewhere", { (bench.store.partition_of("elsewhere").index() + 1) % 4 }),
    ] {
        let at = bench.store.partitions()[usize::try_from(index).unwrap()].clone();
        let mut batch = Batch::new(at, bench.clock.now());
        choreographer.start_in(&mut batch, "a", run, &4).unwrap();
        assert!(choreographer.inspect(run).await.unwrap().is_none());
        bench.store.commit(batch).await.unwrap();
        bench
            .pass(async {
                while choreographer.inspect(run).await.unwrap().is_none() {
                    settle().await
                }
            })
            .await;
        assert_eq!(bench.outcome(&choreographer, run).await.get(DOUBLE).unwrap(), Some(8));
    }
}

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
async fn a_lease_is_renewed_while_a_step_takes_long() {
    let (bench, seen, gate) = (Bench::new(1), Seen::default(), Arc::new(Semaphore::new(0)));
    let choreographer = bench.choreographer();
    let definition = Definition::<()>::builder("long")
        .step(DOUBLE, {
            let (seen, gate) = (seen.clone(), Arc::clone(&gate));
            move |_| {
                let (seen, gate) = (seen.clone(), Arc::clone(&gate));
                async move {
                    seen.add("began");
                    gate.acquire().await.unwrap().forget();
                    Fallible::Ok(1)
                }
            }
        })
        .build()
        .unwrap();
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
async fn retries_survive_a_restart_and_hold_no_worker() {
    let (bench, seen) = (Bench::new(1), Seen::default());
    let definition = Definition::<()>::builder("retries")
        .step(DOUBLE, {
            let seen = seen.clone();
            move |ctx| {
                seen.add(format!("{} {}", ctx.attempt(), ctx.idempotency_key()));
                std::future::ready(if ctx.attempt() < 4 { Err("not yet") } else { Ok(ctx.attempt()) })
            }
        })
        .retry(RetryPolicy::attempts(4).first(Duration::from_hours(24)).longest(Duration::from_hours(96)))
        .build()
        .unwrap();
    let choreographer = bench.choreographer();
    choreographer.register(definition).unwrap();
    choreographer.start("retries", "r", &()).await.unwrap();
    // A new worker for each attempt: the state is in the store alone.
    let run = loop {
        let worker = Running::start(&choreographer);
        settle().await;
        worker.kill().await;
        let run = choreographer.inspect("r").await.unwrap().unwrap();
        if run.state.is_final() {
            break run;
        }
        bench.clock.advance(Duration::from_hours(1));
    };
    assert_eq!((run.state, run.get(DOUBLE).unwrap()), (RunState::Completed, Some(4)));
    let tries = seen.take();
    assert_eq!(tries.len(), 4);
    assert!(tries.iter().all(|attempt| attempt[2..] == tries[0][2..]), "{tries:?}");
    let history = choreographer.history("r").await.unwrap().unwrap();
    let count = |event| history.iter().filter(|entry| entry.event == event).count();
    assert_eq!((count(Event::Failure), count(Event::Wait), count(Event::Attempt)), (3, 3, 1));
    assert_eq!(count(Event::Interrupted), 0);
}

#[tokio::test]
async fn a_failed_run_is_taken_back_in_reverse_order_and_says_so() {
    let (bench, seen) = (Bench::new(1), Seen::default());
    let undo = |seen: &Seen, failures: u32| {
        let seen = seen.clone();
        move |ctx: StepContext<u32>| {
            seen.add(format!("undo {} {}", ctx.step(), ctx.attempt()));
            std::future::ready(if ctx.attempt() <= failures { Err("stuck") } else { Ok(()) })
        }
    };
    let definition = |name, stuck| {
        Definition::<u32>::builder(name)
            .step(FIND, seen.note(1))
            .compensate(undo(&seen, 0))
            .step(DOUBLE, seen.note(1))
            .compensate_with(2, undo(&seen, stuck))
            .step(LAST, async |_| Err::<u32, _>("no"))
            .compensate(undo(&seen, 0))
            .build()
            .unwrap()
    };
    let choreographer = bench.choreographer();
    choreographer.register(definition("once", 1)).unwrap();
    choreographer.register(definition("never", 2)).unwrap();
    let _worker = Running::start(&choreographer);
    choreographer.start("once", "r1", &1).await.unwrap();
    let run = bench.outcome(&choreographer, "r1").await;
    assert_eq!(seen.take(), ["find", "double", "undo double 1", "undo double 2", "undo find 1"]);
    assert_eq!((run.state, run.error.unwrap().message()), (RunState::Compensated, "no"));
    assert_eq!(choreographer.retry("r1").await.unwrap_err().kind(), ErrorKind::Conflict);

    choreographer.start("never", "r2", &1).await.unwrap();
    let run = bench.outcome(&choreographer, "r2").await;
    assert_eq!(seen.take(), ["find", "double", "undo double 1", "undo double 2", "undo find 1"]);
    assert_eq!((run.state, run.errors.len()), (RunState::CompensationFailed, 1));
    // What could not be taken back is tried again, and nothing else.
    choreographer.retry("r2").await.unwrap();
    bench.outcome(&choreographer, "r2").await;
    assert_eq!(seen.take(), ["undo double 1", "undo double 2"]);
}

#[tokio::test]
async fn a_failed_run_is_retried_from_its_failed_step() {
    let (bench, seen) = (Bench::new(1), Seen::default());
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let definition = Definition::<()>::builder("fails")
        .step(FIND, seen.note(1))
        .step(DOUBLE, {
            let broken = Arc::clone(&broken);
            move |_| {
                let broken = broken.load(std::sync::atomic::Ordering::SeqCst);
                async move { if broken { Err("broken") } else { Ok(2) } }
            }
        })
        .build()
        .unwrap();
    let choreographer = bench.choreographer();
    choreographer.register(definition).unwrap();
    let _worker = Running::start(&choreographer);
    choreographer.start("fails", "r", &()).await.unwrap();
    let run = bench.outcome(&choreographer, "r").await;
    assert_eq!((run.state, run.error.unwrap().message()), (RunState::Failed, "broken"));
    broken.store(false, std::sync::atomic::Ordering::SeqCst);
    choreographer.retry("r").await.unwrap();
    let run = bench.outcome(&choreographer, "r").await;
    assert_eq!(
        (run.state, run.get(DOUBLE).unwrap(), run.error.is_none()),
        (RunState::Completed, Some(2), true)
    );
    assert_eq!(seen.take(), ["find"]);
}

#[tokio::test]
async fn cancelling_wakes_a_waiting_run_and_reaches_the_running_callback() {
    let (bench, seen) = (Bench::new(1), Seen::default());
    let undo = || {
        let seen = seen.clone();
        move |ctx: StepContext<()>| {
            seen.add(format!("undo {}", ctx.is_cancelled()));
            async { Fallible::Ok(()) }
        }
    };
    let waits = Definition::<()>::builder("waits")
        .unnamed(async |_| Fallible::Ok(()))
        .compensate(undo())
        .sleep(Duration::from_hours(1000))
        .build()
        .unwrap();
    let works = Definition::<()>::builder("works")
        .step(DOUBLE, async |ctx| {
            ctx.cancelled().await;
            Fallible::Ok(1)
        })
        .compensate(undo())
        .step(LAST, seen.note(1))
        .build()
        .unwrap();
    let choreographer = bench.choreographer();
    choreographer.register(waits).unwrap();
    choreographer.register(works).unwrap();
    let _worker = Running::start(&choreographer);
    for name in ["waits", "works"] {
        choreographer.start(name, name, &()).await.unwrap();
        bench.clock.advance(Duration::from_secs(1));
        settle().await;
        choreographer.cancel(name).await.unwrap();
        bench.clock.advance(Duration::from_secs(1));
        let run = bench.outcome(&choreographer, name).await;
        assert_eq!(run.state, RunState::Compensated);
        assert_eq!(run.error.unwrap().kind(), StepErrorKind::Cancelled);
        assert_eq!(seen.take(), ["undo false"]);
        assert_eq!(choreographer.cancel(name).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
}

#[tokio::test]
async fn a_pre_check_can_cancel_a_durable_run() {
    let bench = Bench::new(1);
    let definition = Definition::<()>::builder("sold")
        .step(DOUBLE, async |_| Fallible::Ok(1))
        .pre_check(async |_| Err::<(), _>(Skip::cancel("sold out")))
        .build()
        .unwrap();
    let choreographer = bench.choreographer();
    choreographer.register(definition).unwrap();
    let _worker = Running::start(&choreographer);
    choreographer.start("sold", "r", &()).await.unwrap();
    let run = bench.outcome(&choreographer, "r").await;
    assert_eq!((run.state, run.error.unwrap().message()), (RunState::Cancelled, "sold out"));
}

#[tokio::test]
async fn attempts_time_out_and_runs_have_a_deadline() {
    let bench = Bench::new(1);
    let hangs = |name| {
        Definition::<()>::builder(name).step(DOUBLE, async |_| std::future::pending::<Fallible<u32>>().await)
    };
    let attempt = hangs("attempt").timeout(Duration::from_mins(10)).retry(2).build().unwrap();
    let run = hangs("run").deadline(Duration::from_mins(30)).build().unwrap();
    let choreographer = bench.choreographer();
    choreographer.register(attempt).unwrap();
    choreographer.register(run).unwrap();
    let _worker = Running::start(&choreographer);
    for (name, state, kind) in [
        ("attempt", RunState::Failed, StepErrorKind::TimedOut),
        ("run", RunState::Cancelled, StepErrorKind::DeadlineExceeded),
    ] {
        choreographer.start(name, name, &()).await.unwrap();
        let run = bench.outcome(&choreographer, name).await;
        assert_eq!((run.state, run.error.unwrap().kind()), (state, kind));
    }
}

#[tokio::test]
async fn panics_are_failures_of_their_step() {
    let bench = Bench::new(1);
    let definition = Definition::<()>::builder("panics")
        .step(DOUBLE, async |_| -> Fallible<u32> { panic!("ouch") })
        .build()
        .unwrap();
    let choreographer = bench.choreographer();
    choreographer.register(definition).unwrap();
    let _worker = Running::start(&choreographer);
    choreographer.start("panics", "r", &()).await.unwrap();
    let error = bench.outcome(&choreographer, "r").await.error.unwrap();
    assert_eq!((error.kind(), error.message()), (StepErrorKind::Panicked, "ouch"));
}

#[tokio::test]
async fn a_run_of_another_version_is_pinned_or_parked_never_mixed() {
    let (bench, seen) = (Bench::new(1), Seen::default());
    let old = |policy| {
        Definition::<()>::builder("versions").version_policy(policy).step(FIND, seen.note(1)).build().unwrap()
    };
    let new = |policy| {
        Definition::<()>::builder("versions")
            .version_policy(policy)
            .step(DOUBLE, seen.note(2))
            .build()
            .unwrap()
    };
    assert_ne!(old(VersionPolicy::Pin).version(), new(VersionPolicy::Pin).version());
    for policy in [VersionPolicy::Pin, VersionPolicy::Park] {
        let run = format!("{policy:?}");
        let before = bench.choreographer();
        before.register(old(policy)).unwrap();
        assert_eq!(before.register(old(policy)).unwrap_err().kind(), ErrorKind::InvalidInput);
        before.start("versions", &run, &()).await.unwrap();

        let after = bench.choreographer();
        after.register(new(policy)).unwrap();
        let worker = Running::start(&after);
        for _ in 0..20 {
            settle().await;
            bench.clock.advance(Duration::from_secs(60));
        }
        let state = after.inspect(&run).await.unwrap().unwrap().state;
        assert_eq!(state, if policy == VersionPolicy::Pin { RunState::Running } else { RunState::Parked });
        worker.kill().await;
        if policy == VersionPolicy::Park {
            after.resume(&run).await.unwrap();
        }
        after.register(old(policy)).unwrap();
        let _worker = Running::start(&after);
        assert_eq!(bench.outcome(&after, &run).await.state, RunState::Completed);
        assert_eq!(seen.take(), ["find"], "under the version that it was started with");
    }
}

#[tokio::test]
async fn runs_are_listed_by_state_definition_and_time() {
    let bench = Bench::new(4);
    let choreographer = bench.choreographer();
    for name in ["a", "b"] {
        choreographer
            .register(Definition::<()>::builder(name).unnamed(async |_| Fallible::Ok(())).build().unwrap())
            .unwrap();
    }
    let mut at = Vec::new();
    for n in 0..10 {
        at.push(bench.clock.now());
        choreographer.start(if n % 2 == 0 { "a" } else { "b" }, &format!("{}", 9 - n), &()).await.unwrap();
        bench.clock.advance(Duration::from_secs(1));
    }
    let ids = async |filter: RunFilter| {
        let page = choreographer.list(filter).await.unwrap();
        (page.runs.iter().map(|run| run.id.clone()).collect::<Vec<_>>().join(""), page.cursor)
    };
    let running = RunFilter::new(RunState::Running);
    assert_eq!(ids(running.clone()).await, ("9876543210".to_owned(), None));
    let (first, cursor) = ids(running.clone().limit(4)).await;
    assert_eq!(first, "9876");
    assert_eq!(ids(running.clone().after(cursor.unwrap())).await.0, "543210");
    assert_eq!(ids(running.clone().definition("b").limit(3)).await.0, "864");
    assert_eq!(ids(running.clone().started(at[2], at[5])).await.0, "765");
    let _worker = Running::start(&choreographer);
    for n in 0..10 {
        bench.outcome(&choreographer, &n.to_string()).await;
    }
    assert_eq!(ids(running).await.0, "");
    assert_eq!(ids(RunFilter::new(RunState::Completed)).await.0, "9876543210");
}

#[tokio::test]
async fn runs_of_all_states_are_listed_in_the_order_of_their_start() {
    let bench = Bench::new(4);
    let choreographer = bench.choreographer();
    let definition = Definition::<bool>::builder("a")
        .unnamed(async |ctx| if *ctx.input() { Err("as asked") } else { Ok(()) })
        .build()
        .unwrap();
    choreographer.register(definition).unwrap();
    let worker = Running::start(&choreographer);
    for n in 0..6 {
        choreographer.start("a", &n.to_string(), &(n % 2 == 0)).await.unwrap();
        bench.outcome(&choreographer, &n.to_string()).await;
        bench.clock.advance(Duration::from_secs(1));
    }
    worker.kill().await;
    choreographer.start("a", "6", &true).await.unwrap();
    for limit in [1, 2, 3, 100] {
        let (mut runs, mut filter) = (Vec::new(), RunFilter::all().limit(limit));
        loop {
            let page = choreographer.list(filter.clone()).await.unwrap();
            assert!(page.runs.len() <= limit);
            runs.extend(page.runs.into_iter().map(|run| format!("{} {}", run.id, run.state)));
            let Some(cursor) = page.cursor else { break };
            filter = filter.after(cursor);
        }
        let expected =
            ["0 failed", "1 completed", "2 failed", "3 completed", "4 failed", "5 completed", "6 running"];
        assert_eq!(runs, expected, "by {limit}");
    }
}

#[tokio::test]
async fn a_page_may_be_short_and_still_have_a_cursor() {
    let bench = Bench::new(1);
    let choreographer = bench.choreographer();
    for name in ["many", "few"] {
        choreographer
            .register(Definition::<()>::builder(name).unnamed(async |_| Fallible::Ok(())).build().unwrap())
            .unwrap();
    }
    for n in 0..600 {
        choreographer.start("many", &format!("{n:03}"), &()).await.unwrap();
    }
    bench.clock.advance(Duration::from_secs(1));
    choreographer.start("few", "last", &()).await.unwrap();
    let filter = RunFilter::new(RunState::Running).definition("few").limit(10);
    let first = choreographer.list(filter.clone()).await.unwrap();
    assert!(first.runs.is_empty());
    let second = choreographer.list(filter.after(first.cursor.unwrap())).await.unwrap();
    assert_eq!((&*second.runs[0].id, second.runs.len(), second.cursor), ("last", 1, None));
}

#[tokio::test]
async fn a_worker_that_shuts_down_puts_its_runs_back_between_steps() {
    let (bench, seen, gate) = (Bench::new(1), Seen::default(), Arc::new(Semaphore::new(0)));
    let definition = Definition::<()>::builder("drains")
        .step(DOUBLE, {
            let (seen, gate) = (seen.clone(), Arc::clone(&gate));
            move |_| {
                let (seen, gate) = (seen.clone(), Arc::clone(&gate));
                async move {
                    seen.add("began");
                    gate.acquire().await.unwrap().forget();
                    Fallible::Ok(1)
                }
            }
        })
        .on_interrupted(OnInterrupted::Park)
        .step(LAST, seen.note(1))
        .on_interrupted(OnInterrupted::Park)
        .build()
        .unwrap();
    let choreographer = bench.choreographer();
    choreographer.register(definition).unwrap();
    choreographer.start("drains", "r", &()).await.unwrap();
    let worker = Running::start(&choreographer);
    settle().await;
    let ending = worker.shutdown();
    settle().await;
    assert!(!ending.is_finished(), "it waits for the callback");
    gate.add_permits(1);
    ending.await.unwrap();
    assert_eq!(seen.take(), ["began"]);
    // No lease has to lapse, and nothing was interrupted.
    let _next = Running::start(&choreographer);
    settle().await;
    assert_eq!(choreographer.inspect("r").await.unwrap().unwrap().state, RunState::Completed);
    assert_eq!(seen.take(), ["last"]);
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
async fn a_run_is_forgotten_after_its_retention_and_its_id_is_free_again() {
    let bench = Bench::new(1);
    let choreographer = bench.choreographer().retention(Duration::from_hours(48));
    let definition = Definition::<u32>::builder("forgotten")
        .unnamed(async |ctx| if ctx.attempt() == 1 { Err("once") } else { Ok(()) })
        .retry(2)
        .build()
        .unwrap();
    choreographer.register(definition).unwrap();
    let _worker = Running::start(&choreographer);
    choreographer.start("forgotten", "r", &1).await.unwrap();
    bench.outcome(&choreographer, "r").await;
    bench.clock.advance(Duration::from_hours(47));
    settle().await;
    assert!(choreographer.inspect("r").await.unwrap().is_some());
    bench
        .pass(async {
            while choreographer.inspect("r").await.unwrap().is_some() {
                settle().await
            }
        })
        .await;
    assert!(choreographer.list(RunFilter::new(RunState::Completed)).await.unwrap().runs.is_empty());
    assert_eq!(choreographer.start("forgotten", "r", &2).await.unwrap(), Started::New);
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

#[tokio::test]
async fn what_is_registered_is_told_by_name_on_every_handle() {
    let choreographer = Choreographer::with_store(Bench::new(1).store);
    let of = |name, steps: usize| {
        let builder = Definition::<()>::builder(name).unnamed(async |_| Fallible::Ok(()));
        (1..steps).fold(builder, |builder, _| builder.unnamed(async |_| Fallible::Ok(()))).build().unwrap()
    };
    for (name, steps) in [("b", 1), ("a", 2), ("b", 2)] {
        choreographer.any().register(of(name, steps)).unwrap();
    }
    let told = choreographer.definitions();
    assert_eq!(told, choreographer.any().definitions());
    let names: Vec<_> = told.iter().map(|it| (it.name, it.versions.len())).collect();
    assert_eq!(names, [("a", 1), ("b", 2)]);
    assert_eq!(told[1].versions, [of("b", 1).version(), of("b", 2).version()]);
    assert_eq!(told[1].diagram, of("b", 2).to_mermaid());
}

/// Web handlers and tasks await them.
#[test]
fn every_future_can_be_sent_to_another_thread() {
    fn is_send(_: impl Send) {}
    let choreographer = Choreographer::new(Bench::new(1).store);
    is_send(choreographer.start("a", "r", &()));
    is_send(choreographer.outcome("r"));
    is_send(choreographer.inspect("r"));
    is_send(choreographer.signal("r", "name", &()));
    is_send(choreographer.signal_once("r", "name", "id", &()));
    is_send(choreographer.cancel("r"));
    is_send(choreographer.resume("r"));
    is_send(choreographer.retry("r"));
    is_send(choreographer.list(RunFilter::all()));
    is_send(choreographer.history("r"));
    is_send(choreographer.worker().run(std::future::pending()));
    let definition = Definition::<()>::builder("a").unnamed(async |_| Fallible::Ok(())).build().unwrap();
    is_send(definition.run(()));
    is_send(definition.run_cancellable((), Cancellation::new()));
    is_send(definition.run_many([()]));
    fn waits(ctx: &StepContext<()>) -> impl Send {
        ctx.cancelled()
    }
    let _ = waits;
    is_send(async { Cancellation::new().cancelled().await });
}

#[tokio::test]
async fn a_value_that_does_not_fit_the_store_fails_its_step() {
    const BIG: StepKey<String> = StepKey::new("big");
    let bench = Bench::new(1);
    let definition = Definition::<()>::builder("big")
        .step(BIG, async |_| Fallible::Ok("x".repeat(1 << 20)))
        .build()
        .unwrap();
    let choreographer = bench.choreographer();
    choreographer.register(definition).unwrap();
    let _worker = Running::start(&choreographer);
    choreographer.start("big", "r", &()).await.unwrap();
    let run = bench.outcome(&choreographer, "r").await;
    assert!(run.error.unwrap().message().contains("too large for the store"));
}
