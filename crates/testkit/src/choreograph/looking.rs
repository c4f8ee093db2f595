use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_choreograph::{Definition, Event, OnInterrupted, RunFilter, RunState, StepKey, timeline_svg};
use evenkeel_core::{ErrorKind, Transactional};

use super::bench::{Bench, Ctx, Fallible, ONE, Process, Seen, THREE, TWO, kind, work};

super::cases![
    runs_are_listed_by_their_state_in_the_order_of_their_start,
    a_list_goes_on_page_by_page,
    a_list_is_narrowed_by_definition_and_time,
    a_run_is_listed_under_one_state_at_a_time,
    a_history_tells_what_happened_in_its_order,
    a_process_without_the_definition_sees_the_same_of_a_run,
    an_outcome_is_awaited_in_a_process_that_has_no_worker,
    a_run_that_is_not_there_is_not_found,
];

const PAID: StepKey<u32> = StepKey::new("paid");
const LAST: StepKey<u32> = StepKey::new("last");

fn plain<S: Transactional + Clone>(bench: &Bench<S>, name: &'static str) -> Definition<u32> {
    Definition::<u32>::builder(name).step(ONE, bench.seen.gives(1)).build().unwrap()
}

async fn ids<S: Transactional + Clone>(process: &Process<S>, filter: RunFilter) -> Vec<String> {
    process.list(filter).await.unwrap().runs.into_iter().map(|run| run.id).collect()
}

async fn runs_are_listed_by_their_state_in_the_order_of_their_start<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let process = bench.process([&plain(&bench, "plain")]);
    let (began, second) = (bench.now(), Duration::from_secs(1));
    for run in ["zoe", "adam", "mia", "ben"] {
        process.start("plain", run, &0).await.unwrap();
        bench.clock.advance(second);
    }
    let running = process.list(RunFilter::new(RunState::Running)).await.unwrap();
    assert_eq!((running.cursor, running.runs.len()), (None, 4));
    for (run, (number, id)) in running.runs.iter().zip((0..).zip(["zoe", "adam", "mia", "ben"])) {
        assert_eq!((&*run.id, &*run.definition, run.state), (id, "plain", RunState::Running));
        assert_eq!(run.started_at, began + second * number);
    }
    process.cancel("mia").await.unwrap();
    let _worker = work(&process);
    for run in ["zoe", "adam", "mia", "ben"] {
        bench.outcome(&process, run).await;
    }
    assert_eq!(ids(&process, RunFilter::new(RunState::Completed)).await, ["zoe", "adam", "ben"]);
    assert_eq!(ids(&process, RunFilter::new(RunState::Cancelled)).await, ["mia"]);
    assert!(ids(&process, RunFilter::new(RunState::Running)).await.is_empty());
}

async fn a_list_goes_on_page_by_page<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process([&plain(&bench, "plain")]);
    let all: Vec<_> = (0..7).map(|number| format!("run-{number}")).collect();
    for run in &all {
        process.start("plain", run, &0).await.unwrap();
        bench.clock.advance(Duration::from_millis(1));
    }
    for limit in [1, 3, 7, 100] {
        let (mut found, mut filter) = (Vec::new(), RunFilter::new(RunState::Running).limit(limit));
        loop {
            let page = process.list(filter.clone()).await.unwrap();
            assert!(page.runs.len() <= limit);
            found.extend(page.runs.into_iter().map(|run| run.id));
            let Some(cursor) = page.cursor else { break };
            filter = filter.after(cursor);
        }
        assert_eq!(found, all, "{limit} at a time");
    }
}

async fn a_list_is_narrowed_by_definition_and_time<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process([&plain(&bench, "a"), &plain(&bench, "b")]);
    let began = bench.now();
    for number in 0..6 {
        let definition = if number % 2 == 0 { "a" } else { "b" };
        process.start(definition, &format!("{number}"), &0).await.unwrap();
        bench.clock.advance(Duration::from_secs(1));
    }
    let filter = || RunFilter::new(RunState::Running);
    assert_eq!(ids(&process, filter().definition("b")).await, ["1", "3", "5"]);
    assert_eq!(ids(&process, filter().definition("b").limit(2)).await, ["1", "3"]);
    let (from, to) = (began + Duration::from_secs(1), began + Duration::from_secs(4));
    assert_eq!(ids(&process, filter().started(from, to)).await, ["1", "2", "3"]);
    assert_eq!(ids(&process, filter().started(from, to).definition("a")).await, ["2"]);
    assert!(ids(&process, filter().definition("c")).await.is_empty());
}

async fn a_run_is_listed_under_one_state_at_a_time<S: Transactional + Clone>(bench: Bench<S>) {
    let breaks_once = bench.seen.with(async |seen: Seen, _: Ctx| {
        seen.add("two");
        if seen.count("two") == 1 { Err("broken") } else { Ok(2) }
    });
    let definition = Definition::<u32>::builder("parks")
        .step(ONE, bench.seen.hangs_once())
        .on_interrupted(OnInterrupted::Park)
        .step(TWO, breaks_once)
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    let listed = async |state: RunState| {
        for other in RunState::ALL {
            let expected: &[&str] = if other == state { &["r"] } else { &[] };
            assert_eq!(ids(&process, RunFilter::new(other)).await, expected, "{other}, and it is {state}");
        }
    };
    process.start("parks", "r", &0).await.unwrap();
    listed(RunState::Running).await;
    let worker = work(&process);
    bench.until_seen("one 1").await;
    drop(worker);
    bench.lapse().await;
    let _worker = work(&process);
    bench.outcome(&process, "r").await;
    listed(RunState::Parked).await;
    process.resume("r").await.unwrap();
    bench.outcome(&process, "r").await;
    listed(RunState::Failed).await;
    process.retry("r").await.unwrap();
    bench.outcome(&process, "r").await;
    listed(RunState::Completed).await;
}

