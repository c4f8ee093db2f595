use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use evenkeel_core::{SystemClock, Transactional};
use evenkeel_idempotency::{Claim, ErrorKind, Idempotency, OnRunning, RunError};

use super::bench::{Bench, operation, seconds, take_effect};

super::cases![
    a_thousand_simultaneous_claims_run_once,
    the_loser_of_a_first_arrival_does_not_run,
    duplicates_that_wait_for_a_failing_operation_do_not_each_run,
    many_operations_at_once_each_take_effect_once,
];

async fn a_thousand_simultaneous_claims_run_once<S: Transactional + Clone>(bench: Bench<S>) {
    let processes: Vec<_> = (0..4).map(|_| steady(&bench)).collect();
    let runs = Arc::new(AtomicU32::new(0));
    let claims: Vec<_> = (0..1000)
        .map(|i| {
            let (process, runs) = (processes[i % processes.len()].clone(), Arc::clone(&runs));
            tokio::spawn(async move {
                let waits = operation("k").on_running(OnRunning::Wait(seconds(3600)));
                let run = process.run(waits, async || Ok::<_, String>(runs.fetch_add(1, Ordering::Relaxed)));
                run.await.unwrap().value
            })
        })
        .collect();
    for claim in pump(&bench, claims).await {
        assert_eq!(claim, 0);
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

async fn the_loser_of_a_first_arrival_does_not_run<S: Transactional + Clone>(bench: Bench<S>) {
    for round in 0..20 {
        let key = format!("k{round}");
        let (one, other) = (bench.process(), bench.process());
        let claims = tokio::join!(one.claim(operation(&key)), other.claim(operation(&key)));
        let (guard, loser) = match claims {
            (Ok(Claim::Run(guard)), loser) | (loser, Ok(Claim::Run(guard))) => (guard, loser),
            claims => panic!("one was to win: {claims:?}"),
        };
        assert_eq!(loser.unwrap_err().kind(), ErrorKind::Running);
        guard.finish("").await.unwrap();
    }
}

async fn duplicates_that_wait_for_a_failing_operation_do_not_each_run<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let (runs, answered) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let processes: Vec<_> = (0..4).map(|_| steady(&bench)).collect();
    let arrivals: Vec<_> = (0..100)
        .map(|i| {
            let process = processes[i % processes.len()].clone();
            let (runs, answered) = (Arc::clone(&runs), Arc::clone(&answered));
            tokio::spawn(async move {
                let waits = operation("k").on_running(OnRunning::Wait(seconds(3600)));
                let run = process.run(waits, async || {
                    runs.fetch_add(1, Ordering::Relaxed);
                    // Fails only when all others have arrived.
                    while answered.load(Ordering::Relaxed) < 99 {
                        tokio::task::yield_now().await;
                    }
                    Err::<(), _>("no")
                });
                answered.fetch_add(1, Ordering::Relaxed);
                match run.await {
                    Err(RunError::Handler(message)) => assert_eq!(message, "no"),
                    Err(RunError::Idempotency(error)) => assert_eq!(error.kind(), ErrorKind::Failed),
                    Ok(outcome) => panic!("it was to fail: {outcome:?}"),
                }
            })
        })
        .collect();
    pump(&bench, arrivals).await;
    assert!(runs.load(Ordering::Relaxed) < 10, "{runs:?} runs");
}

async fn many_operations_at_once_each_take_effect_once<S: Transactional + Clone>(bench: Bench<S>) {
    let process = steady(&bench);
    let runs: Vec<_> = (0..200)
        .map(|i| {
            let (process, key) = (process.clone(), format!("k{}", i % 50));
            tokio::spawn(async move {
                let waits = operation(&key).on_running(OnRunning::Wait(seconds(3600)));
                let run = process.run_tx(waits, async |mut tx| {
                    take_effect(&mut tx, &key).await?;
                    Ok::<_, evenkeel_core::Error>(key.clone())
                });
                assert_eq!(run.await.unwrap().value, key);
            })
        })
        .collect();
    pump(&bench, runs).await;
    for i in 0..50 {
        assert_eq!(bench.effects(&format!("k{i}")).await, 1);
    }
    assert!(process.running(None, 1).await.unwrap().operations.is_empty());
}

/// A process whose leases outlast the waits, though time flies here and threads do not.
fn steady<S: Transactional + Clone>(bench: &Bench<S>) -> Idempotency<S> {
    bench.process().lease(seconds(24 * 3600))
}

/// Joins tasks that wait by the clock, moving it whenever they sleep.
async fn pump<S, T: Send + 'static>(bench: &Bench<S>, tasks: Vec<tokio::task::JoinHandle<T>>) -> Vec<T> {
    let all = futures_util::future::try_join_all(tasks);
    let clock = bench.clock.clone();
    let ticking = async move {
        loop {
            // A store that is far away takes time by the machine's clock: waits are not to end before.
            SystemClock::shared().sleep(std::time::Duration::from_millis(1)).await;
            clock.advance(std::time::Duration::from_millis(50));
        }
    };
    tokio::select! {
        results = all => results.unwrap(),
        () = ticking => unreachable!("the clock ticks on"),
    }
}
