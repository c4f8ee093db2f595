use evenkeel_core::{
    Batch, Error, ErrorKind, Expect, ExpectStream, NewEvent, Read, Result, Store, StoreExt, Version,
};

use crate::event_store::EventStore;
use crate::{places, settle};

impl<S: Store + Clone> EventStore<S> {
    /// The version of a stream's last event; 0 where it does not exist or was deleted.
    pub async fn version(&self, stream: &str) -> Result<u64> {
        let (version, is_deleted) = tokio::try_join!(self.head(stream), self.is_deleted(stream))?;
        Ok(if is_deleted { 0 } else { version })
    }

    /// Whether a stream has ever had an event and is not deleted.
    pub async fn exists(&self, stream: &str) -> Result<bool> {
        Ok(self.version(stream).await? > 0)
    }

    /// Forgets a stream's events before version `before`. Positions and versions stay taken.
    ///
    /// A projection that had not come to them passes over them.
    pub async fn truncate(&self, stream: &str, before: u64) -> Result<()> {
        let Some(through) = before.checked_sub(1).filter(|through| *through > 0) else { return Ok(()) };
        let mut batch = self.batch(stream);
        batch.trim(stream, through);
        self.store.commit(batch).await.map(drop)
    }

    /// Ends a stream with a tombstone, an event of kind `evenkeel.stream-deleted`, and forgets
    /// the events before it. Deleting it again finishes what was cut off.
    ///
    /// From then on loads and appends fail with `NotFound`, until it is [reopened](Self::reopen).
    /// One append is let through all the same: who expects the version of the tombstone itself
    /// knows of it.
    ///
    /// # Errors
    /// `NotFound` where it does not exist; `Conflict` where somebody appends at the same time.
    pub async fn delete(&self, stream: &str) -> Result<()> {
        let at = self.partition_of(stream);
        let last = match self.tombstone(stream).await? {
            Some((tombstone, _)) => tombstone.saturating_sub(1),
            None => {
                let last = self.head(stream).await?;
                if last == 0 {
                    return Err(
                        Error::new(ErrorKind::NotFound, "the stream does not exist").with("stream", stream)
                    );
                }
                let mut batch = self.batch(stream);
                let tombstone = NewEvent::new(places::TOMBSTONE, "null", batch.now());
                batch.put(places::tombstone(stream), (last + 1).to_string(), Expect::Absent).append(
                    stream,
                    ExpectStream::Version(last),
                    [tombstone],
                );
                settle::commit(&self.store, &*self.clock, batch).await?;
                last
            }
        };
        let mut batch = Batch::new(at, self.now());
        batch.trim(stream, last);
        self.store.commit(batch).await.map(drop)
    }

    /// Lets events be appended to a deleted stream again, after its tombstone; returns the version
    /// of that.
    ///
    /// # Errors
    /// `NotFound` where it is not deleted.
    pub async fn reopen(&self, stream: &str) -> Result<u64> {
        let Some((version, record)) = self.tombstone(stream).await? else {
            return Err(Error::new(ErrorKind::NotFound, "the stream is not deleted").with("stream", stream));
        };
        let mut batch = self.batch(stream);
        // The deletion may have been cut off before it forgot the events.
        batch
            .delete(places::tombstone(stream), Expect::Version(record))
            .trim(stream, version.saturating_sub(1));
        match settle::commit(&self.store, &*self.clock, batch).await {
            // A deletion that was sent again after a lost answer finds nothing to delete.
            Err(error) if error.kind() == ErrorKind::Conflict && !self.is_deleted(stream).await? => {
                Ok(version)
            }
            outcome => outcome.map(|_| version),
        }
    }

    async fn tombstone(&self, stream: &str) -> Result<Option<(u64, Version)>> {
        let key = places::tombstone(stream);
        self.store.get_json(&self.partition_of(stream), self.now(), &key).await
    }

    /// The version of the last event, a tombstone or not.
    async fn head(&self, stream: &str) -> Result<u64> {
        let read = Read::stream_backwards(stream, None, 1);
        Ok(self.store.read(&self.partition_of(stream), read).await?.head)
    }
}
