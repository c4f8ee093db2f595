use std::fmt::Debug;

use aws_sdk_dynamodb::config::Builder as RequestConfig;
use aws_sdk_dynamodb::operation::batch_get_item::builders::BatchGetItemFluentBuilder;
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::operation::delete_item::builders::DeleteItemFluentBuilder;
use aws_sdk_dynamodb::operation::delete_table::builders::DeleteTableFluentBuilder;
use aws_sdk_dynamodb::operation::describe_table::builders::DescribeTableFluentBuilder;
use aws_sdk_dynamodb::operation::describe_time_to_live::builders::DescribeTimeToLiveFluentBuilder;
use aws_sdk_dynamodb::operation::get_item::builders::GetItemFluentBuilder;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::scan::builders::ScanFluentBuilder;
use aws_sdk_dynamodb::operation::transact_write_items::builders::TransactWriteItemsFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::operation::update_time_to_live::builders::UpdateTimeToLiveFluentBuilder;

macro_rules! decorate {
    ($($(#[$doc:meta])* $name:ident: $request:ty),* $(,)?) => {
        /// Adds to requests before they are sent: to learn what they consume, to give them a time
        /// limit or an interceptor. One method for each kind of request; each leaves its request as
        /// it is unless overridden.
        ///
        /// What a request says already must stay: keys, expressions, tokens. A request that is sent
        /// again is decorated again, alike, or DynamoDB does not recognise it.
        ///
        /// ```
        /// use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
        /// use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
        /// use evenkeel_storage_dynamo::Decorate;
        ///
        /// #[derive(Debug)]
        /// struct ShowCapacity;
        ///
        /// impl Decorate for ShowCapacity {
        ///     fn query(&self, request: QueryFluentBuilder) -> QueryFluentBuilder {
        ///         request.return_consumed_capacity(ReturnConsumedCapacity::Total)
        ///     }
        /// }
        /// ```
        pub trait Decorate: Debug + Send + Sync + 'static {
            /// The settings of every request, whatever its kind: timeouts, interceptors.
            fn settings(&self, settings: RequestConfig) -> RequestConfig {
                settings
            }

            $($(#[$doc])*
            fn $name(&self, request: $request) -> $request {
                request
            })*
        }
    };
}

decorate! {
    /// Reads one item.
    get_item: GetItemFluentBuilder,
    /// Reads up to 100 items.
    batch_get_item: BatchGetItemFluentBuilder,
    /// Reads items under one partition key, or candidates of the index.
    query: QueryFluentBuilder,
    /// Looks for expired records, where DynamoDB itself does not reclaim them.
    scan: ScanFluentBuilder,
    /// Writes one item.
    put_item: PutItemFluentBuilder,
    /// Changes one item.
    update_item: UpdateItemFluentBuilder,
    /// Removes one item.
    delete_item: DeleteItemFluentBuilder,
    /// Writes several items, all or none.
    transact_write_items: TransactWriteItemsFluentBuilder,
    /// Creates the table.
    create_table: CreateTableFluentBuilder,
    /// Asks how the table stands.
    describe_table: DescribeTableFluentBuilder,
    /// Asks whether DynamoDB reclaims expired records.
    describe_time_to_live: DescribeTimeToLiveFluentBuilder,
    /// Has DynamoDB reclaim expired records.
    update_time_to_live: UpdateTimeToLiveFluentBuilder,
    /// Deletes the table.
    delete_table: DeleteTableFluentBuilder,
}

/// Leaves every request as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Undecorated;

impl Decorate for Undecorated {}
