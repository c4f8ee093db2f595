use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_choreograph::{Definition, Join, OnInterrupted, RunState, StepErrorKind};
use evenkeel_core::{Error, Expect, Key, ManualClock, Transactional, Tx};
use futures_util::future::BoxFuture;

use super::bench::{Bench, Ctx, Fallible, LEASE, ONE, Process, Seen, TWO, take_effect, work};

super::cases![
    a_steps_writes_and_its_record_are_one_commit,
    what_a_failed_attempt_wrote_is_rolled_back,
    what_a_late_attempt_wrote_is_rolled_back,
    a_step_takes_effect_once_wherever_the_process_dies,
    what_a_zombie_wrote_is_rolled_back,
    a_transaction_that_was_cut_off_is_not_in_doubt,
    a_conflict_of_the_writes_is_a_failure_of_the_attempt,
    a_job_that_keeps_its_transaction_fails_its_step,
    transactions_beside_each_other_each_take_effect_once,
    a_step_that_took_effect_is_taken_back,
];

/// What a job does before it takes effect.
type Then = BoxFuture<'static, Fallible<u32>>;

/// A job that takes effect in the stream of its run, once `first` is done, however that ends.
fn effect<C: Send + 'static, F>(
    seen: &Seen,
    first: F,
) -> impl Fn(Ctx, Tx<C>) -> Then + Send + Sync + use<C, F>
where
    F: Fn(Seen, Ctx) -> Then + Send + Sync + 'static,
{
    let (seen, first) = (seen.clone(), Arc::new(first));
    move |ctx, mut tx| {
        let (seen, first) = (seen.clone(), Arc::clone(&first));
        Box::pin(async move {
            seen.add(ctx.step());
            let result = first(seen.clone(), ctx.clone()).await;
            take_effect(&seen, &mut tx, ctx.run_id()).await.map_err(|error| error.to_string())?;
            result
        })
    }
}

fn plain_effect<C: Send + 'static>(seen: &Seen) -> impl Fn(Ctx, Tx<C>) -> Then + Send + Sync + use<C> {
    effect(seen, |_, ctx| Box::pin(async move { Ok(ctx.attempt()) }))
}

async fn a_steps_writes_and_its_record_are_one_commit<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32, S::Conn>::builder("books")
        .tx_step(ONE, plain_effect(&bench.seen))
        .step(TWO, bench.seen.gives(2))
        .build()
        .unwrap();
    let run = bench.run(&bench.process_tx(&definition), "books", "r").await;
    assert_eq!(
        (run.state, run.get(ONE).unwrap(), run.get(TWO).unwrap()),
        (RunState::Completed, Some(1), Some(2))
    );
    assert_eq!(bench.effects("r").await, 1);
    assert_eq!(bench.seen.take(), ["one", "two"]);
}

async fn what_a_failed_attempt_wrote_is_rolled_back<S: Transactional + Clone>(bench: Bench<S>) {
    let job = effect(&bench.seen, |_, ctx| {
        Box::pin(async move {
            match ctx.attempt() {
                1 => Err("declined".to_owned()),
                2 => panic!("halfway"),
                attempt => Ok(attempt),
            }
        })
    });
    let definition = Definition::<u32, S::Conn>::builder("books").tx_step(ONE, job).retry(3).build().unwrap();
    let run = bench.run(&bench.process_tx(&definition), "books", "r").await;
    assert_eq!((run.state, run.get(ONE).unwrap()), (RunState::Completed, Some(3)));
    assert_eq!(bench.effects("r").await, 1);
}

async fn what_a_late_attempt_wrote_is_rolled_back<S: Transactional + Clone>(bench: Bench<S>) {
    let job = effect(&bench.seen, |_, ctx| {
        Box::pin(async move {
            if ctx.attempt() == 1 {
                std::future::pending::<()>().await;
            }
            Ok(ctx.attempt())
        })
    });
    let definition = Definition::<u32, S::Conn>::builder("books")
        .tx_step(ONE, job)
        .timeout(Duration::from_secs(5))
        .retry(2)
        .build()
        .unwrap();
    let run = bench.run(&bench.process_tx(&definition), "books", "r").await;
    assert_eq!((run.state, run.get(ONE).unwrap()), (RunState::Completed, Some(2)));
    assert_eq!(bench.effects("r").await, 1);
}

async fn a_step_takes_effect_once_wherever_the_process_dies<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32, S::Conn>::builder("books")
        .tx_step(ONE, plain_effect(&bench.seen))
        .step(TWO, bench.seen.gives(2))
        .build()
        .unwrap();
    let register = |process: &Process<S>| process.register_tx(definition.clone()).unwrap();
    bench
        .dying_at_every_call(register, "books", async |process, run| {
            assert_eq!(bench.inspect(process, run).await.state, RunState::Completed, "{run}");
            assert_eq!(bench.effects(run).await, 1, "{run}");
        })
        .await;
}

