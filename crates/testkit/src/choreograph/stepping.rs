use std::time::Duration;

use evenkeel_choreograph::{Definition, RunState, Skip, StepKey};
use evenkeel_core::Transactional;

use super::bench::{Bench, Ctx, Fallible, LEASE, ONE, Process, Seen, THREE, TWO, work};

super::cases![
    a_run_hands_on_its_input_and_values_to_every_process,
    what_a_callback_sets_is_kept_with_its_step,
    a_finished_step_never_runs_again,
    a_result_and_the_decision_to_go_on_are_one_commit,
    a_dead_worker_is_replaced_when_its_lease_has_run_out_and_not_before,
    a_run_survives_a_crash_at_every_call,
    a_skipped_job_is_listed_and_the_run_goes_on,
    the_idempotency_key_of_a_step_stays_the_same_and_is_its_own,
    runs_go_on_beside_each_other,
    a_value_that_does_not_fit_the_store_fails_its_step,
    what_finished_is_known_however_long_it_is,
];

const FOUND: StepKey<u32, String> = StepKey::new("found");

async fn a_run_hands_on_its_input_and_values_to_every_process<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("sums")
        .step(FOUND, async |ctx| Fallible::Ok(ctx.input() + 1))
        .pre_check(async |_| Fallible::Ok("looked".to_owned()))
        .step(TWO, bench.seen.hangs_once())
        .step(THREE, async |ctx: Ctx| {
            let found = ctx.pre_check(FOUND).is_some_and(|found| *found == "looked");
            Fallible::Ok(if found { *ctx.get(FOUND).unwrap() * 2 + ctx.input() } else { 0 })
        })
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("sums", "r", &20).await.unwrap();
    let worker = work(&process);
    bench.until_seen("two 1").await;
    drop(worker);
    bench.lapse().await;
    let process = bench.process([&definition]);
    let _worker = work(&process);
    let run = bench.outcome(&process, "r").await;
    assert_eq!(
        (run.state, run.get(FOUND).unwrap(), run.get(THREE).unwrap()),
        (RunState::Completed, Some(21), Some(62))
    );
    assert_eq!(run.pre_check(FOUND).unwrap().as_deref(), Some("looked"));
    assert_eq!((run.definition.as_str(), run.version.as_str()), ("sums", definition.version()));
}

async fn what_a_callback_sets_is_kept_with_its_step<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("sets")
        .step(ONE, async |ctx: Ctx| {
            ctx.set(THREE, 5)?;
            Ok::<_, evenkeel_core::Error>(1)
        })
        .step(TWO, bench.seen.hangs_once())
        .step(THREE, async |_| Fallible::Ok(1))
        .pre_check(async |ctx: Ctx| Err::<(), _>(format!("it is {} already", ctx.get(THREE).unwrap())))
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("sets", "r", &0).await.unwrap();
    let worker = work(&process);
    bench.until_seen("two 1").await;
    drop(worker);
    bench.lapse().await;
    let _worker = work(&process);
    let run = bench.outcome(&process, "r").await;
    assert_eq!(run.get(THREE).unwrap(), Some(5));
    assert_eq!(run.errors[0].message(), "it is 5 already");
}

fn three_steps(seen: &Seen) -> Definition<u32> {
    Definition::<u32>::builder("three")
        .step(ONE, seen.gives(1))
        .step(TWO, seen.hangs_once())
        .step(THREE, seen.gives(3))
        .build()
        .unwrap()
}

async fn a_finished_step_never_runs_again<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("dies")
        .step(ONE, bench.seen.hangs_once())
        .step(TWO, bench.seen.hangs_once())
        .step(THREE, bench.seen.hangs_once())
        .build()
        .unwrap();
    bench.process([&definition]).start("dies", "r", &0).await.unwrap();
    for step in ["one", "two", "three"] {
        let worker = work(&bench.process([&definition]));
        bench.until_seen(&format!("{step} 1")).await;
        drop(worker);
        bench.lapse().await;
    }
    let process = bench.process([&definition]);
    let _worker = work(&process);
    let run = bench.outcome(&process, "r").await;
    assert_eq!(bench.seen.take(), ["one 1", "one 2", "two 1", "two 2", "three 1", "three 2"]);
    assert_eq!([ONE, TWO, THREE].map(|step| run.get(step).unwrap()), [Some(2); 3]);
}

