use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    TableClass, TimeToLiveSpecification, TimeToLiveStatus,
};
use evenkeel_core::{Error, ErrorKind, Expect, ManualClock, NewEvent, Read, Store};
use evenkeel_storage_dynamo::{Decorate, DynamoConfig, DynamoStore, Expiry, TableOptions};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::meddler::{Meddler, Trick};
use crate::shop::{at, batch, claim, exists, key, new_store, new_table, now};

fn assert_error(error: &Error, kind: ErrorKind, says: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.to_string().contains(says), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creating_a_table_again_succeeds() {
    let config = new_table();
    let options = TableOptions::new();
    for created in join_all((0..4).map(|_| config.create_table(&options))).await {
        created.unwrap();
    }
    let store = config.clone().open().await.unwrap();
    store.commit(claim(&store, "a")).await.unwrap();
    config.create_table(&options).await.unwrap();
    assert!(exists(&store, "a").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_table_again_succeeds() {
    let config = new_table();
    config.delete_table().await.unwrap();
    config.create_table(&TableOptions::new()).await.unwrap();
    for deleted in join_all((0..4).map(|_| config.delete_table())).await {
        deleted.unwrap();
    }
    assert_eq!(config.open().await.unwrap_err().kind(), ErrorKind::Config);
}

/// Gives the table keys of its own.
#[derive(Debug)]
struct OtherKeys;

impl Decorate for OtherKeys {
    fn create_table(&self, request: CreateTableFluentBuilder) -> CreateTableFluentBuilder {
        let id = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
        let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash);
        request
            .set_attribute_definitions(Some(vec![id.build().unwrap()]))
            .set_key_schema(Some(vec![key.build().unwrap()]))
            .set_global_secondary_indexes(None)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_with_other_keys_is_refused() {
    let config = new_table();
    config.clone().decorate(OtherKeys).create_table(&TableOptions::new()).await.unwrap_err();
    let error = config.create_table(&TableOptions::new()).await.unwrap_err();
    assert_error(&error, ErrorKind::Config, "with other keys than a store's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_without_a_table_says_how_to_create_it() {
    assert_error(&new_table().open().await.unwrap_err(), ErrorKind::Config, "DynamoConfig::create_table");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_open_a_new_table_make_one_store() {
    let config = new_table();
    config.create_table(&TableOptions::new()).await.unwrap();
    let stores: Vec<DynamoStore> =
        join_all((0..8).map(|_| config.clone().open())).await.into_iter().map(Result::unwrap).collect();
    stores[0].commit(claim(&stores[0], "a")).await.unwrap();
    for store in &stores {
        assert!(exists(store, "a").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_partition_count_is_refused() {
    let config = new_table();
    config.create_table(&TableOptions::new()).await.unwrap();
    config.clone().partitions(4).open().await.unwrap();
    let error = config.clone().partitions(8).open().await.unwrap_err();
    assert_error(&error, ErrorKind::Config, "created with: 4, opened with: 8");
    let error = config.partitions(0).open().await.unwrap_err();
    assert_error(&error, ErrorKind::Config, "1 to 65,536 partitions");
}

fn item_key(pk: &str, sk: &str) -> HashMap<String, AttributeValue> {
    let part = |part: &str| AttributeValue::S(part.to_owned());
    HashMap::from([("pk".to_owned(), part(pk)), ("sk".to_owned(), part(sk))])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_a_newer_release_is_refused() {
    let config = new_table();
    config.create_table(&TableOptions::new()).await.unwrap();
    let store = config.clone().open().await.unwrap();
    store
        .client()
        .update_item()
        .table_name(store.table())
        .set_key(Some(item_key("evenkeel", "store")))
        .update_expression("ADD #format :one")
        .expression_attribute_names("#format", "format")
        .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
        .send()
        .await
        .unwrap();
    assert_error(&config.open().await.unwrap_err(), ErrorKind::Config, "newer evenkeel");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_is_there_for_another_handle() {
    let config = new_table();
    config.create_table(&TableOptions::new()).await.unwrap();
    let store = config.clone().open().await.unwrap();
    store.commit(claim(&store, "a")).await.unwrap();
    drop(store);
    assert!(exists(&config.open().await.unwrap(), "a").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_records_are_left_to_dynamodb() {
    let store = new_store().await;
    let table = || store.client().describe_time_to_live().table_name(store.table()).send();
    let description = table().await.unwrap().time_to_live_description.unwrap();
    assert_eq!(description.attribute_name(), Some("ttl"));
    let status = description.time_to_live_status.unwrap();
    assert!(matches!(status, TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling), "{status:?}");

    let expires_at = now() + Duration::from_secs(3600);
    let put = batch(&store, |batch| batch.put_until(key("a"), "", Expect::Any, expires_at));
    store.commit(put).await.unwrap();
    let pk = format!("{}/r/11:test.record/group", at(&store));
    let item = store.client().get_item().table_name(store.table()).set_key(Some(item_key(&pk, "a")));
    let item = item.send().await.unwrap().item.unwrap();
    let ttl: i64 = item["ttl"].as_n().unwrap().parse().unwrap();
    let expected = (expires_at + store.info().max_skew).as_micros();
    assert!(ttl * 1_000_000 >= expected && (ttl - 1) * 1_000_000 < expected, "{ttl} for {expected}");

    let long_after = expires_at + Duration::from_secs(1_000_000);
    assert_eq!(store.sweep(&at(&store), long_after, 100).await.unwrap(), 0);
}

/// What is warned of while a store is opened.
async fn warnings_of_opening(config: DynamoConfig) -> String {
    let written = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&written);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || Copied(Arc::clone(&writer)))
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    config.open().await.unwrap();
    String::from_utf8(std::mem::take(&mut *written.lock().unwrap())).unwrap()
}

/// Writes to memory.
struct Copied(Arc<Mutex<Vec<u8>>>);

impl io::Write for Copied {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_table_without_time_to_live_is_warned_of() {
    let config = new_table();
    config.clone().expiry(Expiry::Swept).create_table(&TableOptions::new()).await.unwrap();
    let warnings = warnings_of_opening(config.clone()).await;
    assert!(warnings.contains("time to live is off"), "{warnings:?}");
    assert_eq!(warnings_of_opening(config.clone().expiry(Expiry::Swept)).await, "");
    config.create_table(&TableOptions::new()).await.unwrap();
    assert_eq!(warnings_of_opening(config).await, "");
}

#[tokio::test]
async fn a_table_whose_time_to_live_may_not_be_asked_for_is_warned_of() {
    let meddler = Meddler::new();
    let config = meddler.config(&format!("test-{}", Uuid::new_v4()));
    config.create_table(&TableOptions::new()).await.unwrap();
    let denied = r#"{"__type":"com.amazonaws.dynamodb.v20120810#AccessDeniedException","message":"no"}"#;
    meddler.meddle("DescribeTimeToLive", [Trick::Answer(denied)]);
    let warnings = warnings_of_opening(config).await;
    assert!(warnings.contains("whether expired records are reclaimed is not known"), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_whose_time_to_live_goes_by_another_attribute_is_refused() {
    let config = new_table();
    config.clone().expiry(Expiry::Swept).create_table(&TableOptions::new()).await.unwrap();
    let store = config.clone().expiry(Expiry::Swept).open().await.unwrap();
    let by_another = TimeToLiveSpecification::builder().attribute_name("expires").enabled(true);
    let update = store.client().update_time_to_live().table_name(store.table());
    update.time_to_live_specification(by_another.build().unwrap()).send().await.unwrap();
    let error = config.clone().open().await.unwrap_err();
    assert_error(&error, ErrorKind::Config, r#"attribute: "expires", expected: "ttl""#);
    config.expiry(Expiry::Swept).open().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_are_apart_are_refused() {
    let config = new_table();
    config.create_table(&TableOptions::new()).await.unwrap();
    let in_2001 = ManualClock::default();
    let error = config.clone().clock(in_2001.shared()).open().await.unwrap_err();
    assert_error(&error, ErrorKind::Config, "too far apart");
    config.clock(in_2001.shared()).unchecked_clock().open().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_created_with_its_options() {
    let config = new_table();
    let options = TableOptions::new()
        .provisioned(7, 5)
        .class(TableClass::StandardInfrequentAccess)
        .tag("team", "shop")
        .deletion_protection();
    config.create_table(&options).await.unwrap();
    let store = config.clone().open().await.unwrap();
    let description = store.client().describe_table().table_name(store.table()).send().await.unwrap();
    let table = description.table.unwrap();
    let units = table.provisioned_throughput().unwrap();
    assert_eq!((units.read_capacity_units(), units.write_capacity_units()), (Some(7), Some(5)));
    let mode = table.billing_mode_summary().and_then(|summary| summary.billing_mode());
    assert!(mode.is_none_or(|mode| *mode == BillingMode::Provisioned), "{mode:?}");
    assert_eq!(table.deletion_protection_enabled(), Some(true));
    let tags = store.client().list_tags_of_resource().resource_arn(table.table_arn().unwrap());
    let tags = tags.send().await.unwrap().tags.unwrap();
    assert_eq!((tags[0].key(), tags[0].value()), ("team", "shop"));
    assert_eq!(config.delete_table().await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_restored_to_the_midst_of_a_commit_is_corrupt() {
    let store = new_store().await;
    let append = || batch(&store, |batch| batch.append_any("s", [NewEvent::new("E", "{}", now())]));
    store.commit(append()).await.unwrap();
    let pk = format!("{}/h", at(&store));
    let key = item_key(&pk, "head");
    let head = store.client().get_item().table_name(store.table()).set_key(Some(key)).send();
    let head = head.await.unwrap().item;
    store.commit(append()).await.unwrap();
    // A backup may have an item as it was a moment before another.
    store.client().put_item().table_name(store.table()).set_item(head).send().await.unwrap();

    let error = store.commit(append()).await.unwrap_err();
    assert_error(&error, ErrorKind::Corrupt, "restored to the midst of a commit");
    let error = store.read(&at(&store), Read::partition(2, 10)).await.unwrap_err();
    assert_error(&error, ErrorKind::Corrupt, "the log ends before");
}
