use axum::Json as Answer;
use axum::extract::State;
use evenkeel_idempotency::{Ending, Error, ErrorKind, Identity, Scope, Status, Tracked};
use serde::{Deserialize, Serialize};
use utoipa::openapi::Schema;
use utoipa::{IntoParams, ToSchema};

use super::Service;
use crate::Problem;
use crate::page::{CursorQuery, Time, words};
use crate::problem::Kind;
use crate::request::{Json, NoQuery, Query};

/// A part of the list of the operations that run at this moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Running {
    operations: Vec<Operation>,
    /// Where to go on; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// An operation under an idempotency key.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Operation {
    /// Whose key it is; not there where all callers share one set of keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    /// What was asked for, such as `[POST]/resources`.
    target: String,
    key: String,
    /// What it lives beside, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<String>,
    #[schema(schema_with = status)]
    status: Status,
    /// How often it was begun.
    attempt: u32,
    started_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Time>,
    /// When the last attempt, if it runs still, may be taken over.
    lease_until: Time,
    /// Not there where it never expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
    /// How many attempts failed.
    error_count: u32,
    /// Why the last failed attempt did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// How the last attempt ended, where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = ending)]
    ending: Option<Ending>,
}

/// Which operation.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OperationQuery {
    /// Whose key it is; left out where all callers share one set of keys.
    principal: Option<String>,
    /// What was asked for, such as `[POST]/resources`.
    target: String,
    key: String,
    /// What it lives beside, where it does.
    beside: Option<String>,
}

/// An operation to be released.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleasedOperation {
    /// Whose key it is; left out where all callers share one set of keys.
    #[serde(default)]
    principal: Option<String>,
    /// What was asked for, such as `[POST]/resources`.
    target: String,
    key: String,
    /// What it lives beside, where it does.
    #[serde(default)]
    beside: Option<String>,
    /// What is recorded as the reason.
    reason: String,
}

/// Lists the operations that run at this moment
///
/// Those whose owner is gone among them.
#[utoipa::path(get, path = "/operations/idempotency/running", tag = "operations", params(CursorQuery),
    responses((status = 200, body = Running)))]
pub(crate) async fn list_running(
    State(service): State<Service>,
    Query(CursorQuery { limit, cursor }): Query<CursorQuery>,
) -> Result<Answer<Running>, Problem> {
    let page = service.idempotency.running(cursor, limit.get()).await.map_err(|error| refusal(&error))?;
    let operations = page.operations.into_iter().map(Operation::from).collect();
    Ok(Answer(Running { operations, next_cursor: page.cursor }))
}

/// Shows an operation
#[utoipa::path(get, path = "/operations/idempotency/operation", tag = "operations", params(OperationQuery),
    responses((status = 200, body = Operation)))]
pub(crate) async fn show_operation(
    State(service): State<Service>,
    Query(query): Query<OperationQuery>,
) -> Result<Answer<Operation>, Problem> {
    let OperationQuery { principal, target, key, beside } = query;
    Ok(Answer(tracked(&service, &identity(principal, target, key, beside)).await?.into()))
}

/// Takes an operation from whoever runs it
///
/// The next arrival runs it again; the owner, should it still live, can record nothing any more. 409
/// where it is neither running nor refused since it was cut off.
#[utoipa::path(post, path = "/operations/idempotency/release", tag = "operations",
    request_body = ReleasedOperation, responses((status = 200, body = Operation)))]
pub(crate) async fn release_operation(
    State(service): State<Service>,
    _: NoQuery,
    Json(released): Json<ReleasedOperation>,
) -> Result<Answer<Operation>, Problem> {
    let ReleasedOperation { principal, target, key, beside, reason } = released;
    let identity = identity(principal, target, key, beside);
    tracked(&service, &identity).await?;
    match service.idempotency.release(&identity, &reason).await {
        Ok(tracked) => Ok(Answer(tracked.into())),
        // Its name was good enough to look it up.
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            Err(Problem::new(Kind::Conflict, error.message()))
        }
        Err(error) => Err(refusal(&error)),
    }
}

fn identity(principal: Option<String>, target: String, key: String, beside: Option<String>) -> Identity {
    let identity = Identity::new(principal.map_or(Scope::Global, Scope::Principal), target, key);
    match beside {
        Some(name) => identity.beside(name),
        None => identity,
    }
}

async fn tracked(service: &Service, identity: &Identity) -> Result<Tracked, Problem> {
    let tracked = service.idempotency.show(identity).await.map_err(|error| refusal(&error))?;
    tracked.ok_or_else(|| Problem::not_found("there is no such operation, or not any more"))
}

fn refusal(error: &Error) -> Problem {
    let problem = Problem::from(error);
    if problem.status().is_server_error() {
        tracing::error!(?error, "a request failed");
    }
    problem
}

impl From<Tracked> for Operation {
    fn from(tracked: Tracked) -> Self {
        let Identity { scope, target, key, beside, .. } = tracked.identity;
        let principal = match scope {
            Scope::Global => None,
            Scope::Principal(principal) => Some(principal),
        };
        Self {
            principal,
            target,
            key,
            beside,
            status: tracked.status,
            attempt: tracked.attempt,
            started_at: Time(tracked.started_at),
            finished_at: tracked.finished_at.map(Time),
            lease_until: Time(tracked.lease_until),
            expires_at: tracked.expires_at.map(Time),
            error_count: tracked.error_count,
            error: tracked.error,
            ending: tracked.ending,
        }
    }
}

fn status() -> Schema {
    words(&[Status::Running, Status::Finished, Status::Failed])
}

fn ending() -> Schema {
    use Ending::{Dropped, Interrupted, Panicked, Released, Reported, TooLate};
    words(&[Reported, Panicked, Dropped, TooLate, Interrupted, Released])
}
