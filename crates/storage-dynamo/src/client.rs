//! Requests, as this store makes them: decorated, with retries of its own, on one table.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{self, ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use evenkeel_core::skew::Skew;
use evenkeel_core::{Clock, Error, ErrorKind, Result, Timestamp};

use crate::decorate::Decorate;
use crate::error::{Doing, Trouble, parse_dynamo_error, trouble};
use crate::keys::{DUE_INDEX, ItemKey};
use crate::rows::Item;

/// How often a request is made until DynamoDB has taken it.
pub(crate) const ATTEMPTS: u32 = 8;

/// The most items that one request reads.
const MOST_READ: usize = 100;

/// What all requests have in common.
pub(crate) struct Dynamo {
    pub(crate) client: Client,
    pub(crate) table: String,
    pub(crate) decorate: Arc<dyn Decorate>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) skew: Arc<Skew>,
    /// How long one attempt at a request may take.
    pub(crate) timeout: Duration,
}

/// Sends a decorated request.
macro_rules! send {
    ($dynamo:expr, $kind:ident, $request:expr) => {{
        let dynamo: &crate::client::Dynamo = $dynamo;
        dynamo.decorate.$kind($request).customize().config_override(dynamo.settings()).send()
    }};
}
pub(crate) use send;

/// A query of the table or of the index of what is due.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) of: Of,
    pub(crate) condition: &'static str,
    pub(crate) values: Vec<(&'static str, AttributeValue)>,
    pub(crate) forwards: Forwards,
    pub(crate) limit: usize,
}

/// What a query looks through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// The table, consistently.
    Table,
    /// The index, which may lag behind.
    DueIndex,
}

/// In which order a query goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwards {
    Yes,
    No,
}

/// Some of what a query finds.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) items: Vec<Item>,
    /// Whether there is more.
    pub(crate) more: bool,
}

impl Dynamo {
    /// The settings of a request.
    pub(crate) fn settings(&self) -> config::Builder {
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(self.timeout).build();
        let settings = self.decorate.settings(config::Builder::default().timeout_config(timeouts));
        // Whether a request may be sent again is for the store to know.
        let settings = settings.retry_config(RetryConfig::disabled());
        if !self.skew.is_due() {
            return settings;
        }
        let asked = self.clock.now();
        settings.interceptor(ReadDate { skew: Arc::clone(&self.skew), asked })
    }

    /// Waits before the attempt that follows `attempt`, the longer the later, at random.
    pub(crate) async fn pause(&self, attempt: u32) {
        self.clock.sleep(back_off(attempt)).await;
    }

    /// Makes a request that changes nothing, or nothing when it is repeated, until it is answered.
    pub(crate) async fn repeat<T, E, F>(&self, what: &'static str, request: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let mut attempt = 0;
        loop {
            match request().await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    attempt += 1;
                    let again = matches!(trouble(&error), Trouble::Busy | Trouble::Lost);
                    if !again || attempt >= ATTEMPTS {
                        return Err(parse_dynamo_error(error, Doing::Read(what)));
                    }
                }
            }
            self.pause(attempt).await;
        }
    }

    /// The item at a key, as it stands.
    pub(crate) async fn get(&self, key: &ItemKey, what: &'static str) -> Result<Option<Item>> {
        let request = || {
            let request = self.client.get_item().table_name(&self.table).consistent_read(true);
            send!(self, get_item, request.set_key(Some(key.attributes())))
        };
        Ok(self.repeat(what, request).await?.item)
    }

    /// The items at several keys, as they stand.
    pub(crate) async fn get_all(
        &self,
        mut keys: Vec<ItemKey>,
        what: &'static str,
    ) -> Result<HashMap<ItemKey, Item>> {
        if let [key] = &keys[..] {
            let item = self.get(key, what).await?;
            return Ok(item.map(|item| (key.clone(), item)).into_iter().collect());
        }
        let mut found = HashMap::new();
        let mut empty_handed = 0;
        while !keys.is_empty() {
            let rest = keys.split_off(keys.len().min(MOST_READ));
            let wanted = KeysAndAttributes::builder()
                .consistent_read(true)
                .set_keys(Some(keys.iter().map(ItemKey::attributes).collect()))
                .build()
                .expect("the keys are given");
            let request = || {
                let request = self.client.batch_get_item().request_items(&self.table, wanted.clone());
                send!(self, batch_get_item, request)
            };
            let answer = self.repeat(what, request).await?;
            let asked = keys.len();
            for item in answer.responses.unwrap_or_default().into_values().flatten() {
                found.insert(ItemKey::of(&item)?, item);
            }
            let left = answer.unprocessed_keys.unwrap_or_default().into_values().flat_map(|left| left.keys);
            keys = left.map(|key| ItemKey::of(&key)).collect::<Result<_>>()?;
            if keys.len() == asked {
                empty_handed += 1;
                if empty_handed >= ATTEMPTS {
                    return Err(Error::new(ErrorKind::Unavailable, "dynamodb throttles the requests")
                        .with("while", what));
                }
                self.pause(empty_handed).await;
            }
            keys.extend(rest);
        }
        Ok(found)
    }

    /// Some of what a query finds.
    pub(crate) async fn query(&self, query: &Query, what: &'static str) -> Result<Found> {
        self.query_after(query, None, what).await
    }

    /// Some of what a query finds after a key: of an item in the index, all that it shows.
    pub(crate) async fn query_after(
        &self,
        query: &Query,
        after: Option<Item>,
        what: &'static str,
    ) -> Result<Found> {
        let limit = i32::try_from(query.limit).unwrap_or(i32::MAX);
        let values: Item =
            query.values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let request = || {
            let request = self
                .client
                .query()
                .table_name(&self.table)
                .key_condition_expression(query.condition)
                .set_expression_attribute_values(Some(values.clone()))
                .scan_index_forward(query.forwards == Forwards::Yes)
                .set_exclusive_start_key(after.clone())
                .limit(limit);
            let request = match query.of {
                Of::Table => request.consistent_read(true),
                Of::DueIndex => request.index_name(DUE_INDEX),
            };
            send!(self, query, request)
        };
        let answer = self.repeat(what, request).await?;
        Ok(Found {
            items: answer.items.unwrap_or_default(),
            more: answer.last_evaluated_key.is_some_and(|key| !key.is_empty()),
        })
    }
}

impl fmt::Debug for Dynamo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dynamo").field("table", &self.table).field("skew", &self.skew).finish_non_exhaustive()
    }
}

/// Up to 20 ms, 40 ms, ... 1.28 s: anywhere below, so that those who collided part.
fn back_off(attempt: u32) -> Duration {
    let most = Duration::from_millis(20) * (1 << (attempt.clamp(1, 7) - 1));
    most.mul_f64(fastrand::f64())
}

/// Compares the clocks by the date that a response bears, which has whole seconds.
#[derive(Debug)]
struct ReadDate {
    skew: Arc<Skew>,
    asked: Timestamp,
}

#[dyn_dispatch_hint]
impl Intercept for ReadDate {
    fn name(&self) -> &'static str {
        "evenkeel: compare the clocks"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        if let Some(date) = date {
            self.skew.observe(self.asked, Timestamp::from_micros(date.secs().saturating_mul(1_000_000)));
        }
        Ok(())
    }
}
