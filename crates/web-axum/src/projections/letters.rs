use std::sync::Arc;

use async_trait::async_trait;
use axum::Json as Answer;
use axum::extract::State;
use evenkeel_core::{ErrorKind, Result, Transactional};
use evenkeel_projections::{self as projections, Projection, Projector};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Service;
use super::inspect::Failure;
use crate::Problem;
use crate::page::CursorQuery;
use crate::problem::Kind;
use crate::request::{Json, NoQuery, Path, Query};

/// A part of what was set apart or skipped.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Letters {
    letters: Vec<Letter>,
    /// Where to go on; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A stream that is set apart, or an event that was skipped.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Letter {
    /// What it is retried or dismissed by.
    id: String,
    partition: u32,
    /// The event that failed, and why.
    failure: Failure,
}

/// Which of them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LetterName {
    /// Its id, as it is listed.
    id: String,
}

/// Lists the streams that are set apart
///
/// The id of each is the stream's name.
#[utoipa::path(get, path = "/projections/{name}/parked", tag = "projections",
    params(("name" = String, Path), CursorQuery), responses((status = 200, body = Letters)))]
pub(crate) async fn list_parked(
    State(service): State<Service>,
    Path(name): Path<String>,
    Query(CursorQuery { limit, cursor }): Query<CursorQuery>,
) -> Result<Answer<Letters>, Problem> {
    let parked = service.operations(&name).parked(cursor.as_deref(), limit.get()).await?;
    Ok(Answer(Letters::of(parked, limit.get())))
}

/// Applies a stream that is set apart
///
/// From the event that failed on; then it runs with the others again. 409 where an event fails again;
/// 404 where the stream is not set apart, or the projection is not known here.
#[utoipa::path(post, path = "/projections/{name}/parked/retry", tag = "projections",
    params(("name" = String, Path)), request_body = LetterName, responses((status = 204)))]
pub(crate) async fn retry_parked(
    State(service): State<Service>,
    Path(name): Path<String>,
    _: NoQuery,
    Json(LetterName { id }): Json<LetterName>,
) -> Done {
    done(service.known(&name).await?.retry_parked(&id).await)
}

/// Applies a stream that is set apart without the event that failed
///
/// 409 where another event fails; 404 where the stream is not set apart, or the projection is not known
/// here.
#[utoipa::path(post, path = "/projections/{name}/parked/dismiss", tag = "projections",
    params(("name" = String, Path)), request_body = LetterName, responses((status = 204)))]
pub(crate) async fn dismiss_parked(
    State(service): State<Service>,
    Path(name): Path<String>,
    _: NoQuery,
    Json(LetterName { id }): Json<LetterName>,
) -> Done {
    done(service.known(&name).await?.dismiss_parked(&id).await)
}

/// Lists the events that were skipped
#[utoipa::path(get, path = "/projections/{name}/dead-letters", tag = "projections",
    params(("name" = String, Path), CursorQuery), responses((status = 200, body = Letters)))]
pub(crate) async fn list_dead_letters(
    State(service): State<Service>,
    Path(name): Path<String>,
    Query(CursorQuery { limit, cursor }): Query<CursorQuery>,
) -> Result<Answer<Letters>, Problem> {
    let dead = service.operations(&name).dead_letters(cursor.as_deref(), limit.get()).await?;
    Ok(Answer(Letters::of(dead, limit.get())))
}

/// Applies an event that was skipped
///
/// After all that was applied since. 409 where it fails again; 404 where there is no such letter, or the
/// projection is not known here.
#[utoipa::path(post, path = "/projections/{name}/dead-letters/retry", tag = "projections",
    params(("name" = String, Path)), request_body = LetterName, responses((status = 204)))]
pub(crate) async fn retry_dead_letter(
    State(service): State<Service>,
    Path(name): Path<String>,
    _: NoQuery,
    Json(LetterName { id }): Json<LetterName>,
) -> Done {
    let known = service.known(&name).await?;
    done(known.retry_dead(&service.dead_letter(&name, &id).await?).await)
}

/// Forgets an event that was skipped
///
/// It stays so.
#[utoipa::path(post, path = "/projections/{name}/dead-letters/dismiss", tag = "projections",
    params(("name" = String, Path)), request_body = LetterName, responses((status = 204)))]
pub(crate) async fn dismiss_dead_letter(
    State(service): State<Service>,
    Path(name): Path<String>,
    _: NoQuery,
    Json(LetterName { id }): Json<LetterName>,
) -> Done {
    let letter = service.dead_letter(&name, &id).await?;
    done(service.operations(&name).dismiss_dead(&letter).await)
}

/// A projection with its code, whatever that is.
#[async_trait]
pub(crate) trait Applies: Send + Sync {
    async fn retry_parked(&self, stream: &str) -> Result<()>;
    async fn dismiss_parked(&self, stream: &str) -> Result<()>;
    async fn retry_dead(&self, letter: &projections::Letter) -> Result<()>;
}

#[async_trait]
impl<P: Projector<S::Conn>, S: Transactional + Clone> Applies for Projection<P, S> {
    async fn retry_parked(&self, stream: &str) -> Result<()> {
        Self::retry_parked(self, stream).await
    }

    async fn dismiss_parked(&self, stream: &str) -> Result<()> {
        Self::dismiss_parked(self, stream).await
    }

    async fn retry_dead(&self, letter: &projections::Letter) -> Result<()> {
        Self::retry_dead(self, letter).await
    }
}

type Done = Result<StatusCode, Problem>;

fn done(outcome: Result<()>) -> Done {
    match outcome {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        // The handler's failure, which is for whoever asked for it.
        Err(error) if error.kind() == ErrorKind::Unexpected => {
            Err(Problem::new(Kind::Conflict, error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

impl Service {
    async fn known(&self, name: &str) -> Result<Arc<dyn Applies>, Problem> {
        if let Some(known) = self.known.get(name) {
            return Ok(Arc::clone(known));
        }
        self.operations(name).status().await?;
        Err(Problem::not_found(format!(
            "the code of the projection is not here, but where it runs (projection: {name:?})"
        )))
    }

    async fn dead_letter(&self, name: &str, id: &str) -> Result<projections::Letter, Problem> {
        let found = self.operations(name).dead_letter(id).await?;
        found.ok_or_else(|| Problem::not_found(format!("there is no such dead letter (id: {id:?})")))
    }
}

impl Letters {
    fn of(letters: Vec<projections::Letter>, limit: usize) -> Self {
        let next_cursor =
            (letters.len() == limit).then(|| letters.last().map(|last| last.id.clone())).flatten();
        Self { letters: letters.into_iter().map(Letter::from).collect(), next_cursor }
    }
}

impl From<projections::Letter> for Letter {
    fn from(letter: projections::Letter) -> Self {
        let (id, partition) = (letter.id.clone(), letter.at.index());
        Self { id, partition, failure: Failure::from(&letter.failure) }
    }
}
