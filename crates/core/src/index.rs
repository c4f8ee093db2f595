use bytes::Bytes;

use crate::batch::Batch;
use crate::ext::{MergedRecord, StoreExt};
use crate::record::{Expect, Key, Scan};
use crate::store::Store;
use crate::{Result, Timestamp};

/// Lists things by their state: one small record per thing and state, written in the batch that
/// changes the state.
///
/// The groups are the states (`running`, `parked`), few and fixed; the ids are the things'. A change
/// that leaves the state alone leaves the index alone.
#[derive(Clone, Copy, Debug)]
pub struct StateIndex {
    space: &'static str,
}

impl StateIndex {
    /// An index in a record space of its own.
    #[must_use]
    pub const fn new(space: &'static str) -> Self {
        Self { space }
    }

    /// Where the entry of `id` in `state` is kept.
    #[must_use]
    pub fn key(&self, state: &str, id: &str) -> Key {
        Key::new(self.space, state, id)
    }

    /// Lists `id` under `state`, with whatever finds the thing again.
    pub fn enter(&self, batch: &mut Batch, state: &str, id: &str, pointer: impl Into<Bytes>) {
        batch.put(self.key(state, id), pointer, Expect::Any);
    }

    /// Takes `id` off the list of `state`.
    pub fn leave(&self, batch: &mut Batch, state: &str, id: &str) {
        batch.delete(self.key(state, id), Expect::Any);
    }

    /// A page over all partitions, in id order after `after`.
    ///
    /// # Errors
    /// Those of [`Store::scan`].
    pub async fn list(
        &self,
        store: &impl Store,
        state: &str,
        after: Option<String>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<MergedRecord>> {
        let scan = Scan { after, ..Scan::new(self.space, state, limit, now) };
        store.scan_merged(scan).await
    }
}
