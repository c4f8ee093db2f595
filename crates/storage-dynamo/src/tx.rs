use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use evenkeel_core::{
    Batch, Committed, Error, ErrorKind, Partition, Result, Session, Store, Timestamp, Transactional, Tx,
};

use crate::DynamoStore;
use crate::client::Dynamo;
use crate::keys::{PK, QUEUE, READY, is_ours};
use crate::rows::{Item, item_size};
use crate::write::Write;

/// The most items of one transaction.
const MOST_ITEMS: usize = 100;

/// The most bytes of all items of one transaction.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// Collects the user's items, which are written with the commit of a [`Tx`], all or none.
///
/// A transaction takes 100 items and 4 MB together with what the batch needs: up to one item for
/// each of its [units](Batch::units), and less for appends. Items may be of any table of the
/// account and region, and each of these tables must exist; otherwise the commit is refused as `Config`.
/// Items of the store's own table must have keys of their own, and no attributes `queue` and `ready`,
/// which would put them into the store's index; by an attribute `ttl`, in epoch seconds, DynamoDB may
/// delete them. No update expression is looked into for these.
///
/// ```no_run
/// # use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
/// # use evenkeel_core::{Clock, StoreExt, SystemClock, Transactional};
/// # use evenkeel_storage_dynamo::DynamoStore;
/// # async fn place_order(store: &DynamoStore) -> Result<(), Box<dyn std::error::Error>> {
/// let mut tx = store.begin(store.partition_of("order-17"), SystemClock.now()).await?;
/// let order = Put::builder()
///     .table_name("orders")
///     .item("id", AttributeValue::S("17".to_owned()))
///     .condition_expression("attribute_not_exists(id)")
///     .build()?;
/// tx.conn().await?.push(TransactWriteItem::builder().put(order).build())?;
/// tx.batch().push("mail", "17", SystemClock.now(), "thanks", evenkeel_core::Merge::Keep);
/// store.finish(tx).await?; // the order and the job, or neither
/// # Ok(())
/// # }
/// ```
pub struct DynamoWrites {
    dynamo: Arc<Dynamo>,
    items: Vec<TransactWriteItem>,
}

impl DynamoWrites {
    /// Adds an item to what is written.
    ///
    /// # Errors
    /// `TooLarge` where a transaction has no room for it; `InvalidInput` where it is one of the
    /// store's own, or put into the store's index.
    pub fn push(&mut self, item: TransactWriteItem) -> Result<()> {
        let target = Target::of(&item)?;
        if target.is_of(&self.dynamo.table) && target.pk.is_some_and(is_ours) {
            return Err(Error::new(ErrorKind::InvalidInput, "the item is one of the store's own")
                .with("pk", target.pk.unwrap_or_default()));
        }
        let indexed = [QUEUE, READY].into_iter().find(|name| target.attributes.contains_key(*name));
        if let Some(name) = indexed.filter(|_| target.is_of(&self.dynamo.table)) {
            let message = "an item in the store's table has an attribute of the store's index";
            return Err(Error::new(ErrorKind::InvalidInput, message).with("attribute", name));
        }
        if self.items.len() >= MOST_ITEMS {
            return Err(no_room("items", self.items.len() + 1, MOST_ITEMS));
        }
        self.items.push(item);
        Ok(())
    }

    /// The items added so far, in their order.
    #[must_use]
    pub fn items(&self) -> &[TransactWriteItem] {
        &self.items
    }
}

impl fmt::Debug for DynamoWrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoWrites").field("items", &self.items.len()).finish_non_exhaustive()
    }
}

fn no_room(unit: &'static str, needed: usize, room: usize) -> Error {
    Error::new(ErrorKind::TooLarge, "a transaction of dynamodb has no room for so much")
        .with(unit, needed)
        .with("room", room)
}

/// The condition of an item that the user added did not hold; nothing was written.
///
/// It is the source of an error of kind `Conflict`, which carries no [`Conflict`] of the batch: that
/// is how the two are told apart.
///
/// [`Conflict`]: evenkeel_core::Conflict
#[derive(Clone, Debug, PartialEq)]
pub struct UserItemFailed {
    /// Its place among [`DynamoWrites::items`].
    pub index: usize,
    /// What stood there, where the item asked for it with `ReturnValuesOnConditionCheckFailure`.
    pub item: Option<HashMap<String, AttributeValue>>,
}

impl UserItemFailed {
    /// The item of the user's that made a commit fail, where one did.
    #[must_use]
    pub fn of(error: &Error) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref()
    }
}

