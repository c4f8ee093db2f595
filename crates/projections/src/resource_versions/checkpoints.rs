use bytes::Bytes;
use evenkeel_core::{Batch, Error, ErrorKind, Result, Store, Transactional, Tx};

use super::ResourceVersions;

/// What came of moving a checkpoint on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Advance {
    /// It has moved, and what goes with it was written.
    Moved,
    /// It stands here, and nothing was written; `None` where the stream has none.
    StandsAt(Option<u64>),
}

/// How far a handler has come in streams: the version of a stream is an offset, of which the handler
/// says what it counts.
///
/// ```
/// # use evenkeel_core::{Error, ExpectStream, Key, MemoryStore, Result, StoreExt};
/// # use evenkeel_projections::{Advance, Event, EventStore, ResourceVersions};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # enum AccountEvent { Deposited { cents: i64 } }
/// # impl Event for AccountEvent {}
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// # let store = MemoryStore::new().any();
/// # let events = EventStore::new(store.clone());
/// # let deposits: Vec<_> = (0..250).map(|cents| AccountEvent::Deposited { cents }).collect();
/// # events.append("account-7", ExpectStream::NoStream, &deposits).await?;
/// let balances = ResourceVersions::new(store, "balances");
/// let mut at = balances.checkpoint("account-7").await?;
/// loop {
///     let page = events.load("account-7", at.unwrap_or(0), 100).await?.events;
///     let Some(last) = page.last() else { break };
///     let moved = balances.advance_with("account-7", at, last.version, async |mut tx| {
///         let draft = tx.conn().await?;
/// #       draft.put(Key::new("bank.seen", "all", "account-7"), last.version.to_string());
///         // ... what the page's events do to the read model
///         Ok::<_, Error>(())
///     });
///     at = match moved.await? {
///         Advance::Moved => Some(last.version),
///         Advance::StandsAt(elsewhere) => elsewhere,
///     };
/// }
/// # assert_eq!(at, Some(250));
/// # Ok(())
/// # }
/// ```
impl<S: Store + Clone> ResourceVersions<S> {
    /// How far the handler has come in a stream; `None` where it has not begun.
    ///
    /// # Errors
    /// Those of [`version`](Self::version); `Corrupt` where the stream's version is not an offset.
    pub async fn checkpoint(&self, stream: &str) -> Result<Option<u64>> {
        offset(stream, &self.version(stream).await?)
    }

    /// Moves the checkpoint of a stream on. Where it is not at `from`, nothing is written, and it
    /// says where it is: without another read where that came to be at the same time.
    ///
    /// # Errors
    /// Those of [`checkpoint`](Self::checkpoint); `InvalidInput` where `to` is not beyond `from`.
    pub async fn advance(&self, stream: &str, from: Option<u64>, to: u64) -> Result<Advance> {
        let [current, next] = versions(stream, from, to)?;
        advance(stream, self.commit_update(stream, &current, &next).await?)
    }

    /// Adds an [`advance`](Self::advance) to a batch of the stream's partition, which may have those
    /// of several streams. [`StandsAt`](Advance::StandsAt), and nothing is added, where the checkpoint
    /// is elsewhere already; where that happens later, the batch's conflict
    /// [says where](Self::checkpoint_found).
    ///
    /// # Errors
    /// Those of [`advance`](Self::advance); `InvalidInput` where the batch is for another partition.
    pub async fn advance_in(
        &self,
        batch: &mut Batch,
        stream: &str,
        from: Option<u64>,
        to: u64,
    ) -> Result<Advance> {
        let [current, next] = versions(stream, from, to)?;
        advance(stream, self.add_update(batch, stream, &current, &next).await?)
    }

    /// Where the checkpoint of a stream is, as the conflict of a batch with an
    /// [`advance_in`](Self::advance_in) says.
    ///
    /// # Errors
    /// The error itself where it is not about this stream's checkpoint.
    pub fn checkpoint_found(&self, stream: &str, error: Error) -> Result<Option<u64>> {
        let found = self.in_the_way(stream, Err(error))?;
        offset(stream, &found.unwrap_or_default())
    }
}

impl<S: Transactional + Clone> ResourceVersions<S> {
    /// Moves the checkpoint of a stream on in one commit with what `work` writes, which may be what
    /// many events lead to. Where it is not at `from`, nothing is written, and it says where it is:
    /// without another read where that came to be while `work` ran.
    ///
    /// `work` is as for [`update_with`](Self::update_with).
    ///
    /// # Errors
    /// Those of [`update_with`](Self::update_with) and of [`advance`](Self::advance).
    pub async fn advance_with<E, F, Fut>(
        &self,
        stream: &str,
        from: Option<u64>,
        to: u64,
        work: F,
    ) -> Result<Advance, E>
    where
        E: From<Error>,
        F: FnOnce(Tx<S::Conn>) -> Fut,
        Fut: Future<Output = Result<(), E>> + Send,
    {
        let [current, next] = versions(stream, from, to)?;
        let found = self.commit_update_with(stream, &current, &next, work).await?;
        Ok(advance(stream, found)?)
    }
}

/// The versions that stand for a move between offsets.
fn versions(stream: &str, from: Option<u64>, to: u64) -> Result<[Bytes; 2]> {
    if let Some(from) = from.filter(|from| *from >= to) {
        return Err(Error::new(ErrorKind::InvalidInput, "a checkpoint moves on to what is beyond it")
            .with("stream", stream)
            .with("from", from)
            .with("to", to));
    }
    Ok([from, Some(to)].map(|offset| offset.map_or_else(Bytes::new, |offset| offset.to_string().into())))
}

/// The offset that a version stands for; `None` for the empty one.
fn offset(stream: &str, version: &[u8]) -> Result<Option<u64>> {
    if version.is_empty() {
        return Ok(None);
    }
    let number = std::str::from_utf8(version).ok().and_then(|text| text.parse().ok());
    let corrupt = || {
        Error::new(ErrorKind::Corrupt, "the stream's version is not an offset")
            .with("stream", stream)
            .with("version", version.escape_ascii())
    };
    number.ok_or_else(corrupt).map(Some)
}

fn advance(stream: &str, in_the_way: Option<Bytes>) -> Result<Advance> {
    match in_the_way {
        None => Ok(Advance::Moved),
        Some(version) => Ok(Advance::StandsAt(offset(stream, &version)?)),
    }
}
