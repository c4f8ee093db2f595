use std::fmt;
use std::pin::{Pin, pin};
use std::time::Duration;

use evenkeel_core::{Batch, BoxError, Clock, Filter, Partition, Result, Tx};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Recorded;

/// What keeps a read model, with a connection `C`: that of door 2 of the store it runs on.
///
/// - `Projector<PgConnection>` and `Projector<SqliteConnection>` write SQL, `DynamoWrites` items,
///   `RedisWrites` commands; `Projector<Draft>` writes records and runs on any store once erased.
/// - What it writes, its state and its position are one commit. Each event is applied once, in
///   order, whatever crashes; a handler may run more often, and then its writes are gone.
/// - It has no memory of its own: what it needs to remember between events is its [state](Self::State)
///   or in its read model.
///
/// A failure or a panic is dealt with as the projection's [policy](crate::Policy) says, once it has
/// happened twice in a row: a single one may have been the connection's. One whose sources have an
/// error of the store that may pass is no failure of the handler: the events are applied again. A
/// conflict is such an error, until one event has met with ten in a row.
pub trait Projector<C: 'static>: Send + Sync + 'static {
    /// What is kept beside the position: one of it in each partition for a stream projection, one
    /// for each stream for a keyed one; `()` for none.
    type State: Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Which events it is given; all unless it says so. The position moves past the others.
    fn filter(&self) -> Filter {
        Filter::all()
    }

    /// How long an event may take to be applied, from when there is a connection; as long as it needs
    /// unless it says so.
    ///
    /// What takes longer is dropped, its writes with it, and is a failure of the event. Where
    /// [`apply_batch`](Self::apply_batch) is written otherwise, the events of a call have the time
    /// of all of them together; it is called apart for those that have as long as they need.
    fn timeout(&self, _event: &Recorded) -> Option<Duration> {
        None
    }

    /// Makes what `version` of the read model needs, such as its tables. Runs once for each version,
    /// before its first event, in a transaction on the projection's home partition.
    fn init(&self, _version: u32, _tx: &mut Tx<C>) -> impl Future<Output = Result<(), BoxError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Applies an event.
    fn apply(
        &self,
        event: &Recorded,
        context: &mut Context<'_, C, Self::State>,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Applies events that go into one commit, in order; one by one unless it is written
    /// otherwise, to send them to the database together.
    ///
    /// A keyed projection is given the events of one stream at a time.
    fn apply_batch(
        &self,
        events: &[Recorded],
        context: &mut Context<'_, C, Self::State>,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        async move {
            for (event, index) in events.iter().zip(0..) {
                context.at = Some(index);
                let (clock, limit) = (context.clock, self.timeout(event));
                context.connect(limit).await?;
                within(clock, limit, pin!(self.apply(event, context))).await?;
            }
            Ok(())
        }
    }

    /// Takes a step to make `version` of the read model smaller, in a transaction on one of the
    /// partitions, and says whether there is more to do there. Nothing is, unless it is written
    /// otherwise.
    ///
    /// It runs where the projection is told [how often](crate::Projection::compact_every), on the
    /// node that has the partition, beside what is applied meanwhile, and must be small: others wait
    /// for what it holds. A step that fails is done over where the store caused it; otherwise it is
    /// logged and counted, and stops nothing.
    fn compact(
        &self,
        _version: u32,
        _tx: &mut Tx<C>,
    ) -> impl Future<Output = Result<Compacted, BoxError>> + Send {
        std::future::ready(Ok(Compacted::All))
    }

    /// Removes what `version` of the read model has, in a transaction on the projection's home
    /// partition. Runs when that version is [discarded](crate::Projection::discard).
    fn discard(&self, _version: u32, _tx: &mut Tx<C>) -> impl Future<Output = Result<(), BoxError>> + Send {
        std::future::ready(Ok(()))
    }
}

/// How far a read model is compacted in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compacted {
    /// There is more to do.
    More,
    /// There is nothing more to do for now.
    All,
}

/// What a handler works with.
pub struct Context<'a, C, T> {
    /// The state before the event, and after it.
    pub state: &'a mut T,
    tx: &'a mut Tx<C>,
    version: u32,
    effects: Effects,
    clock: &'a dyn Clock,
    /// Which event of the batch is applied, where that is known.
    pub(crate) at: Option<usize>,
}

/// Whether what a handler does beside its read model is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effects {
    Live,
    Silent,
}

impl<'a, C: 'static, T> Context<'a, C, T> {
    pub(crate) fn new(
        tx: &'a mut Tx<C>,
        state: &'a mut T,
        version: u32,
        effects: Effects,
        clock: &'a dyn Clock,
    ) -> Self {
        Self { state, tx, version, effects, clock, at: None }
    }

    /// The connection, taken from the database at the first call of a commit.
    ///
    /// # Errors
    /// Those of [`Tx::conn`].
    pub async fn conn(&mut self) -> Result<&mut C> {
        self.tx.conn().await
    }

    /// Takes the connection ahead of what has a limit: who is made to wait for it is not slow.
    pub(crate) async fn connect(&mut self, limit: Option<Duration>) -> Result<()> {
        if limit.is_some() {
            self.conn().await?;
        }
        Ok(())
    }

    /// The version of the read model that is written, for the names of its tables.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The partition that the events are of.
    #[must_use]
    pub fn partition(&self) -> &Partition {
        self.tx.partition()
    }

    /// The batch of the commit, for what is to happen once because of an event: an event appended,
    /// a job pushed, a document published. `None` where another version has done it: while this one
    /// is built, and for what the one before had applied when this one took over.
    ///
    /// What a keyed projection has applied beyond its position, in a batch that a node died in the
    /// middle of or in an [append](crate::Projection::append), a version that takes over at that
    /// moment does not know of: those effects can be repeated.
    pub fn effects(&mut self) -> Option<&mut Batch> {
        match self.effects {
            Effects::Live => Some(self.tx.batch()),
            Effects::Silent => None,
        }
    }
}

impl<C, T: fmt::Debug> fmt::Debug for Context<'_, C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("state", &self.state)
            .field("version", &self.version)
            .field("effects", &self.effects)
            .finish_non_exhaustive()
    }
}

/// What comes of a handler's work, which fails where it takes longer than `limit`.
pub(crate) async fn within<F: Future<Output = Result<(), BoxError>>>(
    clock: &dyn Clock,
    limit: Option<Duration>,
    work: Pin<&mut F>,
) -> Result<(), BoxError> {
    let Some(limit) = limit else { return work.await };
    let outcome = clock.timeout_at(clock.now() + limit, work).await;
    outcome.unwrap_or_else(|| Err(format!("the handler took longer than {limit:?}").into()))
}
