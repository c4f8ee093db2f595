use std::time::Duration;

use evenkeel_choreograph::{Definition, RunState, StepKey, VersionPolicy};
use evenkeel_core::{ErrorKind, Transactional};

use super::bench::{Bench, ONE, THREE, TWO, kind, work};

super::cases![
    new_runs_get_the_version_registered_last_and_others_go_on_with_theirs,
    a_pinned_run_waits_for_a_worker_that_has_its_version,
    a_run_is_parked_where_the_policy_says_so,
    a_run_of_an_unknown_definition_is_left_alone,
    a_version_is_registered_once,
];

/// The version with this last step.
fn version<S: Transactional + Clone>(
    bench: &Bench<S>,
    last: StepKey<u32>,
    policy: VersionPolicy,
) -> Definition<u32> {
    Definition::<u32>::builder("changes")
        .version_policy(policy)
        .step(ONE, bench.seen.gives(1))
        .sleep(Duration::from_mins(1))
        .step(last, bench.seen.gives(2))
        .build()
        .unwrap()
}

async fn new_runs_get_the_version_registered_last_and_others_go_on_with_theirs<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let [old, new] = [TWO, THREE].map(|last| version(&bench, last, VersionPolicy::Pin));
    bench.process([&old]).start("changes", "old", &0).await.unwrap();
    let process = bench.process([&old, &new]);
    process.start("changes", "new", &0).await.unwrap();
    let _worker = work(&process);
    for (run, version, last) in [("old", old.version(), TWO), ("new", new.version(), THREE)] {
        let ended = bench.outcome(&process, run).await;
        assert_eq!((ended.version.as_str(), ended.get(last).unwrap()), (version, Some(2)), "{run}");
        assert_eq!((ended.state, ended.values.len()), (RunState::Completed, 3), "{run}");
    }
}

async fn a_pinned_run_waits_for_a_worker_that_has_its_version<S: Transactional + Clone>(bench: Bench<S>) {
    let [old, new] = [TWO, THREE].map(|last| version(&bench, last, VersionPolicy::Pin));
    let before = bench.process([&old]);
    before.start("changes", "r", &0).await.unwrap();
    let worker = work(&before);
    bench.until_seen("one").await;
    bench.settle().await;
    drop(worker);

    let after = bench.process([&new]);
    let _newer = work(&after);
    bench.pass(Duration::from_mins(5)).await;
    assert_eq!(bench.state(&after, "r").await, RunState::Running);
    assert_eq!(bench.seen.take(), ["one"], "never mixed");

    let _older = work(&before);
    assert_eq!(bench.outcome(&before, "r").await.get(TWO).unwrap(), Some(2));
    assert_eq!(bench.seen.take(), ["two"]);
}

async fn a_run_is_parked_where_the_policy_says_so<S: Transactional + Clone>(bench: Bench<S>) {
    let [old, new] = [TWO, THREE].map(|last| version(&bench, last, VersionPolicy::Park));
    let before = bench.process([&old]);
    before.start("changes", "r", &0).await.unwrap();
    let worker = work(&before);
    bench.until_seen("one").await;
    bench.settle().await;
    drop(worker);

    let after = bench.process([&new]);
    let newer = work(&after);
    let run = bench.outcome(&after, "r").await;
    assert_eq!(run.state, RunState::Parked);
    let error = run.error.unwrap().to_string();
    assert!(error.contains(old.version()) && error.contains("changes"), "{error}");
    drop(newer);

    before.resume("r").await.unwrap();
    let _older = work(&before);
    assert_eq!(bench.outcome(&before, "r").await.state, RunState::Completed);
    assert_eq!(bench.seen.take(), ["one", "two"]);
}

async fn a_run_of_an_unknown_definition_is_left_alone<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process([&version(&bench, TWO, VersionPolicy::Park)]);
    process.start("changes", "r", &0).await.unwrap();
    let _stranger = work(&bench.stranger());
    bench.pass(Duration::from_mins(2)).await;
    assert_eq!(bench.state(&process, "r").await, RunState::Running);
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Completed);
}

async fn a_version_is_registered_once<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = version(&bench, TWO, VersionPolicy::Pin);
    let process = bench.process_tx(&definition.clone().lift::<S::Conn>());
    assert_eq!(kind(process.register(definition)), ErrorKind::InvalidInput);
}
