//! What waits for the disk, and what is derived from it.

mod kit;

use std::sync::{Arc, Mutex};

use evenkeel_core::layer::{Around, Call};
use evenkeel_core::{AnyStore, Batch, BoxError, Draft, ExpectStream, ManualClock, MemoryStore, Merge, Op};
use evenkeel_core::{Result, StoreExt};
use evenkeel_projections::{Context, OnFailure, Policy, Projection, Projector, Recorded};
use kit::{Bank, Mode, Sums, deposits, with_moving_clock};

/// Keeps what is committed.
#[derive(Clone, Debug, Default)]
struct Committed(Arc<Mutex<Vec<Batch>>>);

impl Around for Committed {
    async fn call<T: Send>(&self, call: Call<'_>, made: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.0.lock().unwrap().extend(call.batch.cloned());
        made.await
    }
}

impl Committed {
    /// Whether each commit is synced that changes the read model or has a job in it.
    fn are_synced(&self) -> Vec<bool> {
        let is_meant = |op: &Op| match op {
            Op::Put { key, .. } => key.space == "test.model",
            Op::Push { .. } => true,
            _ => false,
        };
        let batches = std::mem::take(&mut *self.0.lock().unwrap());
        let meant = batches.iter().filter(|batch| batch.ops().iter().any(is_meant));
        meant.map(Batch::is_synced).collect()
    }
}

fn bank() -> (Bank<AnyStore>, Committed) {
    let committed = Committed::default();
    let store = MemoryStore::new().layer(committed.clone()).any();
    (Bank::on(store, ManualClock::default()), committed)
}

#[tokio::test]
async fn what_is_derived_does_not_wait_for_the_disk_unless_it_is_to() {
    for mode in Mode::BOTH {
        let (bank, committed) = bank();
        bank.deposit("a", &[5]).await;
        assert!(committed.0.lock().unwrap().iter().all(Batch::is_synced), "an append waits");

        mode.of(&bank.events, &Sums::default()).catch_up().await.unwrap();
        assert_eq!(committed.are_synced(), [false], "{mode:?}");

        bank.deposit("a", &[5]).await;
        mode.of(&bank.events, &Sums::default()).synced().catch_up().await.unwrap();
        assert_eq!(committed.are_synced(), [true], "{mode:?}");
    }
}

/// Has a mail sent for a deposit of more than ten cents.
struct Mailer;

impl Projector<Draft> for Mailer {
    type State = ();

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        kit::add(context.conn().await?, "mails", "all", 1).await?;
        let effects = context.effects().expect("this version is the active one");
        if kit::cents(event)? > 10 {
            effects.push("mails", event.position.to_string(), event.recorded_at, "hello", Merge::Keep);
        }
        Ok(())
    }
}

#[tokio::test]
async fn what_others_may_act_on_waits_for_the_disk() {
    let (bank, committed) = bank();
    let mailer = Projection::stream(bank.events.clone(), "mailer", Mailer);
    for (cents, is_synced) in [(5, false), (50, true), (5, false)] {
        bank.deposit("a", &[cents]).await;
        mailer.catch_up().await.unwrap();
        assert_eq!(committed.are_synced(), [is_synced], "{cents} cents");
    }
}

#[tokio::test]
async fn what_somebody_asked_for_waits_for_the_disk() {
    let (bank, committed) = bank();
    let sums = Sums::poisoned_by(13);
    let projection = Mode::Stream.of(&bank.events, &sums).policy(Policy::new(OnFailure::Ignore));
    bank.deposit("a", &[13]).await;
    with_moving_clock(&bank.clock, projection.catch_up()).await.unwrap();

    sums.heal();
    committed.are_synced();
    let letters = projection.operations().dead_letters(None, 10).await.unwrap();
    projection.retry_dead(&letters[0]).await.unwrap();
    assert_eq!(committed.are_synced(), [true]);
}

#[tokio::test]
async fn an_append_that_projects_waits_for_the_disk() {
    let (bank, committed) = bank();
    let projection = Mode::Keyed.of(&bank.events, &Sums::default());
    projection.append("a", ExpectStream::NoStream, &deposits(&[5])).await.unwrap();
    assert_eq!(committed.are_synced(), [true]);
}
