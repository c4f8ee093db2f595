mod checkpoints; // streams, and how far one has come in them
mod reset; // all of a handler's, forgotten

pub use self::checkpoints::Advance;
pub use self::reset::Reset;

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use evenkeel_core::{
    AnyStore, Batch, Clock, Error, ErrorKind, Expect, Found, Key, Op, Partition, Record, Result, Store,
    StoreExt, SystemClock, Transactional, Tx, Version,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const SPACE: &str = "projections.resource";

/// Which version of a resource a handler's read model is at, moved on by compare-and-set, in the
/// same commit as the handler's writes.
///
/// A version is whatever bytes the handler tells versions apart by; the empty one means that the
/// resource is absent. Handlers, named by 1 to 512 bytes, do not see each other's versions.
/// Resources may be named at any length. Handles are cheap to clone.
///
/// | current | next | update |
/// |---|---|---|
/// | empty | some | creates where absent |
/// | some | some | moves on where it is at `current` |
/// | some | empty | deletes where it is at `current` |
/// | empty | empty | holds where absent |
///
/// Where a resource is a stream, its version is best how far one has come in it: a
/// [checkpoint](Self::checkpoint) moves from one offset to [another](Self::advance).
///
/// Methods fail as [`Store::commit`] and [`Store::get`] do. After `OutcomeUnknown`, read the
/// version again. Dropping the future of a write does not cancel a commit that has begun.
#[derive(Clone)]
pub struct ResourceVersions<S = AnyStore> {
    store: S,
    handler: Arc<str>,
    clock: Arc<dyn Clock>,
}

/// What is stored. The resource is there for whoever looks at the record, whose id is a hash.
#[derive(Serialize, Deserialize)]
struct Stored {
    resource: String,
    #[serde(with = "base64_text")]
    version: Bytes,
}

impl Stored {
    fn read(key: &Key, record: &Record) -> Result<Self> {
        serde_json::from_slice(&record.value).map_err(|source| {
            Error::new(ErrorKind::Corrupt, "the record is not a resource's version")
                .with("key", key)
                .with_source(source)
        })
    }
}

mod base64_text {
    use super::{BASE64_STANDARD, Bytes, Deserialize, Engine};

    pub(super) fn serialize<S: serde::Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&base64::display::Base64Display::new(bytes, &BASE64_STANDARD))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        BASE64_STANDARD.decode(&*text).map(Bytes::from).map_err(serde::de::Error::custom)
    }
}

impl<S: Store + Clone> ResourceVersions<S> {
    /// The versions of the handler called `handler`.
    #[must_use]
    pub fn new(store: S, handler: impl Into<Arc<str>>) -> Self {
        Self { store, handler: handler.into(), clock: SystemClock::shared() }
    }

    /// Takes the time of its commits from this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The partition of a resource, which is where writes that join its update go.
    #[must_use]
    pub fn partition_of(&self, resource: &str) -> Partition {
        self.store.partition_of(resource)
    }

    /// The version that the resource is at; empty where it is absent.
    pub async fn version(&self, resource: &str) -> Result<Bytes> {
        Ok(self.read(resource).await?.map_or_else(Bytes::new, |(version, _)| version))
    }

    /// Brings the resource to a version, whatever it is at.
    pub async fn set(&self, resource: &str, version: &[u8]) -> Result<()> {
        let mut batch = self.batch(resource);
        batch.op(self.write(resource, version, Expect::Any));
        self.store.commit(batch).await.map(drop)
    }

    /// Forgets the resource, whatever it is at.
    pub async fn delete(&self, resource: &str) -> Result<()> {
        self.set(resource, b"").await
    }

    /// Brings the resource from `current` to `next`; `false`, and nothing is written, where it is
    /// at another version, or is written at the same time.
    pub async fn update(&self, resource: &str, current: &[u8], next: &[u8]) -> Result<bool> {
        Ok(self.commit_update(resource, current, next).await?.is_none())
    }

    /// Adds an [`update`](Self::update) to a batch of the resource's partition. `false`, and nothing
    /// is added, where it is at another version already; where that happens later, the batch
    /// conflicts.
    ///
    /// # Errors
    /// `InvalidInput` where the batch is for another partition.
    pub async fn update_in(
        &self,
        batch: &mut Batch,
        resource: &str,
        current: &[u8],
        next: &[u8],
    ) -> Result<bool> {
        Ok(self.add_update(batch, resource, current, next).await?.is_none())
    }

    /// Commits an update, or says which version is in its way.
    async fn commit_update(&self, resource: &str, current: &[u8], next: &[u8]) -> Result<Option<Bytes>> {
        let mut batch = self.batch(resource);
        if let Some(found) = self.add_update(&mut batch, resource, current, next).await? {
            return Ok(Some(found));
        }
        let outcome = self.store.commit(batch).await.map(drop);
        self.in_the_way(resource, outcome)
    }

