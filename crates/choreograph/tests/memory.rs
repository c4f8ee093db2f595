//! What a definition does in memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_choreograph::{
    Cancellation, Definition, Join, OnInterrupted, Phase, RetryPolicy, RunState, Skip, StepContext,
    StepErrorKind, StepKey,
};
use evenkeel_core::{Clock, ErrorKind, ManualClock};
use futures_util::StreamExt;

type Fallible<T> = Result<T, String>;
type Seen = Arc<Mutex<Vec<String>>>;

const FIND: StepKey<u32, String> = StepKey::new("find");
const DOUBLE: StepKey<u32> = StepKey::new("double");

fn see(seen: &Seen, what: impl Into<String>) {
    seen.lock().unwrap().push(what.into());
}

fn seen(seen: &Seen) -> Vec<String> {
    std::mem::take(&mut *seen.lock().unwrap())
}

#[tokio::test]
async fn callbacks_get_the_input_and_hand_on_values() {
    let definition = Definition::<u32>::builder("sums")
        .step(FIND, async |ctx| {
            assert_eq!(*ctx.pre_check(FIND).unwrap(), "found 20");
            Fallible::Ok(ctx.input() + 1)
        })
        .pre_check(async |ctx: StepContext<u32>| Fallible::Ok(format!("found {}", ctx.input())))
        .step(DOUBLE, async |ctx| Fallible::Ok(*ctx.get(FIND).unwrap() * 2))
        .build()
        .unwrap();
    let outcome = definition.run(20).await;
    assert_eq!(outcome.state(), RunState::Completed);
    assert_eq!((*outcome.input(), *outcome.get(FIND).unwrap(), *outcome.get(DOUBLE).unwrap()), (20, 21, 42));
    assert_eq!(*outcome.pre_check(FIND).unwrap(), "found 20");
    assert!(outcome.error().is_none() && outcome.errors().is_empty());
}

#[tokio::test]
async fn a_pre_check_that_fails_skips_its_job_and_the_run_goes_on() {
    let definition = Definition::<u32>::builder("skips")
        .step(FIND, async |_| -> Fallible<u32> { panic!("the job of a skipped step") })
        .pre_check(async |_| Err::<String, _>(Skip::because("nothing to do").with("kept".to_owned())))
        .step(DOUBLE, async |ctx| Fallible::Ok(ctx.input() * 2))
        .build()
        .unwrap();
    let outcome = definition.run(4).await;
    assert_eq!(outcome.state(), RunState::Completed);
    assert_eq!(*outcome.get(DOUBLE).unwrap(), 8);
    let [error] = outcome.errors() else { panic!("{:?}", outcome.errors()) };
    assert_eq!(
        (error.step(), error.phase(), error.kind()),
        ("find", Phase::PreCheck, StepErrorKind::Skipped)
    );
    assert_eq!(error.to_string(), "step \"find\": pre-check skipped: nothing to do");
    assert_eq!(*outcome.pre_check(FIND).unwrap(), "kept", "its value is kept although it reports an error");
    assert!(outcome.get(FIND).is_none());
}

#[tokio::test]
async fn any_error_of_a_pre_check_is_a_skip() {
    let definition = Definition::<String>::builder("parses")
        .step(FIND, async |_| Fallible::Ok(1))
        .pre_check(async |ctx: StepContext<String>| -> Result<String, Skip<String>> {
            let number: u32 = ctx.input().parse()?;
            Ok(number.to_string())
        })
        .build()
        .unwrap();
    assert_eq!(definition.run("x".to_owned()).await.errors().len(), 1);
    assert_eq!(*definition.run("7".to_owned()).await.pre_check(FIND).unwrap(), "7");
}

#[tokio::test]
async fn a_pre_check_can_cancel_the_run() {
    let definition = Definition::<()>::builder("cancels")
        .step(FIND, async |_| Fallible::Ok(1))
        .pre_check(async |_| Err::<String, _>(Skip::cancel("sold out")))
        .step(DOUBLE, async |_| Fallible::Ok(2))
        .build()
        .unwrap();
    let outcome = definition.run(()).await;
    assert_eq!(outcome.state(), RunState::Cancelled);
    assert_eq!(outcome.error().unwrap().message(), "sold out");
    assert!(outcome.get(DOUBLE).is_none());
}

