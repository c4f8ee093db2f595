//! Subscriptions as they stand in JSON.

use std::collections::BTreeMap;

use evenkeel_flare::{self as flare, Backfill, DataValue, Filter, Mode, Progression, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::Schema;

use crate::Problem;
use crate::page::{Time, words};

/// A subscription to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSubscription {
    #[serde(default)]
    endpoint: Endpoint,
    delivery: Delivery,
    #[serde(default)]
    content: Content,
    /// What is in the envelope besides: strings, which may have wildcards, numbers, booleans and flat
    /// arrays of them.
    #[serde(default)]
    data: BTreeMap<String, Value>,
    /// Which documents it is about, by their content, such as
    /// `{"field": "status", "op": "eq", "value": "open"}`; all without one.
    #[serde(default)]
    filter: Option<Value>,
    /// Whether it is told of the documents that there are already.
    #[serde(default)]
    backfill: bool,
    /// What signs its messages: a `whsec_` or `whsk_` text; one is made where there is none.
    #[serde(default)]
    secret: Option<String>,
}

/// Who wants to hear of a resource, how, and what of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Subscription {
    id: String,
    /// The resource's id.
    resource: String,
    endpoint: Endpoint,
    delivery: Delivery,
    content: Content,
    /// What is in the envelope besides.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    data: BTreeMap<String, Value>,
    /// Which documents it is about; all without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<Value>,
    #[schema(schema_with = status)]
    status: Status,
    created_at: Time,
    /// When deliveries were last made active again.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed_at: Option<Time>,
    /// Why the server that answers can make no message of it, as where it lacks a vault key; what is published
    /// waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// What signs its messages; only in the answer that creates it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<String>,
}

/// Where messages are sent.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Endpoint {
    /// The URL; may have the resource's wildcards and `{revision}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "https://hooks.example.com/orders/{order}")]
    url: Option<String>,
    /// GET, POST, PUT, PATCH or DELETE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    /// Values may have wildcards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    actions: Actions,
}

/// What is different for each action.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Actions {
    /// For documents that were not told of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    create: Option<ActionEndpoint>,
    /// For documents that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    update: Option<ActionEndpoint>,
    /// For documents that were deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delete: Option<ActionEndpoint>,
}

/// What is different for an action.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ActionEndpoint {
    /// The URL, instead of the endpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// The method, instead of the endpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    /// All headers, instead of the endpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, String>>,
}

/// How messages are delivered.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Delivery {
    /// Whether they are sent or fetched.
    #[serde(default)]
    #[schema(schema_with = mode)]
    mode: Mode,
    /// The statuses with which a subscriber takes a message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    success: Vec<u16>,
    /// The statuses with which a subscriber does not want a message, which settles it too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    discard: Vec<u16>,
    /// When what failed is tried again; after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h and 10 h without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<Retry>,
    /// How many are under way at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 256)]
    concurrency: Option<u16>,
    /// How many are sent a second; as many as there are without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
}

/// When a delivery that failed is tried again.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retry {
    /// Seconds before the second try.
    interval: f64,
    /// Seconds after the first try in which others may begin; without end where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<f64>,
    /// How many tries there are in all.
    #[schema(minimum = 1, maximum = 1000)]
    quantity: u32,
    /// How the waits grow.
    #[serde(default)]
    #[schema(schema_with = progression)]
    progression: Progression,
    /// By how much: seconds added each time for `arithmetic`, a factor for `geometric`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

/// What is in a message.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Content {
    /// Whether the document is.
    document: bool,
    /// Whether it is in an envelope that says what happened to it.
    envelope: bool,
}

impl Default for Content {
    fn default() -> Self {
        flare::Content::default().into()
    }
}

impl TryFrom<NewSubscription> for flare::NewSubscription {
    type Error = Problem;

    fn try_from(new: NewSubscription) -> Result<Self, Problem> {
        let NewSubscription { endpoint, delivery, content, data, filter, backfill, secret } = new;
        let value = |(name, value)| Ok::<_, Problem>((name, DataValue::try_from(value)?));
        Ok(Self {
            endpoint: endpoint.into(),
            delivery: delivery.into(),
            content: flare::Content { document: content.document, envelope: content.envelope },
            data: data.into_iter().map(value).collect::<Result<_, _>>()?,
            filter: filter.map(Filter::parse).transpose()?,
            backfill: if backfill { Backfill::All } else { Backfill::Nothing },
            secret,
        })
    }
}

impl From<flare::Subscription> for Subscription {
    fn from(subscription: flare::Subscription) -> Self {
        Self {
            id: subscription.id,
            resource: subscription.resource,
            endpoint: subscription.endpoint.into(),
            delivery: subscription.delivery.into(),
            content: subscription.content.into(),
            data: subscription.data.into_iter().map(|(name, value)| (name, value.into())).collect(),
            filter: subscription.filter.map(Value::from),
            status: subscription.status,
            created_at: subscription.created_at.into(),
            resumed_at: subscription.resumed_at.map(Time),
            problem: subscription.problem,
            secret: None,
        }
    }
}

impl From<flare::Content> for Content {
    fn from(flare::Content { document, envelope }: flare::Content) -> Self {
        Self { document, envelope }
    }
}

/// Conversions both ways between a struct of flare's and the one here, whose fields have the same
/// names.
macro_rules! mirrors {
    ($($name:ident as $other:ident { $($same:ident),* ; $($optional:ident),* ; $($nested:ident),* })+) => {$(
        impl From<$name> for flare::$other {
            fn from(it: $name) -> Self {
                let $name { $($same,)* $($optional,)* $($nested,)* } = it;
                Self { $($same,)* $($optional: $optional.map(Into::into),)* $($nested: $nested.into(),)* }
            }
        }

        impl From<flare::$other> for $name {
            fn from(it: flare::$other) -> Self {
                let flare::$other { $($same,)* $($optional,)* $($nested,)* } = it;
                Self { $($same,)* $($optional: $optional.map(Into::into),)* $($nested: $nested.into(),)* }
            }
        }
    )+};
}

mirrors! {
    Endpoint as Endpoint { url, method, headers; ; actions }
    Actions as Actions { ; create, update, delete; }
    ActionEndpoint as ActionEndpoint { url, method, headers; ; }
    Delivery as DeliveryPolicy { mode, success, discard, concurrency, rate; retry; }
    Retry as RetryPolicy { interval, ttl, quantity, progression, ratio; ; }
}

fn mode() -> Schema {
    words(&[Mode::Push, Mode::Pull])
}

fn progression() -> Schema {
    words(&[Progression::Linear, Progression::Arithmetic, Progression::Geometric])
}

pub(crate) fn status() -> Schema {
    words(&[Status::Active, Status::Paused, Status::Disabled])
}
