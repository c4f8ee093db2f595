//! The routes, described: OpenAPI 3.1, made from the types and handlers themselves.

use axum::Router;
use axum::response::{Html, IntoResponse};
use http::header::CONTENT_TYPE;
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Content, InfoBuilder, OpenApi, Paths, Ref, Response};
use utoipa::{PartialSchema, ToSchema};

use crate::request::NoQuery;
use crate::routes::SCHEME;
use crate::{flare, operations, routes};

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

/// What [`flare::router`], [`operations::router`] and this module's [`router`] offer.
#[must_use]
pub fn document() -> OpenApi {
    let info = InfoBuilder::new().title("evenkeel").version(env!("CARGO_PKG_VERSION")).description(Some(
        "Change notification: publish documents, and subscribers are told when theirs changed.",
    ));
    let mut document = OpenApi::new(info.build(), Paths::new());
    for part in [flare::table().describe(), operations::table().describe(), table().describe()] {
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
        ("resources", "Kinds of documents"),
        ("documents", "What is published"),
        ("subscriptions", "Who wants to hear"),
        ("pull", "Messages that are fetched"),
        ("inspection", "What became of it"),
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
    table().router(None)
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
