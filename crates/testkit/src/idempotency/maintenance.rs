use evenkeel_core::{Scan, StoreExt, Transactional};
use evenkeel_idempotency::{Ending, ErrorKind, Guard, Maintained, OnExpired, Operation, Status};

use super::bench::{Bench, identity, kind, operation, replayed, seconds, won};

super::cases![
    running_operations_beyond_their_timeout_are_failed,
    running_operations_beyond_their_expiration_are_failed,
    an_owner_that_lives_is_left_alone,
    expired_operations_are_deleted_by_status,
    every_call_is_bounded,
    a_round_does_all_of_it_and_keeps_what_replays,
    what_ends_is_listed_only_where_it_is_to_be_deleted,
    the_worker_goes_a_round_a_minute_until_it_is_shut_down,
    an_operation_that_runs_again_is_not_deleted_for_its_failure,
    an_entry_whose_operation_is_gone_is_removed,
];

fn day(key: &str) -> Operation {
    operation(key).expiration(seconds(24 * 3600)).timeout(seconds(5))
}

/// Ids in the index under a status.
async fn listed<S: Transactional + Clone>(bench: &Bench<S>, status: &'static str) -> usize {
    let scan = Scan::new("idempotency.state", status, 1000, bench.now());
    bench.store.scan_merged(scan).await.unwrap().len()
}

/// Operations whose end will be listed.
async fn begin<S: Transactional + Clone>(bench: &Bench<S>, count: usize) -> Vec<Guard<S>> {
    let process = bench.process().on_expired(OnExpired::Delete);
    let mut guards = Vec::new();
    for i in 0..count {
        guards.push(won(process.claim(day(&format!("k{i}"))).await));
    }
    guards
}

async fn running_operations_beyond_their_timeout_are_failed<S: Transactional + Clone>(bench: Bench<S>) {
    let guards = begin(&bench, 9).await;
    let maintenance = bench.process().on_expired(OnExpired::Delete).maintenance();
    bench.pass(4);
    assert_eq!(maintenance.fail_timed_out(100).await.unwrap(), 0);
    bench.pass(1);
    assert_eq!(maintenance.fail_timed_out(100).await.unwrap(), 9);
    assert_eq!(maintenance.fail_timed_out(100).await.unwrap(), 0);
    assert_eq!((listed(&bench, "running").await, listed(&bench, "failed").await), (0, 9));

    let tracked = bench.process().show(day("k3").identity()).await.unwrap().unwrap();
    assert_eq!((tracked.status, tracked.ending), (Status::Failed, Some(Ending::Interrupted)));
    assert_eq!((tracked.error_count, tracked.finished_at), (1, Some(bench.now())));
    for guard in guards {
        assert_eq!(kind(guard.finish("late").await), ErrorKind::LeaseLost);
    }
}

async fn running_operations_beyond_their_expiration_are_failed<S: Transactional + Clone>(bench: Bench<S>) {
    let _guards = begin(&bench, 5).await;
    let maintenance = bench.process().maintenance();
    bench.pass(24 * 3600 - 1);
    assert_eq!(maintenance.fail_expired(100).await.unwrap(), 0);
    bench.pass(1);
    assert_eq!(maintenance.fail_expired(100).await.unwrap(), 5);
    assert_eq!(kind(bench.process().claim(day("k1")).await), ErrorKind::Expired);
}

async fn an_owner_that_lives_is_left_alone<S: Transactional + Clone>(bench: Bench<S>) {
    let guard = won(bench.process().claim(operation("k").expiration(seconds(20))).await);
    bench.pass(20);
    bench.until_tracked("k", |it| it.lease_until > bench.now()).await;
    assert_eq!(bench.process().maintenance().run_once(100).await.unwrap(), Maintained::default());
    assert_eq!(kind(guard.finish("late").await), ErrorKind::Expired);
}

async fn expired_operations_are_deleted_by_status<S: Transactional + Clone>(bench: Bench<S>) {
    for (i, guard) in begin(&bench, 6).await.into_iter().enumerate() {
        match i % 2 {
            0 => drop(guard.finish("").await.unwrap()),
            _ => guard.fail("no").await.unwrap(),
        }
    }
    won(bench.process().claim(operation("eternal")).await).finish("").await.unwrap();
    let maintenance = bench.process().maintenance();
    bench.pass(24 * 3600 - 1);
    assert_eq!(maintenance.delete_expired_failed(100).await.unwrap(), 0);
    bench.pass(1);
    assert_eq!(maintenance.delete_expired_failed(100).await.unwrap(), 3);
    assert_eq!(bench.process().show(day("k1").identity()).await.unwrap(), None);
    assert!(bench.process().show(day("k0").identity()).await.unwrap().is_some());
    assert_eq!(maintenance.delete_expired_finished(100).await.unwrap(), 3);
    assert_eq!((listed(&bench, "finished").await, listed(&bench, "failed").await), (0, 0));
    bench.process().show(&identity("eternal")).await.unwrap().unwrap();
}

