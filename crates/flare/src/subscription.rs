use std::collections::BTreeMap;

use evenkeel_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Action, DataValue, Filter, RetryPolicy, Status};

/// Who wants to hear of a resource, how, and what of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Subscription {
    /// What names it.
    pub id: String,
    /// The resource.
    pub resource: String,
    /// Where its messages are sent.
    pub endpoint: Endpoint,
    /// How they are delivered.
    pub delivery: DeliveryPolicy,
    /// What is in them.
    pub content: Content,
    /// What is in their envelope besides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, DataValue>,
    /// Which documents it is about; `None` is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// Whether deliveries are made.
    pub status: Status,
    /// When it was created.
    pub created_at: Timestamp,
    /// When deliveries were last made active again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Timestamp>,
    /// Why this process can make no message of it, as where the vault lacks the key of its secret; what is
    /// published waits.
    #[serde(skip)]
    pub problem: Option<String>,
    /// What signs its messages: the key in use, and those it replaced.
    pub(crate) keys: Vec<Key>,
}

/// A subscription to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSubscription {
    /// Where its messages are sent; nowhere in pull mode.
    #[serde(default)]
    pub endpoint: Endpoint,
    /// How they are delivered.
    pub delivery: DeliveryPolicy,
    /// What is in them.
    #[serde(default)]
    pub content: Content,
    /// What is in their envelope besides.
    #[serde(default)]
    pub data: BTreeMap<String, DataValue>,
    /// Which documents it is about; `None` is all.
    #[serde(default)]
    pub filter: Option<Filter>,
    /// What it is told of the documents that there are already.
    #[serde(default)]
    pub backfill: Backfill,
    /// What signs its messages: a `whsec_` or `whsk_` text; one is made where there is none.
    #[serde(default)]
    pub secret: Option<String>,
}

/// What a new subscription is told of the documents that there are already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
pub enum Backfill {
    /// Nothing, until they change.
    #[default]
    Nothing,
    /// Each of them once.
    All,
}

/// Where messages are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The URL; may have the resource's wildcards and `{revision}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The method: GET, POST, PUT, PATCH or DELETE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Headers; values may have wildcards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
    /// What is different for an action.
    #[serde(default)]
    pub actions: Actions,
}

/// What is different for each action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actions {
    /// For documents that were not told of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<ActionEndpoint>,
    /// For documents that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<ActionEndpoint>,
    /// For documents that were deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<ActionEndpoint>,
}

/// What is different for an action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionEndpoint {
    /// The URL, instead of the endpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The method, instead of the endpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// All headers, instead of the endpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
}

/// How messages are delivered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryPolicy {
    /// Whether they are sent or fetched.
    #[serde(default)]
    pub mode: Mode,
    /// The statuses with which a subscriber takes a message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub success: Vec<u16>,
    /// The statuses with which a subscriber does not want a message, which settles it too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discard: Vec<u16>,
    /// When what failed is tried again; `None` is after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h and 10 h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// How many wait for an answer at once, 1 to 256; `None` is what the worker says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u16>,
    /// How many are sent a second; `None` is as many as there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

/// Whether messages are sent or fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They are sent to the endpoint.
    #[default]
    Push,
    /// The consumer fetches them.
    Pull,
}

/// What is in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Whether the document is.
    #[serde(default = "yes")]
    pub document: bool,
    /// Whether it is in an envelope that says what happened to it.
    #[serde(default = "yes")]
    pub envelope: bool,
}

/// A key that signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    /// The secret, sealed where the vault has keys.
    pub(crate) sealed: String,
    pub(crate) created_at: Timestamp,
    /// Until when it signs; `None` for the one in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Timestamp>,
}

const fn yes() -> bool {
    true
}

impl Default for Content {
    fn default() -> Self {
        Self { document: true, envelope: true }
    }
}

impl From<bool> for Backfill {
    fn from(all: bool) -> Self {
        if all { Self::All } else { Self::Nothing }
    }
}

impl From<Backfill> for bool {
    fn from(backfill: Backfill) -> Self {
        backfill == Backfill::All
    }
}

impl Subscription {
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a subscription is JSON")
    }
}

impl Key {
    pub(crate) fn signs_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Endpoint {
    /// All its URLs, which no other subscription of the resource has; `None` where it has none.
    pub(crate) fn urls(&self) -> Option<String> {
        let actions = [Action::Create, Action::Update, Action::Delete];
        let urls: Vec<_> = actions.iter().filter_map(|action| self.url_for(*action)).collect();
        match urls.as_slice() {
            [] => None,
            [first, rest @ ..] if rest.iter().all(|url| url == first) => Some((*first).to_owned()),
            urls => Some(urls.join(" ")),
        }
    }

    fn special(&self, action: Action) -> Option<&ActionEndpoint> {
        match action {
            Action::Create => self.actions.create.as_ref(),
            Action::Update => self.actions.update.as_ref(),
            Action::Delete => self.actions.delete.as_ref(),
        }
    }

    pub(crate) fn url_for(&self, action: Action) -> Option<&str> {
        self.special(action).and_then(|special| special.url.as_deref()).or(self.url.as_deref())
    }

    pub(crate) fn method_for(&self, action: Action) -> Option<&str> {
        self.special(action).and_then(|special| special.method.as_deref()).or(self.method.as_deref())
    }

    pub(crate) fn headers_for(&self, action: Action) -> Option<&BTreeMap<String, String>> {
        self.special(action).and_then(|special| special.headers.as_ref()).or(self.headers.as_ref())
    }
}
