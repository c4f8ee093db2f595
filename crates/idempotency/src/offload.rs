use std::fmt::Display;

use bytes::{Bytes, BytesMut};
use evenkeel_core::{
    AnyStore, Batch, Clock, Error, ErrorKind, Expect, Key, Partition, Result, Store, StoreExt, Timestamp,
};

use crate::operation::Place;
use crate::send::{Insist, send};
use crate::state::Chunks;

/// A second store, for answers that are too large for a record of the first.
#[derive(Clone, Debug)]
pub(crate) struct Offload {
    store: AnyStore,
    threshold: usize,
}

const SPACE: &str = "idempotency.answer";

/// How much of an answer goes into one record; every store takes as much.
const CHUNK: usize = 300 * 1024;

/// How many records are read at once.
const READ_AHEAD: usize = 8;

impl Offload {
    pub(crate) const fn new(store: AnyStore, threshold: usize) -> Self {
        Self { store, threshold }
    }

    pub(crate) const fn store(&self) -> &AnyStore {
        &self.store
    }

    /// The longest answer that stays in the record.
    pub(crate) const fn threshold(&self) -> usize {
        self.threshold
    }

    /// Writes an answer under a group that nothing was written under before.
    pub(crate) async fn write(
        &self,
        group: String,
        answer: &Bytes,
        until: Option<Timestamp>,
        clock: &dyn Clock,
    ) -> Result<Chunks> {
        let at = self.store.partition_of(&group);
        let mut count = 0;
        for start in (0..answer.len()).step_by(CHUNK) {
            let chunk = answer.slice(start..answer.len().min(start + CHUNK));
            let place = Place { at: at.clone(), key: chunk_key(&group, count), id: group.clone() };
            let mut batch = Batch::new(at.clone(), clock.now());
            match until {
                Some(until) => batch.put_until(place.key.clone(), chunk, Expect::Absent, until),
                None => batch.put(place.key.clone(), chunk, Expect::Absent),
            };
            send(&self.store, clock, &place, batch, Insist::OnSuccess).await?;
            count += 1;
        }
        Ok(Chunks { group, count, bytes: answer.len() })
    }

    /// Reads an answer back.
    pub(crate) async fn read(&self, chunks: &Chunks, now: Timestamp) -> Result<Bytes> {
        let at = self.store.partition_of(&chunks.group);
        let mut answer = BytesMut::with_capacity(chunks.bytes);
        for start in (0..chunks.count).step_by(READ_AHEAD) {
            let end = chunks.count.min(start + READ_AHEAD);
            let keys: Vec<Key> = (start..end).map(|index| chunk_key(&chunks.group, index)).collect();
            for (record, key) in self.store.get(&at, now, &keys).await?.into_iter().zip(keys) {
                let record = record.ok_or_else(|| missing("a part of the answer is missing", &at, &key))?;
                answer.extend_from_slice(&record.value);
            }
        }
        if answer.len() != chunks.bytes {
            return Err(missing("the answer is not as long as it was", &at, &chunks.group));
        }
        Ok(answer.freeze())
    }
}

fn chunk_key(group: &str, index: usize) -> Key {
    Key::new(SPACE, group, format!("{index:05}"))
}

fn missing(message: &'static str, at: &Partition, what: &dyn Display) -> Error {
    Error::new(ErrorKind::Corrupt, message).with("partition", at).with("record", what)
}
