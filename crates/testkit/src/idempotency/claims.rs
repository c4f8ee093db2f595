use evenkeel_core::{Scan, StoreExt, Transactional};
use evenkeel_idempotency::{ErrorKind, Fingerprint, OnInterrupted, Operation, Scope};

use super::bench::{Bench, kind, operation, replayed, seconds, won};

super::cases![
    a_fresh_operation_runs_and_a_repetition_gets_its_answer,
    scope_target_and_what_it_is_beside_tell_operations_apart,
    a_missing_or_malformed_key_is_invalid_input,
    another_fingerprint_is_a_mismatch_whatever_was_found,
    an_expired_arrival_leaves_the_store_untouched,
    an_expired_arrival_gets_the_answer_of_a_finished_operation,
    a_running_operation_is_refused_with_a_time_to_come_back,
    every_other_cell_of_the_decision_table_holds_on_the_store,
    zero_is_no_expiration_and_no_timeout,
    the_lock_does_not_depend_on_the_reference_time,
];

async fn a_fresh_operation_runs_and_a_repetition_gets_its_answer<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let guard = won(process.claim(operation("k").payload("p")).await);
    assert_eq!(guard.attempt(), 1);
    guard.finish("the answer").await.unwrap();

    for process in [process, bench.process()] {
        assert_eq!(replayed(process.claim(operation("k").payload("p")).await), b"the answer");
    }
}

async fn scope_target_and_what_it_is_beside_tell_operations_apart<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let principal = |name: &str| Scope::Principal(name.to_owned());
    let operations = || {
        [
            Operation::new(Scope::Global, "charge", "k"),
            Operation::new(principal("a"), "charge", "k"),
            Operation::new(principal("b"), "charge", "k"),
            Operation::new(Scope::Global, "refund", "k"),
            Operation::new(Scope::Global, "charge", "k").beside("order-17"),
        ]
    };
    for (i, operation) in operations().into_iter().enumerate() {
        won(process.claim(operation).await).finish(i.to_string()).await.unwrap();
    }
    for (i, operation) in operations().into_iter().enumerate() {
        assert_eq!(replayed(process.claim(operation).await), i.to_string().as_bytes());
    }
}

async fn a_missing_or_malformed_key_is_invalid_input<S: Transactional + Clone>(bench: Bench<S>) {
    for key in ["", "line\nbreak", "nul\0", &"k".repeat(256)] {
        let claim = bench.process().claim(operation(key)).await;
        assert_eq!(kind(claim), ErrorKind::InvalidInput, "{key:?}");
    }
    won(bench.process().claim(operation(&"k".repeat(255))).await).finish("").await.unwrap();
}

async fn another_fingerprint_is_a_mismatch_whatever_was_found<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    let one = |key: &str| operation(key).fingerprint(Fingerprint::of("one")).timeout(seconds(5));
    let _lapsed = won(process.claim(one("lapsed")).await);
    bench.pass(6);
    let _running = won(process.claim(one("running")).await);
    won(process.claim(one("finished")).await).finish("").await.unwrap();
    won(process.claim(one("failed")).await).fail("no").await.unwrap();

    for key in ["lapsed", "running", "finished", "failed"] {
        let other = operation(key).fingerprint(Fingerprint::of("other"));
        assert_eq!(kind(process.claim(other).await), ErrorKind::Mismatch, "{key}");
        let expired = operation(key).reference_time(bench.now() - seconds(9)).expiration(seconds(1));
        assert_eq!(kind(process.claim(expired).await), ErrorKind::Mismatch, "{key}");
    }
}

async fn an_expired_arrival_leaves_the_store_untouched<S: Transactional + Clone>(bench: Bench<S>) {
    let expired = operation("k").reference_time(bench.now() - seconds(60)).expiration(seconds(60));
    assert_eq!(kind(bench.process().claim(expired).await), ErrorKind::Expired);

    assert_eq!(bench.process().show(operation("k").identity()).await.unwrap(), None);
    let listed = Scan::new("idempotency.state", "running", 10, bench.now());
    assert_eq!(bench.store.scan_merged(listed).await.unwrap(), []);
}

async fn an_expired_arrival_gets_the_answer_of_a_finished_operation<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let process = bench.process();
    let brief = || operation("k").reference_time(bench.now()).expiration(seconds(60));
    won(process.claim(brief()).await).finish("kept").await.unwrap();
    let first = brief();
    bench.pass(61);
    assert_eq!(replayed(process.claim(first).await), b"kept");
}

async fn a_running_operation_is_refused_with_a_time_to_come_back<S: Transactional + Clone>(bench: Bench<S>) {
    let _guard = won(bench.process().claim(operation("k")).await);
    for (pass, back_in) in [(0, 1), (5, 5), (4, 9)] {
        bench.pass(pass);
        let error = bench.process().claim(operation("k")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Running);
        assert_eq!(error.retry(), evenkeel_core::RetryHint::After(seconds(back_in)), "after {pass}");
    }
}

async fn every_other_cell_of_the_decision_table_holds_on_the_store<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let process = bench.process();
    let start = bench.now();
    let brief = |key: &str| operation(key).reference_time(start).expiration(seconds(60)).timeout(seconds(5));
    let _lapsed = [won(process.claim(brief("lapsed")).await), won(process.claim(brief("refused")).await)];
    won(process.claim(brief("failed")).await).fail("no").await.unwrap();
    bench.pass(30);

    // Not expired.
    assert_eq!(won(process.claim(brief("lapsed")).await).attempt(), 2);
    let refused = brief("refused").on_interrupted(OnInterrupted::Refuse);
    assert_eq!(kind(process.claim(refused).await), ErrorKind::Interrupted);
    let failed = won(process.claim(brief("failed")).await);
    assert_eq!(failed.attempt(), 2);
    failed.fail("no").await.unwrap();

    // Expired, by what is recorded as by what arrives.
    bench.pass(26);
    let running = won(process.claim(brief("running")).await);
    bench.pass(4);
    let fresh = |key: &str| operation(key).timeout(seconds(5));
    for key in ["running", "refused", "failed"] {
        assert_eq!(kind(process.claim(brief(key)).await), ErrorKind::Expired, "{key}");
        assert_eq!(kind(process.claim(fresh(key)).await), ErrorKind::Expired, "{key}");
    }
    drop(running);
}

async fn zero_is_no_expiration_and_no_timeout<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    won(process.claim(operation("k")).await).finish("for ever").await.unwrap();
    let guard = won(process.claim(operation("slow")).await);
    for _ in 0..30 {
        let renewed = bench.now() + seconds(20);
        bench.pass(10);
        bench.until_tracked("slow", |it| it.lease_until > renewed).await;
    }
    guard.finish("at last").await.unwrap();
    assert_eq!(replayed(process.claim(operation("slow")).await), b"at last");

    bench.pass(3600 * 24 * 365 * 100);
    assert_eq!(replayed(process.claim(operation("k")).await), b"for ever");
}

async fn the_lock_does_not_depend_on_the_reference_time<S: Transactional + Clone>(bench: Bench<S>) {
    let long_ago = || operation("k").reference_time(evenkeel_core::Timestamp::EPOCH).timeout(seconds(20));
    let _guard = won(bench.process().claim(long_ago()).await);
    bench.pass(9);
    assert_eq!(kind(bench.process().claim(long_ago()).await), ErrorKind::Running);
    let to_come = operation("k").reference_time(bench.now() + seconds(3600)).timeout(seconds(20));
    assert_eq!(kind(bench.process().claim(to_come).await), ErrorKind::Running);
}
