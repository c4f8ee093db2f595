use std::sync::Arc;
use std::time::Duration;

use evenkeel_choreograph::{Definition, Event, Join, RetryPolicy, RunState, StepKey};
use evenkeel_core::Transactional;

use super::bench::{Bench, Ctx, Fallible, LEASE, ONE, Seen, THREE, TWO, work};

super::cases![
    what_finished_is_taken_back_in_reverse_order,
    what_did_not_finish_is_not_taken_back,
    a_failure_with_nothing_to_take_back_is_a_failure,
    a_compensation_that_fails_is_kept_apart_and_the_others_go_on,
    only_the_compensations_that_failed_are_tried_again,
    a_compensation_is_tried_again_after_a_wait_that_survives_a_new_process,
    a_finished_compensation_never_runs_again,
    a_compensation_does_not_see_the_cancellation_or_the_deadline,
    a_compensation_has_the_values_of_what_finished,
    what_finished_of_a_group_is_taken_back,
];

const FOUR: StepKey<u32> = StepKey::new("four");

async fn what_finished_is_taken_back_in_reverse_order<S: Transactional + Clone>(bench: Bench<S>) {
    let seen = &bench.seen;
    let definition = Definition::<u32>::builder("fails")
        .step(ONE, seen.gives(1))
        .compensate(seen.takes_back())
        .step(TWO, seen.gives(2))
        .step(THREE, seen.gives(3))
        .compensate(seen.takes_back())
        .step(FOUR, seen.fails())
        .build()
        .unwrap();
    let run = bench.run(&bench.process([&definition]), "fails", "r").await;
    assert_eq!(run.state, RunState::Compensated);
    assert_eq!(run.error.unwrap().to_string(), "step \"four\": job failed: four failed");
    assert_eq!(bench.seen.take(), ["one", "two", "three", "four", "undo three", "undo one"]);
}

async fn what_did_not_finish_is_not_taken_back<S: Transactional + Clone>(bench: Bench<S>) {
    let seen = &bench.seen;
    let definition = Definition::<u32>::builder("fails")
        .step(ONE, seen.gives(1))
        .compensate(seen.takes_back())
        .step(TWO, seen.gives(2))
        .pre_check(async |_| Err::<(), _>("not needed"))
        .compensate(seen.takes_back())
        .step(THREE, seen.gives(3))
        .when(|_| false)
        .compensate(seen.takes_back())
        .step(FOUR, seen.fails())
        .compensate(seen.takes_back())
        .build()
        .unwrap();
    assert_eq!(bench.run(&bench.process([&definition]), "fails", "r").await.state, RunState::Compensated);
    assert_eq!(bench.seen.take(), ["one", "four", "undo one"]);
}

async fn a_failure_with_nothing_to_take_back_is_a_failure<S: Transactional + Clone>(bench: Bench<S>) {
    let seen = &bench.seen;
    let definition = Definition::<u32>::builder("fails")
        .step(ONE, seen.gives(1))
        .step(TWO, seen.fails())
        .compensate(seen.takes_back())
        .build()
        .unwrap();
    assert_eq!(bench.run(&bench.process([&definition]), "fails", "r").await.state, RunState::Failed);
    assert_eq!(bench.seen.take(), ["one", "two"]);
}

/// Three steps to take back; taking the second back fails until it was tried `tries` times.
fn stubborn(seen: &Seen, tries: usize, policy: RetryPolicy) -> Definition<u32> {
    let resists = move |seen: Seen, _: Ctx| async move {
        seen.add("undo two");
        if seen.count("undo two") < tries { Err("it resists") } else { Ok(()) }
    };
    Definition::<u32>::builder("stubborn")
        .step(ONE, seen.gives(1))
        .compensate(seen.takes_back())
        .step(TWO, seen.gives(2))
        .compensate_with(policy, seen.with(resists))
        .step(THREE, seen.gives(3))
        .compensate(seen.takes_back())
        .step(FOUR, seen.fails())
        .build()
        .unwrap()
}

async fn a_compensation_that_fails_is_kept_apart_and_the_others_go_on<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let definition = stubborn(&bench.seen, usize::MAX, RetryPolicy::attempts(2));
    let run = bench.run(&bench.process([&definition]), "stubborn", "r").await;
    assert_eq!(run.state, RunState::CompensationFailed);
    assert_eq!(run.error.unwrap().step(), "four", "what stopped the run is told");
    let errors: Vec<_> = run.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["step \"two\": compensation failed: it resists"], "and what could not be taken back");
    assert_eq!(bench.seen.take()[4..], ["undo three", "undo two", "undo two", "undo one"]);
}

async fn only_the_compensations_that_failed_are_tried_again<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = stubborn(&bench.seen, 3, RetryPolicy::NONE);
    let process = bench.process([&definition]);
    assert_eq!(bench.run(&process, "stubborn", "r").await.state, RunState::CompensationFailed);
    for state in [RunState::CompensationFailed, RunState::Compensated] {
        process.retry("r").await.unwrap();
        let _worker = work(&process);
        assert_eq!(bench.outcome(&process, "r").await.state, state);
    }
    let seen = bench.seen.take();
    assert_eq!(seen[4..], ["undo three", "undo two", "undo one", "undo two", "undo two"]);
}

