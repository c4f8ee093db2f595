use axum::Json as Answer;
use axum::extract::State;
use evenkeel_core::{Error, ErrorKind, Partition, Read};
use evenkeel_projections::EventPage;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Service;
use super::event::Event;
use crate::Problem;
use crate::page::Limit;
use crate::problem::Kind;
use crate::request::{NoQuery, Path, Query};

/// A stream of events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stream {
    name: String,
    /// The version of its last event.
    version: u64,
    /// In whose log its events are.
    partition: u32,
}

/// Events in the order asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Events {
    events: Vec<Event>,
    /// The last version of the stream, or the last position of the log; 0 where there is none.
    head: u64,
    /// The `from` of the part that follows; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// Which events of a stream.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamQuery {
    /// The version to begin at; the first one, or backwards the last one, unless said.
    #[param(minimum = 1)]
    from: Option<u64>,
    /// Newest first.
    #[serde(default)]
    #[param(value_type = Option<bool>, default = false)]
    backwards: bool,
    /// How many are answered at most; there may be fewer with more to come.
    #[serde(default)]
    #[param(value_type = Option<usize>, minimum = 1, maximum = 100, default = 30)]
    limit: Limit,
}

/// Which events of a log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogQuery {
    /// Which partition's, from 0.
    #[serde(default)]
    partition: u32,
    /// The position to begin at; the first one unless said.
    #[param(minimum = 1)]
    from: Option<u64>,
    /// How many are answered at most; there may be fewer with more to come.
    #[serde(default)]
    #[param(value_type = Option<usize>, minimum = 1, maximum = 100, default = 30)]
    limit: Limit,
}

/// Shows a stream
///
/// 404 where it has no event, or was deleted.
#[utoipa::path(get, path = "/streams/{stream}", tag = "events", params(("stream" = String, Path)),
    responses((status = 200, body = Stream)))]
pub(crate) async fn show_stream(
    State(service): State<Service>,
    Path(name): Path<String>,
    _: NoQuery,
) -> Result<Answer<Stream>, Problem> {
    let version = service.events.version(&name).await?;
    if version == 0 {
        return Err(Problem::not_found(format!("there is no such stream (stream: {name:?})")));
    }
    let partition = service.events.partition_of(&name).index();
    Ok(Answer(Stream { name, version, partition }))
}

/// Reads a stream
///
/// Oldest first, or backwards. Nothing where it has no event; 404 where it was deleted.
#[utoipa::path(get, path = "/streams/{stream}/events", tag = "events",
    params(("stream" = String, Path), StreamQuery), responses((status = 200, body = Events)))]
pub(crate) async fn read_stream(
    State(service): State<Service>,
    Path(stream): Path<String>,
    Query(StreamQuery { from, backwards, limit }): Query<StreamQuery>,
) -> Result<Answer<Events>, Problem> {
    if backwards {
        let before = from.map(|from| from.saturating_add(1));
        let page = service.events.load_backwards(&stream, before, limit.get()).await?;
        let next = (page.examined_to > 1).then(|| page.examined_to - 1);
        return Ok(Answer(Events::of(page, next)));
    }
    let page = service.events.load(&stream, before(from), limit.get()).await?;
    Ok(Answer(Events::forwards(page)))
}

/// Reads the log of a partition
///
/// The events of all its streams in the order in which they were committed. 409 where it ends before
/// the position asked for.
#[utoipa::path(get, path = "/log", tag = "events", params(LogQuery), responses((status = 200, body = Events)))]
pub(crate) async fn read_log(
    State(service): State<Service>,
    Query(LogQuery { partition, from, limit }): Query<LogQuery>,
) -> Result<Answer<Events>, Problem> {
    let at = service.partition(partition)?;
    let page = service.log(&at, before(from), limit.get()).await.map_err(refusal)?;
    Ok(Answer(Events::forwards(page)))
}

/// What comes before the first event that is wanted.
pub(super) fn before(from: Option<u64>) -> u64 {
    from.unwrap_or(1).saturating_sub(1)
}

/// A caller may ask for what is not there, which is no trouble of the service's.
pub(super) fn refusal(error: Error) -> Problem {
    match error.kind() {
        ErrorKind::Corrupt => Problem::new(Kind::Conflict, "the log ends before the position asked for"),
        _ => error.into(),
    }
}

impl Service {
    pub(super) async fn log(&self, at: &Partition, after: u64, limit: usize) -> Result<EventPage, Error> {
        self.events.read(at, Read::partition(after, limit)).await
    }
}

impl Events {
    fn of(page: EventPage, next: Option<u64>) -> Self {
        Self { events: page.events.into_iter().map(Event::from).collect(), head: page.head, next }
    }

    fn forwards(page: EventPage) -> Self {
        let next = (page.examined_to < page.head).then(|| page.examined_to + 1);
        Self::of(page, next)
    }
}
