use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use evenkeel_core::{BoxError, StoreExt, Transactional, Tx};
use evenkeel_projections::{
    Advance, Compacted, Context, OnFailure, Policy, Projection, Projector, Recorded, ResourceVersions,
};
use tokio::sync::Notify;

use super::Case;
use super::bench::{Bank, Process};
use super::notebook::{Notebook, noted, page};
use crate::chaos::{Chaos, ChaosStore};

/// What holds where others end a store's own connection, or share it: time limits, compaction, and
/// checkpoints.
pub(super) fn cases<N: Notebook<S::Conn>, S: Transactional + Clone>() -> Vec<Case<Bank<S>>> {
    macro_rules! cases {
        ($($case:ident),+) => {
            vec![$(Case { name: stringify!($case), run: |bank| Box::pin($case::<N, S>(bank)) }),+]
        };
    }
    cases![
        what_an_event_wrote_that_took_too_long_is_taken_back,
        each_step_of_a_compaction_is_a_commit_and_one_that_fails_is_taken_back,
        a_checkpoint_moves_with_what_is_written_or_not_at_all
    ]
}

/// The store of a process, with its own connection.
type Native<S> = ChaosStore<ChaosStore<S>>;

const LIMIT: Duration = Duration::from_secs(5);

/// Writes to a note, and then hangs at the second event; fails in the third step of compaction.
struct Careless<N> {
    hangs: Arc<Notify>,
    /// How many steps of compaction it has taken.
    steps: AtomicU32,
    notes: PhantomData<fn() -> N>,
}

impl<C: Send + 'static, N: Notebook<C>> Projector<C> for Careless<N> {
    type State = ();

    fn timeout(&self, _: &Recorded) -> Option<Duration> {
        Some(LIMIT)
    }

    async fn init(&self, _: u32, tx: &mut Tx<C>) -> Result<(), BoxError> {
        N::make(tx.conn().await?).await
    }

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, C, ()>) -> Result<(), BoxError> {
        let name = page(context.partition(), "careless");
        N::note(context.conn().await?, &name, &format!("{} ", event.version)).await?;
        if event.version == 2 {
            self.hangs.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn compact(&self, _: u32, tx: &mut Tx<C>) -> Result<Compacted, BoxError> {
        let name = page(tx.partition(), "compacted");
        let step = self.steps.fetch_add(1, SeqCst);
        let conn = tx.conn().await?;
        N::note(conn, &name, &format!("{step} ")).await?;
        if step == 2 {
            N::fail(conn).await?;
        }
        Ok(if step < 3 { Compacted::More } else { Compacted::All })
    }
}

fn careless<N, S>(process: &Process<S>, hangs: &Arc<Notify>) -> Projection<Careless<N>, Native<S>>
where
    N: Notebook<S::Conn>,
    S: Transactional + Clone,
{
    let careless = Careless { hangs: Arc::clone(hangs), steps: AtomicU32::default(), notes: PhantomData };
    Projection::stream(process.native.clone(), "careless", careless)
}

/// What is under a name in the first partition, which all of this is about.
async fn noted_first<N, S>(bank: &Bank<S>, process: &Process<S>, name: &str) -> String
where
    N: Notebook<S::Conn>,
    S: Transactional + Clone,
{
    let first = bank.store.partitions().remove(0);
    noted::<N, _>(&process.store, &first, bank.now(), &page(&first, name)).await
}

/// A stream of the first partition.
fn stream<S: Transactional + Clone>(bank: &Bank<S>) -> String {
    let first = bank.store.partitions().remove(0);
    let mut names = (0..).map(|n| format!("stream-{n}"));
    names.find(|name| bank.at(name) == first).expect("names go on for ever")
}

async fn what_an_event_wrote_that_took_too_long_is_taken_back<N, S>(bank: Bank<S>)
where
    N: Notebook<S::Conn>,
    S: Transactional + Clone,
{
    let (process, hangs) = (bank.troubled(Chaos::new(0)), Arc::default());
    let projection = careless::<N, S>(&process, &hangs).policy(Policy::new(OnFailure::Ignore));
    bank.deposit(&stream(&bank), &[1; 3]).await;
    // Time stands still but for what hangs, however long the database takes.
    let time = async {
        loop {
            hangs.notified().await;
            bank.clock.wait_for_sleepers(1).await;
            bank.clock.advance(LIMIT);
        }
    };
    tokio::select! {
        caught_up = Box::pin(projection.catch_up()) => caught_up.unwrap(),
        () = time => unreachable!("it goes on for ever"),
    }
    assert_eq!(noted_first::<N, _>(&bank, &process, "careless").await, "1 3 ");
    let dead = projection.operations().dead_letters(None, 9).await.unwrap();
    let said: Vec<&str> = dead.iter().map(|letter| letter.failure.error.as_str()).collect();
    assert_eq!(said, ["the handler took longer than 5s"]);
}

async fn each_step_of_a_compaction_is_a_commit_and_one_that_fails_is_taken_back<N, S>(bank: Bank<S>)
where
    N: Notebook<S::Conn>,
    S: Transactional + Clone,
{
    let process = bank.troubled(Chaos::new(0));
    let projection = careless::<N, S>(&process, &Arc::default());
    projection.compact().await.unwrap_err();
    assert_eq!(noted_first::<N, _>(&bank, &process, "compacted").await, "0 1 ");
    projection.compact().await.unwrap();
    assert_eq!(noted_first::<N, _>(&bank, &process, "compacted").await, "0 1 3 ");
}

/// Writes a note in the first partition's transaction.
async fn write<C: Send + 'static, N: Notebook<C>>(mut tx: Tx<C>, text: &str) -> Result<(), BoxError> {
    let name = page(tx.partition(), "checkpoints");
    N::note(tx.conn().await?, &name, text).await
}

async fn a_checkpoint_moves_with_what_is_written_or_not_at_all<N, S>(bank: Bank<S>)
where
    N: Notebook<S::Conn>,
    S: Transactional + Clone,
{
    let process = bank.troubled(Chaos::new(0));
    careless::<N, S>(&process, &Arc::default()).catch_up().await.unwrap();
    let stream = stream(&bank);
    let notes = ResourceVersions::new(process.store.clone(), "notes").clock(bank.clock.shared());
    let move_on = async |from, to| -> Result<Advance, BoxError> {
        notes.advance_with(&stream, from, to, async |tx| write::<_, N>(tx, &format!("{to} ")).await).await
    };
    assert_eq!(move_on(None, 2).await.unwrap(), Advance::Moved);
    assert_eq!(move_on(Some(2), 5).await.unwrap(), Advance::Moved);
    assert_eq!(move_on(Some(2), 6).await.unwrap(), Advance::StandsAt(Some(5)));

    let outrun: Result<Advance, BoxError> = notes
        .advance_with(&stream, Some(5), 7, async |tx| {
            assert_eq!(notes.advance(&stream, Some(5), 9).await?, Advance::Moved);
            write::<_, N>(tx, "7 ").await
        })
        .await;
    assert_eq!(outrun.unwrap(), Advance::StandsAt(Some(9)));

    let failed: Result<Advance, BoxError> =
        notes.advance_with(&stream, Some(9), 10, async |mut tx| N::fail(tx.conn().await?).await).await;
    failed.unwrap_err();
    assert_eq!(notes.checkpoint(&stream).await.unwrap(), Some(9));
    assert_eq!(noted_first::<N, _>(&bank, &process, "checkpoints").await, "2 5 ");
}
