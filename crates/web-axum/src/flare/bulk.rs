use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use evenkeel_flare::{DocumentUrl, Precondition};
use futures_util::{StreamExt, stream};
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Service;
use super::documents::Accepted;
use crate::Problem;
use crate::problem::Kind;
use crate::request::{NoQuery, Payload, read_json};

const MOST_LINES: usize = 1000;

/// How many documents are published at once, so that stores can commit them together.
const AT_ONCE: usize = 64;

/// A line of a bulk publication.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line<'a> {
    url: String,
    /// Kept byte for byte.
    #[serde(borrow)]
    #[schema(value_type = Object)]
    document: &'a RawValue,
}

/// What became of a line: as of a publication by itself, or a problem.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum LineOutcome {
    Accepted(Accepted),
    Refused(Refused),
}

/// Why a line was not published; the others are.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Refused {
    /// Which line, from 1.
    line: usize,
    #[schema(value_type = Object)]
    problem: serde_json::Value,
}

/// Publishes many documents
///
/// A line of JSON for each, at most 1,000, answered with a line for each in the same order. They are
/// published at the same time and independently: one that is refused does not keep the others.
#[utoipa::path(post, path = "/documents", tag = "documents",
    request_body(content = Line<'_>, content_type = "application/x-ndjson"),
    responses((status = 200, body = LineOutcome, content_type = "application/x-ndjson")))]
pub(crate) async fn publish_documents(
    State(service): State<Service>,
    _: NoQuery,
    Payload(body): Payload,
) -> Result<impl IntoResponse, Problem> {
    let mut lines = Vec::new();
    for (index, line) in body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate() {
        if !line.is_empty() {
            lines.push((index + 1, body.slice_ref(line)));
        }
    }
    if lines.len() > MOST_LINES {
        let detail = format!("a bulk publication has at most {MOST_LINES} lines (lines: {})", lines.len());
        return Err(Problem::new(Kind::TooLarge, detail));
    }
    let publications = lines.into_iter().map(|(number, line)| {
        let service = service.clone();
        async move {
            match publish(&service, &line).await {
                Ok(accepted) => LineOutcome::Accepted(accepted),
                Err(problem) => LineOutcome::Refused(Refused { line: number, problem: problem.to_json() }),
            }
        }
    });
    let outcomes: Vec<_> = stream::iter(publications).buffered(AT_ONCE).collect().await;
    let mut answer = Vec::new();
    for outcome in outcomes {
        serde_json::to_writer(&mut answer, &outcome).expect("an outcome is JSON");
        answer.push(b'\n');
    }
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], answer))
}

async fn publish(service: &Service, line: &Bytes) -> Result<Accepted, Problem> {
    let Line { url, document } = read_json(line)?;
    let content = line.slice_ref(document.get().as_bytes());
    let published = service.flare.publish(&DocumentUrl::parse(&url)?, content, &Precondition::None).await?;
    Ok(Accepted::from(&published))
}
