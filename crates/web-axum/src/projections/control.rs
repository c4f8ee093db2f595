use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;

use super::Service;
use super::inspect::Projection;
use crate::Problem;
use crate::request::{NoQuery, Path};

/// Pauses a projection
///
/// It stops everywhere, within a poll of those who run it.
#[utoipa::path(post, path = "/projections/{name}/pause", tag = "projections", params(("name" = String, Path)),
    responses((status = 200, body = Projection)))]
pub(crate) async fn pause_projection(
    State(service): State<Service>,
    Path(name): Path<String>,
    _: NoQuery,
) -> Result<Answer<Projection>, Problem> {
    service.operations(&name).pause().await?;
    Ok(Answer(service.projection(name).await?))
}

/// Lets a projection run again
///
/// Also where it stopped at an event that failed, which is then applied again.
#[utoipa::path(post, path = "/projections/{name}/resume", tag = "projections", params(("name" = String, Path)),
    responses((status = 200, body = Projection)))]
pub(crate) async fn resume_projection(
    State(service): State<Service>,
    Path(name): Path<String>,
    _: NoQuery,
) -> Result<Answer<Projection>, Problem> {
    service.operations(&name).resume().await?;
    Ok(Answer(service.projection(name).await?))
}

/// Begins a projection anew
///
/// With an empty read model, a new version that is the one to read at once.
#[utoipa::path(post, path = "/projections/{name}/reset", tag = "projections", params(("name" = String, Path)),
    responses((status = 200, body = Projection)))]
pub(crate) async fn reset_projection(
    State(service): State<Service>,
    Path(name): Path<String>,
    _: NoQuery,
) -> Result<Answer<Projection>, Problem> {
    service.operations(&name).reset().await?;
    Ok(Answer(service.projection(name).await?))
}

/// Rebuilds a projection
///
/// Asks those who run it to build a new version beside the one that is read, from the first event,
/// which takes its place once it has caught up. Where one is being built already, it goes on.
#[utoipa::path(post, path = "/projections/{name}/rebuild", tag = "projections", params(("name" = String, Path)),
    responses((status = 202, body = Projection)))]
pub(crate) async fn rebuild_projection(
    State(service): State<Service>,
    Path(name): Path<String>,
    _: NoQuery,
) -> Result<(StatusCode, Answer<Projection>), Problem> {
    service.operations(&name).start_rebuild().await?;
    Ok((StatusCode::ACCEPTED, Answer(service.projection(name).await?)))
}

/// Gives a rebuild up
///
/// What is read stays as it is. Where none is under way, nothing happens.
#[utoipa::path(post, path = "/projections/{name}/cancel-rebuild", tag = "projections",
    params(("name" = String, Path)), responses((status = 200, body = Projection)))]
pub(crate) async fn cancel_rebuild(
    State(service): State<Service>,
    Path(name): Path<String>,
    _: NoQuery,
) -> Result<Answer<Projection>, Problem> {
    service.operations(&name).cancel_rebuild().await?;
    Ok(Answer(service.projection(name).await?))
}
