use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_choreograph::{Definition, Join, RunState, StepKey};
use evenkeel_core::Transactional;

use super::bench::{Bench, Ctx, Fallible, LEASE, ONE, Seen, THREE, TWO, work};
use crate::harness::Running;

super::cases![
    the_branches_of_a_group_overlap_and_are_joined,
    what_finished_of_a_group_does_not_run_again,
    a_group_that_joins_all_lets_the_others_come_to_their_end,
    a_group_that_fails_fast_begins_nothing_more_and_tells_the_others,
    a_branch_has_its_steps_in_sequence,
    a_condition_is_decided_once,
    a_sleep_ends_when_it_is_over_whoever_works,
    a_sleeping_run_takes_no_place,
    a_list_keeps_its_items_and_their_values_and_order,
    no_more_items_are_under_way_than_said,
    an_item_that_fails_is_tried_again_by_itself,
];

const LIST: StepKey<Vec<u32>> = StepKey::new("list");

/// Notes its step, and waits to be let go.
async fn waits(seen: Seen, ctx: Ctx) -> Fallible<u32> {
    seen.add(ctx.step());
    seen.wait().await;
    Ok(7)
}

async fn the_branches_of_a_group_overlap_and_are_joined<S: Transactional + Clone>(bench: Bench<S>) {
    let seen = &bench.seen;
    let definition = Definition::<u32>::builder("group")
        .parallel(Join::All, |group| group.step(ONE, seen.with(waits)).step(TWO, seen.with(waits)))
        .step(THREE, async |ctx: Ctx| Fallible::Ok(*ctx.get(ONE).unwrap() + *ctx.get(TWO).unwrap()))
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("group", "r", &0).await.unwrap();
    let _worker = work(&process);
    bench.until(async || seen.count("one") + seen.count("two") == 2).await;
    seen.let_go(1);
    bench.pass(LEASE * 2).await;
    assert_eq!(bench.inspect(&process, "r").await.values.len(), 1);
    seen.let_go(1);
    assert_eq!(bench.outcome(&process, "r").await.get(THREE).unwrap(), Some(14));
}

async fn what_finished_of_a_group_does_not_run_again<S: Transactional + Clone>(bench: Bench<S>) {
    let seen = &bench.seen;
    let definition = Definition::<u32>::builder("group")
        .parallel(Join::All, |group| group.step(ONE, seen.gives(1)).step(TWO, seen.hangs_once()))
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("group", "r", &0).await.unwrap();
    let worker = work(&process);
    bench.until(async || seen.count("one") + seen.count("two 1") == 2).await;
    bench.settle().await;
    drop(worker);
    bench.lapse().await;
    let _worker = work(&bench.process([&definition]));
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Completed);
    assert_eq!((seen.count("one"), seen.count("two 2"), seen.take().len()), (1, 1, 3));
}

async fn a_group_that_joins_all_lets_the_others_come_to_their_end<S: Transactional + Clone>(bench: Bench<S>) {
    let seen = &bench.seen;
    let definition = Definition::<u32>::builder("group")
        .parallel(Join::All, |group| {
            let slow = |branch: evenkeel_choreograph::Builder<u32>| {
                branch.step(TWO, seen.with(waits)).step(THREE, seen.gives(3))
            };
            group.step(ONE, seen.fails()).branch(slow)
        })
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("group", "r", &0).await.unwrap();
    let _worker = work(&process);
    bench.until(async || seen.count("one") + seen.count("two") == 2).await;
    bench.pass(Duration::from_secs(5)).await;
    assert_eq!(bench.state(&process, "r").await, RunState::Running);
    seen.let_go(1);
    let run = bench.outcome(&process, "r").await;
    assert_eq!((run.state, run.get(THREE).unwrap()), (RunState::Failed, Some(3)));
    assert_eq!(run.error.unwrap().step(), "one");
}

