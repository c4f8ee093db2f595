use std::time::Duration;

use evenkeel_choreograph::{Definition, RunFilter, RunState, Started};
use evenkeel_core::{Batch, ErrorKind, ExpectStream, NewEvent, Store, StoreExt, Transactional};

use super::bench::{Bench, ONE, Seen, TWO, kind, work};
use crate::chaos::Chaos;

super::cases![
    the_same_id_and_input_are_the_same_run_in_every_process,
    another_input_is_a_clear_error_in_every_state,
    another_definition_is_a_clear_error,
    of_many_starts_at_once_one_is_new,
    a_run_that_begins_where_it_is_started_is_the_same_run_elsewhere,
    a_run_that_begins_where_it_is_started_survives_a_crash_at_every_call,
    what_cannot_be_started_is_refused,
    a_run_starts_with_its_callers_batch_or_not_at_all,
    a_run_is_forgotten_after_its_retention_and_its_id_is_free_again,
];

fn plain(seen: &Seen) -> Definition<u32> {
    Definition::<u32>::builder("plain").step(ONE, seen.gives(1)).build().unwrap()
}

async fn the_same_id_and_input_are_the_same_run_in_every_process<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = plain(&bench.seen);
    let process = bench.process([&definition]);
    assert_eq!(process.start("plain", "r", &7).await.unwrap(), Started::New);
    let other = bench.process([&definition]);
    assert_eq!(other.start("plain", "r", &7).await.unwrap(), Started::Existing);
    let _worker = work(&process);
    assert_eq!(bench.outcome(&other, "r").await.state, RunState::Completed);
    assert_eq!(other.start("plain", "r", &7).await.unwrap(), Started::Existing);
    bench.pass(Duration::from_secs(5)).await;
    assert_eq!(bench.seen.take(), ["one"]);
}

async fn another_input_is_a_clear_error_in_every_state<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process([&plain(&bench.seen)]);
    process.start("plain", "r", &7).await.unwrap();
    for state in [RunState::Running, RunState::Completed] {
        assert_eq!(bench.state(&process, "r").await, state);
        let error = process.start("plain", "r", &8).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(
            error.to_string().contains("another input") && error.to_string().contains("\"r\""),
            "{error}"
        );
        let _worker = work(&process);
        bench.outcome(&process, "r").await;
    }
    assert_eq!(bench.inspect(&process, "r").await.input.get(), "7");
}

async fn another_definition_is_a_clear_error<S: Transactional + Clone>(bench: Bench<S>) {
    let other = Definition::<u32>::builder("other").step(ONE, bench.seen.gives(1)).build().unwrap();
    let process = bench.process([&plain(&bench.seen), &other]);
    process.start("plain", "r", &7).await.unwrap();
    let error = process.start("other", "r", &7).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("another definition"), "{error}");
}

async fn of_many_starts_at_once_one_is_new<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = plain(&bench.seen);
    let processes: Vec<_> = (0..8).map(|_| bench.process([&definition])).collect();
    let starts = processes.iter().map(|process| process.start("plain", "r", &7));
    let started = futures_util::future::join_all(starts).await;
    let new = started.into_iter().filter(|started| *started.as_ref().unwrap() == Started::New);
    assert_eq!(new.count(), 1);
    let _workers: Vec<_> = processes.iter().map(work).collect();
    bench.outcome(&processes[0], "r").await;
    bench.pass(Duration::from_secs(5)).await;
    assert_eq!(bench.seen.take(), ["one"]);
}

async fn a_run_that_begins_where_it_is_started_is_the_same_run_elsewhere<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let definition = plain(&bench.seen);
    let (process, other) = (bench.process([&definition]), bench.process([&definition]));
    let _workers = [work(&process), work(&other)];
    // Both have looked for runs, and have room.
    bench.settle().await;
    let (one, two) = tokio::join!(process.start("plain", "r", &7), other.start("plain", "r", &7));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!((one == Started::New) != (two == Started::New), "{one:?}, {two:?}");
    assert_eq!(kind(other.start("plain", "r", &8).await), ErrorKind::AlreadyExists);
    assert_eq!(bench.outcome(&other, "r").await.state, RunState::Completed);
    assert_eq!(kind(process.start("plain", "r", &8).await), ErrorKind::AlreadyExists);
    bench.pass(Duration::from_secs(5)).await;
    assert_eq!(bench.seen.take(), ["one"]);
}

