//! Creating and deleting the table.

use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, IndexStatus, KeySchemaElement, KeyType,
    Projection, ProjectionType, ProvisionedThroughput, ScalarAttributeType, TableClass, TableDescription,
    TableStatus, Tag, TimeToLiveSpecification, TimeToLiveStatus,
};
use evenkeel_core::{Error, ErrorKind, Result};

use crate::client::{Dynamo, send};
use crate::config::Expiry;
use crate::error::{Doing, Trouble, parse_dynamo_error, trouble};
use crate::keys::{DUE_INDEX, PK, QUEUE, READY, SK};
use crate::rows::TTL;

/// How a table is created. What is not here, [`Decorate::create_table`](crate::Decorate::create_table)
/// adds.
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    capacity: Option<(i64, i64)>,
    class: Option<TableClass>,
    tags: Vec<(String, String)>,
    protected: Option<bool>,
}

impl TableOptions {
    /// A table that is paid for by the request, of the standard class, without tags.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reserves so many read and write units a second, for the table and for its index each.
    #[must_use]
    pub const fn provisioned(mut self, read_units: i64, write_units: i64) -> Self {
        self.capacity = Some((read_units, write_units));
        self
    }

    /// Puts the table into a class.
    #[must_use]
    pub fn class(mut self, class: TableClass) -> Self {
        self.class = Some(class);
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }

    /// Has DynamoDB refuse to delete the table until this is taken back.
    #[must_use]
    pub const fn deletion_protection(mut self) -> Self {
        self.protected = Some(true);
        self
    }

    fn throughput(&self) -> Option<ProvisionedThroughput> {
        let (read_units, write_units) = self.capacity?;
        let throughput = ProvisionedThroughput::builder()
            .read_capacity_units(read_units)
            .write_capacity_units(write_units);
        Some(throughput.build().expect(COMPLETE))
    }
}

const COMPLETE: &str = "all that is needed is given";

/// How often the table is looked at until it is as it is to be, and how long after.
const LOOKS: u32 = 600;
const PAUSE: Duration = Duration::from_secs(1);

/// The first looks are sooner: emulators take no time at all.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

pub(crate) async fn create(dynamo: &Dynamo, options: &TableOptions, expiry: Expiry) -> Result<()> {
    const WHAT: &str = "creating the table";
    let mode = if options.capacity.is_some() { BillingMode::Provisioned } else { BillingMode::PayPerRequest };
    let index = GlobalSecondaryIndex::builder()
        .index_name(DUE_INDEX)
        .set_key_schema(Some(key_schema(QUEUE, READY)))
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
        .set_provisioned_throughput(options.throughput());
    let tags =
        options.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build().expect(COMPLETE));
    let request = dynamo
        .client
        .create_table()
        .table_name(&dynamo.table)
        .billing_mode(mode)
        .set_provisioned_throughput(options.throughput())
        .set_table_class(options.class.clone())
        .set_deletion_protection_enabled(options.protected)
        .set_tags((!options.tags.is_empty()).then(|| tags.collect()))
        .set_key_schema(Some(key_schema(PK, SK)))
        .attribute_definitions(attribute(PK, ScalarAttributeType::S))
        .attribute_definitions(attribute(SK, ScalarAttributeType::S))
        .attribute_definitions(attribute(QUEUE, ScalarAttributeType::S))
        .attribute_definitions(attribute(READY, ScalarAttributeType::N))
        .global_secondary_indexes(index.build().expect(COMPLETE));
    match send!(dynamo, create_table, request).await {
        Ok(_) => {}
        Err(error) if is(&error, "ResourceInUseException") => {}
        Err(error) if trouble(&error) == Trouble::Lost => {
            // It may have been heard: whether the table appears shows it.
            tracing::debug!(error = &error as &dyn std::error::Error, "creating the table: no answer");
        }
        Err(error) => return Err(parse_dynamo_error(error, Doing::Write(WHAT))),
    }
    wait(dynamo, WHAT, |table| table.is_some_and(is_active)).await?;
    if expiry == Expiry::Native {
        enable_time_to_live(dynamo).await?;
    }
    Ok(())
}

pub(crate) async fn delete(dynamo: &Dynamo) -> Result<()> {
    const WHAT: &str = "deleting the table";
    let request = dynamo.client.delete_table().table_name(&dynamo.table);
    match send!(dynamo, delete_table, request).await {
        Ok(_) => {}
        Err(error) if is(&error, "ResourceNotFoundException") => return Ok(()),
        // It is being deleted already.
        Err(error) if is(&error, "ResourceInUseException") => {}
        Err(error) => return Err(parse_dynamo_error(error, Doing::Write(WHAT))),
    }
    wait(dynamo, WHAT, |table| table.is_none()).await.map(drop)
}

