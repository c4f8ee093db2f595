//! What a linear definition does on a store, from its start to its end.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Fallible, Running, Seen, settle};
use evenkeel_choreograph::{
    Cancellation, Choreographer, Definition, OnInterrupted, RunFilter, RunState, Started, StepContext,
    StepKey, VersionPolicy,
};
use evenkeel_core::{Batch, Clock, ErrorKind, Store, StoreExt};
use tokio::sync::Semaphore;

const FIND: StepKey<u32, String> = StepKey::new("find");
const DOUBLE: StepKey<u32> = StepKey::new("double");
const LAST: StepKey<u32> = StepKey::new("last");

#[tokio::test]
async fn a_run_hands_on_input_and_values_and_its_outcome_has_them() {
    let bench = Bench::new(4);
    let choreographer = bench.choreographer();
    let definition = Definition::<u32>::builder("sums")
        .step(FIND, async |ctx| {
            assert_eq!((ctx.run_id(), ctx.attempt()), ("run-1", 1));
            ctx.set(LAST, 5).unwrap();
            Fallible::Ok(ctx.input() + 1)
        })
        .pre_check(async |_| Fallible::Ok("looked".to_owned()))
        .step(DOUBLE, async |ctx| Fallible::Ok(*ctx.get(FIND).unwrap() * 2))
        .step(LAST, async |_| Fallible::Ok(1))
        .pre_check(async |_| Err::<(), _>("not needed"))
        .build()
        .unwrap();
    choreographer.register(definition).unwrap();
    assert_eq!(choreographer.start("sums", "run-1", &20).await.unwrap(), Started::New);
    let _worker = Running::start(&choreographer);
    let run = bench.outcome(&choreographer, "run-1").await;
    assert_eq!(
        (run.state, run.get(FIND).unwrap(), run.get(DOUBLE).unwrap()),
        (RunState::Completed, Some(21), Some(42))
    );
    assert_eq!(run.get(LAST).unwrap(), Some(5), "a value set for a step that is skipped");
    assert_eq!(run.pre_check(FIND).unwrap().as_deref(), Some("looked"));
    assert_eq!(run.errors.len(), 1);
    assert_eq!(run.errors[0].to_string(), "step \"last\": pre-check skipped: not needed");
    assert_eq!(run.input.get(), "20");
}

