use evenkeel_core::Transactional;
use evenkeel_idempotency::{Ending, ErrorKind, Outcome, RunError, Status};

use super::bench::{Bench, identity, kind, operation, replayed, run_kind, seconds, won};

super::cases![
    a_failure_is_recorded_and_the_operation_runs_again_at_once,
    a_panic_is_caught_recorded_and_of_its_own_kind,
    a_dropped_guard_records_a_failure,
    a_dropped_run_records_a_failure,
    a_finish_survives_a_caller_that_goes_away,
    a_result_after_the_expiration_is_refused_and_recorded_as_a_failure,
    a_finished_operation_replays_until_its_record_expires,
    a_run_returns_its_value_and_repetitions_replay_it,
    what_is_tracked_tells_the_whole_story,
];

async fn a_failure_is_recorded_and_the_operation_runs_again_at_once<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let process = bench.process();
    for attempt in 1..=3 {
        bench.pass(1);
        let run = process.run(operation("k"), async || Err::<(), _>(format!("no {attempt}"))).await;
        assert!(matches!(run, Err(RunError::Handler(message)) if message == format!("no {attempt}")));

        let tracked = process.show(&identity("k")).await.unwrap().unwrap();
        assert_eq!(
            (tracked.status, tracked.attempt, tracked.error_count),
            (Status::Failed, attempt, attempt)
        );
        assert_eq!(tracked.error, Some(format!("no {attempt}")));
        assert_eq!((tracked.ending, tracked.finished_at), (Some(Ending::Reported), Some(bench.now())));
    }
    let run = process.run(operation("k"), async || Ok::<_, String>(4)).await.unwrap();
    assert_eq!((run.value, run.replayed), (4, false));
}

async fn a_panic_is_caught_recorded_and_of_its_own_kind<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let run = process.run(operation("k"), async || -> Result<(), String> { panic!("out of {}", "cheese") });
    assert_eq!(run_kind(run.await), ErrorKind::Panicked);
    let tracked = process.show(&identity("k")).await.unwrap().unwrap();
    assert_eq!((tracked.status, tracked.ending), (Status::Failed, Some(Ending::Panicked)));
    assert_eq!(tracked.error.as_deref(), Some("out of cheese"));

    let run: Outcome<u8> = process.run(operation("k"), async || Ok::<_, String>(2)).await.unwrap();
    assert_eq!(run.value, 2);
}

async fn a_dropped_guard_records_a_failure<S: Transactional + Clone>(bench: Bench<S>) {
    drop(won(bench.process().claim(operation("k")).await));
    let tracked = bench.until_tracked("k", |it| it.status == Status::Failed).await;
    assert_eq!(tracked.ending, Some(Ending::Dropped));
    assert_eq!(won(bench.process().claim(operation("k")).await).attempt(), 2);
}

async fn a_dropped_run_records_a_failure<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let run = process.run(operation("k"), async || {
        begun.send(()).unwrap();
        std::future::pending::<Result<(), String>>().await
    });
    tokio::select! {
        _ = run => unreachable!("the work never ends"),
        _ = has_begun => {}
    }
    bench.until_tracked("k", |it| it.status == Status::Failed && it.ending == Some(Ending::Dropped)).await;
}

async fn a_finish_survives_a_caller_that_goes_away<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    // Dropped before it was polled at all, and after one poll.
    drop(won(process.claim(operation("unpolled")).await).finish("a"));
    let finish = won(process.claim(operation("polled")).await).finish("b");
    let _ = futures_util::FutureExt::now_or_never(finish);
    drop(won(process.claim(operation("failed")).await).fail("no"));

    for (key, answer) in [("unpolled", b"a"), ("polled", b"b")] {
        bench.until_tracked(key, |it| it.status == Status::Finished).await;
        assert_eq!(replayed(process.claim(operation(key)).await), answer);
    }
    bench
        .until_tracked("failed", |it| it.status == Status::Failed && it.ending == Some(Ending::Reported))
        .await;
}

async fn a_result_after_the_expiration_is_refused_and_recorded_as_a_failure<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let guard = won(bench.process().claim(operation("k").expiration(seconds(5))).await);
    bench.pass(5);
    assert_eq!(kind(guard.finish("late").await), ErrorKind::Expired);
    let tracked = bench.process().show(&identity("k")).await.unwrap().unwrap();
    assert_eq!(
        (tracked.status, tracked.ending, tracked.error_count),
        (Status::Failed, Some(Ending::TooLate), 1)
    );
}

async fn a_finished_operation_replays_until_its_record_expires<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process().retention(seconds(60));
    let day = || operation("k").expiration(seconds(3600));
    won(process.claim(day()).await).finish("one").await.unwrap();
    bench.pass(3600 + 59);
    assert_eq!(replayed(process.claim(day()).await), b"one");
    bench.pass(1);
    won(process.claim(day()).await).finish("two").await.unwrap();
    assert_eq!(replayed(process.claim(day()).await), b"two");
}

async fn a_run_returns_its_value_and_repetitions_replay_it<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let mut runs = 0;
    for replayed in [false, true, true] {
        let outcome = process
            .run(operation("k"), async || {
                runs += 1;
                Ok::<_, String>((runs, "text".to_owned(), Some(vec![1.5])))
            })
            .await
            .unwrap();
        assert_eq!(outcome.value, (1, "text".to_owned(), Some(vec![1.5])));
        assert_eq!(outcome.replayed, replayed);
    }
    assert_eq!(runs, 1);

    // The stored value is asked for as something that it is not.
    let run = process.run(operation("k"), async || Ok::<_, String>(7_u8)).await;
    assert_eq!(run_kind(run), ErrorKind::Store(evenkeel_core::ErrorKind::Corrupt));
}

async fn what_is_tracked_tells_the_whole_story<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let start = bench.now();
    let reference_time = start - seconds(10);
    let asked = operation("k").payload("p").reference_time(reference_time).expiration(seconds(100));
    let asked = asked.timeout(seconds(20));
    won(process.claim(asked.clone()).await).fail("once").await.unwrap();
    bench.pass(3);
    let guard = won(process.claim(asked.clone()).await);

    let tracked = process.show(asked.identity()).await.unwrap().unwrap();
    assert_eq!(tracked.identity, *asked.identity());
    assert_eq!((tracked.status, tracked.attempt), (Status::Running, 2));
    assert_eq!((tracked.reference_time, tracked.started_at), (reference_time, start + seconds(3)));
    assert_eq!((tracked.finished_at, tracked.lease_until), (None, start + seconds(23)));
    assert_eq!((tracked.timeout, tracked.expires_at), (seconds(20), Some(reference_time + seconds(100))));
    assert_eq!((tracked.error_count, tracked.error.as_deref()), (1, Some("once")));

    bench.pass(2);
    guard.finish("done").await.unwrap();
    let tracked = process.show(asked.identity()).await.unwrap().unwrap();
    assert_eq!((tracked.status, tracked.finished_at), (Status::Finished, Some(start + seconds(5))));
    assert_eq!((tracked.error_count, tracked.error), (1, None));
}
