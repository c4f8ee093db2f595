use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::batch::{Batch, Committed, Op};
use crate::record::{Expect, Key, Record};
use crate::store::Store;
use crate::tx::{Session, Tx};
use crate::{Partition, Result, Timestamp};

/// Door 2 where there is no native connection: reads that become expectations, and writes that are
/// held back until the commit.
///
/// What was read must still be so when the transaction commits; otherwise that is a `Conflict`.
/// Its reads see its own writes.
pub struct Draft {
    store: Arc<dyn Store>,
    at: Partition,
    now: Timestamp,
    read: BTreeMap<Key, Option<Record>>,
    written: BTreeMap<Key, Option<Written>>,
}

#[derive(Clone, Debug)]
struct Written {
    value: Bytes,
    expires_at: Option<Timestamp>,
}

impl Draft {
    /// The value at `key`: what this draft wrote, or else what is stored.
    ///
    /// # Errors
    /// Those of [`Store::get`].
    pub async fn get(&mut self, key: &Key) -> Result<Option<Bytes>> {
        if let Some(written) = self.written.get(key) {
            return Ok(written.as_ref().map(|written| written.value.clone()));
        }
        if !self.read.contains_key(key) {
            let found = self.store.get(&self.at, self.now, std::slice::from_ref(key)).await?;
            self.read.insert(key.clone(), found.into_iter().next().flatten());
        }
        Ok(self.read.get(key).and_then(Option::as_ref).map(|record| record.value.clone()))
    }

    /// Writes a record with the commit.
    pub fn put(&mut self, key: Key, value: impl Into<Bytes>) {
        self.written.insert(key, Some(Written { value: value.into(), expires_at: None }));
    }

    /// Writes a record that reads as absent from `expires_at` on.
    pub fn put_until(&mut self, key: Key, value: impl Into<Bytes>, expires_at: Timestamp) {
        let expires_at = Some(expires_at);
        self.written.insert(key, Some(Written { value: value.into(), expires_at }));
    }

    /// Removes a record with the commit.
    pub fn delete(&mut self, key: Key) {
        self.written.insert(key, None);
    }

    fn into_ops(self) -> impl Iterator<Item = Op> {
        let Self { read, mut written, .. } = self;
        let checked: Vec<Op> = read
            .into_iter()
            .map(|(key, found)| {
                let expect = Expect::unchanged(found.as_ref());
                match written.remove(&key) {
                    Some(write) => write_op(key, write, expect),
                    None => Op::Check { key, expect },
                }
            })
            .collect();
        let blind = written.into_iter().map(|(key, write)| write_op(key, write, Expect::Any));
        checked.into_iter().chain(blind)
    }
}

fn write_op(key: Key, write: Option<Written>, expect: Expect) -> Op {
    match write {
        Some(Written { value, expires_at }) => Op::Put { key, value, expect, expires_at },
        None => Op::Delete { key, expect },
    }
}

impl Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft")
            .field("at", &self.at)
            .field("read", &self.read.len())
            .field("written", &self.written.len())
            .finish_non_exhaustive()
    }
}

struct DraftSession {
    draft: Draft,
}

#[async_trait]
impl Session<Draft> for DraftSession {
    async fn connect(&mut self, _hold_for: Duration) -> Result<&mut Draft> {
        Ok(&mut self.draft)
    }
}

/// A draft transaction on any store; for stores without a native connection to build
/// [`Transactional`](crate::Transactional) from.
pub fn begin_draft(store: Arc<dyn Store>, at: Partition, now: Timestamp) -> Tx<Draft> {
    let draft = Draft { store, at: at.clone(), now, read: BTreeMap::new(), written: BTreeMap::new() };
    Tx::new(Batch::new(at, now), DraftSession { draft })
}

/// Commits a draft transaction: its reads and writes become operations of its batch.
///
/// # Errors
/// Those of [`Store::commit`]; `InvalidInput` also where the batch names a key that the draft
/// read or wrote.
pub async fn finish_draft(store: &dyn Store, tx: Tx<Draft>) -> Result<Committed> {
    let (mut batch, session) = tx.into_session::<DraftSession>()?;
    for op in session.draft.into_ops() {
        batch.op(op);
    }
    store.commit(batch).await
}
