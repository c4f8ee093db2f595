use axum::Json as Answer;
use axum::extract::State;
use evenkeel_choreograph::Registration;
use serde::Serialize;
use utoipa::ToSchema;

use super::Service;
use crate::Problem;
use crate::request::{NoQuery, Path};

/// The definitions that are registered here, by their names.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Definitions {
    definitions: Vec<Definition>,
}

/// What there is to be run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Definition {
    name: &'static str,
    /// Hashes of the steps and their order; new runs get the last.
    versions: Vec<String>,
}

/// Lists the definitions that are registered here
#[utoipa::path(get, path = "/definitions", tag = "runs", responses((status = 200, body = Definitions)))]
pub(crate) async fn list_definitions(State(service): State<Service>, _: NoQuery) -> Answer<Definitions> {
    let registered = service.choreographer.definitions().into_iter();
    let definitions = registered.map(|Registration { name, versions, .. }| Definition { name, versions });
    Answer(Definitions { definitions: definitions.collect() })
}

/// Draws the last version of a definition
///
/// As a flow chart in Mermaid's language.
#[utoipa::path(get, path = "/definitions/{name}/diagram", tag = "runs", params(("name" = String, Path)),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn show_diagram(
    State(service): State<Service>,
    Path(name): Path<String>,
    _: NoQuery,
) -> Result<String, Problem> {
    let registered = service.choreographer.definitions();
    let definition = registered.into_iter().find(|definition| definition.name == name);
    let unknown = || Problem::not_found(format!("no such definition is registered (definition: {name:?})"));
    definition.map(|definition| definition.diagram).ok_or_else(unknown)
}
