use std::sync::Mutex;

use evenkeel_core::{Expect, Key, StoreExt, Transactional};
use evenkeel_idempotency::{Content, Ending, ErrorKind, RunError, Status};

use super::bench::{Bench, identity, kind, operation, replayed, run_kind, seconds, take_effect, won};

super::cases![
    the_writes_and_the_answer_are_one_commit,
    a_failure_rolls_the_writes_back_to_nothing,
    a_panic_rolls_the_writes_back_to_nothing,
    a_result_after_the_expiration_rolls_the_writes_back,
    an_owner_that_lost_its_lease_cannot_commit_its_writes,
    a_conflict_of_the_writes_is_a_failure_that_may_run_again,
    a_dropped_run_rolls_the_writes_back,
    work_that_keeps_its_transaction_commits_nothing,
    a_transaction_that_nobody_used_commits_the_answer,
    the_writes_land_beside_what_the_operation_is_beside,
    the_closure_may_borrow_and_run_in_a_spawned_task,
    the_answer_may_be_left_out_of_the_commit,
];

async fn the_writes_and_the_answer_are_one_commit<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    for replayed in [false, true] {
        let outcome = process
            .run_tx(operation("k"), async |mut tx| {
                take_effect(&mut tx, "k").await?;
                Ok::<_, evenkeel_core::Error>(7)
            })
            .await
            .unwrap();
        assert_eq!((outcome.value, outcome.replayed), (7, replayed));
        assert_eq!(bench.effects("k").await, 1);
    }
}

async fn a_failure_rolls_the_writes_back_to_nothing<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let run = process.run_tx(operation("k"), async |mut tx| {
        take_effect(&mut tx, "k").await.unwrap();
        Err::<(), _>("declined")
    });
    assert!(matches!(run.await, Err(RunError::Handler("declined"))));
    assert_eq!(bench.effects("k").await, 0);
    let tracked = process.show(&identity("k")).await.unwrap().unwrap();
    assert_eq!((tracked.status, tracked.error_count), (Status::Failed, 1));
    assert_eq!((tracked.error.as_deref(), tracked.finished_at), (Some("declined"), Some(bench.now())));

    charge(&bench, "k").await.unwrap();
    assert_eq!(bench.effects("k").await, 1);
}

async fn a_panic_rolls_the_writes_back_to_nothing<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let run = process.run_tx(operation("k"), async |mut tx| -> Result<(), String> {
        take_effect(&mut tx, "k").await.unwrap();
        panic!("halfway")
    });
    assert_eq!(run_kind(run.await), ErrorKind::Panicked);
    assert_eq!(bench.effects("k").await, 0);
    let tracked = process.show(&identity("k")).await.unwrap().unwrap();
    assert_eq!((tracked.ending, tracked.error.as_deref()), (Some(Ending::Panicked), Some("halfway")));

    charge(&bench, "k").await.unwrap();
    assert_eq!(bench.effects("k").await, 1);
}

async fn a_result_after_the_expiration_rolls_the_writes_back<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let run = process.run_tx(operation("k").expiration(seconds(5)), async |mut tx| {
        take_effect(&mut tx, "k").await?;
        bench.pass(5);
        Ok::<_, evenkeel_core::Error>(7)
    });
    assert_eq!(run_kind(run.await), ErrorKind::Expired);
    assert_eq!(bench.effects("k").await, 0);
    let tracked = process.show(&identity("k")).await.unwrap().unwrap();
    assert_eq!((tracked.status, tracked.ending), (Status::Failed, Some(Ending::TooLate)));
}

async fn an_owner_that_lost_its_lease_cannot_commit_its_writes<S: Transactional + Clone>(bench: Bench<S>) {
    let brief = || operation("k").timeout(seconds(5));
    let late = won(bench.process().claim(brief()).await);
    bench.pass(5);
    charge(&bench, "k").await.unwrap();

    let mut tx = late.begin().await.unwrap();
    tx.batch().append_any("k", [evenkeel_core::NewEvent::new("Charged", "{}", bench.now())]);
    let finish = late.finish_in(tx, Content::Stored("late".into())).await;
    assert_eq!(kind(finish), ErrorKind::LeaseLost);
    assert_eq!(bench.effects("k").await, 1);
    assert_eq!(replayed(bench.process().claim(brief()).await), b"7");
}

