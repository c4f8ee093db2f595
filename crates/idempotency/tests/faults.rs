//! What a store that fails in one chosen call does, and does not, do to an operation.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_core::layer::{Around, AroundStore, Call, Method};
use evenkeel_core::{
    Error, ErrorKind as Kind, ManualClock, MemoryStore, NewEvent, Read, Result, RetryHint, Store, StoreExt,
};
use evenkeel_idempotency::{
    Claim, Content, Ending, ErrorKind, Guard, Idempotency, Operation, RunError, Scope, Status, Tracked,
};
use tokio::sync::Notify;

#[tokio::test]
async fn a_claim_and_a_replay_cost_one_call_each() {
    let (script, process, _) = world();
    let guard = won(process.claim(operation()).await);
    assert_eq!(script.commits(), [Method::Commit]);
    guard.finish("a").await.unwrap();
    assert_eq!(script.commits(), [Method::Commit, Method::Commit]);
    assert_eq!(replayed(process.claim(operation()).await), "a");
    assert_eq!(script.commits(), [Method::Commit, Method::Commit, Method::Commit]);
}

#[tokio::test]
async fn a_claim_whose_acknowledgement_was_lost_is_owned() {
    let (script, process, _) = world();
    script.next([Fault::LoseAnswer]);
    let guard = won(process.claim(operation()).await);
    assert_eq!(guard.attempt(), 1);
    guard.finish("a").await.unwrap();
    assert_eq!(replayed(process.claim(operation()).await), "a");
}

#[tokio::test]
async fn a_store_that_is_down_is_reported_at_once_with_its_hint() {
    let (script, process, _) = world();
    script.next([Fault::Unavailable]);
    let error = process.claim(operation()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Store(Kind::Unavailable), RetryHint::Now));
    assert_eq!(script.commits(), [Method::Commit]);
    assert_eq!(tracked(&process).await, None);
}

#[tokio::test]
async fn a_claim_that_stays_unknown_is_an_error_of_that_kind() {
    let (script, process, clock) = world();
    script.next(std::iter::repeat_n(Fault::LoseRequest, 6));
    let claim = tokio::spawn(async move { process.claim(operation()).await.map(drop) });
    let error = pump(&clock, claim).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store(Kind::OutcomeUnknown));
    assert_eq!(script.commits().len(), 6);
}

#[tokio::test]
async fn a_finish_is_repeated_until_it_is_applied() {
    for fault in [Fault::LoseAnswer, Fault::LoseRequest, Fault::Unavailable] {
        let (script, process, _) = world();
        let guard = won(process.claim(operation()).await);
        script.next([fault]);
        guard.finish("a").await.unwrap();
        assert_eq!(replayed(process.claim(operation()).await), "a");
    }
}

#[tokio::test]
async fn a_renewal_whose_acknowledgement_was_lost_does_not_fence_its_owner_off() {
    for fault in [Fault::LoseAnswer, Fault::LoseRequest, Fault::Unavailable] {
        let (script, process, clock) = world();
        let guard = won(process.claim(operation()).await);
        let until = tracked(&process).await.unwrap().lease_until;
        script.next([fault]);
        clock.wait_for_sleepers(1).await;
        clock.advance(Duration::from_secs(10));
        while tracked(&process).await.unwrap().lease_until == until {
            tokio::task::yield_now().await;
        }
        guard.finish("a").await.unwrap();
        assert_eq!(replayed(process.claim(operation()).await), "a");
    }
}

#[tokio::test]
async fn a_renewal_that_stays_unknown_is_settled_by_the_finish() {
    let (script, process, clock) = world();
    let guard = won(process.claim(operation()).await);
    script.next(std::iter::repeat_n(Fault::LoseAnswer, 6));
    clock.wait_for_sleepers(1).await;
    clock.advance(Duration::from_secs(10));
    while script.commits().len() < 7 {
        clock.advance(Duration::from_millis(10));
        tokio::task::yield_now().await;
    }
    guard.finish("a").await.unwrap();
    assert_eq!(replayed(process.claim(operation()).await), "a");
}