    /// Adds an update to a batch, or says which version is in its way already.
    async fn add_update(
        &self,
        batch: &mut Batch,
        resource: &str,
        current: &[u8],
        next: &[u8],
    ) -> Result<Option<Bytes>> {
        let home = self.partition_of(resource);
        if *batch.at() != home {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the batch is for another partition than the resource",
            )
            .with("batch", batch.at())
            .with("resource", home));
        }
        let expect = match self.read(resource).await? {
            Some((version, _)) if version != current => return Ok(Some(version)),
            None if !current.is_empty() => return Ok(Some(Bytes::new())),
            Some((_, record)) => Expect::Version(record),
            None => Expect::Absent,
        };
        batch.op(self.write(resource, next, expect));
        Ok(None)
    }

    /// What stands for the resource: its version, and that of the record.
    async fn read(&self, resource: &str) -> Result<Option<(Bytes, Version)>> {
        let (at, key) = (self.partition_of(resource), self.key(resource));
        let found = self.store.get_one(&at, self.clock.now(), &key).await?;
        found.map(|record| Ok((Stored::read(&key, &record)?.version, record.version))).transpose()
    }

    /// An absent resource has no record, so that nothing stands in the way of creating it again.
    fn write(&self, resource: &str, version: &[u8], expect: Expect) -> Op {
        let key = self.key(resource);
        if !version.is_empty() {
            let stored = Stored { resource: resource.to_owned(), version: Bytes::copy_from_slice(version) };
            let value = serde_json::to_vec(&stored).expect("two texts turn into JSON").into();
            return Op::Put { key, value, expect, expires_at: None };
        }
        match expect {
            Expect::Absent => Op::Check { key, expect },
            _ => Op::Delete { key, expect },
        }
    }

    /// The version that a commit with an update found in the way of it.
    fn in_the_way(&self, resource: &str, outcome: Result<()>) -> Result<Option<Bytes>> {
        let Err(error) = outcome else { return Ok(None) };
        let own = self.key(resource);
        match error.conflict().map(|conflict| &conflict.found) {
            Some(Found::Record { key, record: None }) if *key == own => Ok(Some(Bytes::new())),
            Some(Found::Record { key, record: Some(record) }) if *key == own => {
                Ok(Some(Stored::read(key, record)?.version))
            }
            _ => Err(error),
        }
    }

    fn key(&self, resource: &str) -> Key {
        let hash = Sha256::digest(resource);
        let id = hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Key::new(SPACE, &*self.handler, id)
    }

    fn batch(&self, resource: &str) -> Batch {
        Batch::new(self.partition_of(resource), self.clock.now())
    }
}

impl<S: Transactional + Clone> ResourceVersions<S> {
    /// Brings the resource from `current` to `next` in one commit with what `work` writes; `false`,
    /// and nothing is written, where it is at another version, or is written at the same time.
    ///
    /// `work` runs at most once, gets the transaction by value and lets go of it by its end; it may
    /// borrow locals. Dropping the future before the commit has begun rolls back.
    ///
    /// # Errors
    /// Those of `work`, which roll its writes back; those of [`Transactional::finish`], also for a
    /// conflict of what `work` wrote; `InvalidInput` where it keeps the transaction.
    pub async fn update_with<E, F, Fut>(
        &self,
        resource: &str,
        current: &[u8],
        next: &[u8],
        work: F,
    ) -> Result<bool, E>
    where
        E: From<Error>,
        F: FnOnce(Tx<S::Conn>) -> Fut,
        Fut: Future<Output = Result<(), E>> + Send,
    {
        Ok(self.commit_update_with(resource, current, next, work).await?.is_none())
    }

    /// Commits an update with what `work` writes, or says which version is in its way.
    async fn commit_update_with<E, F, Fut>(
        &self,
        resource: &str,
        current: &[u8],
        next: &[u8],
        work: F,
    ) -> Result<Option<Bytes>, E>
    where
        E: From<Error>,
        F: FnOnce(Tx<S::Conn>) -> Fut,
        Fut: Future<Output = Result<(), E>> + Send,
    {
        let mut tx = self.store.begin(self.partition_of(resource), self.clock.now()).await?;
        if let Some(found) = self.add_update(tx.batch(), resource, current, next).await? {
            return Ok(Some(found));
        }
        let tx = lent(tx, work).await?;
        let outcome = self.store.finish(tx).await.map(drop);
        Ok(self.in_the_way(resource, outcome)?)
    }
}

/// A transaction with what `work` writes.
async fn lent<C: 'static, E, F, Fut>(tx: Tx<C>, work: F) -> Result<Tx<C>, E>
where
    E: From<Error>,
    F: FnOnce(Tx<C>) -> Fut,
    Fut: Future<Output = Result<(), E>> + Send,
{
    let (lent, loan) = tx.lend();
    work(lent).await?;
    let kept = || Error::new(ErrorKind::InvalidInput, "the work kept its transaction");
    Ok(loan.reclaim().ok_or_else(kept)?)
}

impl<S> fmt::Debug for ResourceVersions<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceVersions").field("handler", &self.handler).finish_non_exhaustive()
    }
}
