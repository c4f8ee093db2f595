use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use evenkeel_core::{Error, Partition, RetryHint, Signal, Signals, Store, Timestamp};
use evenkeel_projections::EventPage;
use futures_util::FutureExt;
use futures_util::stream::unfold;
use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Service;
use super::event::Event;
use super::read::refusal;
use crate::Problem;
use crate::request::{Path, Query};

/// How often is looked for events without a hint that there are some.
const POLL: Duration = Duration::from_secs(1);

/// How long nothing is said at most: proxies and readers take a longer silence for a broken line.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How many events are held for a reader at most.
const PAGE: usize = 100;

/// Where readers say what they have seen last.
const LAST_EVENT_ID: &str = "last-event-id";

/// From where a stream is followed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FollowStreamQuery {
    /// The version to begin at; the next one to be appended unless said.
    #[param(minimum = 1)]
    from: Option<u64>,
}

/// From where a log is followed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FollowLogQuery {
    /// Which partition's, from 0.
    #[serde(default)]
    partition: u32,
    /// The position to begin at; the next one to be appended unless said.
    #[param(minimum = 1)]
    from: Option<u64>,
}

/// Follows a stream
///
/// As server-sent events that have no name: the data is an event as a read answers it, the id its
/// version. `Last-Event-ID` goes on after that version. One of the name `problem` is the last. After
/// fifteen seconds without an event there is a comment. 404 where the stream was deleted.
#[utoipa::path(get, path = "/streams/{stream}/follow", tag = "events",
    params(("stream" = String, Path), FollowStreamQuery, ("Last-Event-ID" = Option<u64>, Header)),
    responses((status = 200, body = String, content_type = "text/event-stream")))]
pub(crate) async fn follow_stream(
    State(service): State<Service>,
    Path(stream): Path<String>,
    headers: HeaderMap,
    Query(FollowStreamQuery { from }): Query<FollowStreamQuery>,
) -> Result<Response, Problem> {
    let at = service.events.partition_of(&stream);
    Follower::begin(service, at, Followed::Stream(stream), after(&headers, from)?).await
}

/// Follows the log of a partition
///
/// As server-sent events, as a stream is followed; the id is the position. 409 where the log ends
/// before the position asked for.
#[utoipa::path(get, path = "/log/follow", tag = "events",
    params(FollowLogQuery, ("Last-Event-ID" = Option<u64>, Header)),
    responses((status = 200, body = String, content_type = "text/event-stream")))]
pub(crate) async fn follow_log(
    State(service): State<Service>,
    headers: HeaderMap,
    Query(FollowLogQuery { partition, from }): Query<FollowLogQuery>,
) -> Result<Response, Problem> {
    let at = service.partition(partition)?;
    Follower::begin(service, at, Followed::Log, after(&headers, from)?).await
}

/// What comes before the first event that is wanted; `None` for the end.
fn after(headers: &HeaderMap, from: Option<u64>) -> Result<Option<u64>, Problem> {
    let Some(seen) = headers.get(LAST_EVENT_ID) else {
        return Ok(from.map(|from| from.saturating_sub(1)));
    };
    let seen = seen.to_str().ok().and_then(|text| text.parse().ok());
    seen.map(Some).ok_or_else(|| Problem::bad_request("last-event-id is not the id of an event"))
}

/// What is followed.
enum Followed {
    Stream(String),
    Log,
}

/// An answer that goes on.
///
/// Between pages it holds no connection of the store, and a reader that is slow holds a page.
struct Follower {
    service: Service,
    at: Partition,
    of: Followed,
    after: u64,
    frames: VecDeque<Bytes>,
    signals: Signals,
    /// When something was said last.
    said_at: Timestamp,
    next: Next,
}

/// What comes when all frames are sent.
#[derive(Clone, Copy)]
enum Next {
    Read,
    Wait,
    End,
}