#[tokio::test]
async fn a_job_that_fails_stops_the_run_and_is_named() {
    let definition = Definition::<()>::builder("fails")
        .step(FIND, async |_| "7 apples".parse::<u32>())
        .step(DOUBLE, async |_| Fallible::Ok(2))
        .build()
        .unwrap();
    let outcome = definition.run(()).await;
    assert_eq!(outcome.state(), RunState::Failed);
    let error = outcome.error().unwrap();
    assert_eq!((error.step(), error.phase(), error.kind()), ("find", Phase::Job, StepErrorKind::Failed));
    let source = std::error::Error::source(error).unwrap();
    assert!(source.is::<std::num::ParseIntError>());
    assert!(outcome.get(DOUBLE).is_none());
}

#[tokio::test]
async fn a_panic_is_the_failure_of_its_step() {
    let before_the_future = Definition::<()>::builder("panics")
        .step(DOUBLE, |_| {
            assert!(std::hint::black_box(false), "before the future");
            async { Fallible::Ok(1) }
        })
        .build()
        .unwrap();
    let in_the_future = Definition::<()>::builder("panics")
        .unnamed(async |_| -> Fallible<()> { panic!("in {}", "it") })
        .build()
        .unwrap();
    let in_a_pre_check = Definition::<()>::builder("panics")
        .unnamed(async |_| Fallible::Ok(()))
        .pre_check(async |_| -> Fallible<()> { panic!("looking") })
        .build()
        .unwrap();
    let in_a_condition = Definition::<()>::builder("panics")
        .unnamed(async |_| Fallible::Ok(()))
        .when(|_| panic!("deciding"))
        .build()
        .unwrap();
    for (definition, phase, message) in [
        (before_the_future, Phase::Job, "before the future"),
        (in_the_future, Phase::Job, "in it"),
        (in_a_pre_check, Phase::PreCheck, "looking"),
        (in_a_condition, Phase::Condition, "deciding"),
    ] {
        let outcome = definition.run(()).await;
        let error = outcome.error().unwrap();
        assert_eq!((error.phase(), error.kind()), (phase, StepErrorKind::Panicked));
        assert_eq!(error.message(), message);
        assert_eq!(outcome.state(), RunState::Failed);
    }
}

#[tokio::test]
async fn values_can_be_set_and_the_bag_is_empty_at_the_start_of_each_run() {
    let definition = Definition::<u32>::builder("sets")
        .unnamed(async |ctx| {
            assert!(ctx.get(DOUBLE).is_none(), "another run's value");
            ctx.set(DOUBLE, 7)?;
            ctx.set_pre_check(FIND, "set".to_owned())
        })
        .step(FIND, async |ctx| Fallible::Ok(*ctx.get(DOUBLE).unwrap()))
        .step(DOUBLE, async |_| Fallible::Ok(9))
        .build()
        .unwrap();
    for _ in 0..2 {
        let outcome = definition.run(1).await;
        assert_eq!((*outcome.get(FIND).unwrap(), *outcome.get(DOUBLE).unwrap()), (7, 9));
        assert_eq!(*outcome.pre_check(FIND).unwrap(), "set");
    }
}

#[tokio::test]
async fn a_value_of_another_name_or_type_is_refused() {
    const OTHER: StepKey<String> = StepKey::new("double");
    const UNKNOWN: StepKey<u32> = StepKey::new("Double");
    let definition = Definition::<()>::builder("refuses")
        .step(DOUBLE, async |ctx| {
            for refused in [ctx.set(OTHER, String::new()), ctx.set(UNKNOWN, 1)] {
                assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
            }
            Fallible::Ok(1)
        })
        .build()
        .unwrap();
    let outcome = definition.run(()).await;
    assert!(outcome.error().is_none(), "{outcome:?}");
    assert!(outcome.get(OTHER).is_none() && outcome.get(UNKNOWN).is_none());
}

#[tokio::test]
async fn unnamed_steps_are_called_by_their_index() {
    let definition = Definition::<()>::builder("unnamed")
        .step(DOUBLE, async |_| Fallible::Ok(1))
        .unnamed(async |ctx| Err::<(), _>(format!("this is {}", ctx.step())))
        .build()
        .unwrap();
    let outcome = definition.run(()).await;
    assert_eq!(outcome.error().unwrap().to_string(), "step \"#1\": job failed: this is #1");
}