async fn a_run_that_begins_where_it_is_started_survives_a_crash_at_every_call<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let builder = Definition::<u32>::builder("survives").step(ONE, bench.seen.gives(1));
    let definition = builder.step(TWO, bench.seen.gives(2)).build().unwrap();
    for call in 1..=200 {
        let run = format!("run-{call}");
        let dying = bench.troubled(Chaos::new(call).crash_at(call));
        dying.register(definition.clone()).unwrap();
        let worker = work(&dying);
        bench.settle().await;
        let lives = tokio::select! {
            biased;
            () = dying.store().crashed() => false,
            () = async {
                dying.start("survives", &run, &20).await.unwrap();
                bench.outcome(&dying, &run).await;
            } => true,
        };
        drop(worker);
        if !lives {
            bench.lapse().await;
        }
        let calm = bench.process([&definition]);
        calm.start("survives", &run, &20).await.unwrap();
        let worker = work(&calm);
        let ended = bench.outcome(&calm, &run).await;
        assert_eq!(ended.state, RunState::Completed, "{run}");
        assert_eq!((ended.get(ONE).unwrap(), ended.get(TWO).unwrap()), (Some(1), Some(2)), "{run}");
        // Only what was under way at the crash ran twice.
        let seen = bench.seen.take();
        assert!(seen.len() <= 3 && seen.is_sorted_by_key(|step| step == "two"), "{run}: {seen:?}");
        bench.rest(worker).await;
        if lives {
            return;
        }
    }
    panic!("a run comes to its end within so many calls");
}

async fn what_cannot_be_started_is_refused<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process([&plain(&bench.seen)]);
    let too_long = "r".repeat(257);
    for (definition, run, input, expected) in [
        ("plain", "r", serde_json::json!("a text"), ErrorKind::InvalidInput),
        ("plain", "", serde_json::json!(1), ErrorKind::InvalidInput),
        ("plain", &*too_long, serde_json::json!(1), ErrorKind::InvalidInput),
        ("unknown", "r", serde_json::json!(1), ErrorKind::NotFound),
    ] {
        assert_eq!(kind(process.start(definition, run, &input).await), expected, "{definition} {run}");
        assert_eq!(process.list(RunFilter::new(RunState::Running)).await.unwrap().runs, []);
    }
    let longest = "r".repeat(256);
    process.start("plain", &longest, &1).await.unwrap();
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, &longest).await.state, RunState::Completed);
}

async fn a_run_starts_with_its_callers_batch_or_not_at_all<S: Transactional + Clone>(bench: Bench<S>) {
    let process = bench.process([&plain(&bench.seen)]);
    let _worker = work(&process);
    for at in bench.store.partitions() {
        let (run, stream) = (format!("run-{}", at.index()), format!("stream-{}", at.index()));
        let batch = |run: &str| {
            let mut batch = Batch::new(at.clone(), bench.now());
            let ordered = NewEvent::new("Ordered", "{}", bench.now());
            batch.append(&stream, ExpectStream::NoStream, [ordered]);
            process.start_in(&mut batch, "plain", run, &7).unwrap();
            batch
        };
        bench.store.commit(batch(&run)).await.unwrap();
        bench.until(async || process.inspect(&run).await.unwrap().is_some()).await;
        assert_eq!(bench.outcome(&process, &run).await.state, RunState::Completed);

        assert_eq!(kind(bench.store.commit(batch("not started")).await), ErrorKind::Conflict);
        bench.pass(Duration::from_secs(5)).await;
        assert!(process.inspect("not started").await.unwrap().is_none());
    }
}

async fn a_run_is_forgotten_after_its_retention_and_its_id_is_free_again<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let process = bench.process([&plain(&bench.seen)]).retention(Duration::from_hours(48));
    let _worker = work(&process);
    process.start("plain", "r", &1).await.unwrap();
    bench.outcome(&process, "r").await;
    bench.jump(Duration::from_hours(47)).await;
    assert_eq!(kind(process.start("plain", "r", &2).await), ErrorKind::AlreadyExists);
    bench.jump(Duration::from_hours(1)).await;
    bench.until(async || process.inspect("r").await.unwrap().is_none()).await;
    assert_eq!(process.list(RunFilter::new(RunState::Completed)).await.unwrap().runs, []);
    assert!(process.history("r").await.unwrap().is_none());
    assert_eq!(process.start("plain", "r", &2).await.unwrap(), Started::New);
    assert_eq!(bench.outcome(&process, "r").await.input.get(), "2");
}
