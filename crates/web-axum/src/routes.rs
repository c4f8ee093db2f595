//! Tables of routes: what is served is what is described, and each route has its scopes.
//!
//! Methods and paths stand in the `#[utoipa::path]` of the handlers; a table adds who may call them.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{Method, StatusCode, response};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{OpenApi, PathItem, Ref, RefOr};

use crate::access::{self, Scope};
use crate::problem::Kind;
use crate::{Finality, IdempotencyLayer, MissingKey, Problem};

/// The name of the security scheme that the document's operations refer to.
pub(crate) const SCHEME: &str = "bearer";

/// One of a table.
pub(crate) struct Route<S> {
    /// The handler's name, which is the operation's id.
    pub(crate) name: &'static str,
    /// Any of these will do; where there is none, anybody may call it.
    pub(crate) scopes: &'static [Scope],
    pub(crate) answer: Answer,
    pub(crate) handler: fn(MethodFilter) -> MethodRouter<S>,
}

/// What is in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// What may be kept for retries with the same idempotency key.
    Plain,
    /// A secret, which is kept nowhere in clear.
    #[cfg_attr(not(feature = "flare"), expect(dead_code, reason = "flare's routes answer secrets"))]
    Secret,
}

/// How the bodies of requests are taken.
#[derive(Clone, Debug)]
pub(crate) struct Bodies {
    /// Runs POSTs once for each idempotency key.
    pub(crate) idempotency: Option<IdempotencyLayer>,
    /// The longest, in bytes.
    pub(crate) limit: usize,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { idempotency: None, limit: 1024 * 1024 }
    }
}

/// Routes, and their description.
pub(crate) struct Table<S> {
    pub(crate) document: OpenApi,
    pub(crate) routes: Vec<Route<S>>,
}

/// A function `table`: the handlers, who may call each, and what is in its answer.
macro_rules! table {
    ($state:ty: $($module:ident::$handler:ident $scopes:expr, $answer:ident;)+) => {
        /// The routes of this router.
        pub(crate) fn table() -> $crate::routes::Table<$state> {
            #[derive(utoipa::OpenApi)]
            #[openapi(paths($($module::$handler),+))]
            struct Described;

            $crate::routes::Table {
                document: <Described as utoipa::OpenApi>::openapi(),
                routes: vec![$($crate::routes::Route {
                    name: stringify!($handler),
                    scopes: $scopes,
                    answer: $crate::routes::Answer::$answer,
                    handler: |filter| axum::routing::on(filter, $module::$handler),
                }),+],
            }
        }
    };
}
pub(crate) use table;

impl<S: Clone + Send + Sync + 'static> Table<S> {
    /// An API whose handlers share `state`.
    pub(crate) fn serve(&self, state: S, bodies: Bodies) -> Router {
        let Bodies { idempotency, limit } = bodies;
        let once = idempotency.map(|layer| layer.request_limit(limit));
        self.router(once.as_ref()).layer(DefaultBodyLimit::max(limit)).with_state(state)
    }

    /// The routes; POSTs run once for each idempotency key where there is a layer for it.
    fn router(&self, once: Option<&IdempotencyLayer>) -> Router<S> {
        let mut router = Router::new();
        for route in &self.routes {
            let (path, method) = self.place(route.name);
            let filter = MethodFilter::try_from(method.clone()).expect("documented methods are axum's, too");
            let mut methods = (route.handler)(filter);
            if let Some(layer) = once.filter(|_| method == Method::POST) {
                methods = methods.route_layer(layer_for(route.answer, layer.clone()));
            }
            // Outside of the layer: who may not call a route is not told what it answered others.
            if !route.scopes.is_empty() {
                methods = methods.route_layer(from_fn_with_state(route.scopes, access::check));
            }
            router = router.route(path, methods);
        }
        router.layer(map_response(explained))
    }

    /// The description, with the scopes that are needed.
    pub(crate) fn describe(mut self) -> OpenApi {
        for item in self.document.paths.paths.values_mut() {
            for operation in operations_mut(item) {
                let id = operation.operation_id.as_deref();
                let route = self.routes.iter().find(|route| Some(route.name) == id);
                let scopes = route.expect("what is described is in the table").scopes;
                let needs = scopes.iter().map(|scope| SecurityRequirement::new(SCHEME, [scope.as_str()]));
                operation.security = Some(needs.collect());
                for (status, response) in &mut operation.responses.responses {
                    let status: StatusCode = status.parse().expect("handlers describe statuses");
                    if let RefOr::T(response) = response {
                        response.description = status.canonical_reason().unwrap_or_default().to_owned();
                    }
                }
                let refusal = Ref::from_response_name("Problem");
                operation.responses.responses.insert("default".to_owned(), refusal.into());
            }
        }
        // A wildcard of axum's is a parameter like any other.
        let paths = std::mem::take(&mut self.document.paths.paths);
        self.document.paths.paths =
            paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
        self.document
    }

    /// The path and method of the operation with this id.
    fn place(&self, name: &str) -> (&str, Method) {
        let mut paths = self.document.paths.paths.iter();
        paths
            .find_map(|(path, item)| {
                let mut operations = operations(item).into_iter();
                let found = operations.find(|(_, operation)| {
                    operation.is_some_and(|operation| operation.operation_id.as_deref() == Some(name))
                });
                found.map(|(method, _)| (path.as_str(), method))
            })
            .expect("the handlers of the table are those that are described")
    }
}

/// The layer as it is used here: whoever wants no protection sends no key.
fn layer_for(answer: Answer, layer: IdempotencyLayer) -> IdempotencyLayer {
    let layer = layer.missing_key(MissingKey::RunUnprotected);
    match answer {
        Answer::Plain => layer,
        // No answer is kept: the request runs once, and a retry is told that its answer is gone.
        Answer::Secret => layer.response_limit(0).finality(|parts: &response::Parts| {
            if parts.status.is_success() { Finality::Commit } else { Finality::Release }
        }),
    }
}

fn operations(item: &PathItem) -> [(Method, Option<&Operation>); 4] {
    [
        (Method::GET, item.get.as_ref()),
        (Method::PUT, item.put.as_ref()),
        (Method::POST, item.post.as_ref()),
        (Method::DELETE, item.delete.as_ref()),
    ]
}

fn operations_mut(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, .. } = item;
    [get, put, post, delete].into_iter().flatten()
}

/// Says in a problem what axum says with an empty body.
async fn explained(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let problem = match parts.status {
        _ if parts.headers.contains_key(CONTENT_TYPE) => None,
        StatusCode::NOT_FOUND => Some(Problem::not_found("there is no such route")),
        StatusCode::METHOD_NOT_ALLOWED => {
            let allowed = parts.headers.get(ALLOW).and_then(|allowed| allowed.to_str().ok());
            let detail = format!("the path has the methods {}", allowed.unwrap_or_default());
            Some(Problem::new(Kind::MethodNotAllowed, detail))
        }
        _ => None,
    };
    let Some(problem) = problem else { return Response::from_parts(parts, body) };
    let mut response = problem.into_response();
    if let Some(allowed) = parts.headers.get(ALLOW) {
        response.headers_mut().insert(ALLOW, allowed.clone());
    }
    response
}
