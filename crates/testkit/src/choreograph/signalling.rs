use std::time::Duration;

use evenkeel_choreograph::{Definition, Join, RunState, StepErrorKind, StepKey};
use evenkeel_core::{ErrorKind, Transactional};

use super::bench::{Bench, LEASE, ONE, THREE, TWO, kind, work};

super::cases![
    a_signal_from_before_the_wait_is_taken,
    a_signal_from_after_the_wait_ends_it,
    a_signal_ends_the_waits_of_its_name_in_its_run_only,
    of_two_signals_the_earlier_is_taken,
    a_signal_wakes_a_run_that_is_held_elsewhere,
    a_signal_that_does_not_come_in_time_is_listed_and_the_run_goes_on,
    a_signal_of_the_same_id_is_the_first_even_when_that_was_taken,
    a_taken_signal_stays_taken_after_a_crash,
    a_run_that_has_ended_takes_no_signals,
    a_payload_that_is_not_of_the_keys_type_fails_the_step,
];

const PAID: StepKey<u32> = StepKey::new("paid");

/// A wait for a payment between two steps.
fn waits<S: Transactional + Clone>(bench: &Bench<S>, patience: Option<Duration>) -> Definition<u32> {
    Definition::<u32>::builder("waits")
        .step(ONE, bench.seen.gives(1))
        .wait_for_signal(PAID, patience)
        .step(TWO, bench.seen.gives(2))
        .build()
        .unwrap()
}

async fn a_signal_from_before_the_wait_is_taken<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process([&waits(&bench, None)]);
    process.start("waits", "r", &0).await.unwrap();
    bench.stranger().signal("r", "paid", &17).await.unwrap();
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.get(PAID).unwrap(), Some(17));
}

async fn a_signal_from_after_the_wait_ends_it<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process([&waits(&bench, None)]);
    process.start("waits", "r", &0).await.unwrap();
    let _worker = work(&process);
    bench.until_seen("one").await;
    bench.pass(LEASE * 3).await;
    assert_eq!((bench.state(&process, "r").await, bench.seen.count("two")), (RunState::Running, 0));
    bench.stranger().signal("r", "paid", &17).await.unwrap();
    let sent = bench.now();
    assert_eq!(bench.outcome(&process, "r").await.get(PAID).unwrap(), Some(17));
    assert!(bench.now().since(sent) < Duration::from_secs(25), "within a poll");
}

async fn a_signal_ends_the_waits_of_its_name_in_its_run_only<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("two waits")
        .parallel(Join::All, |group| group.wait_for_signal(PAID, None).wait_for_signal(ONE, None))
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    for run in ["r", "s"] {
        process.start("two waits", run, &0).await.unwrap();
    }
    let _worker = work(&process);
    for (run, name, payload) in [("r", "paid", 1), ("r", "other", 2), ("s", "one", 3)] {
        process.signal(run, name, &payload).await.unwrap();
    }
    bench.pass(Duration::from_mins(1)).await;
    for (run, paid, one) in [("r", Some(1), None), ("s", None, Some(3))] {
        let run = bench.inspect(&process, run).await;
        assert_eq!(
            (run.state, run.get(PAID).unwrap(), run.get(ONE).unwrap()),
            (RunState::Running, paid, one)
        );
    }
}

async fn of_two_signals_the_earlier_is_taken<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process([&waits(&bench, None)]);
    process.start("waits", "r", &0).await.unwrap();
    for (id, payload) in [("z", 1), ("a", 2)] {
        process.signal_once("r", "paid", id, &payload).await.unwrap();
        bench.clock.advance(Duration::from_millis(1));
    }
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.get(PAID).unwrap(), Some(1));
}

