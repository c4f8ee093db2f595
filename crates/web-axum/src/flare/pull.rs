use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use evenkeel_flare::{Action, Pulled, Receipt};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{Service, inspect};
use crate::Problem;
use crate::page::Time;
use crate::request::{Json, JsonOrDefault, NoQuery, Path};

/// How many messages are wanted, and for how long.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Pull {
    /// How many at most; there may be more where fewer are answered.
    #[schema(minimum = 1, maximum = 40, default = 10)]
    max: usize,
    /// For how long nobody else is given them.
    #[schema(minimum = 1, maximum = 43200, default = 30)]
    hold_seconds: u64,
}

impl Default for Pull {
    fn default() -> Self {
        Self { max: 10, hold_seconds: 30 }
    }
}

/// Messages that were fetched.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Messages {
    messages: Vec<Message>,
}

/// A message that was fetched.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Message {
    /// The `webhook-id`: the same each time the same message is fetched.
    id: String,
    /// The document.
    url: String,
    /// Which revision of it.
    revision: i64,
    /// What became of it.
    #[schema(schema_with = inspect::action)]
    action: Action,
    /// What a message that is sent has as its body; null where that is empty.
    #[schema(value_type = Option<Object>)]
    body: Option<Box<RawValue>>,
    /// Which attempt this is, from 1.
    attempt: u32,
    /// Until when nobody else is given it.
    until: Time,
    /// What acknowledges or releases it.
    receipt: String,
}

/// A message that was taken.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acknowledgement {
    receipt: String,
}

/// A message that is given back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Release {
    receipt: String,
    /// After how long it is given again; at once unless said.
    #[serde(default)]
    delay_seconds: u64,
}

impl TryFrom<Pulled> for Message {
    type Error = Problem;

    fn try_from(pulled: Pulled) -> Result<Self, Problem> {
        let Pulled { id, url, revision, action, body, attempt, until, receipt, .. } = pulled;
        let corrupt =
            |_| evenkeel_core::Error::new(evenkeel_core::ErrorKind::Corrupt, "a message is not JSON");
        let body = match body.as_ref() {
            [] => None,
            body => Some(serde_json::from_slice(body).map_err(corrupt)?),
        };
        let (revision, until, receipt) = (revision.get(), Time(until), receipt.to_string());
        Ok(Self { id, url, revision, action, body, attempt, until, receipt })
    }
}

/// Fetches messages of a subscription in pull mode
///
/// A message that is neither acknowledged nor released in time is given again.
#[utoipa::path(post, path = "/subscriptions/{id}/pull", tag = "pull",
    params(("id" = String, Path)), request_body = Option<Pull>, responses((status = 200, body = Messages)))]
pub(crate) async fn pull(
    State(service): State<Service>,
    Path(id): Path<String>,
    _: NoQuery,
    JsonOrDefault(Pull { max, hold_seconds }): JsonOrDefault<Pull>,
) -> Result<Answer<Messages>, Problem> {
    let pulled = service.flare.pull(&id, max, Duration::from_secs(hold_seconds)).await?;
    let messages = pulled.into_iter().map(Message::try_from).collect::<Result<_, _>>()?;
    Ok(Answer(Messages { messages }))
}

/// Acknowledges a message
///
/// 409 where it was held for too long and given to another since.
#[utoipa::path(post, path = "/subscriptions/{id}/ack", tag = "pull",
    params(("id" = String, Path)), request_body = Acknowledgement, responses((status = 204)))]
pub(crate) async fn acknowledge(
    State(service): State<Service>,
    Path(id): Path<String>,
    _: NoQuery,
    Json(Acknowledgement { receipt }): Json<Acknowledgement>,
) -> Result<StatusCode, Problem> {
    service.flare.acknowledge(&id, &receipt.parse::<Receipt>()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a message back
///
/// 409 where it was held for too long and given to another since.
#[utoipa::path(post, path = "/subscriptions/{id}/release", tag = "pull",
    params(("id" = String, Path)), request_body = Release, responses((status = 204)))]
pub(crate) async fn release(
    State(service): State<Service>,
    Path(id): Path<String>,
    _: NoQuery,
    Json(Release { receipt, delay_seconds }): Json<Release>,
) -> Result<StatusCode, Problem> {
    let delay = Duration::from_secs(delay_seconds);
    service.flare.release(&id, &receipt.parse::<Receipt>()?, delay).await?;
    Ok(StatusCode::NO_CONTENT)
}
