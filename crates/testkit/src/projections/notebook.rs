use std::collections::BTreeMap;
use std::fmt::Write;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use evenkeel_core::{BoxError, Draft, Key, Partition, Result, Timestamp, Transactional, Tx};
use evenkeel_projections::{Context, EventStore, Projection, Projector, Recorded};

use super::accounts::Mode;

/// A read model written with a store's own connection: notes, each a text under a name of at most 500
/// bytes, in the partition of the transaction.
///
/// Its projector notes under each stream's name the versions that it was given.
pub trait Notebook<C>: Send + Sync + 'static {
    /// Makes what notes are kept in, where that is not there yet. Several processes may do so at once.
    fn make(conn: &mut C) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Adds to the end of a note, which is empty at first. A commit adds once to each.
    fn note(conn: &mut C, name: &str, text: &str) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Writes what the database refuses, at once or when it commits.
    fn fail(conn: &mut C) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// What is noted under a name.
    fn read(conn: &mut C, name: &str) -> impl Future<Output = Result<String, BoxError>> + Send;
}

/// Notes as records, on any store once erased.
#[derive(Debug)]
pub struct Records;

impl Notebook<Draft> for Records {
    async fn make(_: &mut Draft) -> Result<(), BoxError> {
        Ok(())
    }

    async fn note(draft: &mut Draft, name: &str, text: &str) -> Result<(), BoxError> {
        let noted = Self::read(draft, name).await?;
        draft.put(record(name), noted + text);
        Ok(())
    }

    async fn fail(draft: &mut Draft) -> Result<(), BoxError> {
        // The longest id is shorter.
        draft.put(record(&"x".repeat(Key::MAX_PART + 1)), "");
        Ok(())
    }

    async fn read(draft: &mut Draft, name: &str) -> Result<String, BoxError> {
        let noted = draft.get(&record(name)).await?.unwrap_or_default();
        Ok(String::from_utf8(noted.to_vec())?)
    }
}

fn record(name: &str) -> Key {
    Key::new("test.note", "all", name)
}

/// Notes which versions of each stream it was given, and in stream order also the positions.
pub(super) struct Noting<N> {
    model: &'static str,
    mode: Mode,
    /// The version of a stream that it fails for; 0 for none.
    fails_at: Arc<AtomicU64>,
    notes: PhantomData<fn() -> N>,
}

impl<N> Noting<N> {
    pub(super) fn new(model: &'static str, mode: Mode) -> Self {
        Self { model, mode, fails_at: Arc::default(), notes: PhantomData }
    }

    pub(super) fn fail_at(&self, version: u64) {
        self.fails_at.store(version, Ordering::SeqCst);
    }

    /// As this says of itself, with the events of `store`.
    pub(super) fn on<S>(&self, events: EventStore<S>) -> Projection<Self, S>
    where
        N: Notebook<S::Conn>,
        S: Transactional + Clone,
    {
        match self.mode {
            Mode::Stream => Projection::stream(events, self.model, self.clone()),
            Mode::Keyed => Projection::keyed(events, self.model, self.clone()),
        }
    }

    /// The note about a stream, or about a partition.
    pub(super) fn name(&self, at: &Partition, version: u32, of: Option<&str>) -> String {
        page(at, &format!("{}-{version}/{}", self.model, of.unwrap_or("all")))
    }
}

impl<C: Send + 'static, N: Notebook<C>> Projector<C> for Noting<N> {
    type State = ();

    async fn init(&self, _: u32, tx: &mut Tx<C>) -> Result<(), BoxError> {
        N::make(tx.conn().await?).await
    }

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, C, ()>) -> Result<(), BoxError> {
        self.apply_batch(std::slice::from_ref(event), context).await
    }

    async fn apply_batch(
        &self,
        events: &[Recorded],
        context: &mut Context<'_, C, ()>,
    ) -> Result<(), BoxError> {
        let (at, version) = (context.partition().clone(), context.version());
        let mut notes = BTreeMap::<String, String>::new();
        for event in events {
            let of_stream = self.name(&at, version, Some(&event.stream));
            write!(notes.entry(of_stream).or_default(), "{} ", event.version)?;
            if let Mode::Stream = self.mode {
                write!(notes.entry(self.name(&at, version, None)).or_default(), "{} ", event.position)?;
            }
        }
        let conn = context.conn().await?;
        for (name, text) in notes {
            N::note(conn, &name, &text).await?;
        }
        let fails_at = self.fails_at.load(Ordering::SeqCst);
        if events.iter().any(|event| event.version == fails_at) {
            N::fail(conn).await?;
        }
        Ok(())
    }
}

impl<N> Clone for Noting<N> {
    fn clone(&self) -> Self {
        Self { fails_at: Arc::clone(&self.fails_at), ..*self }
    }
}

/// A name that no other partition's note has: a database may be shared by several stores.
pub(super) fn page(at: &Partition, name: &str) -> String {
    format!("{at}/{name}")
}

/// What is noted in a partition.
pub(super) async fn noted<N, S>(store: &S, at: &Partition, now: Timestamp, name: &str) -> String
where
    N: Notebook<S::Conn>,
    S: Transactional,
{
    let mut tx = store.begin(at.clone(), now).await.unwrap();
    let noted = N::read(tx.conn().await.unwrap(), name).await.unwrap();
    store.rollback(tx).await;
    noted
}

/// The numbers from 1 to `last`, as they are noted.
pub(super) fn numbers(last: u64) -> String {
    (1..=last).map(|number| format!("{number} ")).collect()
}