async fn a_result_and_the_decision_to_go_on_are_one_commit<S: Transactional + Clone>(bench: Bench<S>) {
    let looker = bench.stranger();
    let recorded =
        move |looker: Process<S>| async move { looker.inspect("r").await.unwrap().unwrap().values.len() };
    let first = looker.clone();
    let definition = Definition::<u32>::builder("looks")
        .step(ONE, async |_| Fallible::Ok(1))
        .step(TWO, move |_| {
            let looked = recorded(first.clone());
            async move { Fallible::Ok(u32::try_from(looked.await).unwrap()) }
        })
        .step(THREE, move |_| {
            let looked = recorded(looker.clone());
            async move { Fallible::Ok(u32::try_from(looked.await).unwrap()) }
        })
        .build()
        .unwrap();
    let run = bench.run(&bench.process([&definition]), "looks", "r").await;
    // Each step finds in the store what finished before it began.
    assert_eq!([TWO, THREE].map(|step| run.get(step).unwrap()), [Some(1), Some(2)]);
}

async fn a_dead_worker_is_replaced_when_its_lease_has_run_out_and_not_before<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let definition = three_steps(&bench.seen);
    let process = bench.process([&definition]);
    process.start("three", "r", &0).await.unwrap();
    let worker = work(&process);
    bench.until_seen("two 1").await;
    bench.settle().await;
    drop(worker);
    let died = bench.now();
    let _worker = work(&bench.process([&definition]));
    bench.until_seen("two 2").await;
    let replaced = bench.now().since(died);
    // It was last renewed when it was leased, or a third of it ago.
    assert!(replaced > LEASE / 2 && replaced <= LEASE + Duration::from_secs(1), "after {replaced:?}");
}

async fn a_run_survives_a_crash_at_every_call<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("survives")
        .step(ONE, bench.seen.gives(1))
        .step(TWO, bench.seen.gives(2))
        .compensate(bench.seen.takes_back())
        .build()
        .unwrap();
    let register = |process: &Process<S>| process.register(definition.clone()).unwrap();
    bench
        .dying_at_every_call(register, "survives", async |process, run| {
            let ended = bench.inspect(process, run).await;
            assert_eq!(ended.state, RunState::Completed, "{run}");
            assert_eq!((ended.get(ONE).unwrap(), ended.get(TWO).unwrap()), (Some(1), Some(2)), "{run}");
            // Only what was under way at the crash ran twice.
            let seen = bench.seen.take();
            assert!(seen.len() <= 3 && seen.is_sorted_by_key(|step| step == "two"), "{run}: {seen:?}");
        })
        .await;
}

async fn a_skipped_job_is_listed_and_the_run_goes_on<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("skips")
        .step(FOUND, bench.seen.gives(1))
        .pre_check(async |_| Err(Skip::because("done already").with("by whom".to_owned())))
        .step(TWO, async |ctx: Ctx| Fallible::Ok(u32::from(ctx.pre_check(FOUND).is_some())))
        .build()
        .unwrap();
    let run = bench.run(&bench.process([&definition]), "skips", "r").await;
    assert_eq!(
        (run.state, run.get(FOUND).unwrap(), run.get(TWO).unwrap()),
        (RunState::Completed, None, Some(1))
    );
    assert_eq!(run.pre_check(FOUND).unwrap().as_deref(), Some("by whom"));
    let errors: Vec<_> = run.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["step \"found\": pre-check skipped: done already"]);
    assert!(bench.seen.take().is_empty());
}

