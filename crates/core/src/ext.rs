use async_trait::async_trait;
use serde::de::DeserializeOwned;

use crate::any::AnyStore;
use crate::layer::Layer;
use crate::partition::partition_index;
use crate::record::{Key, Record, Scan, Version};
use crate::store::Store;
use crate::{Error, ErrorKind, Partition, Result, Timestamp};

/// Comforts on every [`Store`].
#[async_trait]
pub trait StoreExt: Store {
    /// The partition that `name` lives in, in this handle's namespace. Chosen once per unit of
    /// consistency; the mapping never changes for a given partition count.
    fn partition_of(&self, name: &str) -> Partition {
        let info = self.info();
        Partition::new(info.namespace.clone(), partition_index(name, info.partitions))
    }

    /// All partitions of this handle's namespace.
    fn partitions(&self) -> Vec<Partition> {
        let info = self.info();
        (0..info.partitions).map(|index| Partition::new(info.namespace.clone(), index)).collect()
    }

    /// The live record at `key`.
    ///
    /// # Errors
    /// Those of [`Store::get`].
    async fn get_one(&self, at: &Partition, now: Timestamp, key: &Key) -> Result<Option<Record>> {
        Ok(self.get(at, now, std::slice::from_ref(key)).await?.into_iter().next().flatten())
    }

    /// The live record at `key`, read as JSON, with the version to expect when writing it back.
    ///
    /// # Errors
    /// Those of [`Store::get`]; `Corrupt` where the value is not the JSON of a `T`.
    async fn get_json<T: DeserializeOwned>(
        &self,
        at: &Partition,
        now: Timestamp,
        key: &Key,
    ) -> Result<Option<(T, Version)>> {
        let Some(record) = self.get_one(at, now, key).await? else { return Ok(None) };
        let value = serde_json::from_slice(&record.value).map_err(|source| {
            Error::new(ErrorKind::Corrupt, "the record is not the JSON expected")
                .with("key", key)
                .with_source(source)
        })?;
        Ok(Some((value, record.version)))
    }

    /// The first `scan.limit` live records of a group over all partitions of this handle's
    /// namespace, merged in the order of the scan. An empty answer means the end; otherwise go on
    /// after the last id. Ids must be unique over the partitions.
    ///
    /// # Errors
    /// Those of [`Store::scan`].
    async fn scan_merged(&self, scan: Scan) -> Result<Vec<MergedRecord>> {
        let mut merged = Vec::new();
        for at in self.partitions() {
            let mut scan = scan.clone();
            loop {
                let page = self.scan(&at, scan.clone()).await?;
                scan.limit = scan.limit.saturating_sub(page.records.len());
                merged.extend(page.records.into_iter().map(|(id, record)| MergedRecord {
                    at: at.clone(),
                    id,
                    record,
                }));
                match page.cursor {
                    Some(cursor) if scan.limit > 0 => scan.after = Some(cursor),
                    _ => break,
                }
            }
        }
        merged.sort_by(|a, b| match scan.order {
            crate::record::Order::Ascending => a.id.cmp(&b.id),
            crate::record::Order::Descending => b.id.cmp(&a.id),
        });
        merged.truncate(scan.limit);
        Ok(merged)
    }

    /// Wraps the store in a layer.
    fn layer<L: Layer<Self>>(self, layer: L) -> L::Store
    where
        Self: Sized,
    {
        layer.layer(self)
    }

    /// Erases the store.
    fn any(self) -> AnyStore
    where
        Self: Sized,
    {
        AnyStore::new(self)
    }
}

impl<S: Store + ?Sized> StoreExt for S {}

/// A record of a [`StoreExt::scan_merged`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedRecord {
    /// Where it lives.
    pub at: Partition,
    /// Its id in the group.
    pub id: String,
    /// The record.
    pub record: Record,
}
