use evenkeel_core::Transactional;
use evenkeel_idempotency::{Claim, Error, ErrorKind, Guard, Idempotency, OnRunning, Operation};
use tokio::task::JoinHandle;

use super::bench::{Bench, identity, kind, operation, replayed, seconds, won};

super::cases![
    a_waiter_in_the_same_process_gets_the_answer_at_once,
    a_waiter_in_another_process_gets_the_answer_by_looking_again,
    a_waiter_gets_the_failure_of_the_attempt_that_it_waited_for,
    a_waiter_gives_up_when_its_time_is_over,
    a_lapsed_lease_is_taken_over_by_one_of_the_waiters,
    a_waiter_gets_what_comes_of_the_attempt_that_took_over,
    a_waiter_learns_of_a_failure_even_while_another_attempt_runs,
    only_a_new_arrival_runs_a_failed_operation_again,
    a_waiter_with_another_fingerprint_is_a_mismatch_at_once,
];

/// The first claim of a process. Its renewals are scheduled by the time this returns, so that a
/// sleep that comes after is somebody else's.
async fn own<S: Transactional + Clone>(
    bench: &Bench<S>,
    process: &Idempotency<S>,
    operation: Operation,
) -> Guard<S> {
    let sleepers = bench.clock.sleepers();
    let guard = won(process.claim(operation).await);
    bench.clock.wait_for_sleepers(sleepers + 1).await;
    guard
}

/// An arrival in a task of its own that is waiting by the time this returns: its sleep is in place.
async fn wait<S: Transactional + Clone>(
    bench: &Bench<S>,
    process: &Idempotency<S>,
    operation: Operation,
) -> JoinHandle<Result<Claim<S>, Error>> {
    let sleepers = bench.clock.sleepers();
    let process = process.clone();
    let operation = operation.on_running(OnRunning::Wait(seconds(60)));
    let waiting = tokio::spawn(async move { process.claim(operation).await });
    bench.clock.wait_for_sleepers(sleepers + 1).await;
    waiting
}

async fn a_waiter_in_the_same_process_gets_the_answer_at_once<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let guard = own(&bench, &process, operation("k")).await;
    let waiting = wait(&bench, &process, operation("k")).await;
    // The clock stands still: nothing but the wake-up can bring the answer.
    guard.finish("the answer").await.unwrap();
    assert_eq!(replayed(waiting.await.unwrap()), b"the answer");
}

async fn a_waiter_in_another_process_gets_the_answer_by_looking_again<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let guard = own(&bench, &bench.process(), operation("k")).await;
    let waiting = wait(&bench, &bench.process(), operation("k")).await;
    guard.finish("the answer").await.unwrap();
    bench.pass(1);
    assert_eq!(replayed(waiting.await.unwrap()), b"the answer");
}

async fn a_waiter_gets_the_failure_of_the_attempt_that_it_waited_for<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let process = bench.process();
    let guard = own(&bench, &process, operation("k")).await;
    let waiters = [
        wait(&bench, &process, operation("k")).await,
        wait(&bench, &process, operation("k")).await,
        wait(&bench, &bench.process(), operation("k")).await,
    ];
    guard.fail("declined").await.unwrap();
    bench.pass(1);
    for waiting in waiters {
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Failed, "declined"));
    }
    assert_eq!(process.show(&identity("k")).await.unwrap().unwrap().attempt, 1);
}

async fn a_waiter_gives_up_when_its_time_is_over<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let _guard = own(&bench, &process, operation("k")).await;
    let none = operation("k").on_running(OnRunning::Wait(seconds(0)));
    assert_eq!(kind(process.claim(none).await), ErrorKind::Running);

    let waiting = wait(&bench, &process, operation("k")).await;
    let given_up = tokio::spawn(async move { kind(waiting.await.unwrap()) });
    let start = bench.now();
    while !given_up.is_finished() {
        bench.clock.advance(std::time::Duration::from_millis(500));
        // The owner lives, which takes some doing while time flies.
        bench.until_tracked("k", |it| it.lease_until > bench.now() + seconds(19)).await;
    }
    assert_eq!(given_up.await.unwrap(), ErrorKind::Running);
    assert!(bench.now().since(start) >= seconds(60));
}

async fn a_lapsed_lease_is_taken_over_by_one_of_the_waiters<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let _gone = own(&bench, &process, operation("k").timeout(seconds(5))).await;
    let one = wait(&bench, &process, operation("k")).await;
    let other = wait(&bench, &process, operation("k")).await;
    bench.pass(5);

    let (owner, waiting) = tokio::select! {
        claim = one => (won(claim.unwrap()), Waiting::Other),
        claim = other => (won(claim.unwrap()), Waiting::One),
    };
    assert_eq!(owner.attempt(), 2, "{waiting:?} waits on");
    owner.finish("second try").await.unwrap();
    assert_eq!(replayed(process.claim(operation("k")).await), b"second try");
}

#[derive(Debug)]
enum Waiting {
    One,
    Other,
}

async fn a_waiter_gets_what_comes_of_the_attempt_that_took_over<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let _gone = own(&bench, &process, operation("k").timeout(seconds(5))).await;
    let waiting = wait(&bench, &process, operation("k").timeout(seconds(90))).await;
    bench.pass(4);
    // Whoever comes first after the lapse takes over; the other follows that attempt.
    let other = wait(&bench, &process, operation("k").timeout(seconds(90))).await;
    bench.pass(1);
    let finish = |claim: Result<Claim<S>, Error>| async {
        match claim.unwrap() {
            Claim::Run(guard) => {
                assert_eq!(guard.attempt(), 2);
                guard.finish("second try").await.unwrap().content
            }
            Claim::Replay(answer) => answer.content,
        }
    };
    let (one, other) = tokio::join!(async { finish(waiting.await.unwrap()).await }, async {
        finish(other.await.unwrap()).await
    });
    assert_eq!(one, other);
}

async fn a_waiter_learns_of_a_failure_even_while_another_attempt_runs<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let guard = own(&bench, &bench.process(), operation("k")).await;
    let waiting = wait(&bench, &bench.process(), operation("k")).await;
    guard.fail("first").await.unwrap();
    let second = won(bench.process().claim(operation("k")).await);
    bench.pass(1);
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Failed, "first"));
    second.finish("").await.unwrap();
}

async fn only_a_new_arrival_runs_a_failed_operation_again<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let guard = own(&bench, &process, operation("k")).await;
    let mut waiters = Vec::new();
    for _ in 0..20 {
        waiters.push(wait(&bench, &process, operation("k")).await);
    }
    guard.fail("no").await.unwrap();
    for waiting in waiters {
        assert_eq!(kind(waiting.await.unwrap()), ErrorKind::Failed);
    }
    assert_eq!(won(process.claim(operation("k")).await).attempt(), 2);
}

async fn a_waiter_with_another_fingerprint_is_a_mismatch_at_once<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let _guard = own(&bench, &process, operation("k").payload("one")).await;
    let other = operation("k").payload("other").on_running(OnRunning::Wait(seconds(60)));
    assert_eq!(kind(process.claim(other).await), ErrorKind::Mismatch);
}
