use axum::extract::{OriginalUri, State};
use axum::response::IntoResponse;
use axum::{Extension, Json as Answer};
use evenkeel_choreograph::Started;
use evenkeel_idempotency::Identity;
use http::StatusCode;
use http::header::LOCATION;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Service;
use super::run::Run;
use crate::Problem;
use crate::request::{Json, JsonOrDefault, NoQuery, Path};

/// What stands in a path as it is (RFC 3986, 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Any JSON; null where there is none.
type AnyJson = Option<Box<RawValue>>;

/// A run to be started.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRun {
    /// 1 to 256 bytes, of the caller's choice.
    id: String,
    /// The name of a definition that is registered here.
    definition: String,
    /// What it is started with; null unless said.
    #[serde(default)]
    #[schema(value_type = Option<serde_json::Value>)]
    input: AnyJson,
}

/// Starts a run
///
/// 200 where it was started before with the same input. 409 where that was another one, or another
/// definition; 404 where the definition is not registered here.
#[utoipa::path(post, path = "/runs", tag = "runs", request_body = NewRun,
    responses(
        (status = 201, body = Run, headers(("Location" = String, description = "The run"))),
        (status = 200, body = Run, headers(("Location" = String, description = "The run")))))]
pub(crate) async fn start_run(
    State(service): State<Service>,
    OriginalUri(uri): OriginalUri,
    _: NoQuery,
    Json(NewRun { id, definition, input }): Json<NewRun>,
) -> Result<impl IntoResponse, Problem> {
    let status = match service.choreographer.start(&definition, &id, &input).await? {
        Started::New => StatusCode::CREATED,
        Started::Existing => StatusCode::OK,
    };
    let location = format!("{}/{}", uri.path(), utf8_percent_encode(&id, SEGMENT));
    Ok((status, [(LOCATION, location)], service.run(&id).await?))
}

/// Sends a run a signal
///
/// The body, any JSON or nothing, is what the step that waits for the name takes, now or once it is
/// reached. With an idempotency key it is sent once, whatever is cut off. 409 where the run has come
/// to its end.
#[utoipa::path(post, path = "/runs/{id}/signals/{name}", tag = "runs",
    params(("id" = String, Path), ("name" = String, Path, description = "The name of the step that waits")),
    request_body = Option<serde_json::Value>, responses((status = 202)))]
pub(crate) async fn signal_run(
    State(service): State<Service>,
    Path((id, name)): Path<(String, String)>,
    operation: Option<Extension<Identity>>,
    _: NoQuery,
    JsonOrDefault(payload): JsonOrDefault<AnyJson>,
) -> Result<StatusCode, Problem> {
    let runs = &service.choreographer;
    match operation {
        Some(Extension(operation)) => runs.signal_once(&id, &name, &operation.digest(), &payload).await?,
        None => runs.signal(&id, &name, &payload).await?,
    }
    Ok(StatusCode::ACCEPTED)
}

/// Asks a run to stop
///
/// No further step begins, and what finished is taken back. 409 where the run has come to its end.
#[utoipa::path(post, path = "/runs/{id}/cancel", tag = "runs", params(("id" = String, Path)),
    responses((status = 200, body = Run)))]
pub(crate) async fn cancel_run(
    State(service): State<Service>,
    Path(id): Path<String>,
    _: NoQuery,
) -> Changed {
    service.choreographer.cancel(&id).await?;
    service.run(&id).await
}

/// Goes on with a parked run
///
/// The step that it was parked at is tried again. 409 where the run is not parked.
#[utoipa::path(post, path = "/runs/{id}/resume", tag = "runs", params(("id" = String, Path)),
    responses((status = 200, body = Run)))]
pub(crate) async fn resume_run(
    State(service): State<Service>,
    Path(id): Path<String>,
    _: NoQuery,
) -> Changed {
    service.choreographer.resume(&id).await?;
    service.run(&id).await
}

/// Tries a failed run again
///
/// From its failed step, or the compensations that failed; what finished is not run again. 409 where
/// the run did not fail.
#[utoipa::path(post, path = "/runs/{id}/retry", tag = "runs", params(("id" = String, Path)),
    responses((status = 200, body = Run)))]
pub(crate) async fn retry_run(State(service): State<Service>, Path(id): Path<String>, _: NoQuery) -> Changed {
    service.choreographer.retry(&id).await?;
    service.run(&id).await
}

type Changed = Result<Answer<Run>, Problem>;