async fn a_group_that_fails_fast_begins_nothing_more_and_tells_the_others<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let seen = &bench.seen;
    let until_told = seen.with(async |seen: Seen, ctx: Ctx| {
        seen.add("two");
        ctx.cancelled().await;
        Fallible::Ok(2)
    });
    let fails_late = seen.with(async |seen: Seen, ctx: Ctx| {
        waits(seen, ctx).await?;
        Err::<u32, _>("it fails".to_owned())
    });
    let definition = Definition::<u32>::builder("group")
        .parallel(Join::FailFast, |group| {
            group
                .step(ONE, fails_late)
                .branch(|branch| branch.step(TWO, until_told).step(THREE, seen.gives(3)))
        })
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("group", "r", &0).await.unwrap();
    let _worker = work(&process);
    bench.until(async || seen.count("one") + seen.count("two") == 2).await;
    seen.let_go(1);
    let run = bench.outcome(&process, "r").await;
    assert_eq!((run.state, run.get(TWO).unwrap()), (RunState::Failed, Some(2)));
    assert_eq!((run.get(THREE).unwrap(), seen.count("three")), (None, 0));
}

async fn a_branch_has_its_steps_in_sequence<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("group")
        .parallel(Join::All, |group| {
            group
                .branch(|branch| {
                    let doubles = async |ctx: Ctx| Fallible::Ok(*ctx.get(ONE).unwrap() * 2);
                    branch.step(ONE, async |_| Fallible::Ok(21)).step(TWO, doubles)
                })
                .step(THREE, async |_| Fallible::Ok(3))
        })
        .build()
        .unwrap();
    let run = bench.run(&bench.process([&definition]), "group", "r").await;
    assert_eq!([ONE, TWO, THREE].map(|step| run.get(step).unwrap()), [Some(21), Some(42), Some(3)]);
}

async fn a_condition_is_decided_once<S: Transactional + Clone>(bench: Bench<S>) {
    let asked = bench.seen.clone();
    let definition = Definition::<u32>::builder("conditional")
        .step(ONE, bench.seen.gives(1))
        .when(|ctx: Ctx| *ctx.input() > 5)
        .step(TWO, bench.seen.hangs_once())
        .when(move |_| {
            asked.add("asked");
            asked.count("asked") == 1
        })
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("conditional", "r", &0).await.unwrap();
    let worker = work(&process);
    bench.until_seen("two 1").await;
    drop(worker);
    bench.lapse().await;
    let _worker = work(&bench.process([&definition]));
    let run = bench.outcome(&process, "r").await;
    assert_eq!((run.state, run.get(ONE).unwrap()), (RunState::Completed, None));
    assert_eq!(run.get(TWO).unwrap(), Some(2));
    assert_eq!(bench.seen.take(), ["asked", "two 1", "two 2"]);
}

async fn a_sleep_ends_when_it_is_over_whoever_works<S: Transactional + Clone>(bench: Bench<S>) {
    let (began, day, second) = (bench.now(), Duration::from_hours(24), Duration::from_secs(1));
    let definition = Definition::<u32>::builder("sleeps")
        .sleep(day * 30)
        .step(ONE, bench.seen.gives(1))
        .sleep_until(move |ctx: Ctx| began + day * 60 + second * *ctx.input())
        .step(TWO, bench.seen.gives(2))
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    process.start("sleeps", "r", &5).await.unwrap();
    let worker = work(&process);
    bench.pass(second * 3).await;
    drop(worker);
    for (until, step) in [(began + day * 30, "one"), (began + day * 60 + second * 5, "two")] {
        let worker = work(&bench.process([&definition]));
        bench.jump(until.since(bench.now()) - second).await;
        assert_eq!(bench.seen.count(step), 0, "{step} is early");
        bench.jump(second).await;
        bench.until_seen(step).await;
        assert!(bench.now().since(until) < second * 5, "{step} is late");
        bench.pass(second * 3).await;
        drop(worker);
        bench.lapse().await;
    }
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Completed);
}

async fn a_sleeping_run_takes_no_place<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("sleeps")
        .step(ONE, bench.seen.gives(1))
        .sleep(Duration::from_hours(24))
        .step(TWO, bench.seen.gives(2))
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    for run in 0..10 {
        process.start("sleeps", &format!("run-{run}"), &0).await.unwrap();
    }
    let _worker = Running::spawn(process.worker().concurrency(1).run(std::future::pending()));
    bench.until(async || bench.seen.count("one") == 10).await;
    assert_eq!(bench.seen.count("two"), 0);
    bench.jump(Duration::from_hours(24)).await;
    bench.until(async || bench.seen.count("two") == 10).await;
}

