use std::time::Duration;

use evenkeel_core::Transactional;
use evenkeel_idempotency::{Ending, ErrorKind, Lapse, OnInterrupted, Status};

use super::bench::{Bench, identity, kind, operation, replayed, run_kind, seconds, take_effect, won};

super::cases![
    a_lease_is_renewed_while_its_guard_lives,
    a_lease_is_not_renewed_beyond_the_timeout,
    a_lapsed_lease_is_taken_over_and_its_owner_records_nothing,
    an_owner_beyond_its_timeout_that_nobody_replaced_may_finish,
    a_run_is_dropped_at_its_timeout,
    a_run_is_dropped_when_another_took_over,
    an_interrupted_operation_is_refused_by_policy_until_it_is_released,
    renewals_go_on_after_a_transaction_was_dropped,
    a_lease_may_be_renewed_while_a_transaction_is_finished,
];

async fn a_lease_is_renewed_while_its_guard_lives<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process().lease(seconds(9));
    let guard = won(process.claim(operation("k")).await);
    let other = won(process.claim(operation("other")).await);
    for _ in 0..10 {
        let lease_until = bench.now() + seconds(3 + 9);
        bench.pass(3);
        bench.until_tracked("k", |it| it.lease_until == lease_until).await;
        bench.until_tracked("other", |it| it.lease_until == lease_until).await;
        assert_eq!(kind(bench.process().claim(operation("k")).await), ErrorKind::Running);
    }
    guard.finish("a").await.unwrap();
    other.fail("b").await.unwrap();
    assert_eq!(replayed(process.claim(operation("k")).await), b"a");
}

async fn a_lease_is_not_renewed_beyond_the_timeout<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process().lease(seconds(9));
    let start = bench.now();
    let guard = won(process.claim(operation("k").timeout(seconds(10))).await);
    bench.pass(3);
    bench.until_tracked("k", |it| it.lease_until == start + seconds(10)).await;
    bench.pass(7);
    assert_eq!(guard.lapsed().await, Lapse::TimedOut);
    assert_eq!(won(process.claim(operation("k")).await).attempt(), 2);
}

async fn a_lapsed_lease_is_taken_over_and_its_owner_records_nothing<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let brief = || operation("k").timeout(seconds(5));
    let [mut late, mut failing] = [None, None];
    for owner in [&mut late, &mut failing] {
        *owner = Some(won(bench.process().claim(brief()).await));
        bench.pass(5);
    }
    let owner = won(bench.process().claim(brief()).await);
    assert_eq!(owner.attempt(), 3);
    assert_eq!(kind(late.unwrap().finish("late").await), ErrorKind::LeaseLost);
    assert_eq!(kind(failing.unwrap().fail("late").await), ErrorKind::LeaseLost);
    owner.finish("in time").await.unwrap();
    assert_eq!(replayed(bench.process().claim(brief()).await), b"in time");
}

async fn an_owner_beyond_its_timeout_that_nobody_replaced_may_finish<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let brief = || operation("k").timeout(seconds(5));
    let guard = won(bench.process().claim(brief()).await);
    bench.pass(3600);
    guard.finish("late, but first").await.unwrap();
    assert_eq!(replayed(bench.process().claim(brief()).await), b"late, but first");
}

async fn a_run_is_dropped_at_its_timeout<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let run = process.run_tx(operation("k").timeout(seconds(5)), async |mut tx| {
        take_effect(&mut tx, "k").await?;
        bench.pass(5);
        std::future::pending::<Result<(), evenkeel_core::Error>>().await
    });
    assert_eq!(run_kind(run.await), ErrorKind::TimedOut);
    assert_eq!(bench.effects("k").await, 0);
    let tracked = process.show(&identity("k")).await.unwrap().unwrap();
    assert_eq!((tracked.status, tracked.ending), (Status::Failed, Some(Ending::TooLate)));
    assert_eq!(won(process.claim(operation("k")).await).attempt(), 2);
}

async fn a_run_is_dropped_when_another_took_over<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let run = process.run(operation("k"), async || {
        bench.process().release(&identity("k"), "it hangs").await.unwrap();
        // The renewal finds out.
        bench.pass(10);
        std::future::pending::<Result<(), String>>().await
    });
    assert_eq!(run_kind(run.await), ErrorKind::LeaseLost);
    let tracked = process.show(&identity("k")).await.unwrap().unwrap();
    assert_eq!((tracked.ending, tracked.error_count), (Some(Ending::Released), 1));
}

async fn an_interrupted_operation_is_refused_by_policy_until_it_is_released<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let process = bench.process().on_interrupted(OnInterrupted::Refuse);
    let brief = || operation("k").timeout(seconds(5));
    let gone = won(process.claim(brief()).await);
    bench.pass(5);
    assert_eq!(kind(process.claim(brief()).await), ErrorKind::Interrupted);
    // Maintenance tidies up, which does not make it known what the attempt did.
    assert_eq!(process.maintenance().fail_timed_out(10).await.unwrap(), 1);
    assert_eq!(kind(process.claim(brief()).await), ErrorKind::Interrupted);

    process.release(&identity("k"), "looked into it").await.unwrap();
    let guard = won(process.claim(brief()).await);
    assert_eq!(guard.attempt(), 2);
    assert_eq!(kind(gone.finish("late").await), ErrorKind::LeaseLost);
    // A failure that was reported is not an interruption.
    guard.fail("no").await.unwrap();
    assert_eq!(won(process.claim(brief()).await).attempt(), 3);
}

async fn renewals_go_on_after_a_transaction_was_dropped<S: Transactional + Clone>(bench: Bench<S>) {
    let guard = won(bench.process().claim(operation("k")).await);
    for _ in 0..3 {
        let mut tx = guard.begin().await.unwrap();
        tx.conn().await.unwrap();
        drop(tx);
        let renewed = bench.now() + seconds(39);
        bench.pass(10);
        bench.until_tracked("k", |it| it.lease_until > renewed).await;
    }
    let mut tx = guard.begin().await.unwrap();
    take_effect(&mut tx, "k").await.unwrap();
    guard.finish_in(tx, evenkeel_idempotency::Content::Stored("ok".into())).await.unwrap();
    assert_eq!(bench.effects("k").await, 1);
}

async fn a_lease_may_be_renewed_while_a_transaction_is_finished<S: Transactional + Clone>(bench: Bench<S>) {
    // The transaction is connected, a renewal falls due, and the finish comes at the same time.
    for round in 0..20 {
        let key = format!("k{round}");
        let guard = won(bench.process().lease(Duration::from_millis(300)).claim(operation(&key)).await);
        let mut tx = guard.begin().await.unwrap();
        take_effect(&mut tx, &key).await.unwrap();
        bench.clock.advance(Duration::from_millis(100));
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        guard.finish_in(tx, evenkeel_idempotency::Content::Stored("ok".into())).await.unwrap();
        assert_eq!(bench.effects(&key).await, 1);
    }
}