async fn the_idempotency_key_of_a_step_stays_the_same_and_is_its_own<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let noting = || {
        bench.seen.with(async |seen: Seen, ctx: Ctx| {
            seen.add(ctx.idempotency_key());
            if ctx.attempt() < 3 { Err("again".to_owned()) } else { Ok(1) }
        })
    };
    let definition = Definition::<u32>::builder("keys")
        .step(ONE, noting())
        .retry(3)
        .compensate(bench.seen.with(async |seen: Seen, ctx: Ctx| {
            seen.add(ctx.idempotency_key());
            Fallible::Ok(())
        }))
        .step(TWO, noting())
        .retry(3)
        .step(THREE, async |_| Fallible::Err("fails".to_owned()))
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    for run in ["r", "s"] {
        bench.run(&process, "keys", run).await;
    }
    let keys = bench.seen.take();
    assert_eq!(keys.len(), 14);
    let mut distinct = keys.clone();
    distinct.dedup();
    assert_eq!(distinct.len(), 6, "{keys:?}");
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 6, "{keys:?}");
}

async fn runs_go_on_beside_each_other<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("waits")
        .step(
            ONE,
            bench.seen.with(async |seen: Seen, ctx: Ctx| {
                seen.add("waits");
                seen.wait().await;
                Fallible::Ok(*ctx.input())
            }),
        )
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    for run in 0..20 {
        process.start("waits", &format!("run-{run}"), &run).await.unwrap();
    }
    let _workers = [work(&process), work(&bench.process([&definition]))];
    bench.until(async || bench.seen.count("waits") == 20).await;
    bench.seen.let_go(20);
    for run in 0..20 {
        assert_eq!(bench.outcome(&process, &format!("run-{run}")).await.get(ONE).unwrap(), Some(run));
    }
    assert_eq!(bench.seen.take().len(), 20);
}

async fn a_value_that_does_not_fit_the_store_fails_its_step<S: Transactional + Clone>(bench: Bench<S>) {
    const BIG: StepKey<String> = StepKey::new("big");
    let size = evenkeel_core::Store::info(&bench.store).limits.value;
    let definition = Definition::<u32>::builder("big")
        .step(BIG, move |_| async move { Fallible::Ok("x".repeat(size)) })
        .build()
        .unwrap();
    let run = bench.run(&bench.process([&definition]), "big", "r").await;
    assert_eq!(run.state, RunState::Failed);
    let error = run.error.unwrap();
    assert!(error.message().contains("too large for the store"), "{error}");
}

async fn what_finished_is_known_however_long_it_is<S: Transactional + Clone>(bench: Bench<S>) {
    const LONG: StepKey<String> = StepKey::new("long");
    const ITEMS: StepKey<Vec<u32>> = StepKey::new("items");
    let breaks_once = bench.seen.with(async |seen: Seen, _: Ctx| {
        seen.add("three");
        if seen.count("three") == 1 { Err("broken") } else { Ok(3) }
    });
    let definition = Definition::<u32>::builder("fills")
        .step(ONE, bench.seen.gives(1))
        .compensate(bench.seen.takes_back())
        .step(LONG, bench.seen.gives("long".repeat(1000)))
        .for_each(ITEMS, 5, |_| (0..40).collect(), async |_, item| Fallible::Ok(*item * 2))
        .step(TWO, bench.seen.hangs_once())
        .step(THREE, breaks_once)
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    for run in ["goes on", "is cancelled"] {
        process.start("fills", run, &0).await.unwrap();
        let worker = work(&process);
        bench.until_seen("two 1").await;
        drop(worker);
        assert_eq!(bench.seen.take(), ["one", "long", "two 1"]);
        if run == "is cancelled" {
            bench.stranger().cancel(run).await.unwrap();
        }
        bench.lapse().await;
        let worker = work(&bench.process([&definition]));
        let ended = bench.outcome(&process, run).await;
        assert_eq!(ended.get(LONG).unwrap().unwrap().len(), 4000);
        assert_eq!(ended.get(ITEMS).unwrap().unwrap(), (0..40).map(|item| item * 2).collect::<Vec<_>>());
        assert_eq!(ended.state, RunState::Compensated);
        let told: &[_] = if run == "goes on" { &["two 2", "three", "undo one"] } else { &["undo one"] };
        assert_eq!(bench.seen.take(), told);
        bench.rest(worker).await;
    }
}