/// Has DynamoDB reclaim expired records, unless it does already.
async fn enable_time_to_live(dynamo: &Dynamo) -> Result<()> {
    let specification = TimeToLiveSpecification::builder().attribute_name(TTL).enabled(true);
    let request = dynamo
        .client
        .update_time_to_live()
        .table_name(&dynamo.table)
        .time_to_live_specification(specification.build().expect(COMPLETE));
    match send!(dynamo, update_time_to_live, request).await {
        Ok(_) => Ok(()),
        Err(error) if error.message().is_some_and(|message| message.contains("already enabled")) => Ok(()),
        Err(error) => Err(parse_dynamo_error(error, Doing::Write("enabling the time to live"))),
    }
}

/// Checks that DynamoDB, if it reclaims anything in the table, does so by the attribute that expired
/// records have. That it reclaims nothing, or may not be asked, is worth a warning: they stay stored.
///
/// # Errors
/// `Config` where it reclaims by another attribute.
pub(crate) async fn check_time_to_live(dynamo: &Dynamo) -> Result<()> {
    let request = || {
        let request = dynamo.client.describe_time_to_live().table_name(&dynamo.table);
        send!(dynamo, describe_time_to_live, request)
    };
    let described = match dynamo.repeat("asking for the table's time to live", request).await {
        Ok(answer) => answer.time_to_live_description,
        Err(error) if error.kind() == ErrorKind::Config => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(table = dynamo.table, error, "whether expired records are reclaimed is not known");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let is_on =
        |status: &TimeToLiveStatus| matches!(status, TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling);
    let enabled = described.filter(|described| described.time_to_live_status().is_some_and(is_on));
    match enabled.as_ref().map(|described| described.attribute_name().unwrap_or_default()) {
        Some(TTL) => Ok(()),
        Some(other) => {
            let message = "the table's time to live goes by another attribute than expired records have";
            Err(Error::new(ErrorKind::Config, message)
                .with("table", &dynamo.table)
                .with("attribute", format_args!("{other:?}"))
                .with("expected", format_args!("{TTL:?}")))
        }
        None => {
            let message = "the table's time to live is off: expired records stay stored";
            tracing::warn!(table = dynamo.table, attribute = TTL, message);
            Ok(())
        }
    }
}

/// Waits until the table, or that there is none, is as wanted.
async fn wait(
    dynamo: &Dynamo,
    what: &'static str,
    is_wanted: impl Fn(Option<&TableDescription>) -> bool,
) -> Result<()> {
    for look in 0..LOOKS {
        let request =
            || send!(dynamo, describe_table, dynamo.client.describe_table().table_name(&dynamo.table));
        let table = match request().await {
            Ok(answer) => answer.table,
            Err(error) if is(&error, "ResourceNotFoundException") => None,
            Err(_) => dynamo.repeat(what, request).await?.table,
        };
        if let Some(table) = table.as_ref().filter(|table| !is_ours(table)) {
            return Err(Error::new(ErrorKind::Config, "the table exists, with other keys than a store's")
                .with("table", &dynamo.table)
                .with("keys", format_args!("{:?}", table.key_schema())));
        }
        if is_wanted(table.as_ref()) {
            return Ok(());
        }
        dynamo.clock.sleep(if look < 10 { FIRST_PAUSE } else { PAUSE }).await;
    }
    Err(Error::new(ErrorKind::Unavailable, "dynamodb takes very long").with("while", what))
}

/// Whether a table has the keys and the index of a store.
fn is_ours(table: &TableDescription) -> bool {
    let has_index = table
        .global_secondary_indexes()
        .iter()
        .any(|index| index.index_name() == Some(DUE_INDEX) && index.key_schema() == key_schema(QUEUE, READY));
    table.key_schema() == key_schema(PK, SK) && has_index
}

fn is_active(table: &TableDescription) -> bool {
    let is_active = |status: Option<&IndexStatus>| status.is_none_or(|status| *status == IndexStatus::Active);
    table.table_status() == Some(&TableStatus::Active)
        && table.global_secondary_indexes().iter().all(|index| is_active(index.index_status()))
}

fn is<E: ProvideErrorMetadata>(error: &SdkError<E>, code: &str) -> bool {
    error.code() == Some(code)
}

fn key_schema(partition_key: &str, sort_key: &str) -> Vec<KeySchemaElement> {
    let part = |name: &str, key_type| {
        KeySchemaElement::builder().attribute_name(name).key_type(key_type).build().expect(COMPLETE)
    };
    vec![part(partition_key, KeyType::Hash), part(sort_key, KeyType::Range)]
}

fn attribute(name: &str, attribute_type: ScalarAttributeType) -> AttributeDefinition {
    AttributeDefinition::builder()
        .attribute_name(name)
        .attribute_type(attribute_type)
        .build()
        .expect(COMPLETE)
}
