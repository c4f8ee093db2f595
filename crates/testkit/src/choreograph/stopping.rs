use std::time::Duration;

use evenkeel_choreograph::{Definition, Join, OnInterrupted, RunState, Skip, StepErrorKind};
use evenkeel_core::{ErrorKind, Transactional};

use super::bench::{Bench, Ctx, Fallible, LEASE, ONE, Seen, TWO, kind, work};

super::cases![
    a_cancelled_run_begins_no_further_step,
    a_callback_under_way_sees_the_cancellation_from_another_process,
    a_run_that_waits_is_cancelled_at_once,
    a_parked_run_can_be_cancelled,
    a_run_is_cancelled_while_nobody_works_on_it,
    only_a_run_that_has_not_ended_can_be_cancelled,
    a_pre_check_can_cancel_the_run,
    a_run_that_passes_its_deadline_is_stopped,
    a_deadline_passes_while_nobody_works,
    a_deadline_counts_anew_when_a_run_is_retried,
];

async fn a_cancelled_run_begins_no_further_step<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("works")
        .step(
            ONE,
            bench.seen.with(async |seen: Seen, _: Ctx| {
                seen.add("one");
                seen.wait().await;
                Fallible::Ok(1)
            }),
        )
        .step(TWO, bench.seen.gives(2))
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("works", "r", &0).await.unwrap();
    let _worker = work(&process);
    bench.until_seen("one").await;
    for _ in 0..2 {
        bench.stranger().cancel("r").await.unwrap();
    }
    bench.seen.let_go(1);
    let run = bench.outcome(&process, "r").await;
    assert_eq!((run.state, run.error.unwrap().kind()), (RunState::Cancelled, StepErrorKind::Cancelled));
    assert_eq!(run.values.len(), 1, "what was under way came to its end");
    assert_eq!(bench.seen.take(), ["one"]);
}

async fn a_callback_under_way_sees_the_cancellation_from_another_process<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let definition = Definition::<u32>::builder("works")
        .step(
            ONE,
            bench.seen.with(async |seen: Seen, ctx: Ctx| {
                seen.add(format!("{}", ctx.is_cancelled()));
                ctx.cancelled().await;
                seen.add(format!("{}", ctx.is_cancelled()));
                Fallible::Ok(1)
            }),
        )
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("works", "r", &0).await.unwrap();
    let _worker = work(&process);
    bench.until_seen("false").await;
    bench.stranger().cancel("r").await.unwrap();
    let cancelled = bench.now();
    bench.until_seen("true").await;
    assert!(bench.now().since(cancelled) <= LEASE / 3 + Duration::from_secs(1));
    bench.outcome(&process, "r").await;
}

async fn a_run_that_waits_is_cancelled_at_once<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("sleeps")
        .step(ONE, bench.seen.gives(1))
        .compensate(bench.seen.takes_back())
        .sleep(Duration::from_hours(1000))
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("sleeps", "r", &0).await.unwrap();
    let _worker = work(&process);
    bench.until_seen("one").await;
    bench.pass(LEASE * 2).await;
    bench.stranger().cancel("r").await.unwrap();
    let cancelled = bench.now();
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Compensated);
    assert!(bench.now().since(cancelled) < Duration::from_secs(25), "within a poll");
    assert_eq!(bench.seen.take(), ["one", "undo one"]);
}

async fn a_parked_run_can_be_cancelled<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("parks")
        .step(ONE, bench.seen.gives(1))
        .compensate(bench.seen.takes_back())
        .step(TWO, bench.seen.hangs_once())
        .on_interrupted(OnInterrupted::Park)
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("parks", "r", &0).await.unwrap();
    let worker = work(&process);
    bench.until_seen("two 1").await;
    drop(worker);
    bench.lapse().await;
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Parked);
    process.cancel("r").await.unwrap();
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Compensated);
    assert_eq!(bench.seen.take(), ["one", "two 1", "undo one"]);
}