async fn a_compensation_is_tried_again_after_a_wait_that_survives_a_new_process<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let definition = stubborn(&bench.seen, 2, RetryPolicy::attempts(2).first(Duration::from_hours(24)));
    let process = bench.process([&definition]);
    process.start("stubborn", "r", &0).await.unwrap();
    let worker = work(&process);
    bench.until_seen("undo two").await;
    bench.settle().await;
    drop(worker);
    let history = process.history("r").await.unwrap().unwrap();
    let failure = history.iter().find(|entry| entry.event == Event::CompensationFailure).unwrap();
    let _worker = work(&bench.process([&definition]));
    let rest = failure.next_at.unwrap().since(bench.now());
    bench.jump(rest.saturating_sub(Duration::from_millis(1))).await;
    assert_eq!(bench.seen.count("undo two"), 1);
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Compensated);
    assert_eq!(bench.seen.take()[4..], ["undo three", "undo two", "undo two", "undo one"]);
}

async fn a_finished_compensation_never_runs_again<S: Transactional + Clone>(bench: Bench<S>) {
    let hangs = Arc::new(bench.seen.with(async |seen: Seen, ctx: Ctx| {
        let undo = format!("undo {}", ctx.step());
        seen.add(&*undo);
        if seen.count(&undo) == 1 {
            std::future::pending::<()>().await;
        }
        Fallible::Ok(())
    }));
    let undo = || {
        let hangs = Arc::clone(&hangs);
        move |ctx| hangs(ctx)
    };
    let definition = Definition::<u32>::builder("dies")
        .step(ONE, bench.seen.gives(1))
        .compensate(undo())
        .step(TWO, bench.seen.gives(2))
        .compensate(undo())
        .step(THREE, bench.seen.fails())
        .build()
        .unwrap();
    bench.process([&definition]).start("dies", "r", &0).await.unwrap();
    for step in ["undo two", "undo one"] {
        let worker = work(&bench.process([&definition]));
        bench.until_seen(step).await;
        drop(worker);
        bench.lapse().await;
    }
    let process = bench.process([&definition]);
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Compensated);
    let seen = bench.seen.take();
    assert_eq!(seen, ["one", "two", "three", "undo two", "undo two", "undo one", "undo one"]);
}

async fn a_compensation_does_not_see_the_cancellation_or_the_deadline<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let definition = Definition::<u32>::builder("waits")
        .step(ONE, bench.seen.gives(1))
        .compensate(bench.seen.with(async |seen: Seen, ctx: Ctx| {
            seen.add("undo");
            seen.wait().await;
            seen.add(format!("{} {:?}", ctx.is_cancelled(), ctx.deadline()));
            Fallible::Ok(())
        }))
        .sleep(Duration::from_hours(1))
        .deadline(Duration::from_mins(5))
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("waits", "r", &0).await.unwrap();
    let _worker = work(&process);
    bench.until_seen("one").await;
    bench.settle().await;
    process.cancel("r").await.unwrap();
    bench.until_seen("undo").await;
    // Far beyond the deadline.
    bench.pass(LEASE * 20).await;
    bench.seen.let_go(1);
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Compensated);
    assert_eq!(bench.seen.take(), ["one", "undo", "false None"]);
}

async fn a_compensation_has_the_values_of_what_finished<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("fails")
        .step(ONE, async |ctx: Ctx| Fallible::Ok(ctx.input() + 17))
        .compensate(bench.seen.with(async |seen: Seen, ctx: Ctx| {
            seen.add(format!("release {}", ctx.get(ONE).unwrap()));
            Fallible::Ok(())
        }))
        .step(TWO, bench.seen.hangs_once())
        .step(THREE, bench.seen.fails())
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("fails", "r", &4).await.unwrap();
    let worker = work(&process);
    bench.until_seen("two 1").await;
    drop(worker);
    bench.lapse().await;
    let process = bench.process([&definition]);
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Compensated);
    assert_eq!(bench.seen.take(), ["two 1", "two 2", "three", "release 21"]);
}

async fn what_finished_of_a_group_is_taken_back<S: Transactional + Clone>(bench: Bench<S>) {
    let seen = &bench.seen;
    for join in [Join::All, Join::FailFast] {
        let fails_late = seen.with(async |seen: Seen, _: Ctx| {
            seen.wait().await;
            Err::<u32, _>("it fails")
        });
        let definition = Definition::<u32>::builder("group")
            .step(ONE, seen.gives(1))
            .compensate(seen.takes_back())
            .parallel(join, |group| {
                group
                    .step(TWO, seen.gives(2))
                    .compensate(seen.takes_back())
                    .step(THREE, fails_late)
                    .compensate(seen.takes_back())
            })
            .step(FOUR, seen.gives(4))
            .build()
            .unwrap();
        let (process, run) = (bench.process([&definition]), format!("{join:?}"));
        process.start("group", &run, &0).await.unwrap();
        let _worker = work(&process);
        bench.until_seen("two").await;
        bench.pass(Duration::from_secs(1)).await;
        seen.let_go(1);
        assert_eq!(bench.outcome(&process, &run).await.state, RunState::Compensated, "{run}");
        assert_eq!(seen.take(), ["one", "two", "undo two", "undo one"], "{run}");
    }
}