#[tokio::test]
async fn the_same_id_is_the_same_run_and_another_input_is_refused() {
    let bench = Bench::new(1);
    let choreographer = bench.choreographer();
    let step = |name| {
        Definition::<serde_json::Value>::builder(name).unnamed(async |_| Fallible::Ok(())).build().unwrap()
    };
    choreographer.register(step("a")).unwrap();
    choreographer.register(step("b")).unwrap();
    let input = serde_json::json!({"x": 1, "y": 2});
    assert_eq!(choreographer.start("a", "r", &input).await.unwrap(), Started::New);
    assert_eq!(
        choreographer.start("a", "r", &serde_json::json!({"y": 2, "x": 1})).await.unwrap(),
        Started::Existing
    );
    let _worker = Running::start(&choreographer);
    assert_eq!(bench.outcome(&choreographer, "r").await.state, RunState::Completed);
    assert_eq!(choreographer.start("a", "r", &input).await.unwrap(), Started::Existing);

    let error = choreographer.start("a", "r", &7).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("another input"), "{error}");
    let error = choreographer.start("b", "r", &input).await.unwrap_err();
    assert!(error.to_string().contains("another definition"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_started_is_refused() {
    let bench = Bench::new(1);
    let choreographer = bench.choreographer();
    choreographer
        .register(Definition::<u32>::builder("a").unnamed(async |_| Fallible::Ok(())).build().unwrap())
        .unwrap();
    let long = "r".repeat(257);
    for (definition, run, input, kind) in [
        ("a", "r", serde_json::json!("text"), ErrorKind::InvalidInput),
        ("a", "", serde_json::json!(1), ErrorKind::InvalidInput),
        ("a", &long, serde_json::json!(1), ErrorKind::InvalidInput),
        ("b", "r", serde_json::json!(1), ErrorKind::NotFound),
    ] {
        assert_eq!(choreographer.start(definition, run, &input).await.unwrap_err().kind(), kind);
    }
    assert_eq!(choreographer.outcome("nobody").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(choreographer.inspect("nobody").await.unwrap().is_none());
    assert!(choreographer.history("nobody").await.unwrap().is_none());
}

#[tokio::test]
async fn a_run_starts_with_the_callers_batch_at_home_and_elsewhere() {
    let bench = Bench::new(4);
    let choreographer = bench.choreographer();
    choreographer
        .register(
            Definition::<u32>::builder("a")
                .step(DOUBLE, async |ctx| Fallible::Ok(ctx.input() * 2))
                .build()
                .unwrap(),
        )
        .unwrap();
    let _worker = Running::start(&choreographer);
    for (run, index) in [
        ("home", bench.store.partition_of("home").index()),
        ("elsewhere", { (bench.store.partition_of("elsewhere").index() + 1) % 4 }),
    ] {
        let at = bench.store.partitions()[usize::try_from(index).unwrap()].clone();
        let mut batch = Batch::new(at, bench.clock.now());
        choreographer.start_in(&mut batch, "a", run, &4).unwrap();
        assert!(choreographer.inspect(run).await.unwrap().is_none());
        bench.store.commit(batch).await.unwrap();
        bench
            .pass(async {
                while choreographer.inspect(run).await.unwrap().is_none() {
                    settle().await
                }
            })
            .await;
        assert_eq!(bench.outcome(&choreographer, run).await.get(DOUBLE).unwrap(), Some(8));
    }
}

#[tokio::test]
async fn a_run_of_another_version_is_pinned_or_parked_never_mixed() {
    let (bench, seen) = (Bench::new(1), Seen::default());
    let old = |policy| {
        Definition::<()>::builder("versions").version_policy(policy).step(FIND, seen.note(1)).build().unwrap()
    };
    let new = |policy| {
        Definition::<()>::builder("versions")
            .version_policy(policy)
            .step(DOUBLE, seen.note(2))
            .build()
            .unwrap()
    };
    assert_ne!(old(VersionPolicy::Pin).version(), new(VersionPolicy::Pin).version());
    for policy in [VersionPolicy::Pin, VersionPolicy::Park] {
        let run = format!("{policy:?}");
        let before = bench.choreographer();
        before.register(old(policy)).unwrap();
        assert_eq!(before.register(old(policy)).unwrap_err().kind(), ErrorKind::InvalidInput);
        before.start("versions", &run, &()).await.unwrap();

        let after = bench.choreographer();
        after.register(new(policy)).unwrap();
        let worker = Running::start(&after);
        for _ in 0..20 {
            settle().await;
            bench.clock.advance(Duration::from_secs(60));
        }
        let state = after.inspect(&run).await.unwrap().unwrap().state;
        assert_eq!(state, if policy == VersionPolicy::Pin { RunState::Running } else { RunState::Parked });
        worker.kill().await;
        if policy == VersionPolicy::Park {
            after.resume(&run).await.unwrap();
        }
        after.register(old(policy)).unwrap();
        let _worker = Running::start(&after);
        assert_eq!(bench.outcome(&after, &run).await.state, RunState::Completed);
        assert_eq!(seen.take(), ["find"], "under the version that it was started with");
    }
}

#[tokio::test]
async fn runs_are_listed_by_state_definition_and_time() {
    let bench = Bench::new(4);
    let choreographer = bench.choreographer();
    for name in ["a", "b"] {
        choreographer
            .register(Definition::<()>::builder(name).unnamed(async |_| Fallible::Ok(())).build().unwrap())
            .unwrap();
    }
    let mut at = Vec::new();
    for n in 0..10 {
        at.push(bench.clock.now());
        choreographer.start(if n % 2 == 0 { "a" } else { "b" }, &format!("{}", 9 - n), &()).await.unwrap();
        bench.clock.advance(Duration::from_secs(1));
    }
    let ids = async |filter: RunFilter| {
        let page = choreographer.list(filter).await.unwrap();
        (page.runs.iter().map(|run| run.id.clone()).collect::<Vec<_>>().join(""), page.cursor)
    };
    let running = RunFilter::new(RunState::Running);
    assert_eq!(ids(running.clone()).await, ("9876543210".to_owned(), None));
    let (first, cursor) = ids(running.clone().limit(4)).await;
    assert_eq!(first, "9876");
    assert_eq!(ids(running.clone().after(cursor.unwrap())).await.0, "543210");
    assert_eq!(ids(running.clone().definition("b").limit(3)).await.0, "864");
    assert_eq!(ids(running.clone().started(at[2], at[5])).await.0, "765");
    let _worker = Running::start(&choreographer);
    for n in 0..10 {
        bench.outcome(&choreographer, &n.to_string()).await;
    }
    assert_eq!(ids(running).await.0, "");
    assert_eq!(ids(RunFilter::new(RunState::Completed)).await.0, "9876543210");
}

#[tokio::test]
async fn runs_of_all_states_are_listed_in_the_order_of_their_start() {
    let bench = Bench::new(4);
    let choreographer = bench.choreographer();
    let definition = Definition::<bool>::builder("a")
        .unnamed(async |ctx| if *ctx.input() { Err("as asked") } else { Ok(()) })
        .build()
        .unwrap();
    choreographer.register(definition).unwrap();
    let worker = Running::start(&choreographer);
    for n in 0..6 {
        choreographer.start("a", &n.to_string(), &(n % 2 == 0)).await.unwrap();
        bench.outcome(&choreographer, &n.to_string()).await;
        bench.clock.advance(Duration::from_secs(1));
    }
    worker.kill().await;
    choreographer.start("a", "6", &true).await.unwrap();
    for limit in [1, 2, 3, 100] {
        let (mut runs, mut filter) = (Vec::new(), RunFilter::all().limit(limit));
        loop {
            let page = choreographer.list(filter.clone()).await.unwrap();
            assert!(page.runs.len() <= limit);
            runs.extend(page.runs.into_iter().map(|run| format!("{} {}", run.id, run.state)));
            let Some(cursor) = page.cursor else { break };
            filter = filter.after(cursor);
        }
        let expected =
            ["0 failed", "1 completed", "2 failed", "3 completed", "4 failed", "5 completed", "6 running"];
        assert_eq!(runs, expected, "by {limit}");
    }
}

#[tokio::test]
async fn a_page_may_be_short_and_still_have_a_cursor() {
    let bench = Bench::new(1);
    let choreographer = bench.choreographer();
    for name in ["many", "few"] {
        choreographer
            .register(Definition::<()>::builder(name).unnamed(async |_| Fallible::Ok(())).build().unwrap())
            .unwrap();
    }
    for n in 0..600 {
        choreographer.start("many", &format!("{n:03}"), &()).await.unwrap();
    }
    bench.clock.advance(Duration::from_secs(1));
    choreographer.start("few", "last", &()).await.unwrap();
    let filter = RunFilter::new(RunState::Running).definition("few").limit(10);
    let first = choreographer.list(filter.clone()).await.unwrap();
    assert!(first.runs.is_empty());
    let second = choreographer.list(filter.after(first.cursor.unwrap())).await.unwrap();
    assert_eq!((&*second.runs[0].id, second.runs.len(), second.cursor), ("last", 1, None));
}

#[tokio::test]
async fn a_worker_that_shuts_down_puts_its_runs_back_between_steps() {
    let (bench, seen, gate) = (Bench::new(1), Seen::default(), Arc::new(Semaphore::new(0)));
    let definition = Definition::<()>::builder("drains")
        .step(DOUBLE, seen.gated(&gate, 1))
        .on_interrupted(OnInterrupted::Park)
        .step(LAST, seen.note(1))
        .on_interrupted(OnInterrupted::Park)
        .build()
        .unwrap();
    let choreographer = bench.process(definition);
    choreographer.start("drains", "r", &()).await.unwrap();
    let worker = Running::start(&choreographer);
    settle().await;
    let ending = worker.shutdown();
    settle().await;
    assert!(!ending.is_finished(), "it waits for the callback");
    gate.add_permits(1);
    ending.await.unwrap();
    assert_eq!(seen.take(), ["began"]);
    // No lease has to lapse, and nothing was interrupted.
    let _next = Running::start(&choreographer);
    settle().await;
    assert_eq!(choreographer.inspect("r").await.unwrap().unwrap().state, RunState::Completed);
    assert_eq!(seen.take(), ["last"]);
}

#[tokio::test]
async fn a_run_is_forgotten_after_its_retention_and_its_id_is_free_again() {
    let bench = Bench::new(1);
    let choreographer = bench.choreographer().retention(Duration::from_hours(48));
    let definition = Definition::<u32>::builder("forgotten")
        .unnamed(async |ctx| if ctx.attempt() == 1 { Err("once") } else { Ok(()) })
        .retry(2)
        .build()
        .unwrap();
    choreographer.register(definition).unwrap();
    let _worker = Running::start(&choreographer);
    choreographer.start("forgotten", "r", &1).await.unwrap();
    bench.outcome(&choreographer, "r").await;
    bench.clock.advance(Duration::from_hours(47));
    settle().await;
    assert!(choreographer.inspect("r").await.unwrap().is_some());
    bench
        .pass(async {
            while choreographer.inspect("r").await.unwrap().is_some() {
                settle().await
            }
        })
        .await;
    assert!(choreographer.list(RunFilter::new(RunState::Completed)).await.unwrap().runs.is_empty());
    assert_eq!(choreographer.start("forgotten", "r", &2).await.unwrap(), Started::New);
}

#[tokio::test]
async fn what_is_registered_is_told_by_name_on_every_handle() {
    let choreographer = Choreographer::with_store(Bench::new(1).store);
    let of = |name, steps: usize| {
        let builder = Definition::<()>::builder(name).unnamed(async |_| Fallible::Ok(()));
        (1..steps).fold(builder, |builder, _| builder.unnamed(async |_| Fallible::Ok(()))).build().unwrap()
    };
    for (name, steps) in [("b", 1), ("a", 2), ("b", 2)] {
        choreographer.any().register(of(name, steps)).unwrap();
    }
    let told = choreographer.definitions();
    assert_eq!(told, choreographer.any().definitions());
    let names: Vec<_> = told.iter().map(|it| (it.name, it.versions.len())).collect();
    assert_eq!(names, [("a", 1), ("b", 2)]);
    assert_eq!(told[1].versions, [of("b", 1).version(), of("b", 2).version()]);
    assert_eq!(told[1].diagram, of("b", 2).to_mermaid());
}

/// Web handlers and tasks await them.
#[test]
fn every_future_can_be_sent_to_another_thread() {
    fn is_send(_: impl Send) {}
    let choreographer = Choreographer::new(Bench::new(1).store);
    is_send(choreographer.start("a", "r", &()));
    is_send(choreographer.outcome("r"));
    is_send(choreographer.inspect("r"));
    is_send(choreographer.signal("r", "name", &()));
    is_send(choreographer.signal_once("r", "name", "id", &()));
    is_send(choreographer.cancel("r"));
    is_send(choreographer.resume("r"));
    is_send(choreographer.retry("r"));
    is_send(choreographer.list(RunFilter::all()));
    is_send(choreographer.history("r"));
    is_send(choreographer.worker().run(std::future::pending()));
    let definition = Definition::<()>::builder("a").unnamed(async |_| Fallible::Ok(())).build().unwrap();
    is_send(definition.run(()));
    is_send(definition.run_cancellable((), Cancellation::new()));
    is_send(definition.run_many([()]));
    fn waits(ctx: &StepContext<()>) -> impl Send {
        ctx.cancelled()
    }
    let _ = waits;
    is_send(async { Cancellation::new().cancelled().await });
}

#[tokio::test]
async fn a_value_that_does_not_fit_the_store_fails_its_step() {
    const BIG: StepKey<String> = StepKey::new("big");
    let bench = Bench::new(1);
    let definition = Definition::<()>::builder("big")
        .step(BIG, async |_| Fallible::Ok("x".repeat(1 << 20)))
        .build()
        .unwrap();
    let run = bench.run(definition, &()).await;
    assert!(run.error.unwrap().message().contains("too large for the store"));
}
