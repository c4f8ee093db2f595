//! The emulator's own rate: the least requests that do the same work, through the same SDK client,
//! on a plain table.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, Put, ScalarAttributeType,
    TransactWriteItem, Update,
};

use crate::Result;
use crate::calls::fresh_key;
use crate::measure::{self, Load, Turn};
use crate::work::{ANSWER, KIND, STREAMS, VALUE, Work, finished};

const TABLE: &str = "plain";

/// How often a second the work is done on a table that is made for it.
pub(crate) async fn rate(client: &Client, work: Work, load: Load) -> Result<f64> {
    let plain = PlainDynamo { client: client.clone() };
    plain.create_table().await?;
    match work {
        Work::Put => measure::rate(load, move |_| plain.clone().put()).await,
        Work::ClaimAndFinish => measure::rate(load, move |_| plain.clone().claim_and_finish(VALUE)).await,
        Work::Append(events) => measure::rate(load, move |turn| plain.clone().append(turn, events)).await,
        Work::PushLeaseAck => measure::rate(load, move |turn| plain.clone().push_lease_ack(turn)).await,
        Work::Fresh => measure::rate(load, move |_| plain.clone().claim_and_finish(ANSWER)).await,
        Work::FreshWithRow => measure::rate(load, move |_| plain.clone().fresh_with_row()).await,
        Work::Replay => {
            for caller in 0..load.callers {
                plain.claim(&finished(caller), ANSWER).await?;
            }
            measure::rate(load, move |turn| plain.clone().replay(finished(turn.caller))).await
        }
    }
}

type Item = HashMap<String, AttributeValue>;

#[derive(Clone)]
struct PlainDynamo {
    client: Client,
}

impl PlainDynamo {
    async fn create_table(&self) -> Result<()> {
        let mut create =
            self.client.create_table().table_name(TABLE).billing_mode(BillingMode::PayPerRequest);
        for (name, kind) in [("pk", KeyType::Hash), ("sk", KeyType::Range)] {
            let attribute = AttributeDefinition::builder().attribute_name(name);
            let key = KeySchemaElement::builder().attribute_name(name).key_type(kind);
            create = create
                .attribute_definitions(attribute.attribute_type(ScalarAttributeType::S).build()?)
                .key_schema(key.build()?);
        }
        create.send().await?;
        Ok(())
    }

    async fn put(self) -> Result<()> {
        let item = record(&fresh_key(), VALUE, "1");
        self.client.put_item().table_name(TABLE).set_item(Some(item)).send().await?;
        Ok(())
    }

    async fn claim(&self, key: &str, value: &str) -> Result<()> {
        self.client
            .put_item()
            .table_name(TABLE)
            .set_item(Some(record(key, value, "1")))
            .condition_expression("attribute_not_exists(pk)")
            .send()
            .await?;
        Ok(())
    }

    async fn claim_and_finish(self, value: &str) -> Result<()> {
        let key = fresh_key();
        self.claim(&key, value).await?;
        self.client
            .put_item()
            .table_name(TABLE)
            .set_item(Some(record(&key, value, "2")))
            .condition_expression("version = :version")
            .expression_attribute_values(":version", number("1"))
            .send()
            .await?;
        Ok(())
    }

    /// The log's head moves on, and one item holds all the events.
    async fn append(self, turn: Turn, events: usize) -> Result<()> {
        let head = Update::builder()
            .table_name(TABLE)
            .set_key(Some(key("log", "head")))
            .update_expression("ADD head :count")
            .expression_attribute_values(":count", number(&events.to_string()));
        let event = || {
            AttributeValue::M(HashMap::from([
                ("kind".to_owned(), text(KIND)),
                ("payload".to_owned(), bytes(VALUE)),
            ]))
        };
        let mut item = key(&format!("order-{}", turn.nth % STREAMS), &fresh_key());
        item.insert("events".to_owned(), AttributeValue::L((0..events).map(|_| event()).collect()));
        let appended = Put::builder().table_name(TABLE).set_item(Some(item));
        self.client
            .transact_write_items()
            .transact_items(TransactWriteItem::builder().update(head.build()?).build())
            .transact_items(TransactWriteItem::builder().put(appended.build()?).build())
            .send()
            .await?;
        Ok(())
    }

    async fn push_lease_ack(self, turn: Turn) -> Result<()> {
        let queue = format!("mail-{}", turn.caller);
        let mut job = key(&queue, &fresh_key());
        job.insert("value".to_owned(), bytes(VALUE));
        self.client.put_item().table_name(TABLE).set_item(Some(job)).send().await?;
        let due = self
            .client
            .query()
            .table_name(TABLE)
            .consistent_read(true)
            .key_condition_expression("pk = :queue")
            .expression_attribute_values(":queue", text(&queue))
            .limit(1)
            .send()
            .await?;
        let mut job = due.items.and_then(|mut due| due.pop()).ok_or("a job that was put can be found")?;
        job.retain(|name, _| name == "pk" || name == "sk");
        let token = text(&fresh_key());
        self.client
            .update_item()
            .table_name(TABLE)
            .set_key(Some(job.clone()))
            .update_expression("SET lease = :token")
            .condition_expression("attribute_exists(pk) AND attribute_not_exists(lease)")
            .expression_attribute_values(":token", token.clone())
            .send()
            .await?;
        self.client
            .delete_item()
            .table_name(TABLE)
            .set_key(Some(job))
            .condition_expression("lease = :token")
            .expression_attribute_values(":token", token)
            .send()
            .await?;
        Ok(())
    }

    async fn fresh_with_row(self) -> Result<()> {
        let key = fresh_key();
        self.claim(&key, ANSWER).await?;
        let effect =
            Put::builder().table_name(TABLE).set_item(Some(record(&format!("effect-{key}"), "done", "1")));
        let finish = Put::builder()
            .table_name(TABLE)
            .set_item(Some(record(&key, ANSWER, "2")))
            .condition_expression("version = :version")
            .expression_attribute_values(":version", number("1"));
        self.client
            .transact_write_items()
            .transact_items(TransactWriteItem::builder().put(effect.build()?).build())
            .transact_items(TransactWriteItem::builder().put(finish.build()?).build())
            .send()
            .await?;
        Ok(())
    }

    async fn replay(self, id: String) -> Result<()> {
        let get = self.client.get_item().table_name(TABLE).consistent_read(true);
        let found = get.set_key(Some(key(&id, RECORD))).send().await?;
        assert!(found.item.is_some(), "the record was put");
        Ok(())
    }
}

/// The sort key of a record.
const RECORD: &str = "record";

fn key(pk: &str, sk: &str) -> Item {
    HashMap::from([("pk".to_owned(), text(pk)), ("sk".to_owned(), text(sk))])
}

fn record(pk: &str, value: &str, version: &str) -> Item {
    let mut item = key(pk, RECORD);
    item.insert("value".to_owned(), bytes(value));
    item.insert("version".to_owned(), number(version));
    item
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn number(digits: &str) -> AttributeValue {
    AttributeValue::N(digits.to_owned())
}

fn bytes(text: &str) -> AttributeValue {
    AttributeValue::B(Blob::new(text))
}
