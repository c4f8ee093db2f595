//! Structure on a store: groups, conditions, waits, children, lists and transactions.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Bench, Fallible, Running, Seen, settle};
use evenkeel_choreograph::{
    ChildOutcome, Definition, Event, Join, RunState, StepContext, StepErrorKind, StepKey, timeline_svg,
};
use evenkeel_core::{BoxError, Clock, Draft, Error, ErrorKind, Key, StoreExt, Tx};
use tokio::sync::Barrier;

const ONE: StepKey<u32> = StepKey::new("one");
const TWO: StepKey<u32> = StepKey::new("two");
const PAID: StepKey<u32> = StepKey::new("paid");
const CHILD: StepKey<ChildOutcome> = StepKey::new("child");
const LIST: StepKey<Vec<u32>> = StepKey::new("list");

#[tokio::test]
async fn branches_overlap_and_join() {
    let bench = Bench::new(1);
    let barrier = Arc::new(Barrier::new(2));
    let meet = move |_: StepContext<()>| {
        let barrier = Arc::clone(&barrier);
        async move { Fallible::Ok(u32::from(barrier.wait().await.is_leader())) }
    };
    let definition = Definition::<()>::builder("parallel")
        .parallel(Join::All, |group| {
            group
                .step(ONE, meet.clone())
                .branch(|branch| branch.unnamed(async |_| Fallible::Ok(())).step(TWO, meet))
        })
        .build()
        .unwrap();
    let run = bench.run(definition, &()).await;
    assert_eq!(run.get(ONE).unwrap().unwrap() + run.get(TWO).unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_group_that_fails_takes_back_what_finished_in_it() {
    for (join, name) in [(Join::All, "all"), (Join::FailFast, "fast")] {
        let (bench, seen) = (Bench::new(1), Seen::default());
        let undo = |seen: &Seen| {
            let seen = seen.clone();
            move |ctx: StepContext<()>| {
                seen.add(format!("undo {}", ctx.step()));
                async { Fallible::Ok(()) }
            }
        };
        let definition = Definition::<()>::builder(name)
            .parallel(join, |group| {
                group
                    .branch(|branch| {
                        branch
                            .step(ONE, seen.note(1))
                            .compensate(undo(&seen))
                            .step(TWO, seen.note(2))
                            .compensate(undo(&seen))
                    })
                    .unnamed(async |_| Err::<(), _>("no"))
            })
            .build()
            .unwrap();
        let run = bench.run(definition, &()).await;
        assert_eq!((run.state, run.error.unwrap().message()), (RunState::Compensated, "no"));
        let expected: &[&str] = match join {
            Join::All => &["one", "two", "undo two", "undo one"],
            Join::FailFast => &["one", "undo one"],
        };
        assert_eq!(seen.take(), expected, "{join:?}");
    }
}

#[tokio::test]
async fn a_condition_is_decided_once() {
    let (bench, asked, seen) = (Bench::new(1), Arc::new(AtomicU64::new(0)), Seen::default());
    let condition = |holds| {
        let asked = Arc::clone(&asked);
        move |_: StepContext<()>| {
            asked.fetch_add(1, Ordering::SeqCst);
            holds
        }
    };
    let definition = Definition::<()>::builder("conditions")
        .step(ONE, seen.note(1))
        .when(condition(false))
        .step(TWO, async |ctx: StepContext<()>| if ctx.attempt() < 3 { Err("again") } else { Ok(2) })
        .retry(3)
        .when(condition(true))
        .build()
        .unwrap();
    let run = bench.run(definition, &()).await;
    assert_eq!((run.get(ONE).unwrap(), run.get(TWO).unwrap()), (None, Some(2)));
    assert_eq!((asked.load(Ordering::SeqCst), seen.take().len()), (2, 0));
}

#[tokio::test]
async fn days_of_sleep_pass_without_a_worker() {
    let bench = Bench::new(1);
    let began = bench.clock.now();
    let definition = Definition::<()>::builder("sleeps")
        .sleep(Duration::from_hours(48))
        .sleep_until(move |_| began + Duration::from_hours(100))
        .step(ONE, async |_| Fallible::Ok(1))
        .build()
        .unwrap();
    let choreographer = bench.process(definition);
    choreographer.start("sleeps", "r", &()).await.unwrap();
    for hours in [0, 47, 1, 51] {
        bench.clock.advance(Duration::from_hours(hours));
        let worker = Running::start(&choreographer);
        settle().await;
        worker.kill().await;
        assert_eq!(choreographer.inspect("r").await.unwrap().unwrap().state, RunState::Running);
    }
    bench.clock.advance(Duration::from_hours(1));
    let _worker = Running::start(&choreographer);
    assert_eq!(bench.outcome(&choreographer, "r").await.get(ONE).unwrap(), Some(1));
    let history = choreographer.history("r").await.unwrap().unwrap();
    let waits: Vec<_> = history.iter().filter(|entry| entry.event == Event::Wait).collect();
    assert_eq!(waits.len(), 2);
    assert_eq!(waits[1].ended_at.unwrap(), began + Duration::from_hours(100));
}

#[tokio::test]
async fn a_signal_is_kept_until_it_is_waited_for_and_taken_once() {
    let bench = Bench::new(4);
    let again = StepKey::<u32>::new("paid again");
    let definition = Definition::<()>::builder("signals")
        .sleep(Duration::from_mins(5))
        .wait_for_signal(PAID, None)
        .wait_for_signal(again, Duration::from_mins(10))
        .build()
        .unwrap();
    let choreographer = bench.process(definition);
    let _worker = Running::start(&choreographer);
    choreographer.start("signals", "r", &()).await.unwrap();
    settle().await;
    choreographer.signal_once("r", "paid", "p-1", &17).await.unwrap();
    choreographer.signal_once("r", "paid", "p-1", &18).await.unwrap();
    choreographer.signal("r", "unknown", &1).await.unwrap();
    let run = bench.outcome(&choreographer, "r").await;
    assert_eq!(run.state, RunState::Completed);
    assert_eq!((run.get(PAID).unwrap(), run.get(again).unwrap()), (Some(17), None));
    assert_eq!(run.errors[0].kind(), StepErrorKind::TimedOut);
    assert_eq!(choreographer.signal("r", "paid", &1).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(choreographer.signal("nobody", "paid", &1).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_signal_may_say_nothing() {
    let (bench, bell) = (Bench::new(1), StepKey::<()>::new("bell"));
    let definition = Definition::<()>::builder("signals").wait_for_signal(bell, None).build().unwrap();
    let choreographer = bench.process(definition);
    let _worker = Running::start(&choreographer);
    choreographer.start("signals", "r", &()).await.unwrap();
    choreographer.signal("r", "bell", &serde_json::Value::Null).await.unwrap();
    let run = bench.outcome(&choreographer, "r").await;
    assert_eq!((run.state, run.get(bell).unwrap()), (RunState::Completed, Some(())));
}

#[tokio::test]
async fn a_signal_wakes_the_run_that_waits_for_it() {
    let bench = Bench::new(1);
    let definition = Definition::<()>::builder("signals")
        .parallel(Join::All, |group| group.wait_for_signal(PAID, None).sleep(Duration::from_secs(60)))
        .build()
        .unwrap();
    let choreographer = bench.process(definition);
    let _worker = Running::start(&choreographer);
    choreographer.start("signals", "r", &()).await.unwrap();
    settle().await;
    bench.clock.advance(Duration::from_secs(120));
    settle().await;
    assert_eq!(choreographer.inspect("r").await.unwrap().unwrap().state, RunState::Running);
    choreographer.signal("r", "paid", &3).await.unwrap();
    settle().await;
    bench.clock.advance(Duration::from_millis(10));
    settle().await;
    let run = choreographer.inspect("r").await.unwrap().unwrap();
    assert_eq!((run.state, run.get(PAID).unwrap()), (RunState::Completed, Some(3)));
}

#[tokio::test]
async fn a_child_runs_at_its_own_home_and_hands_back_its_values() {
    let bench = Bench::new(4);
    let child = Definition::<u32>::builder("doubles")
        .step(TWO, async |ctx| if *ctx.input() == 13 { Err("unlucky") } else { Ok(ctx.input() * 2) })
        .build()
        .unwrap();
    let parent = Definition::<u32>::builder("parent")
        .child(CHILD, "doubles", |ctx| *ctx.input() + 1)
        .step(ONE, async |ctx| Fallible::Ok(ctx.get(CHILD).unwrap().get(TWO).unwrap() + 1))
        .build()
        .unwrap();
    let choreographer = bench.process(child);
    choreographer.register(parent).unwrap();
    let _worker = Running::start(&choreographer);
    let mut homes = std::collections::BTreeSet::new();
    for n in 0..8 {
        let id = format!("p{n}");
        homes.insert(bench.store.partition_of(&id) == bench.store.partition_of(&format!("{id}.child")));
        choreographer.start("parent", &id, &n).await.unwrap();
        let run = bench.outcome(&choreographer, &id).await;
        assert_eq!(run.get(ONE).unwrap(), Some((n + 1) * 2 + 1));
        assert_eq!(run.get(CHILD).unwrap().unwrap().run(), format!("{id}.child"));
    }
    assert_eq!(homes.len(), 2, "children at home and elsewhere");
    choreographer.start("parent", "unlucky", &12).await.unwrap();
    let run = bench.outcome(&choreographer, "unlucky").await;
    assert_eq!(run.state, RunState::Failed);
    assert!(run.error.unwrap().message().contains("unlucky"));
}

#[tokio::test]
async fn a_lists_finished_items_do_not_run_again() {
    let (bench, seen) = (Bench::new(1), Seen::default());
    let definition = Definition::<u32>::builder("list")
        .for_each(LIST, 2, |ctx| (0..*ctx.input()).collect(), {
            let seen = seen.clone();
            move |ctx, item: Arc<u32>| {
                seen.add(item.to_string());
                let (hang, fail) = (*item == 3 && ctx.attempt() == 1, *item == 4 && ctx.attempt() == 1);
                async move {
                    if hang {
                        std::future::pending::<()>().await;
                    }
                    if fail { Err("again") } else { Ok(*item * 10) }
                }
            }
        })
        .retry(2)
        .timeout(Duration::from_mins(5))
        .build()
        .unwrap();
    let choreographer = bench.process(definition);
    choreographer.start("list", "r", &6).await.unwrap();
    let worker = Running::start(&choreographer);
    settle().await;
    worker.kill().await;
    assert_eq!(seen.take(), ["0", "1", "2", "3", "4", "5"]);
    let _worker = Running::start(&choreographer);
    let run = bench.outcome(&choreographer, "r").await;
    assert_eq!(run.get(LIST).unwrap(), Some(vec![0, 10, 20, 30, 40, 50]));
    let mut again = seen.take();
    again.sort();
    again.dedup();
    assert_eq!(again, ["3", "4"]);
}

#[tokio::test]
async fn a_transaction_and_its_step_are_one_commit() {
    let bench = Bench::new(1);
    let stock = || Key::new("shop.stock", "all", "apple");
    let definition = Definition::<u32, Draft>::builder("books")
        .tx_step(ONE, move |ctx, mut tx: Tx<Draft>| async move {
            let draft = tx.conn().await?;
            let left = draft.get(&stock()).await?.map_or(10, |left| left[0]);
            draft.put(stock(), vec![left - 1]);
            if ctx.attempt() == 1 {
                return Err(Error::new(ErrorKind::Unexpected, "rolled back").into());
            }
            Ok::<_, BoxError>(u32::from(left))
        })
        .retry(2)
        .step(TWO, async |_| Fallible::Ok(2))
        .build()
        .unwrap();
    let choreographer = bench.choreographer();
    choreographer.register_tx(definition).unwrap();
    let _worker = Running::start(&choreographer);
    choreographer.start("books", "r", &1).await.unwrap();
    let run = bench.outcome(&choreographer, "r").await;
    assert_eq!((run.state, run.get(ONE).unwrap()), (RunState::Completed, Some(10)), "{run:?}");
    let at = bench.store.partition_of("r");
    let left = bench.store.get_one(&at, bench.clock.now(), &stock()).await.unwrap().unwrap();
    assert_eq!(left.value[0], 9);
}

#[tokio::test]
async fn a_transaction_of_no_connection_is_refused_and_a_portable_definition_lifted() {
    let bench = Bench::new(1);
    let choreographer = bench.choreographer();
    let nobody = Definition::<u32>::builder("nobody").tx_step(ONE, |_, _| async { Fallible::Ok(1) });
    let error = choreographer.register(nobody.build().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);

    let portable = Definition::<u32>::builder("lifted").step(ONE, async |_| Fallible::Ok(1)).build().unwrap();
    choreographer.register_tx(portable.lift::<Draft>()).unwrap();
    let _worker = Running::start(&choreographer);
    choreographer.start("lifted", "r", &1).await.unwrap();
    assert_eq!(bench.outcome(&choreographer, "r").await.get(ONE).unwrap(), Some(1));
}

#[tokio::test]
async fn pictures_tell_definitions_and_runs() {
    let bench = Bench::new(1);
    let definition = Definition::<()>::builder("checkout")
        .step(StepKey::<u32>::new("reserve <stock>"), async |ctx| {
            if ctx.attempt() < 3 { Err("the \"warehouse\" & its <api> is down") } else { Ok(1) }
        })
        .retry(evenkeel_choreograph::RetryPolicy::attempts(3).first(Duration::from_secs(60)))
        .compensate(async |_| Fallible::Ok(()))
        .parallel(Join::FailFast, |group| {
            group
                .step(ONE, async |_| Fallible::Ok(1))
                .when(|_| true)
                .compensate(
                    async |ctx: StepContext<()>| if ctx.attempt() == 1 { Err("busy") } else { Ok(()) },
                )
                .branch(|branch| branch.sleep(Duration::from_secs(20)).step(TWO, async |_| Fallible::Ok(2)))
        })
        .wait_for_signal(PAID, Duration::from_secs(30))
        .unnamed(async |_| Err::<(), _>("no courier"))
        .build()
        .unwrap();
    let mermaid = definition.to_mermaid();
    for part in ["flowchart TD", "reserve #lt;stock#gt;", "s0", "fail fast", "c1{\"one?\"}", "paid: signal"] {
        assert!(mermaid.contains(part), "{part:?} in {mermaid}");
    }
    let choreographer = bench.process(definition);
    let _worker = Running::start(&choreographer);
    choreographer.start("checkout", "r", &()).await.unwrap();
    assert_eq!(bench.outcome(&choreographer, "r").await.state, RunState::Compensated);
    let history = choreographer.history("r").await.unwrap().unwrap();
    let svg = timeline_svg(&history);
    for part in
        ["reserve &lt;stock&gt;", "&quot;warehouse&quot; &amp; its &lt;api&gt;", "prefers-color-scheme: dark"]
    {
        assert!(svg.contains(part), "{part:?} in {svg}");
    }
    assert_eq!(svg.matches("class=\"failure\"").count(), 3);
    assert_eq!(svg.matches("class=\"compensation\"").count(), 2);
    assert_eq!(svg.matches("class=\"compensation-failure\"").count(), 1);
    if let Ok(path) = std::env::var("EVENKEEL_PICTURES") {
        std::fs::write(format!("{path}/timeline.svg"), &svg).unwrap();
        std::fs::write(format!("{path}/definition.mmd"), &mermaid).unwrap();
    }
}