async fn a_run_is_cancelled_while_nobody_works_on_it<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("plain").step(ONE, bench.seen.gives(1)).build().unwrap();
    let process = bench.process([&definition]);
    process.start("plain", "r", &0).await.unwrap();
    process.cancel("r").await.unwrap();
    assert_eq!(bench.state(&process, "r").await, RunState::Running);
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Cancelled);
    assert!(bench.seen.take().is_empty());
}

async fn only_a_run_that_has_not_ended_can_be_cancelled<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("plain").step(ONE, bench.seen.gives(1)).build().unwrap();
    let process = bench.process([&definition]);
    assert_eq!(bench.run(&process, "plain", "r").await.state, RunState::Completed);
    assert_eq!(kind(process.cancel("r").await), ErrorKind::Conflict);
    assert_eq!(kind(process.cancel("nobody").await), ErrorKind::NotFound);
}

async fn a_pre_check_can_cancel_the_run<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("sold out")
        .step(ONE, bench.seen.gives(1))
        .compensate(bench.seen.takes_back())
        .step(TWO, bench.seen.gives(2))
        .pre_check(async |_| Err::<(), _>(Skip::cancel("sold out")))
        .build()
        .unwrap();
    let run = bench.run(&bench.process([&definition]), "sold out", "r").await;
    let error = run.error.unwrap();
    assert_eq!((run.state, error.kind()), (RunState::Compensated, StepErrorKind::Cancelled));
    assert_eq!(error.message(), "sold out");
    assert_eq!(bench.seen.take(), ["one", "undo one"]);
}

fn late(seen: &Seen) -> Definition<u32> {
    Definition::<u32>::builder("late")
        .step(ONE, seen.gives(1))
        .compensate(seen.takes_back())
        .parallel(Join::All, |group| {
            group
                .sleep(Duration::from_hours(100))
                .step(TWO, async |_| std::future::pending::<Fallible<u32>>().await)
        })
        .deadline(Duration::from_secs(90))
        .build()
        .unwrap()
}

async fn a_run_that_passes_its_deadline_is_stopped<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process([&late(&bench.seen)]);
    let began = bench.now();
    let run = bench.run(&process, "late", "r").await;
    assert_eq!(
        (run.state, run.error.unwrap().kind()),
        (RunState::Compensated, StepErrorKind::DeadlineExceeded)
    );
    assert_eq!(run.deadline, Some(began + Duration::from_secs(90)));
    let took = run.finished_at.unwrap().since(began);
    assert!(took >= Duration::from_secs(90) && took < Duration::from_secs(100), "{took:?}");
    assert_eq!(bench.seen.take(), ["one", "undo one"]);
}

async fn a_deadline_passes_while_nobody_works<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process([&late(&bench.seen)]);
    process.start("late", "r", &0).await.unwrap();
    bench.jump(Duration::from_secs(90)).await;
    let _worker = work(&process);
    let run = bench.outcome(&process, "r").await;
    assert_eq!(
        (run.state, run.error.unwrap().kind()),
        (RunState::Cancelled, StepErrorKind::DeadlineExceeded)
    );
    assert!(bench.seen.take().is_empty());
}

async fn a_deadline_counts_anew_when_a_run_is_retried<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("fails")
        .step(
            ONE,
            bench.seen.with(async |seen: Seen, _: Ctx| {
                seen.add("one");
                if seen.count("one") == 1 { Err("broken") } else { Ok(1) }
            }),
        )
        .deadline(Duration::from_hours(1))
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    assert_eq!(bench.run(&process, "fails", "r").await.state, RunState::Failed);
    bench.jump(Duration::from_hours(48)).await;
    process.retry("r").await.unwrap();
    let deadline = bench.inspect(&process, "r").await.deadline;
    assert_eq!(deadline, Some(bench.now() + Duration::from_hours(1)));
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Completed);
}