impl Follower {
    async fn begin(
        service: Service,
        at: Partition,
        of: Followed,
        after: Option<u64>,
    ) -> Result<Response, Problem> {
        // Subscribed before the first look, so that nothing falls between.
        let signals = service.events.store().signals();
        let said_at = service.clock.now();
        let mut follower =
            Self { service, at, of, after: 0, frames: VecDeque::new(), signals, said_at, next: Next::Read };
        follower.after = match after {
            Some(after) => after,
            None => follower.head().await.map_err(refusal)?,
        };
        // Whoever is cut off before the first event goes on from here, too.
        follower.frames.push_back(format!("retry: 1000\nid: {}\n\n", follower.after).into());
        let page = follower.read().await.map_err(refusal)?;
        follower.take(page);
        let frames = unfold(follower, |mut follower| async move {
            follower.frame().await.map(|frame| (Ok::<_, Infallible>(frame), follower))
        });
        let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
        // Proxies that gather answers are asked not to.
        Ok((headers, [("x-accel-buffering", "no")], Body::from_stream(frames)).into_response())
    }

    /// What is sent next; `None` at the end.
    async fn frame(&mut self) -> Option<Bytes> {
        let closing = self.service.closing.clone();
        loop {
            if let Some(frame) = self.frames.pop_front() {
                self.said_at = self.service.clock.now();
                return Some(frame);
            }
            tokio::select! {
                biased;
                () = closing.clone() => return None,
                frame = self.go_on() => match frame {
                    GoOn::Again => {}
                    GoOn::Say(frame) => self.frames.push_back(frame),
                    GoOn::End => return None,
                },
            }
        }
    }

    async fn go_on(&mut self) -> GoOn {
        match self.next {
            Next::End => return GoOn::End,
            Next::Read => match self.read().await {
                Ok(page) => self.take(page),
                Err(error) if error.retry() != RetryHint::Never => {
                    tracing::debug!(%error, at = %self.at, "events that are followed could not be read yet");
                    self.next = Next::Wait;
                }
                Err(error) => {
                    self.next = Next::End;
                    return GoOn::Say(frame("event: problem\n", &refusal(error).to_json()));
                }
            },
            Next::Wait => {
                let silent_until = self.said_at + HEARTBEAT;
                if self.service.clock.now() >= silent_until {
                    return GoOn::Say(Bytes::from_static(b":\n\n"));
                }
                let look_at = silent_until.min(self.service.clock.now() + POLL);
                tokio::select! {
                    () = hint(&mut self.signals, &self.at) => {}
                    () = self.service.clock.sleep_until(look_at) => {}
                }
                // One look is for all that it could be told of by now.
                while self.signals.next().now_or_never().is_some() {}
                self.next = Next::Read;
            }
        }
        GoOn::Again
    }

    async fn head(&self) -> Result<u64, Error> {
        match &self.of {
            Followed::Stream(stream) => Ok(self.service.events.load_backwards(stream, None, 1).await?.head),
            Followed::Log => Ok(self.service.log(&self.at, 0, 1).await?.head),
        }
    }

    async fn read(&self) -> Result<EventPage, Error> {
        match &self.of {
            Followed::Stream(stream) => self.service.events.load(stream, self.after, PAGE).await,
            Followed::Log => self.service.log(&self.at, self.after, PAGE).await,
        }
    }

    fn take(&mut self, page: EventPage) {
        let EventPage { events, examined_to, head } = page;
        for event in events {
            let id = match self.of {
                Followed::Stream(_) => event.version,
                Followed::Log => event.position,
            };
            self.frames.push_back(frame(&format!("id: {id}\n"), &Event::from(event)));
        }
        self.after = self.after.max(examined_to);
        self.next = if examined_to < head { Next::Read } else { Next::Wait };
    }
}

/// What came of a step.
enum GoOn {
    Again,
    Say(Bytes),
    End,
}

/// A server-sent event. Its data is JSON, in which a line break means nothing.
fn frame(head: &str, data: &impl serde::Serialize) -> Bytes {
    let json = serde_json::to_string(data).expect("what is answered turns into JSON");
    let mut frame = head.to_owned();
    for line in json.split(['\n', '\r']) {
        frame.push_str("data: ");
        frame.push_str(line);
        frame.push('\n');
    }
    frame.push('\n');
    frame.into()
}

/// Completes where something was appended to a partition, perhaps.
async fn hint(signals: &mut Signals, at: &Partition) {
    loop {
        match signals.next().await {
            Signal::Log { at: changed } if changed == *at => return,
            Signal::Missed => return,
            Signal::Log { .. } | Signal::Queue { .. } => {}
        }
    }
}