#[test]
fn a_wrong_definition_is_refused_when_it_is_built() {
    let job = async |_: StepContext<()>| Fallible::Ok(1);
    let none = Definition::<()>::builder("none").build();
    let twice = Definition::<()>::builder("twice").step(DOUBLE, job).step(DOUBLE, job).build();
    let clash = Definition::<()>::builder("clash")
        .step(StepKey::<u32>::new("#1"), job)
        .unnamed(async |_| Fallible::Ok(()))
        .build();
    let nameless = Definition::<()>::builder("").step(DOUBLE, job).build();
    let control = Definition::<()>::builder("c").step(StepKey::<u32>::new("a\nb"), job).build();
    let group =
        Definition::<()>::builder("group").step(DOUBLE, job).parallel(Join::All, |group| group).build();
    for (built, message) in [
        (none, "has steps"),
        (twice, "two steps have the same name"),
        (clash, "two steps have the same name"),
        (nameless, "the name of a definition is empty"),
        (control, "holds a control character"),
        (group, "has steps"),
    ] {
        let error = built.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn a_cancellation_is_seen_between_steps_and_by_the_running_callback() {
    let (cancellation, ran) = (Cancellation::new(), Seen::default());
    let definition = Definition::<()>::builder("cancelled")
        .unnamed({
            let (cancellation, ran) = (cancellation.clone(), Arc::clone(&ran));
            move |ctx| {
                cancellation.cancel();
                let ran = Arc::clone(&ran);
                async move {
                    ctx.cancelled().await;
                    see(&ran, format!("saw it: {}", ctx.is_cancelled()));
                    Fallible::Ok(())
                }
            }
        })
        .step(DOUBLE, async |_| Fallible::Ok(1))
        .build()
        .unwrap();
    let outcome = definition.run_cancellable((), cancellation).await;
    assert_eq!(seen(&ran), ["saw it: true"]);
    assert_eq!(outcome.state(), RunState::Cancelled);
    assert_eq!(outcome.error().unwrap().step(), "double");
    assert_eq!(outcome.error().unwrap().kind(), StepErrorKind::Cancelled);
}

/// Fails its first `failures` times.
fn flaky(
    failures: u32,
    seen: &Seen,
) -> impl Fn(StepContext<()>) -> std::future::Ready<Fallible<u32>> + use<> {
    let seen = Arc::clone(seen);
    move |ctx| {
        see(&seen, format!("{} {}", ctx.attempt(), ctx.idempotency_key()));
        std::future::ready(if ctx.attempt() > failures { Ok(ctx.attempt()) } else { Err("again".to_owned()) })
    }
}

/// Moves the clock whenever everybody sleeps, until the future is ready.
async fn let_time_pass<F: Future>(clock: &ManualClock, future: F) -> F::Output {
    tokio::pin!(future);
    loop {
        tokio::select! {
            biased;
            output = &mut future => return output,
            () = clock.wait_for_sleepers(1) => clock.advance(Duration::from_secs(60)),
        }
    }
}

#[tokio::test]
async fn what_fails_is_tried_again_under_the_policy_with_the_same_idempotency_key() {
    let (clock, tries) = (ManualClock::default(), Seen::default());
    let definition = |failures| {
        Definition::<()>::builder("retries")
            .step(DOUBLE, flaky(failures, &tries))
            .retry(RetryPolicy::attempts(3).first(Duration::from_secs(3600)))
            .build()
            .unwrap()
            .clock(clock.shared())
    };
    let outcome = let_time_pass(&clock, definition(2).run(())).await;
    assert_eq!(*outcome.get(DOUBLE).unwrap(), 3);
    let tried = seen(&tries);
    assert_eq!(tried.len(), 3);
    assert_eq!(tried[0][2..], tried[2][2..]);

    let outcome = let_time_pass(&clock, definition(3).run(())).await;
    assert_eq!((outcome.state(), seen(&tries).len()), (RunState::Failed, 3));
    assert!(tried[0][2..] != seen(&tries).first().cloned().unwrap_or_default());
}

#[tokio::test]
async fn a_final_error_is_not_tried_again() {
    let tries = Seen::default();
    let definition = Definition::<()>::builder("final")
        .step(DOUBLE, flaky(9, &tries))
        .retry(5)
        .non_retryable(|error| error.to_string() == "again")
        .build()
        .unwrap();
    assert_eq!(definition.run(()).await.state(), RunState::Failed);
    assert_eq!(seen(&tries).len(), 1);
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_and_a_run_past_its_deadline_are_given_up() {
    let clock = ManualClock::default();
    let hangs = || {
        Definition::<()>::builder("hangs").step(DOUBLE, async |ctx| {
            assert!(ctx.deadline().is_some());
            std::future::pending::<Fallible<u32>>().await
        })
    };
    let attempts = hangs().timeout(Duration::from_hours(1)).retry(2).build().unwrap().clock(clock.shared());
    let outcome = let_time_pass(&clock, attempts.run(())).await;
    assert_eq!(outcome.error().unwrap().kind(), StepErrorKind::TimedOut);
    assert_eq!(outcome.state(), RunState::Failed);

    let run = hangs().deadline(Duration::from_hours(48)).build().unwrap().clock(clock.shared());
    let outcome = let_time_pass(&clock, run.run(())).await;
    assert_eq!(outcome.error().unwrap().kind(), StepErrorKind::DeadlineExceeded);
    assert_eq!(outcome.state(), RunState::Cancelled);
}

#[tokio::test]
async fn what_finished_is_taken_back_in_reverse_order() {
    let undone = Seen::default();
    let undo = |seen: &Seen| {
        let seen = Arc::clone(seen);
        move |ctx: StepContext<()>| {
            see(&seen, format!("{} {}", ctx.step(), ctx.is_cancelled()));
            std::future::ready(if ctx.step() == "#1" { Err("stuck") } else { Ok(()) })
        }
    };
    let definition = |failing: bool| {
        Definition::<()>::builder("undoes")
            .step(DOUBLE, async |_| Fallible::Ok(1))
            .compensate(undo(&undone))
            .unnamed(async |_| Fallible::Ok(()))
            .compensate_with(RetryPolicy::NONE, undo(&undone))
            .when(move |_| failing)
            .unnamed(async |_| Fallible::Ok(()))
            .compensate(undo(&undone))
            .unnamed(async |_| Err::<(), _>("no"))
            .compensate(undo(&undone))
            .build()
            .unwrap()
    };
    let outcome = definition(false).run(()).await;
    assert_eq!(seen(&undone), ["#2 false", "double false"]);
    assert_eq!(outcome.state(), RunState::Compensated);
    assert_eq!(outcome.error().unwrap().message(), "no");

    let outcome = definition(true).run(()).await;
    assert_eq!(seen(&undone), ["#2 false", "#1 false", "double false"]);
    assert_eq!(outcome.state(), RunState::CompensationFailed);
    assert_eq!(outcome.errors()[0].phase(), Phase::Compensation);
}

#[tokio::test]
async fn parallel_branches_overlap_and_fail_together() {
    let barrier = Arc::new(tokio::sync::Barrier::new(2));
    let meet = move |_| {
        let barrier = Arc::clone(&barrier);
        async move { Fallible::Ok(u32::from(barrier.wait().await.is_leader())) }
    };
    let definition = Definition::<()>::builder("parallel")
        .parallel(Join::All, |group| {
            group.step(DOUBLE, meet.clone()).branch(|branch| {
                branch.unnamed(async |_| Fallible::Ok(())).step(StepKey::<u32>::new("other"), meet)
            })
        })
        .build()
        .unwrap();
    let outcome = definition.run(()).await;
    assert_eq!(*outcome.get(DOUBLE).unwrap() + *outcome.get(StepKey::<u32>::new("other")).unwrap(), 1);

    for (join, reached) in [(Join::All, true), (Join::FailFast, false)] {
        let definition = Definition::<()>::builder("parallel")
            .parallel(join, |group| {
                group.unnamed(async |_| Err::<(), _>("no")).branch(|branch| {
                    branch
                        .unnamed(async |_| {
                            tokio::task::yield_now().await;
                            Fallible::Ok(())
                        })
                        .step(DOUBLE, async |_| Fallible::Ok(1))
                })
            })
            .build()
            .unwrap();
        let outcome = definition.run(()).await;
        assert_eq!(outcome.error().unwrap().message(), "no");
        assert_eq!(outcome.get(DOUBLE).is_some(), reached, "{join:?}");
    }
}

#[tokio::test]
async fn a_list_is_worked_off_so_many_at_a_time_and_keeps_its_order() {
    const SQUARES: StepKey<Vec<u32>> = StepKey::new("squares");
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let definition = Definition::<u32>::builder("list")
        .for_each(SQUARES, 3, |ctx| (0..*ctx.input()).collect(), {
            let most = Arc::clone(&most);
            move |_, item: Arc<u32>| {
                let (now, most) = (Arc::clone(&now), Arc::clone(&most));
                async move {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    for _ in 0..(7 - *item % 7) {
                        tokio::task::yield_now().await;
                    }
                    now.fetch_sub(1, Ordering::SeqCst);
                    if *item == 50 { Err("fifty") } else { Ok(*item * *item) }
                }
            }
        })
        .on_interrupted(OnInterrupted::Park)
        .build()
        .unwrap();
    let outcome = definition.run(20).await;
    assert_eq!(*outcome.get(SQUARES).unwrap(), (0..20).map(|n| n * n).collect::<Vec<u32>>());
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(definition.run(60).await.error().unwrap().message(), "fifty");
}

#[tokio::test]
async fn sleeps_pass_on_the_clock() {
    let clock = ManualClock::default();
    let began = clock.now();
    let definition = Definition::<()>::builder("sleeps")
        .sleep(Duration::from_hours(48))
        .sleep_until(move |_| began + Duration::from_hours(100))
        .build()
        .unwrap()
        .clock(clock.shared());
    assert_eq!(let_time_pass(&clock, definition.run(())).await.state(), RunState::Completed);
    assert!(clock.now() >= began + Duration::from_hours(100));
}

#[tokio::test]
async fn what_needs_a_store_is_refused_before_anything_runs() {
    let ran = Seen::default();
    let definition = Definition::<()>::builder("durable")
        .unnamed({
            let ran = Arc::clone(&ran);
            move |_| {
                see(&ran, "ran");
                async { Fallible::Ok(()) }
            }
        })
        .wait_for_signal(StepKey::<u32>::new("paid"), None)
        .build()
        .unwrap();
    let outcome = definition.run(()).await;
    assert_eq!(outcome.error().unwrap().kind(), StepErrorKind::NeedsDurableRun);
    assert_eq!(outcome.error().unwrap().step(), "paid");
    assert!(seen(&ran).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_stream_in_the_order_in_which_runs_end_each_with_its_input() {
    let (first, gate) = (Arc::new(tokio::sync::Notify::new()), Seen::default());
    let definition = Definition::<u32>::builder("many")
        .step(DOUBLE, {
            let first = Arc::clone(&first);
            move |ctx| {
                let (first, gate) = (Arc::clone(&first), Arc::clone(&gate));
                async move {
                    if *ctx.input() == 0 {
                        first.notified().await;
                        see(&gate, "open");
                    }
                    if ctx.input() % 2 == 1 { Err("odd") } else { Ok(ctx.input() * 2) }
                }
            }
        })
        .build()
        .unwrap();
    let mut outcomes = definition.run_many(0..100).workers(4);
    let mut inputs = Vec::new();
    while let Some(outcome) = outcomes.next().await {
        assert_eq!(outcome.get(DOUBLE).is_some(), outcome.input() % 2 == 0);
        inputs.push(*outcome.input());
        if inputs.len() == 99 {
            assert!(!inputs.contains(&0), "the first is still under way");
            first.notify_one();
        }
    }
    assert_eq!(inputs.last(), Some(&0));
    inputs.sort_unstable();
    assert_eq!(inputs, (0..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_runs_ahead_of_a_slow_reader_and_dropping_the_stream_stops_the_work() {
    let (began, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
    struct OnDrop(Arc<tokio::sync::Semaphore>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.add_permits(1);
        }
    }
    let definition = Definition::<u32>::builder("slow")
        .unnamed({
            let (began, dropped) = (Arc::clone(&began), Arc::clone(&dropped));
            move |ctx: StepContext<u32>| {
                began.fetch_add(1, Ordering::SeqCst);
                let guard = (*ctx.input() >= 1).then(|| OnDrop(Arc::clone(&dropped)));
                async move {
                    if guard.is_some() {
                        std::future::pending::<()>().await;
                    }
                    Fallible::Ok(())
                }
            }
        })
        .build()
        .unwrap();
    let mut outcomes = definition.run_many(0..).workers(2);
    assert_eq!(*outcomes.next().await.unwrap().input(), 0);
    drop(outcomes);
    let both = began.load(Ordering::SeqCst).saturating_sub(1).max(1);
    let _permits = dropped.acquire_many(u32::try_from(both).unwrap()).await.unwrap();
    assert!(began.load(Ordering::SeqCst) <= 3);
}

#[tokio::test]
#[should_panic(expected = "no more inputs")]
async fn a_panic_of_the_inputs_reaches_the_reader() {
    let definition =
        Definition::<u32>::builder("inputs").unnamed(async |_| Fallible::Ok(())).build().unwrap();
    let inputs = (0..10).inspect(|input| assert!(*input < 5, "no more inputs"));
    let mut outcomes = definition.run_many(inputs).workers(2);
    while outcomes.next().await.is_some() {}
}
