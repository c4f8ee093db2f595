//! The routes, described: OpenAPI 3.1, made from the types and handlers themselves.

use axum::Router;
use axum::response::{Html, IntoResponse};
use http::header::CONTENT_TYPE;
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Content, InfoBuilder, OpenApi, Paths, Ref, Response};
use utoipa::{PartialSchema, ToSchema};

#[cfg(feature = "choreograph")]
use crate::choreograph;
#[cfg(feature = "flare")]
use crate::flare;
#[cfg(feature = "projections")]
use crate::projections;
use crate::request::NoQuery;
use crate::routes::{Bodies, SCHEME};
use crate::{operations, routes};

/// What a refusal says: RFC 9457, `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
struct ProblemBody {
    /// The problem's address in the documentation; it ends in its name.
    r#type: String,
    title: String,
    status: u16,
    /// What is wrong with this request in particular.
    detail: String,
}

/// What the router of each capability, [`operations::router`] and this module's [`router`] offer.
#[must_use]
pub fn document() -> OpenApi {
    let info = InfoBuilder::new().title("evenkeel").version(env!("CARGO_PKG_VERSION")).description(Some(
        "Publish documents, and subscribers are told when theirs changed; start runs, and they come to their end; \
         append events, and read models follow.",
    ));
    let mut document = OpenApi::new(info.build(), Paths::new());
    let parts = [
        #[cfg(feature = "flare")]
        flare::table().describe(),
        #[cfg(feature = "choreograph")]
        choreograph::table().describe(),
        #[cfg(feature = "projections")]
        projections::table().describe(),
        operations::table().describe(),
        table().describe(),
    ];
    for part in parts {
        document.merge(part);
    }
    let about_scopes = "A route lists the scopes any of which will do: publish, subscribe, read, admin.";
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(about_scopes)).build();
    let refusal = Response::builder()
        .description("The request is refused, or failed")
        .content("application/problem+json", Content::new(Some(Ref::from_schema_name("Problem"))));
    let components = document.components.get_or_insert_default();
    components.schemas.insert(ProblemBody::name().into_owned(), ProblemBody::schema());
    components.responses.insert("Problem".to_owned(), refusal.build().into());
    components.security_schemes.insert(SCHEME.to_owned(), SecurityScheme::Http(bearer));
    let tags = [
        #[cfg(feature = "flare")]
        ("resources", "Kinds of documents"),
        #[cfg(feature = "flare")]
        ("documents", "What is published"),
        #[cfg(feature = "flare")]
        ("subscriptions", "Who wants to hear"),
        #[cfg(feature = "flare")]
        ("pull", "Messages that are fetched"),
        #[cfg(feature = "flare")]
        ("inspection", "What became of it"),
        #[cfg(feature = "choreograph")]
        ("runs", "Steps that are taken to their end"),
        #[cfg(feature = "projections")]
        ("events", "What happened"),
        #[cfg(feature = "projections")]
        ("projections", "Read models that follow from it"),
        ("operations", "What an operator sees and does"),
        ("service", "The service itself"),
    ];
    let tag = |(name, about)| TagBuilder::new().name(name).description(Some(about)).build();
    document.tags = Some(tags.map(tag).into());
    document
}

/// Serves the [`document`] at `/openapi.json`, and a page to browse it, which loads nothing else, at
/// `/docs`.
pub fn router() -> Router {
    table().serve((), Bodies::default())
}

routes::table! { ():
    handlers::show_openapi &[], Plain;
    handlers::browse &[], Plain;
}

mod handlers {
    use super::{CONTENT_TYPE, Html, IntoResponse, NoQuery, document};

    /// Describes the routes
    #[utoipa::path(get, path = "/openapi.json", tag = "service", responses((status = 200, body = Object)))]
    pub(super) async fn show_openapi(_: NoQuery) -> impl IntoResponse {
        let json = document().to_json().expect("the document is JSON");
        ([(CONTENT_TYPE, "application/json")], json)
    }

    /// A page to browse the routes
    #[utoipa::path(get, path = "/docs", tag = "service",
        responses((status = 200, body = String, content_type = "text/html")))]
    pub(super) async fn browse(_: NoQuery) -> Html<&'static str> {
        Html(include_str!("docs.html"))
    }
}
