use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json as Answer};
use evenkeel_core::{
    Appended as WentTo, Batch, Error, Expect, ExpectStream, Found, Key, Metadata, NewEvent, Read, StoreExt,
    Timestamp, Version,
};
use evenkeel_idempotency::Identity;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Service;
use crate::Problem;
use crate::problem::Kind;
use crate::request::{Json, NoQuery, Path};

/// For how long is remembered what was appended under an idempotency key: as long as the key is, with
/// the defaults.
const REMEMBERED: Duration = Duration::from_hours(48);

/// What kinds begin with that have a meaning of their own.
const RESERVED: &str = "evenkeel.";

/// How many events are looked through at a time for those that were appended before.
const PAGE: usize = 100;

/// Events to be appended.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEvents {
    /// How the stream must be: `any`, `noStream`, `exists`, or the version of its last event.
    #[serde(default)]
    #[schema(value_type = Value, default = "any", example = 7)]
    expect: Expected,
    /// 1 to 500, as far as they fit.
    #[schema(min_items = 1, max_items = 500)]
    events: Vec<NewEventBody>,
}

/// An event to be appended.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEvent)]
pub(crate) struct NewEventBody {
    /// What happened, 1 to 512 bytes.
    kind: String,
    /// The details, any JSON; null unless said.
    #[serde(default)]
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<Box<RawValue>>,
    /// Named texts, numbers and flags.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    metadata: Metadata,
}

/// How a stream must be.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "neither any, noStream, exists nor a version")]
enum Expected {
    Version(u64),
    State(ExpectedState),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum ExpectedState {
    Any,
    NoStream,
    Exists,
}

/// Where the events went.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Appended {
    stream: String,
    /// In whose log they are.
    partition: u32,
    /// The version of the first of them.
    version: u64,
    /// The position of the first of them.
    position: u64,
    /// How many they are.
    count: u64,
}

/// Appends events to a stream
///
/// All of them or none. With an idempotency key they are appended once, whatever is cut off. 409 where
/// the stream is not as expected, with its version in the detail; 404 where it was deleted.
#[utoipa::path(post, path = "/streams/{stream}/events", tag = "events", params(("stream" = String, Path)),
    request_body = NewEvents, responses((status = 201, body = Appended)))]
pub(crate) async fn append_events(
    State(service): State<Service>,
    Path(stream): Path<String>,
    operation: Option<Extension<Identity>>,
    _: NoQuery,
    Json(NewEvents { expect, events }): Json<NewEvents>,
) -> Result<(StatusCode, Answer<Appended>), Problem> {
    // Here, since what is kept beside the stream would be named for it.
    Read::stream(&*stream, 0, 1).check()?;
    let (expect, now) = (ExpectStream::from(expect), service.clock.now());
    let events = events.into_iter().map(|event| event.read(now)).collect::<Result<Vec<_>, _>>()?;
    let appended = match operation {
        None => service.events.append_new(&stream, expect, events).await.map_err(refusal)?,
        Some(Extension(operation)) => Once::of(&operation).append(&service, &stream, expect, events).await?,
    };
    let WentTo { version, position, count, .. } = appended;
    let partition = service.events.partition_of(&stream).index();
    Ok((StatusCode::CREATED, Answer(Appended { stream, partition, version, position, count })))
}

/// An append that is remembered beside its stream, in the commit that makes it.
struct Once {
    key: Key,
}

/// What is remembered; the record's version is the batch that appended.
#[derive(Serialize, Deserialize)]
struct Remembered {
    /// A version of the stream before the events.
    after: u64,
    count: usize,
}

impl Once {
    fn of(operation: &Identity) -> Self {
        Self { key: Key::new("http.appended", "all", operation.digest()) }
    }

    async fn append(
        &self,
        service: &Service,
        stream: &str,
        expect: ExpectStream,
        events: Vec<NewEvent>,
    ) -> Result<WentTo, Problem> {
        let mut batch = Batch::new(service.events.partition_of(stream), service.clock.now());
        let after = match expect.version() {
            Some(version) => version,
            None => service.events.read(batch.at(), Read::stream_backwards(stream, None, 1)).await?.head,
        };
        let remembered = Remembered { after, count: events.len() };
        let remembered = serde_json::to_vec(&remembered).expect("numbers turn into JSON");
        let until = batch.now() + REMEMBERED;
        batch.put_until(self.key.clone(), remembered, Expect::Absent, until);
        service.events.append_new_in(&mut batch, stream, expect, events)?;
        let error = match service.events.commit_append(stream, batch).await {
            Ok(appended) => return Ok(appended),
            Err(error) => error,
        };
        if let Some(appended) = self.find(service, stream).await? {
            return Ok(appended);
        }
        Err(refusal(error))
    }

    /// Where the events went that an earlier attempt appended.
    async fn find(&self, service: &Service, stream: &str) -> Result<Option<WentTo>, Problem> {
        let (events, at) = (&service.events, service.events.partition_of(stream));
        let found = events.store().get_json::<Remembered>(&at, service.clock.now(), &self.key).await?;
        let Some((Remembered { mut after, count }, Version(batch))) = found else { return Ok(None) };
        loop {
            let page = events.read(&at, Read::stream(stream, after, PAGE)).await?;
            if let Some(first) = page.events.iter().find(|event| event.batch == batch) {
                let (version, position) = (first.version, first.position);
                let count = u64::try_from(count).expect("a usize fits a u64");
                return Ok(Some(WentTo { stream: stream.to_owned(), version, position, count }));
            }
            if page.examined_to >= page.head {
                return Err(Problem::new(
                    Kind::AnswerNotStored,
                    "the events were appended by an earlier attempt, and forgotten since",
                ));
            }
            after = page.examined_to;
        }
    }
}

impl NewEventBody {
    fn read(self, now: Timestamp) -> Result<NewEvent, Problem> {
        let Self { kind, payload, metadata } = self;
        if kind.starts_with(RESERVED) {
            return Err(Problem::bad_request(format!(
                "kinds that begin with {RESERVED} are reserved (kind: {kind:?})"
            )));
        }
        let payload = payload.map_or_else(|| "null".to_owned(), |json| json.get().to_owned());
        let mut event = NewEvent::new(kind, payload, now);
        event.metadata = metadata;
        Ok(event)
    }
}

impl Default for Expected {
    fn default() -> Self {
        Self::State(ExpectedState::Any)
    }
}

impl From<Expected> for ExpectStream {
    fn from(expected: Expected) -> Self {
        match expected {
            Expected::Version(version) => Self::Version(version),
            Expected::State(ExpectedState::Any) => Self::Any,
            Expected::State(ExpectedState::NoStream) => Self::NoStream,
            Expected::State(ExpectedState::Exists) => Self::Exists,
        }
    }
}

/// Says what stands there where that is not as expected.
fn refusal(error: Error) -> Problem {
    match error.conflict().map(|conflict| &conflict.found) {
        Some(Found::Stream { stream, version }) => Problem::new(
            Kind::Conflict,
            format!("the stream is not as expected (stream: {stream:?}, version: {version})"),
        ),
        _ => error.into(),
    }
}