async fn every_call_is_bounded<S: Transactional + Clone>(bench: Bench<S>) {
    let _guards = begin(&bench, 7).await;
    let maintenance = bench.process().on_expired(OnExpired::Delete).maintenance();
    bench.pass(5);
    for want in [3, 3, 1, 0] {
        assert_eq!(maintenance.fail_timed_out(3).await.unwrap(), want);
    }
    bench.pass(24 * 3600);
    for want in [3, 3, 1, 0] {
        assert_eq!(maintenance.delete_expired_failed(3).await.unwrap(), want);
    }
}

async fn a_round_does_all_of_it_and_keeps_what_replays<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process().retention(seconds(3600));
    let eager = bench.process().retention(seconds(3600)).on_expired(OnExpired::Delete);
    won(process.claim(day("kept")).await).finish("kept").await.unwrap();
    won(eager.claim(day("finished")).await).finish("not kept").await.unwrap();
    won(eager.claim(day("failed")).await).fail("no").await.unwrap();
    let _gone = won(process.claim(day("timed out")).await);
    bench.pass(5);
    let done = eager.maintenance().run_once(100).await.unwrap();
    assert_eq!((done.timed_out, done.expired, done.deleted), (1, 0, 0));

    bench.pass(24 * 3600);
    let done = process.maintenance().run_once(100).await.unwrap();
    assert_eq!((done.timed_out, done.deleted), (0, 3));
    assert_eq!(replayed(process.claim(day("kept")).await), b"kept");
    assert_eq!(process.show(day("finished").identity()).await.unwrap(), None);
}

async fn what_ends_is_listed_only_where_it_is_to_be_deleted<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process();
    won(process.claim(day("finished")).await).finish("").await.unwrap();
    won(process.claim(day("failed")).await).fail("no").await.unwrap();
    assert_eq!((listed(&bench, "finished").await, listed(&bench, "failed").await), (0, 0));

    // A failure that was listed is not any more once it runs again, whoever runs it.
    let eager = process.clone().on_expired(OnExpired::Delete);
    won(eager.claim(day("failed")).await).fail("again").await.unwrap();
    assert_eq!(listed(&bench, "failed").await, 1);
    won(process.claim(day("failed")).await).finish("").await.unwrap();
    assert_eq!((listed(&bench, "finished").await, listed(&bench, "failed").await), (0, 0));
}

async fn the_worker_goes_a_round_a_minute_until_it_is_shut_down<S: Transactional + Clone>(bench: Bench<S>) {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let maintenance = bench.process().maintenance();
    let worker = tokio::spawn(maintenance.run(async move { drop(stopped.await) }));
    let mut rounds = Vec::new();
    for round in 0..3 {
        let key = format!("round {round}");
        let guard = won(bench.process().claim(day(&key)).await);
        let failed = bench.until_tracked(&key, |it| {
            bench.pass(1);
            it.status == Status::Failed
        });
        rounds.push(failed.await.finished_at.unwrap());
        drop(guard);
    }
    assert!(rounds.windows(2).all(|pair| pair[1] >= pair[0] + seconds(60)), "{rounds:?}");
    stop.send(()).unwrap();
    worker.await.unwrap();
}

async fn an_operation_that_runs_again_is_not_deleted_for_its_failure<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let process = bench.process().on_expired(OnExpired::Delete);
    let start = bench.now();
    let brief = || operation("k").reference_time(start).expiration(seconds(60));
    won(process.claim(brief()).await).fail("no").await.unwrap();
    let guard = won(process.claim(brief()).await);
    assert_eq!((listed(&bench, "failed").await, listed(&bench, "running").await), (0, 1));
    bench.pass(59);
    guard.finish("yes").await.unwrap();
    bench.pass(1);
    assert_eq!(process.maintenance().delete_expired_failed(10).await.unwrap(), 0);
    assert_eq!(replayed(process.claim(brief()).await), b"yes");
}

async fn an_entry_whose_operation_is_gone_is_removed<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process().retention(seconds(60));
    let guard = won(process.claim(operation("k").expiration(seconds(10)).timeout(seconds(5))).await);
    bench.pass(10 + 60);
    assert_eq!(process.show(&identity("k")).await.unwrap(), None);
    assert_eq!(listed(&bench, "running").await, 1);
    assert!(process.running(None, 10).await.unwrap().operations.is_empty());
    process.maintenance().run_once(10).await.unwrap();
    assert_eq!(listed(&bench, "running").await, 0);
    assert_eq!(kind(guard.finish("late").await), ErrorKind::LeaseLost);
}