impl fmt::Display for UserItemFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the condition of the user's item {} did not hold", self.index)
    }
}

impl std::error::Error for UserItemFailed {}

pub(crate) fn user_item_failed(index: usize, item: Option<Item>) -> Error {
    Error::new(ErrorKind::Conflict, "an item of the user's is not as its condition wants it")
        .with("item", index)
        .with_source(UserItemFailed { index, item })
}

/// The user's items on their way into a transaction.
#[derive(Debug)]
pub(crate) struct UserItems(Vec<TransactWriteItem>);

impl UserItems {
    pub(crate) fn items(&self) -> impl Iterator<Item = &TransactWriteItem> {
        self.0.iter()
    }

    /// Checks that the transaction holds them beside what the batch needs.
    pub(crate) fn check_room(&self, own: &[Write]) -> Result<()> {
        let room = MOST_ITEMS.saturating_sub(own.len());
        if self.0.len() > room {
            return Err(no_room("items", self.0.len(), room));
        }
        let own: usize = own.iter().map(Write::size).sum();
        let needed: usize = self.0.iter().map(size).sum();
        let room = MOST_BYTES.saturating_sub(own);
        if needed > room { Err(no_room("bytes", needed, room)) } else { Ok(()) }
    }
}

/// Which item is written.
struct Target<'a> {
    table: &'a str,
    pk: Option<&'a str>,
    /// The key, or all that it is to have.
    attributes: &'a Item,
}

impl<'a> Target<'a> {
    fn of(item: &'a TransactWriteItem) -> Result<Self> {
        let (table, attributes) = parts(item).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "the item has no put, update, delete or condition check")
        })?;
        let pk = attributes.get(PK).and_then(|pk| pk.as_s().ok()).map(String::as_str);
        Ok(Self { table, pk, attributes })
    }

    /// Whether it is of the table, which may be named by its ARN.
    fn is_of(&self, table: &str) -> bool {
        self.table == table || self.table.rsplit('/').next() == Some(table)
    }
}

/// The table and the key, or all attributes, of what is written.
fn parts(item: &TransactWriteItem) -> Option<(&str, &Item)> {
    let put = item.put().map(|put| (put.table_name(), put.item()));
    let update = || item.update().map(|update| (update.table_name(), update.key()));
    let delete = || item.delete().map(|delete| (delete.table_name(), delete.key()));
    let check = || item.condition_check().map(|check| (check.table_name(), check.key()));
    put.or_else(update).or_else(delete).or_else(check)
}

/// About how many bytes an item counts against the limit of a transaction.
fn size(item: &TransactWriteItem) -> usize {
    let values = item.update().and_then(|update| update.expression_attribute_values());
    parts(item).map_or(0, |(_, attributes)| item_size(attributes)) + values.map_or(0, item_size)
}

struct DynamoSession {
    writes: DynamoWrites,
}

#[async_trait]
impl Session<DynamoWrites> for DynamoSession {
    async fn connect(&mut self, _hold_for: Duration) -> Result<&mut DynamoWrites> {
        Ok(&mut self.writes)
    }
}

/// Through door 2 the user adds items, which are sent as one transaction with the batch's. Nothing
/// is reserved before: an open transaction keeps nobody waiting.
impl Transactional for DynamoStore {
    type Conn = DynamoWrites;

    async fn begin(&self, at: Partition, now: Timestamp) -> Result<Tx<DynamoWrites>> {
        self.info().check_partition(&at)?;
        let writes = DynamoWrites { dynamo: Arc::clone(self.dynamo()), items: Vec::new() };
        Ok(Tx::new(Batch::new(at, now), DynamoSession { writes }))
    }

    async fn finish(&self, tx: Tx<DynamoWrites>) -> Result<Committed> {
        let (batch, DynamoSession { writes }) = tx.into_session()?;
        if !Arc::ptr_eq(&writes.dynamo, self.dynamo()) {
            return Err(Error::new(ErrorKind::InvalidInput, "the transaction was begun by another store"));
        }
        if writes.items.is_empty() {
            return self.commit(batch).await;
        }
        self.check(&batch)?;
        let committer = self.committer().clone();
        let commit = async move { committer.commit_with(&batch, UserItems(writes.items)).await };
        let unknown = |_| Error::new(ErrorKind::OutcomeUnknown, "the commit was cut off by a shutdown");
        tokio::spawn(commit).await.unwrap_or_else(|error| Err(unknown(error)))
    }

    async fn rollback(&self, tx: Tx<DynamoWrites>) {
        drop(tx);
    }
}
