use std::time::Duration;

use evenkeel_choreograph::{Definition, Event, RetryPolicy, RunState, StepErrorKind};
use evenkeel_core::{ErrorKind, Transactional};

use super::bench::{Bench, Ctx, Fallible, ONE, Seen, TWO, kind, work};

super::cases![
    what_fails_is_tried_again_as_often_as_its_policy_says,
    attempts_and_their_waits_survive_a_new_process,
    attempts_end_when_they_have_taken_too_long_in_all,
    an_error_that_is_final_is_not_tried_again,
    an_attempt_that_takes_too_long_is_given_up_and_tried_again,
    a_panic_is_a_failure_of_its_step,
    a_failed_run_is_retried_from_its_failed_step,
    only_a_run_that_failed_can_be_retried,
];

const HOUR: Duration = Duration::from_hours(1);

async fn what_fails_is_tried_again_as_often_as_its_policy_says<S: Transactional + Clone>(bench: Bench<S>) {
    for (attempts, state) in [(2, RunState::Failed), (3, RunState::Completed)] {
        let definition = Definition::<u32>::builder("fails")
            .step(ONE, async |ctx: Ctx| if ctx.attempt() < 3 { Err("not yet") } else { Ok(ctx.attempt()) })
            .retry(attempts)
            .build()
            .unwrap();
        let run = format!("run-{attempts}");
        let ended = bench.run(&bench.process([&definition]), "fails", &run).await;
        assert_eq!(ended.state, state);
        match ended.error {
            Some(error) => assert_eq!(error.to_string(), "step \"one\": job failed: not yet"),
            None => assert_eq!(ended.get(ONE).unwrap(), Some(3)),
        }
    }
}

async fn attempts_and_their_waits_survive_a_new_process<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("fails")
        .step(
            ONE,
            bench.seen.with(async |seen: Seen, ctx: Ctx| {
                seen.add(format!("attempt {}", ctx.attempt()));
                Err::<u32, _>("not yet")
            }),
        )
        .retry(RetryPolicy::attempts(3).first(HOUR * 24))
        .build()
        .unwrap();
    bench.process([&definition]).start("fails", "r", &0).await.unwrap();
    for attempt in 1..3_usize {
        let process = bench.process([&definition]);
        let worker = work(&process);
        bench.until_seen(&format!("attempt {attempt}")).await;
        bench.settle().await;
        drop(worker);
        bench.settle().await;
        let history = process.history("r").await.unwrap().unwrap();
        let failures = history.iter().filter(|entry| entry.event == Event::Failure);
        let next_at = failures.clone().next_back().unwrap().next_at.unwrap();
        assert_eq!(failures.count(), attempt);
        assert!(next_at <= bench.now() + Duration::from_mins(5), "the longest wait is kept");

        // The wait goes on where it was, whoever looks.
        let _worker = work(&bench.process([&definition]));
        let Some(rest) = next_at.since(bench.now()).checked_sub(Duration::from_millis(1)) else { continue };
        bench.jump(rest).await;
        bench.settle().await;
        assert_eq!(bench.seen.count(&format!("attempt {}", attempt + 1)), 0);
    }
    let process = bench.process([&definition]);
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Failed);
    assert_eq!(bench.seen.take(), ["attempt 1", "attempt 2", "attempt 3"]);
}

async fn attempts_end_when_they_have_taken_too_long_in_all<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("fails")
        .step(ONE, bench.seen.fails())
        .retry(RetryPolicy::attempts(1_000_000).first(HOUR).longest(HOUR).max_elapsed(HOUR * 10))
        .build()
        .unwrap();
    let (process, began) = (bench.process([&definition]), bench.now());
    process.start("fails", "r", &0).await.unwrap();
    while bench.state(&process, "r").await == RunState::Running {
        let _worker = work(&bench.process([&definition]));
        bench.jump(Duration::from_mins(10)).await;
        bench.lapse().await;
    }
    assert_eq!(bench.state(&process, "r").await, RunState::Failed);
    let took = bench.now().since(began);
    assert!(took <= HOUR * 10 + HOUR / 2, "attempts went on for {took:?}");
    assert!(bench.seen.take().len() > 3);
}

async fn an_error_that_is_final_is_not_tried_again<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("fails")
        .step(ONE, bench.seen.fails())
        .retry(5)
        .non_retryable(|error| error.to_string() == "one failed")
        .build()
        .unwrap();
    let run = bench.run(&bench.process([&definition]), "fails", "r").await;
    assert_eq!((run.state, bench.seen.take().len()), (RunState::Failed, 1));
}

async fn an_attempt_that_takes_too_long_is_given_up_and_tried_again<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let definition = Definition::<u32>::builder("hangs")
        .step(ONE, bench.seen.hangs_once())
        .timeout(Duration::from_mins(2))
        .retry(2)
        .step(TWO, async |_| std::future::pending::<Fallible<u32>>().await)
        .timeout(Duration::from_secs(7))
        .build()
        .unwrap();
    let (process, began) = (bench.process([&definition]), bench.now());
    let run = bench.run(&process, "hangs", "r").await;
    assert_eq!((run.state, run.get(ONE).unwrap()), (RunState::Failed, Some(2)));
    let error = run.error.unwrap();
    assert_eq!((error.step(), error.kind()), ("two", StepErrorKind::TimedOut));
    let took = run.finished_at.unwrap().since(began);
    assert!(took >= Duration::from_secs(127) && took < Duration::from_secs(135), "{took:?}");
}

async fn a_panic_is_a_failure_of_its_step<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("panics")
        .step(ONE, async |ctx: Ctx| -> Fallible<u32> {
            if ctx.attempt() == 1 { panic!("halfway") } else { Ok(1) }
        })
        .retry(2)
        .step(TWO, async |_| -> Fallible<u32> { panic!("for good") })
        .build()
        .unwrap();
    let run = bench.run(&bench.process([&definition]), "panics", "r").await;
    assert_eq!((run.state, run.get(ONE).unwrap()), (RunState::Failed, Some(1)));
    assert_eq!(run.error.unwrap().to_string(), "step \"two\": job panicked: for good");
}

async fn a_failed_run_is_retried_from_its_failed_step<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("fails")
        .step(ONE, bench.seen.gives(1))
        .step(
            TWO,
            bench.seen.with(async |seen: Seen, _: Ctx| {
                seen.add("two");
                if seen.count("two") < 3 { Err("broken") } else { Ok(2) }
            }),
        )
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    assert_eq!(bench.run(&process, "fails", "r").await.state, RunState::Failed);
    for state in [RunState::Failed, RunState::Completed] {
        let other = bench.process([&definition]);
        other.retry("r").await.unwrap();
        assert_eq!(bench.inspect(&process, "r").await.error.map(|error| error.to_string()), None);
        let _worker = work(&other);
        assert_eq!(bench.outcome(&other, "r").await.state, state);
    }
    assert_eq!(bench.seen.take(), ["one", "two", "two", "two"]);
}

async fn only_a_run_that_failed_can_be_retried<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("works").step(ONE, bench.seen.gives(1)).build().unwrap();
    let process = bench.process([&definition]);
    process.start("works", "r", &0).await.unwrap();
    assert_eq!(kind(process.retry("r").await), ErrorKind::Conflict);
    let _worker = work(&process);
    bench.outcome(&process, "r").await;
    assert_eq!(kind(process.retry("r").await), ErrorKind::Conflict);
    assert_eq!(kind(process.retry("nobody").await), ErrorKind::NotFound);
}