async fn a_conflict_of_the_writes_is_a_failure_that_may_run_again<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let key = || Key::new("test", "balance", "account");
    let run = process.run_tx(operation("k"), async |mut tx| {
        take_effect(&mut tx, "k").await?;
        tx.batch().put(key(), "0", Expect::Present);
        Ok::<_, evenkeel_core::Error>(())
    });
    assert_eq!(run_kind(run.await), ErrorKind::Store(evenkeel_core::ErrorKind::Conflict));
    assert_eq!(bench.effects("k").await, 0);
    let tracked = process.show(&identity("k")).await.unwrap().unwrap();
    assert_eq!((tracked.status, tracked.error_count), (Status::Failed, 1));

    charge(&bench, "k").await.unwrap();
    assert_eq!(bench.effects("k").await, 1);
}

async fn a_dropped_run_rolls_the_writes_back<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let (wrote, has_written) = tokio::sync::oneshot::channel();
    let run = process.run_tx(operation("k"), async |mut tx| {
        take_effect(&mut tx, "k").await?;
        wrote.send(()).unwrap();
        std::future::pending::<Result<(), evenkeel_core::Error>>().await
    });
    tokio::select! {
        _ = run => unreachable!("the work never ends"),
        _ = has_written => {}
    }
    bench.until_tracked("k", |it| it.status == Status::Failed).await;
    assert_eq!(bench.effects("k").await, 0);
    charge(&bench, "k").await.unwrap();
    assert_eq!(bench.effects("k").await, 1);
}

async fn work_that_keeps_its_transaction_commits_nothing<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let kept = Mutex::new(None);
    let run = process.run_tx(operation("k"), async |mut tx| {
        let now = tx.batch().now();
        tx.batch().append_any("k", [evenkeel_core::NewEvent::new("Charged", "{}", now)]);
        *kept.lock().unwrap() = Some(tx);
        Ok::<_, String>(())
    });
    assert_eq!(run_kind(run.await), ErrorKind::InvalidInput);
    drop(kept);
    assert_eq!(bench.effects("k").await, 0);
    charge(&bench, "k").await.unwrap();
}

async fn a_transaction_that_nobody_used_commits_the_answer<S: Transactional + Clone>(bench: Bench<S>) {
    let outcome = bench.process().run_tx(operation("k"), async |_tx| Ok::<_, String>(1)).await.unwrap();
    assert_eq!(outcome.value, 1);
    assert_eq!(replayed(bench.process().claim(operation("k")).await), b"1");
}

async fn the_writes_land_beside_what_the_operation_is_beside<S: Transactional + Clone>(bench: Bench<S>) {
    let key = || Key::new("test", "order", "order-17");
    let process = bench.process();
    let run = process.run_tx(operation("k").beside("order-17"), async |mut tx| {
        assert_eq!(*tx.partition(), bench.store.partition_of("order-17"));
        tx.batch().put(key(), "paid", Expect::Absent);
        Ok::<_, String>(())
    });
    run.await.unwrap();
    let at = bench.store.partition_of("order-17");
    let order = bench.store.get_one(&at, bench.now(), &key()).await.unwrap();
    assert_eq!(order.unwrap().value, "paid");
}

async fn the_closure_may_borrow_and_run_in_a_spawned_task<S: Transactional + Clone>(bench: Bench<S>) {
    let task = tokio::spawn({
        let bench = bench.clone();
        async move {
            let (process, key) = (bench.process(), "k".to_owned());
            let mut seen = Vec::new();
            let outcome = process
                .run_tx(operation(&key), async |mut tx| {
                    take_effect(&mut tx, &key).await?;
                    seen.push(key.as_str());
                    Ok::<_, evenkeel_core::Error>(seen.len())
                })
                .await;
            outcome.unwrap().value
        }
    });
    assert_eq!(task.await.unwrap(), 1);
    assert_eq!(bench.effects("k").await, 1);
}

async fn the_answer_may_be_left_out_of_the_commit<S: Transactional + Clone>(bench: Bench<S>) {
    let guard = won(bench.process().claim(operation("k")).await);
    let mut tx = guard.begin().await.unwrap();
    take_effect(&mut tx, "k").await.unwrap();
    guard.finish_in(tx, Content::NotStored { bytes: 5_000_000 }).await.unwrap();

    assert_eq!(run_kind(charge(&bench, "k").await), ErrorKind::AnswerNotStored);
    assert_eq!(bench.effects("k").await, 1);
}

/// What a client that retries does.
async fn charge<S: Transactional + Clone>(
    bench: &Bench<S>,
    key: &str,
) -> Result<u8, RunError<evenkeel_core::Error>> {
    let process = bench.process();
    let run = process.run_tx(operation(key).timeout(seconds(5)), async |mut tx| {
        take_effect(&mut tx, key).await?;
        Ok(7)
    });
    Ok(run.await?.value)
}