async fn a_history_tells_what_happened_in_its_order<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32>::builder("eventful")
        .step(ONE, async |ctx: Ctx| if ctx.attempt() == 1 { Err("not yet") } else { Ok(1) })
        .retry(2)
        .compensate(bench.seen.takes_back())
        .sleep(Duration::from_mins(1))
        .step(TWO, async |_| Fallible::Ok(1))
        .pre_check(async |_| Err::<(), _>("not needed"))
        .step(THREE, async |_| Fallible::Ok(1))
        .when(|_| false)
        .wait_for_signal(PAID, Duration::from_mins(1))
        .step(LAST, bench.seen.fails())
        .build()
        .unwrap();
    let process = bench.process([&definition]);
    assert_eq!(bench.run(&process, "eventful", "r").await.state, RunState::Compensated);
    let history = process.history("r").await.unwrap().unwrap();
    let told: Vec<_> = history.iter().map(|entry| (entry.event, entry.step.as_deref())).collect();
    let expected = [
        (Event::Started, None),
        (Event::Failure, Some("one")),
        (Event::Wait, Some("one")),
        (Event::Attempt, Some("one")),
        (Event::Wait, Some("#1")),
        (Event::Skipped, Some("two")),
        (Event::NotTaken, Some("three")),
        (Event::Skipped, Some("paid")),
        (Event::Failure, Some("last")),
        (Event::Compensation, Some("one")),
        (Event::Ended, None),
    ];
    for entry in &expected {
        assert_eq!(told.iter().filter(|told| *told == entry).count(), 1, "{entry:?}: {told:#?}");
    }
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    assert!(history.is_sorted_by_key(|entry| entry.began_at));
    let sleep = history.iter().find(|entry| entry.step.as_deref() == Some("#1")).unwrap();
    assert!(sleep.ended_at.unwrap().since(sleep.began_at) >= Duration::from_mins(1));
}

async fn a_process_without_the_definition_sees_the_same_of_a_run<S: Transactional + Clone>(bench: Bench<S>) {
    const ITEMS: StepKey<Vec<u32>> = StepKey::new("items");
    let definition = Definition::<u32>::builder("seen")
        .step(ONE, async |ctx: Ctx| {
            ctx.set(LAST, 7).map_err(|error| error.to_string())?;
            if ctx.attempt() == 1 { Err("not yet".to_owned()) } else { Ok(1) }
        })
        .retry(2)
        .compensate(async |ctx| if ctx.attempt() == 1 { Err("not yet") } else { Ok(()) })
        .pre_check(async |_| Fallible::Ok(()))
        .for_each(ITEMS, 2, |_| vec![1, 2], async |_, item| Fallible::Ok(*item))
        .step(TWO, async |_| Fallible::Ok(1))
        .pre_check(async |_| Err::<(), _>("not needed"))
        .step(THREE, async |_| Fallible::Ok(1))
        .when(|_| false)
        .wait_for_signal(PAID, None)
        .step(LAST, bench.seen.fails())
        .build()
        .unwrap();
    let (process, stranger) = (bench.process([&definition]), bench.stranger());
    let same = async || {
        let run = bench.inspect(&stranger, "r").await;
        let known = bench.inspect(&process, "r").await;
        assert_eq!(serde_json::to_value(run).unwrap(), serde_json::to_value(known).unwrap());
        let history = stranger.history("r").await.unwrap().unwrap();
        let known = process.history("r").await.unwrap().unwrap();
        assert_eq!(timeline_svg(&history), timeline_svg(&known));
        let steps: BTreeSet<_> = history.into_iter().filter_map(|entry| entry.step).collect();
        steps.into_iter().collect::<Vec<_>>()
    };
    process.start("seen", "r", &0).await.unwrap();
    let _worker = work(&process);
    bench
        .until(async || {
            let history = stranger.history("r").await.unwrap().unwrap();
            history.iter().any(|entry| entry.step.as_deref() == Some("paid"))
        })
        .await;
    assert_eq!(same().await, ["items", "one", "paid", "three", "two"]);
    process.signal("r", "paid", &5).await.unwrap();
    bench.outcome(&process, "r").await;
    assert_eq!(same().await, ["items", "last", "one", "paid", "three", "two"]);
    let run = bench.inspect(&stranger, "r").await;
    assert_eq!((run.state, run.get(PAID).unwrap()), (RunState::Compensated, Some(5)));
    let names: Vec<_> = run.values.keys().map(String::as_str).collect();
    assert_eq!(names, ["items", "last", "one", "paid"], "what was set has a name too");
}

async fn an_outcome_is_awaited_in_a_process_that_has_no_worker<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = plain(&bench, "plain");
    let process = bench.process([&definition]);
    process.start("plain", "r", &0).await.unwrap();
    let stranger = bench.process([&definition]);
    let working = async {
        bench.pass(Duration::from_secs(10)).await;
        let worker = work(&process);
        bench.pass(Duration::from_secs(25)).await;
        worker
    };
    let (run, _worker) = tokio::join!(stranger.outcome("r"), working);
    assert_eq!(run.unwrap().get(ONE).unwrap(), Some(1));
}

async fn a_run_that_is_not_there_is_not_found<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.stranger();
    assert!(process.inspect("nobody").await.unwrap().is_none());
    assert!(process.history("nobody").await.unwrap().is_none());
    assert_eq!(kind(process.outcome("nobody").await), ErrorKind::NotFound);
}
