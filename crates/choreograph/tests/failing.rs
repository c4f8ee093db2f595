//! Steps that fail, are taken back, tried again, cancelled or late.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Fallible, Running, Seen, settle};
use evenkeel_choreograph::{
    Definition, Event, RetryPolicy, RunState, Skip, StepContext, StepErrorKind, StepKey,
};
use evenkeel_core::ErrorKind;

const FIND: StepKey<u32, String> = StepKey::new("find");
const DOUBLE: StepKey<u32> = StepKey::new("double");
const LAST: StepKey<u32> = StepKey::new("last");

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
    let choreographer = bench.process(definition);
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
    let choreographer = bench.process(definition("once", 1));
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
    let choreographer = bench.process(definition);
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
    let choreographer = bench.process(waits);
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
    let run = bench.run(definition, &()).await;
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
    let choreographer = bench.process(attempt);
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
    let choreographer = bench.process(definition);
    let _worker = Running::start(&choreographer);
    choreographer.start("panics", "r", &()).await.unwrap();
    let error = bench.outcome(&choreographer, "r").await.error.unwrap();
    assert_eq!((error.kind(), error.message()), (StepErrorKind::Panicked, "ouch"));
}

#[tokio::test]
async fn what_failed_is_tried_again_however_much_is_kept_of_the_run() {
    const ITEMS: StepKey<Vec<u32>> = StepKey::new("items");
    for items in [0, 40] {
        let (bench, seen) = (Bench::new(1), Seen::default());
        let fails_once = |what: &'static str| {
            let seen = seen.clone();
            move |_: StepContext<()>| {
                seen.add(what);
                std::future::ready(if seen.count(what) == 1 { Err("stuck") } else { Ok(()) })
            }
        };
        let before = |name| {
            Definition::<()>::builder(name).for_each(
                ITEMS,
                5,
                move |_| (0..items).collect(),
                async |_, item| Fallible::Ok(*item),
            )
        };
        let forward = before("forward").unnamed(fails_once("job")).build().unwrap();
        let back =
            before("back").step(DOUBLE, async |_| Fallible::Ok(1)).compensate_with(1, fails_once("undo"));
        let back = back.unnamed(async |_| Fallible::<()>::Err("no".to_owned())).build().unwrap();
        let choreographer = bench.process(forward);
        choreographer.register(back).unwrap();
        let _worker = Running::start(&choreographer);
        for (name, fails, ends) in [
            ("forward", RunState::Failed, RunState::Completed),
            ("back", RunState::CompensationFailed, RunState::Compensated),
        ] {
            choreographer.start(name, name, &()).await.unwrap();
            assert_eq!(bench.outcome(&choreographer, name).await.state, fails);
            choreographer.retry(name).await.unwrap();
            let run = bench.outcome(&choreographer, name).await;
            assert_eq!((run.state, run.get(ITEMS).unwrap().unwrap().len()), (ends, items as usize));
        }
        assert_eq!(seen.take(), ["job", "job", "undo", "undo"]);
    }
}