async fn a_signal_wakes_a_run_that_is_held_elsewhere<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("held")
        .parallel(Join::All, |group| {
            group
                .branch(|branch| branch.wait_for_signal(PAID, None).step(TWO, bench.seen.gives(2)))
                .step(ONE, bench.seen.hangs_once())
        })
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("held", "r", &0).await.unwrap();
    let _worker = work(&process);
    bench.until_seen("one 1").await;
    bench.pass(Duration::from_secs(5)).await;
    bench.stranger().signal("r", "paid", &17).await.unwrap();
    let sent = bench.now();
    bench.until_seen("two").await;
    assert!(bench.now().since(sent) <= LEASE / 3 + Duration::from_secs(1), "within a renewal");
    assert_eq!(bench.seen.count("one 2"), 0, "the other branch is not disturbed");
}

async fn a_signal_that_does_not_come_in_time_is_listed_and_the_run_goes_on<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let definition = waits(&bench, Some(Duration::from_hours(48)));
    let process = bench.process([&definition]);
    process.start("waits", "r", &0).await.unwrap();
    let worker = work(&process);
    bench.until_seen("one").await;
    bench.settle().await;
    drop(worker);
    bench.jump(Duration::from_hours(47)).await;
    let process = bench.process([&definition]);
    let _worker = work(&process);
    bench.pass(Duration::from_secs(5)).await;
    assert_eq!(bench.seen.count("two"), 0);
    bench.jump(Duration::from_hours(1)).await;
    let run = bench.outcome(&process, "r").await;
    assert_eq!((run.state, run.get(PAID).unwrap()), (RunState::Completed, None));
    assert_eq!((run.errors[0].step(), run.errors[0].kind()), ("paid", StepErrorKind::TimedOut));
    assert_eq!(bench.seen.take(), ["one", "two"]);
}

async fn a_signal_of_the_same_id_is_the_first_even_when_that_was_taken<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    const AGAIN: StepKey<u32> = StepKey::new("again");
    let definition = Definition::<u32>::builder("waits")
        .wait_for_signal(PAID, None)
        .step(ONE, bench.seen.gives(1))
        .wait_for_signal(AGAIN, Duration::from_mins(1))
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("waits", "r", &0).await.unwrap();
    process.signal_once("r", "paid", "id", &1).await.unwrap();
    process.signal_once("r", "paid", "id", &2).await.unwrap();
    let _worker = work(&process);
    bench.until_seen("one").await;
    process.signal_once("r", "again", "id", &3).await.unwrap();
    let run = bench.outcome(&process, "r").await;
    assert_eq!((run.get(PAID).unwrap(), run.get(AGAIN).unwrap()), (Some(1), None));
    for id in ["", &*"i".repeat(257)] {
        assert_eq!(kind(process.signal_once("r", "paid", id, &1).await), ErrorKind::InvalidInput);
    }
}

async fn a_taken_signal_stays_taken_after_a_crash<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("waits")
        .wait_for_signal(PAID, None)
        .step(TWO, bench.seen.hangs_once())
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("waits", "r", &0).await.unwrap();
    process.signal("r", "paid", &1).await.unwrap();
    let worker = work(&process);
    bench.until_seen("two 1").await;
    drop(worker);
    process.signal("r", "paid", &2).await.unwrap();
    bench.lapse().await;
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.get(PAID).unwrap(), Some(1));
}

async fn a_run_that_has_ended_takes_no_signals<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("plain").step(THREE, bench.seen.gives(1)).build().unwrap();
    let process = bench.process([&definition]);
    bench.run(&process, "plain", "r").await;
    assert_eq!(kind(process.signal("r", "paid", &1).await), ErrorKind::Conflict);
    assert_eq!(kind(process.signal("nobody", "paid", &1).await), ErrorKind::NotFound);
}

async fn a_payload_that_is_not_of_the_keys_type_fails_the_step<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process([&waits(&bench, None)]);
    process.start("waits", "r", &0).await.unwrap();
    process.signal("r", "paid", &"a text").await.unwrap();
    let _worker = work(&process);
    let run = bench.outcome(&process, "r").await;
    assert_eq!((run.state, run.error.unwrap().step().to_owned()), (RunState::Failed, "paid".to_owned()));
}
