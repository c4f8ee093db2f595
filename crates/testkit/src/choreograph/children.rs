use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_choreograph::{ChildOutcome, Definition, RunState, StepKey};
use evenkeel_core::{ErrorKind, Store, StoreExt, Transactional};

use super::bench::{Bench, Ctx, Fallible, ONE, Process, Seen, TWO, kind, work};

super::cases![
    a_child_in_any_partition_hands_its_values_to_its_parent,
    a_child_that_fails_fails_its_step,
    a_child_is_started_once_whoever_dies,
    a_child_is_a_run_like_any_other,
    a_child_whose_id_was_used_fails_its_step,
    a_child_that_is_retried_does_not_change_a_parent_that_has_ended,
];

const CHILD: StepKey<ChildOutcome> = StepKey::new("child");

fn parent(seen: &Seen) -> Definition<u32> {
    Definition::<u32>::builder("parent")
        .step(ONE, seen.gives(1))
        .compensate(seen.takes_back())
        .child(CHILD, "child", |ctx: Ctx| ctx.input() + 1)
        .step(TWO, async |ctx: Ctx| Fallible::Ok(ctx.get(CHILD).unwrap().get(ONE).unwrap_or_default()))
        .build()
        .unwrap()
}

fn child(seen: &Seen) -> Definition<u32> {
    let job = seen.with(async |seen: Seen, ctx: Ctx| {
        seen.add(format!("child of {}", ctx.input()));
        if *ctx.input() == 13 { Err("unlucky".to_owned()) } else { Ok(ctx.input() * 2) }
    });
    Definition::<u32>::builder("child").step(ONE, job).build().unwrap()
}

fn family<S: Transactional + Clone>(bench: &Bench<S>) -> Process<S> {
    bench.process([&parent(&bench.seen), &child(&bench.seen)])
}

async fn a_child_in_any_partition_hands_its_values_to_its_parent<S: Transactional + Clone>(bench: Bench<S>) {
    let process = family(&bench);
    let _worker = work(&process);
    let mut at_home = BTreeSet::new();
    for number in 0..8 {
        let run = format!("run-{number}");
        let [parent, child] =
            [&run, &format!("{run}.child")].map(|run| bench.store.partition_of(run).index());
        at_home.insert(parent == child);
        process.start("parent", &run, &20).await.unwrap();
        let ended = bench.outcome(&process, &run).await;
        assert_eq!((ended.state, ended.get(TWO).unwrap()), (RunState::Completed, Some(42)));
        assert_eq!(ended.get(CHILD).unwrap().unwrap().run(), format!("{run}.child"));
    }
    assert_eq!(at_home.contains(&false), bench.store.info().partitions > 1);
}

async fn a_child_that_fails_fails_its_step<S: Transactional + Clone>(bench: Bench<S>) {
    let process = family(&bench);
    process.start("parent", "r", &12).await.unwrap();
    let _worker = work(&process);
    let run = bench.outcome(&process, "r").await;
    let error = run.error.unwrap();
    assert_eq!((run.state, error.step()), (RunState::Compensated, "child"));
    assert!(
        error.message().contains("\"r.child\" is failed") && error.message().contains("unlucky"),
        "{error}"
    );
    assert_eq!(bench.seen.take(), ["one", "child of 13", "undo one"]);
}

async fn a_child_is_started_once_whoever_dies<S: Transactional + Clone>(bench: Bench<S>) {
    let definitions = [parent(&bench.seen), child(&bench.seen)];
    let register = |process: &Process<S>| {
        definitions.iter().for_each(|definition| process.register(definition.clone()).unwrap());
    };
    bench
        .dying_at_every_call(register, "parent", async |process, run| {
            assert_eq!(bench.inspect(process, run).await.get(TWO).unwrap(), Some(42), "{run}");
            let child = bench.outcome(process, &format!("{run}.child")).await;
            assert_eq!(child.get(ONE).unwrap(), Some(42), "{run}");
            // What was under way at the crash ran twice at most.
            let begun = bench.seen.take().iter().filter(|note| *note == "child of 21").count();
            assert!((1..=2).contains(&begun), "{run}: {begun} times");
        })
        .await;
}

async fn a_child_is_a_run_like_any_other<S: Transactional + Clone>(bench: Bench<S>) {
    let waits = Definition::<u32>::builder("child").wait_for_signal(ONE, None).build().unwrap();
    let process = bench.process([&parent(&bench.seen), &waits]);
    process.start("parent", "r", &20).await.unwrap();
    let _worker = work(&process);
    bench.until(async || process.inspect("r.child").await.unwrap().is_some()).await;
    assert_eq!(bench.state(&process, "r").await, RunState::Running);
    process.signal("r.child", "one", &5).await.unwrap();
    assert_eq!(bench.outcome(&process, "r").await.get(TWO).unwrap(), Some(5));
    assert_eq!(bench.outcome(&process, "r.child").await.input.get(), "21");
}

async fn a_child_whose_id_was_used_fails_its_step<S: Transactional + Clone>(bench: Bench<S>) {
    let process = family(&bench);
    process.start("child", "r.child", &1).await.unwrap();
    process.start("parent", "r", &20).await.unwrap();
    let _worker = work(&process);
    let run = bench.outcome(&process, "r").await;
    let error = run.error.unwrap();
    assert_eq!((run.state, error.step()), (RunState::Compensated, "child"));
    assert!(error.message().contains("another input"), "{error}");
}

async fn a_child_that_is_retried_does_not_change_a_parent_that_has_ended<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let breaks_once = bench.seen.with(async |seen: Seen, _: Ctx| {
        seen.add("child");
        if seen.count("child") == 1 { Err("broken") } else { Ok(1) }
    });
    let child = Definition::<u32>::builder("child").step(ONE, breaks_once).build().unwrap();
    let process = bench.process([&parent(&bench.seen), &child]);
    process.start("parent", "r", &20).await.unwrap();
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Compensated);
    process.retry("r.child").await.unwrap();
    assert_eq!(bench.outcome(&process, "r.child").await.state, RunState::Completed);
    bench.pass(Duration::from_mins(1)).await;
    assert_eq!(bench.state(&process, "r").await, RunState::Compensated);
    assert_eq!(kind(process.retry("r").await), ErrorKind::Conflict);
}
