use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Delete, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
    Update,
};
use evenkeel_core::{ErrorKind, Expect, Store, Transactional, Tx};
use evenkeel_storage_dynamo::{DynamoStore, DynamoWrites, UserItemFailed};

use crate::meddler::Meddler;
use crate::shop::{at, claim, exists, key, new_store, now};

type Item = HashMap<String, AttributeValue>;

/// The key of an item of the user's, which lives in the store's table for simplicity.
fn users_key(id: &str) -> Item {
    let part = |part: &str| AttributeValue::S(part.to_owned());
    HashMap::from([("pk".to_owned(), part("order")), ("sk".to_owned(), part(id))])
}

/// Creates an order that must not exist.
fn order(store: &DynamoStore, id: &str) -> TransactWriteItem {
    let put = Put::builder()
        .table_name(store.table())
        .set_item(Some(users_key(id)))
        .item("state", AttributeValue::S("open".to_owned()))
        .condition_expression("attribute_not_exists(pk)")
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    TransactWriteItem::builder().put(put.build().unwrap()).build()
}

/// Writes an order of some bytes, whatever is there.
fn large_order(store: &DynamoStore, id: &str, bytes: usize) -> TransactWriteItem {
    let text = AttributeValue::B(Blob::new(vec![7; bytes]));
    let put = Put::builder().table_name(store.table()).set_item(Some(users_key(id))).item("text", text);
    TransactWriteItem::builder().put(put.build().unwrap()).build()
}

/// Counts up.
fn count(store: &DynamoStore) -> TransactWriteItem {
    let update = Update::builder()
        .table_name(store.table())
        .set_key(Some(users_key("count")))
        .update_expression("ADD orders :one")
        .expression_attribute_values(":one", AttributeValue::N("1".to_owned()));
    TransactWriteItem::builder().update(update.build().unwrap()).build()
}

async fn users_item(store: &DynamoStore, id: &str) -> Option<Item> {
    let get = store.client().get_item().table_name(store.table()).consistent_read(true);
    get.set_key(Some(users_key(id))).send().await.unwrap().item
}

