//! Stock, reservations and shipments, as evenkeel's own records in whatever store it is.

use std::collections::BTreeMap;

use bytes::Bytes;
use evenkeel::core::{
    AnyStore, Batch, BoxError, Clock, Draft, ErrorKind, Expect, Key, Scan, Store, StoreExt, SystemClock,
    Transactional, Tx,
};
use serde::{Deserialize, Serialize};

use crate::checkout::Order;
use crate::trouble::Refused;

/// What is on the shelves on the first day.
const DELIVERED: [(&str, u32); 2] = [("anvil", 100), ("rocket", 3)];

const SHELVES: &str = "checkout.shelf";
const RESERVATIONS: &str = "checkout.reservation";
const SHIPMENTS: &str = "checkout.shipment";
const GROUP: &str = "all";
const PAGE: usize = 100;

#[derive(Clone, Debug)]
pub(crate) struct Warehouse {
    store: AnyStore,
}

/// What is reserved for an order, or shipped.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Parcel {
    order: String,
    item: String,
    quantity: u32,
}

impl Parcel {
    pub(crate) fn of(id: &str, order: &Order) -> Self {
        Self { order: id.to_owned(), item: order.item.clone(), quantity: order.quantity }
    }
}

impl Warehouse {
    /// Fills the shelves, on the first day.
    pub(crate) async fn open(store: AnyStore) -> Result<Self, BoxError> {
        for (item, available) in DELIVERED {
            let mut batch = Batch::new(store.partition_of(item), SystemClock.now());
            batch.put(shelf(item), serde_json::to_vec(&available)?, Expect::Absent);
            match store.commit(batch).await {
                Err(error) if error.kind() != ErrorKind::Conflict => return Err(error.into()),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(Self { store })
    }

    /// Takes a parcel's goods off the shelf; once, however often it is called.
    ///
    /// Fails where somebody else changes the shelf meanwhile, and is to be tried again.
    pub(crate) async fn reserve(&self, parcel: &Parcel) -> Result<(), BoxError> {
        let mut tx = self.begin(&parcel.item).await?;
        let draft = tx.conn().await?;
        if draft.get(&reservation(&parcel.order)).await?.is_some() {
            return Ok(());
        }
        let available = available(draft, &parcel.item).await?;
        let left = available.checked_sub(parcel.quantity).ok_or_else(|| {
            let Parcel { item, quantity, .. } = parcel;
            Refused(format!("{quantity} of {item:?} are wanted, and {available} there"))
        })?;
        draft.put(shelf(&parcel.item), serde_json::to_vec(&left)?);
        draft.put(reservation(&parcel.order), serde_json::to_vec(parcel)?);
        self.store.finish(tx).await?;
        Ok(())
    }

    /// Puts back what was reserved, where something was; otherwise as [`reserve`](Self::reserve).
    pub(crate) async fn release(&self, parcel: &Parcel) -> Result<(), BoxError> {
        let mut tx = self.begin(&parcel.item).await?;
        let draft = tx.conn().await?;
        if draft.get(&reservation(&parcel.order)).await?.is_none() {
            return Ok(());
        }
        let available = available(draft, &parcel.item).await? + parcel.quantity;
        draft.put(shelf(&parcel.item), serde_json::to_vec(&available)?);
        draft.delete(reservation(&parcel.order));
        self.store.finish(tx).await?;
        Ok(())
    }

    /// Ships a parcel with the transaction that `draft` is of, in the partition of its order.
    pub(crate) fn ship(draft: &mut Draft, parcel: &Parcel) -> Result<(), BoxError> {
        draft.put(shipment(&parcel.order), serde_json::to_vec(parcel)?);
        Ok(())
    }

    /// Stops the shipment of an order, where there is one.
    pub(crate) async fn recall(&self, order: &str) -> Result<(), BoxError> {
        let mut batch = Batch::new(self.store.partition_of(order), SystemClock.now());
        batch.delete(shipment(order), Expect::Any);
        self.store.commit(batch).await?;
        Ok(())
    }

    /// What is there of each item.
    pub(crate) async fn stock(&self) -> Result<BTreeMap<String, u32>, BoxError> {
        let shelves = self.all(SHELVES).await?.into_iter();
        shelves.map(|(item, value)| Ok((item, serde_json::from_slice(&value)?))).collect()
    }

    pub(crate) async fn reservations(&self) -> Result<Vec<Parcel>, BoxError> {
        self.parcels(RESERVATIONS).await
    }

    pub(crate) async fn shipments(&self) -> Result<Vec<Parcel>, BoxError> {
        self.parcels(SHIPMENTS).await
    }

    /// In an item's own partition, which orders of every partition take from. What is read must
    /// still be so at the commit.
    async fn begin(&self, item: &str) -> evenkeel::core::Result<Tx<Draft>> {
        self.store.begin(self.store.partition_of(item), SystemClock.now()).await
    }

    async fn parcels(&self, space: &'static str) -> Result<Vec<Parcel>, BoxError> {
        let parcels = self.all(space).await?.into_iter();
        parcels.map(|(_, value)| Ok(serde_json::from_slice(&value)?)).collect()
    }

    async fn all(&self, space: &'static str) -> Result<Vec<(String, Bytes)>, BoxError> {
        let mut all: Vec<(String, Bytes)> = Vec::new();
        loop {
            let mut scan = Scan::new(space, GROUP, PAGE, SystemClock.now());
            if let Some((last, _)) = all.last() {
                scan = scan.after(last);
            }
            let page = self.store.scan_merged(scan).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page.into_iter().map(|found| (found.id, found.record.value)));
        }
    }
}

fn shelf(item: &str) -> Key {
    Key::new(SHELVES, GROUP, item)
}

fn reservation(order: &str) -> Key {
    Key::new(RESERVATIONS, GROUP, order)
}

fn shipment(order: &str) -> Key {
    Key::new(SHIPMENTS, GROUP, order)
}

async fn available(draft: &mut Draft, item: &str) -> Result<u32, BoxError> {
    let found = draft.get(&shelf(item)).await?;
    let value = found.ok_or_else(|| Refused(format!("nothing is called {item:?}")))?;
    Ok(serde_json::from_slice(&value)?)
}