#[tokio::test]
async fn a_renewal_in_flight_is_waited_for_by_the_finish() {
    let (script, process, clock) = world();
    let guard = won(process.claim(operation()).await);
    let release = Arc::new(Notify::new());
    script.next([Fault::Hold(Arc::clone(&release))]);
    clock.wait_for_sleepers(1).await;
    clock.advance(Duration::from_secs(10));
    while script.commits().len() < 2 {
        tokio::task::yield_now().await;
    }
    let finish = tokio::spawn(guard.finish("a"));
    tokio::task::yield_now().await;
    assert_eq!(script.commits().len(), 2, "the finish waits");
    release.notify_one();
    finish.await.unwrap().unwrap();
    assert_eq!(replayed(process.claim(operation()).await), "a");
}

#[tokio::test]
async fn a_transaction_whose_acknowledgement_was_lost_is_a_success() {
    let (script, process, _) = world();
    script.next([Fault::None, Fault::LoseAnswer]);
    let outcome = charge(&process).await.unwrap();
    assert_eq!(outcome, 7);
    assert_eq!(effects(&process).await, 1);
    assert_eq!(tracked(&process).await.unwrap().status, Status::Finished);
}

#[tokio::test]
async fn a_transaction_that_was_lost_is_known_to_be_taken_back() {
    for (fault, kind) in [(Fault::LoseRequest, Kind::Unavailable), (Fault::Unavailable, Kind::Unavailable)] {
        let (script, process, _) = world();
        script.next([Fault::None, fault]);
        let error = charge(&process).await.unwrap_err();
        assert!(
            matches!(&error, RunError::Idempotency(error) if error.kind() == ErrorKind::Store(kind)),
            "{error}"
        );
        assert_eq!(effects(&process).await, 0);
        let tracked = tracked(&process).await.unwrap();
        assert_eq!((tracked.status, tracked.ending), (Status::Failed, Some(Ending::Reported)));
        charge(&process).await.unwrap();
        assert_eq!(effects(&process).await, 1);
    }
}

#[tokio::test]
async fn a_claim_dropped_while_it_is_written_is_recorded_as_failed() {
    let (script, process, _) = world();
    let release = Arc::new(Notify::new());
    script.next([Fault::Hold(Arc::clone(&release))]);
    let claim = process.claim(operation());
    assert!(futures_util::FutureExt::now_or_never(claim).is_none());
    release.notify_one();
    while tracked(&process).await.is_none_or(|it| it.ending != Some(Ending::Dropped)) {
        tokio::task::yield_now().await;
    }
    assert_eq!(won(process.claim(operation()).await).attempt(), 2);
}

