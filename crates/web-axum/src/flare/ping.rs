use axum::Json as Answer;
use axum::extract::State;
use evenkeel_flare::{self as flare, Outcome};
use serde::Serialize;
use utoipa::ToSchema;

use super::Service;
use super::inspect::{Failure, test_outcome};
use crate::Problem;
use crate::request::{NoQuery, Path};

/// What came of a test message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ping {
    /// The `webhook-id` that was sent.
    id: String,
    #[schema(schema_with = test_outcome)]
    outcome: Outcome,
    /// The status answered, where there was an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Why there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
    /// How long it took, in microseconds.
    took_us: u64,
    /// The first 16 KiB of the answer's body.
    #[serde(skip_serializing_if = "String::is_empty")]
    response: String,
}

impl From<flare::Ping> for Ping {
    fn from(ping: flare::Ping) -> Self {
        let flare::Ping { id, outcome, status, error, took, response, .. } = ping;
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        Self { id, outcome, status, error: error.map(Failure::from), took_us, response }
    }
}

/// Sends a test message
///
/// At once, whatever the subscription's status is, and once: where a `create` goes, signed, with the
/// action `ping`. It is not listed among the attempts. What came back is answered with 200, also where
/// it is an error; 400 where the subscription fetches its messages.
#[utoipa::path(post, path = "/subscriptions/{id}/ping", tag = "subscriptions",
    params(("id" = String, Path)), responses((status = 200, body = Ping)))]
pub(crate) async fn ping(
    State(service): State<Service>,
    Path(id): Path<String>,
    _: NoQuery,
) -> Result<Answer<Ping>, Problem> {
    Ok(Answer(service.flare.ping(&id, &*service.transport).await?.into()))
}