async fn a_list_keeps_its_items_and_their_values_and_order<S: Transactional + Clone>(bench: Bench<S>) {
    let seen = bench.seen.clone();
    // It would be another list each time.
    let items = move |_: Ctx| {
        seen.add("items");
        let first = u32::try_from(seen.count("items")).unwrap();
        (first..first + 6).collect()
    };
    let seen = bench.seen.clone();
    let job = move |_: Ctx, item: Arc<u32>| {
        let seen = seen.clone();
        async move {
            seen.add(format!("item {item}"));
            if *item == 3 && seen.count("item 3") == 1 {
                std::future::pending::<()>().await;
            }
            Fallible::Ok(*item * 10)
        }
    };
    let definition = Definition::<u32>::builder("list").for_each(LIST, 2, items, job).build().unwrap();
    let process = bench.process([&definition]);
    process.start("list", "r", &0).await.unwrap();
    let worker = work(&process);
    bench.until_seen("item 6").await;
    bench.settle().await;
    drop(worker);
    bench.lapse().await;
    let _worker = work(&bench.process([&definition]));
    let run = bench.outcome(&process, "r").await;
    assert_eq!(run.get(LIST).unwrap(), Some(vec![10, 20, 30, 40, 50, 60]));
    let mut seen = bench.seen.take();
    seen.sort();
    assert_eq!(seen, ["item 1", "item 2", "item 3", "item 3", "item 4", "item 5", "item 6", "items"]);
}

async fn no_more_items_are_under_way_than_said<S: Transactional + Clone>(bench: Bench<S>) {
    let seen = bench.seen.clone();
    let items = |_: Ctx| (0..9).collect::<Vec<u32>>();
    let job = move |ctx: Ctx, _: Arc<u32>| waits(seen.clone(), ctx);
    let definition = Definition::<u32>::builder("list").for_each(LIST, 3, items, job).build().unwrap();
    let process = bench.process([&definition]);
    process.start("list", "r", &0).await.unwrap();
    let _worker = work(&process);
    for begun in 3..=9 {
        bench.until(async || bench.seen.count("list") >= begun).await;
        bench.pass(Duration::from_secs(2)).await;
        assert_eq!(bench.seen.count("list"), begun);
        bench.seen.let_go(1);
    }
    bench.seen.let_go(2);
    assert_eq!(bench.outcome(&process, "r").await.get(LIST).unwrap(), Some(vec![7; 9]));
}

async fn an_item_that_fails_is_tried_again_by_itself<S: Transactional + Clone>(bench: Bench<S>) {
    let seen = bench.seen.clone();
    let job = move |ctx: Ctx, item: Arc<u32>| {
        seen.add(format!("{item}: {}", ctx.idempotency_key()));
        async move {
            let fails = item == Arc::new(*ctx.input()) || (*item == 1 && ctx.attempt() == 1);
            if fails { Err(format!("item {item} fails")) } else { Ok(*item) }
        }
    };
    let definition = Definition::<u32>::builder("list")
        .for_each(LIST, 2, |_| vec![0_u32, 1, 2], job)
        .retry(2)
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    for (broken, state) in [(9, RunState::Completed), (2, RunState::Failed)] {
        let run = format!("run-{broken}");
        process.start("list", &run, &broken).await.unwrap();
        let _worker = work(&process);
        let ended = bench.outcome(&process, &run).await;
        assert_eq!(ended.state, state);
        let seen = bench.seen.take();
        let of = |item: &str| seen.iter().filter(|key| key.starts_with(item)).collect::<Vec<_>>();
        match state {
            RunState::Completed => assert_eq!([of("0"), of("1"), of("2")].map(|keys| keys.len()), [1, 2, 1]),
            _ => assert_eq!(of("2").len(), 2, "{seen:?}"),
        }
        let keys: BTreeSet<_> = seen.iter().collect();
        assert_eq!(keys.len(), 3, "each item has a key of its own: {seen:?}");
        if let Some(error) = ended.error {
            assert_eq!(error.to_string(), "step \"list\": job failed: item 2 fails");
        }
    }
}