#[tokio::test]
async fn an_idle_process_has_no_timer() {
    let (_, process, clock) = world();
    for _ in 0..100 {
        won(process.claim(operation()).await).fail("no").await.unwrap();
    }
    tokio::task::yield_now().await;
    assert!(clock.sleepers() <= 1, "one timer for all: {}", clock.sleepers());
    clock.advance(Duration::from_secs(10));
    while clock.sleepers() > 0 {
        tokio::task::yield_now().await;
    }
    let _guard = won(process.claim(operation()).await);
    clock.wait_for_sleepers(1).await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_offloaded_is_left_out_of_what_is_done() {
    let (_, process, clock) = world();
    let second = Script::default();
    let process = process.offload(MemoryStore::new().layer(second.clone()), 10);
    second.next(std::iter::repeat_n(Fault::Unavailable, 6));
    let guard = won(process.claim(operation()).await);
    let finish = tokio::spawn(guard.finish(vec![b'a'; 11]));
    let answer = pump(&clock, finish).await.unwrap();
    assert_eq!(answer.content, Content::NotStored { bytes: 11 });
    assert_eq!(tracked(&process).await.unwrap().status, Status::Finished);
}

#[tokio::test]
async fn a_transaction_whose_answer_cannot_be_offloaded_is_taken_back() {
    let (_, process, clock) = world();
    let second = Script::default();
    let process = process.offload(MemoryStore::new().layer(second.clone()), 0);
    second.next(std::iter::repeat_n(Fault::Unavailable, 6));
    let run = tokio::spawn({
        let process = process.clone();
        async move { charge(&process).await }
    });
    assert!(pump(&clock, run).await.is_err());
    assert_eq!(effects(&process).await, 0);
    assert_eq!(tracked(&process).await.unwrap().status, Status::Failed);
    assert_eq!(charge(&process).await.unwrap(), 7);
}

/// What happens to a commit, by either door.
#[derive(Clone, Debug)]
enum Fault {
    None,
    /// It is not applied, and that is known.
    Unavailable,
    /// It is applied, which is not known.
    LoseAnswer,
    /// It is not applied, which is not known.
    LoseRequest,
    /// It is applied once it is let go.
    Hold(Arc<Notify>),
}

/// The next commits have the faults that are scripted.
#[derive(Clone, Debug, Default)]
struct Script {
    faults: Arc<Mutex<VecDeque<Fault>>>,
    commits: Arc<Mutex<Vec<Method>>>,
}

impl Script {
    fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    fn commits(&self) -> Vec<Method> {
        self.commits.lock().unwrap().clone()
    }
}

impl Around for Script {
    async fn call<T: Send>(&self, call: Call<'_>, made: impl Future<Output = Result<T>> + Send) -> Result<T> {
        // Tests look, too: only what changes something counts.
        if !matches!(call.method, Method::Commit | Method::Finish) {
            return made.await;
        }
        self.commits.lock().unwrap().push(call.method);
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            None | Some(Fault::None) => made.await,
            Some(Fault::Unavailable) => Err(Error::new(Kind::Unavailable, "down")),
            Some(Fault::LoseAnswer) => {
                made.await?;
                Err(Error::new(Kind::OutcomeUnknown, "lost"))
            }
            Some(Fault::LoseRequest) => Err(Error::new(Kind::OutcomeUnknown, "lost")),
            Some(Fault::Hold(release)) => {
                release.notified().await;
                made.await
            }
        }
    }
}

/// A memory store behind a script.
type Scripted = AroundStore<MemoryStore, Script>;

fn world() -> (Script, Idempotency<Scripted>, ManualClock) {
    let (script, clock) = (Script::default(), ManualClock::default());
    let process = Idempotency::new(MemoryStore::new().layer(script.clone())).clock(clock.shared());
    (script, process, clock)
}

fn operation() -> Operation {
    Operation::new(Scope::Global, "charge", "k")
}

async fn charge(process: &Idempotency<Scripted>) -> Result<u8, RunError<String>> {
    let run = process.run_tx(operation(), async |mut tx| {
        let now = tx.batch().now();
        tx.batch().append_any("charges", [NewEvent::new("Charged", "{}", now)]);
        Ok::<_, String>(7)
    });
    Ok(run.await?.value)
}

async fn effects(process: &Idempotency<Scripted>) -> u64 {
    let store = process.store();
    let at = store.partition_of("");
    store.read(&at, Read::stream("charges", 0, 1)).await.unwrap().head
}

async fn tracked(process: &Idempotency<Scripted>) -> Option<Tracked> {
    process.show(operation().identity()).await.unwrap()
}

#[track_caller]
fn won(claim: Result<Claim<Scripted>, evenkeel_idempotency::Error>) -> Guard<Scripted> {
    match claim.unwrap() {
        Claim::Run(guard) => guard,
        Claim::Replay(answer) => panic!("the claim was to be won, and is a replay of {answer:?}"),
    }
}

#[track_caller]
fn replayed(claim: Result<Claim<Scripted>, evenkeel_idempotency::Error>) -> String {
    match claim.unwrap() {
        Claim::Replay(answer) => match answer.content {
            Content::Stored(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Content::NotStored { bytes } => panic!("{bytes} bytes were to be stored"),
        },
        Claim::Run(guard) => panic!("the operation was to be replayed, and is begun by {guard:?}"),
    }
}

/// Joins a task that sleeps between its tries.
async fn pump<T>(clock: &ManualClock, task: tokio::task::JoinHandle<T>) -> T {
    while !task.is_finished() {
        clock.advance(Duration::from_millis(10));
        tokio::task::yield_now().await;
    }
    task.await.unwrap()
}