/// A transaction with the user's items, that also claims a record.
async fn begin(
    store: &DynamoStore,
    claims: &str,
    items: impl IntoIterator<Item = TransactWriteItem>,
) -> Tx<DynamoWrites> {
    let mut tx = store.begin(at(store), now()).await.unwrap();
    for item in items {
        tx.conn().await.unwrap().push(item).unwrap();
    }
    tx.batch().put(key(claims), "mine", Expect::Absent);
    tx
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_users_items_and_the_batch_are_written_together() {
    let store = new_store().await;
    let tx = begin(&store, "a", [order(&store, "17"), count(&store)]).await;
    store.finish(tx).await.unwrap();
    assert!(exists(&store, "a").await);
    assert!(users_item(&store, "17").await.is_some());

    drop(begin(&store, "b", [order(&store, "18")]).await);
    let tx = begin(&store, "b", [order(&store, "18")]).await;
    store.rollback(tx).await;
    assert!(!exists(&store, "b").await);
    assert!(users_item(&store, "18").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_condition_of_the_users_takes_all_back_and_is_told_apart() {
    let store = new_store().await;
    let tx = begin(&store, "a", [order(&store, "17")]).await;
    store.finish(tx).await.unwrap();

    let tx = begin(&store, "b", [count(&store), order(&store, "18"), order(&store, "17")]).await;
    let error = store.finish(tx).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let failed = UserItemFailed::of(&error).expect("the user's item failed");
    assert_eq!(failed.index, 2);
    assert_eq!(failed.item.as_ref().unwrap()["state"], AttributeValue::S("open".to_owned()));
    assert!(error.into_conflict().is_err(), "no expectation of the batch failed");
    assert!(!exists(&store, "b").await);
    assert!(users_item(&store, "18").await.is_none());
    assert!(users_item(&store, "count").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_of_the_batch_is_reported_before_the_users() {
    let store = new_store().await;
    store.finish(begin(&store, "a", [order(&store, "17")]).await).await.unwrap();
    for items in [vec![order(&store, "18")], vec![order(&store, "17")]] {
        let tx = begin(&store, "a", items).await;
        let error = store.finish(tx).await.unwrap_err();
        assert!(UserItemFailed::of(&error).is_none());
        assert_eq!(error.into_conflict().unwrap().op, 0);
        assert!(users_item(&store, "18").await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fits_a_transaction_passes_and_no_more() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    let orders = |count: usize| (0..count).map(|n| order(&store, &n.to_string())).collect::<Vec<_>>();
    let tx = begin(&store, "a", orders(100)).await;
    meddler.seen();
    let error = store.finish(tx).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert_eq!(meddler.kinds(), [""; 0], "nothing was sent");

    let tx = begin(&store, "a", orders(99)).await;
    store.finish(tx).await.unwrap();
    assert!(users_item(&store, "98").await.is_some());

    let mut tx = begin(&store, "b", orders(100)).await;
    let error = tx.conn().await.unwrap().push(count(&store)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_beyond_the_size_of_a_transaction_are_refused_before_sending() {
    let meddler = Meddler::new();
    let store = meddler.new_store().await;
    let orders = |count: usize| (0..count).map(|n| large_order(&store, &n.to_string(), 400_000));
    let tx = begin(&store, "a", orders(11)).await;
    meddler.seen();
    assert_eq!(store.finish(tx).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(meddler.kinds(), [""; 0], "nothing was sent");
    store.finish(begin(&store, "a", orders(10)).await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_own_items_are_refused() {
    let store = new_store().await;
    store.commit(claim(&store, "a")).await.unwrap();
    let pk = format!("{}/r/11:test.record/group", at(&store));
    let own = HashMap::from([
        ("pk".to_owned(), AttributeValue::S(pk)),
        ("sk".to_owned(), AttributeValue::S("a".to_owned())),
    ]);
    let arn = format!("arn:aws:dynamodb:eu-central-1:123456789012:table/{}", store.table());
    for table in [store.table(), &arn] {
        let item = TransactWriteItem::builder();
        let put = Put::builder().table_name(table).set_item(Some(own.clone())).build().unwrap();
        let delete = Delete::builder().table_name(table).set_key(Some(own.clone())).build().unwrap();
        let update =
            Update::builder().table_name(table).set_key(Some(own.clone())).update_expression("REMOVE x");
        let check = ConditionCheck::builder().table_name(table).set_key(Some(own.clone()));
        let check = check.condition_expression("attribute_exists(pk)").build().unwrap();
        for refused in [
            item.clone().put(put).build(),
            item.clone().delete(delete).build(),
            item.clone().update(update.build().unwrap()).build(),
            item.clone().condition_check(check).build(),
            item.clone().build(),
        ] {
            let mut tx = store.begin(at(&store), now()).await.unwrap();
            let error = tx.conn().await.unwrap().push(refused).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_would_be_in_the_stores_index_is_refused() {
    let store = new_store().await;
    let mut tx = store.begin(at(&store), now()).await.unwrap();
    for (table, accepted) in [(store.table(), false), ("another", true)] {
        let put = Put::builder()
            .table_name(table)
            .set_item(Some(users_key("17")))
            .item("queue", AttributeValue::S("mine".to_owned()));
        let item = TransactWriteItem::builder().put(put.build().unwrap()).build();
        let pushed = tx.conn().await.unwrap().push(item).map_err(|error| error.kind());
        assert_eq!(pushed, if accepted { Ok(()) } else { Err(ErrorKind::InvalidInput) });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_sent_again_does_not_write_the_users_items_again() {
    let store = new_store().await;
    let mut tx = begin(&store, "a", [count(&store)]).await;
    let batch = tx.batch().clone();
    let first = store.finish(tx).await.unwrap();
    let mut again = store.begin(at(&store), now()).await.unwrap();
    again.conn().await.unwrap().push(count(&store)).unwrap();
    *again.batch() = batch;
    assert_eq!(store.finish(again).await.unwrap(), first);
    let counted = users_item(&store, "count").await.unwrap();
    assert_eq!(counted["orders"], AttributeValue::N("1".to_owned()));
}
