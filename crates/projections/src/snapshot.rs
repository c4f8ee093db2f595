use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How the states of an aggregate are kept beside its events.
pub(crate) struct Snapshots<A> {
    pub(crate) every: u64,
    schema: u32,
    // The traits that they need are asked for where snapshots are, not of every aggregate.
    write: fn(&Stored<&A>) -> serde_json::Result<Vec<u8>>,
    read: fn(&[u8]) -> serde_json::Result<Stored<A>>,
}

#[derive(Serialize, Deserialize)]
struct Stored<A> {
    schema: u32,
    version: u64,
    state: A,
}

impl<A: Serialize + DeserializeOwned> Snapshots<A> {
    pub(crate) fn new(every: u64, schema: u32) -> Self {
        Self {
            every: every.max(1),
            schema,
            write: |stored| serde_json::to_vec(stored),
            read: |value| serde_json::from_slice(value),
        }
    }
}

impl<A> Snapshots<A> {
    /// State and version; `None` where it is of another schema or cannot be read.
    pub(crate) fn read(&self, value: &[u8]) -> Option<(A, u64)> {
        let stored = (self.read)(value).ok().filter(|stored| stored.schema == self.schema)?;
        Some((stored.state, stored.version))
    }

    /// `None` where JSON cannot hold it.
    pub(crate) fn write(&self, state: &A, version: u64) -> Option<Vec<u8>> {
        (self.write)(&Stored { schema: self.schema, version, state }).ok()
    }
}

impl<A> Clone for Snapshots<A> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<A> fmt::Debug for Snapshots<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").field("every", &self.every).field("schema", &self.schema).finish()
    }
}