async fn what_a_zombie_wrote_is_rolled_back<S: Transactional + Clone>(bench: Bench<S>) {
    let seen = bench.seen.clone();
    let job = move |ctx: Ctx, mut tx: Tx<S::Conn>| {
        let seen = seen.clone();
        async move {
            seen.add("began");
            if seen.count("began") == 1 {
                seen.wait().await;
            }
            // Only now the connection, which on some stores would hold everybody up.
            take_effect(&seen, &mut tx, ctx.run_id()).await?;
            seen.add("wrote");
            Ok::<_, Error>(u32::try_from(seen.count("wrote")).unwrap())
        }
    };
    let definition = Definition::<u32, S::Conn>::builder("books").tx_step(ONE, job).build().unwrap();
    // Its clock stands still: it believes in its lease for ever.
    let zombie = bench.process_tx(&definition).clock(ManualClock::at(bench.now()).shared());
    zombie.start("books", "r", &0).await.unwrap();
    let _zombie = work(&zombie);
    bench.until_seen("began").await;
    bench.lapse().await;
    let process = bench.process_tx(&definition);
    let _worker = work(&process);
    assert_eq!(bench.outcome(&process, "r").await.get(ONE).unwrap(), Some(1));
    bench.seen.let_go(1);
    bench.until(async || bench.seen.count("wrote") == 2).await;
    bench.pass(LEASE).await;
    assert_eq!(bench.effects("r").await, 1);
    assert_eq!(bench.inspect(&process, "r").await.get(ONE).unwrap(), Some(1));
}

async fn a_transaction_that_was_cut_off_is_not_in_doubt<S: Transactional + Clone>(bench: Bench<S>) {
    let job = effect(&bench.seen, |seen, _| {
        Box::pin(async move {
            if seen.count("one") == 1 {
                std::future::pending::<()>().await;
            }
            Ok(1)
        })
    });
    let definition = Definition::<u32, S::Conn>::builder("books")
        .tx_step(ONE, job)
        .on_interrupted(OnInterrupted::Park)
        .build()
        .unwrap();
    let process = bench.process_tx(&definition);
    process.start("books", "r", &0).await.unwrap();
    let worker = work(&process);
    bench.until_seen("one").await;
    bench.settle().await;
    drop(worker);
    bench.lapse().await;
    let _worker = work(&bench.process_tx(&definition));
    assert_eq!(bench.outcome(&process, "r").await.state, RunState::Completed);
    assert_eq!((bench.effects("r").await, bench.seen.count("one")), (1, 2));
}

async fn a_conflict_of_the_writes_is_a_failure_of_the_attempt<S: Transactional + Clone>(bench: Bench<S>) {
    let job = move |ctx: Ctx, mut tx: Tx<S::Conn>| async move {
        let expect = if ctx.attempt() == 1 { Expect::Present } else { Expect::Absent };
        tx.batch().put(Key::new("test", "balance", "account"), "0", expect);
        Ok::<_, Error>(ctx.attempt())
    };
    for (attempts, state) in [(1, RunState::Failed), (2, RunState::Completed)] {
        let definition =
            Definition::<u32, S::Conn>::builder("books").tx_step(ONE, job).retry(attempts).build().unwrap();
        let run = format!("run-{attempts}");
        let ended = bench.run(&bench.process_tx(&definition), "books", &run).await;
        assert_eq!(ended.state, state);
        if let Some(error) = ended.error {
            assert_eq!((error.step(), error.kind()), ("one", StepErrorKind::Failed));
        }
    }
}

async fn a_job_that_keeps_its_transaction_fails_its_step<S: Transactional + Clone>(bench: Bench<S>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeping = Arc::clone(&kept);
    let job = move |_: Ctx, tx: Tx<S::Conn>| {
        keeping.lock().unwrap().push(tx);
        async { Ok::<_, Error>(1) }
    };
    let definition = Definition::<u32, S::Conn>::builder("books").tx_step(ONE, job).retry(5).build().unwrap();
    let run = bench.run(&bench.process_tx(&definition), "books", "r").await;
    assert_eq!(run.state, RunState::Failed);
    assert_eq!(run.error.unwrap().message(), "the job kept its transaction");
    assert_eq!(kept.lock().unwrap().len(), 1, "another attempt would not be better");
}

async fn transactions_beside_each_other_each_take_effect_once<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32, S::Conn>::builder("books")
        .parallel(Join::All, |group| {
            group.tx_step(ONE, plain_effect(&bench.seen)).tx_step(TWO, plain_effect(&bench.seen))
        })
        .build()
        .unwrap();
    let process = bench.process_tx(&definition);
    let runs: Vec<_> = (0..4).map(|number| format!("run-{number}")).collect();
    for run in &runs {
        process.start("books", run, &0).await.unwrap();
    }
    let _worker = work(&process);
    for run in &runs {
        let ended = bench.outcome(&process, run).await;
        assert_eq!((ended.state, ended.values.len()), (RunState::Completed, 2));
        assert_eq!(bench.effects(run).await, 2, "one of each step");
    }
}

async fn a_step_that_took_effect_is_taken_back<S: Transactional + Clone>(bench: Bench<S>) {
    let definition = Definition::<u32, S::Conn>::builder("books")
        .tx_step(ONE, plain_effect(&bench.seen))
        .compensate(bench.seen.takes_back())
        .step(TWO, bench.seen.fails())
        .build()
        .unwrap();
    let run = bench.run(&bench.process_tx(&definition), "books", "r").await;
    assert_eq!((run.state, bench.effects("r").await), (RunState::Compensated, 1));
    assert_eq!(bench.seen.take(), ["one", "two", "undo one"]);
}
