use std::time::Duration;

use axum::Router;
use axum::body::Body;
use evenkeel_core::{ExpectStream, NewEvent, StoreExt};
use evenkeel_web_axum::projections;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::ServiceExt;

use crate::support::{World, send};
use crate::switched::Switch;

/// An API whose answers go on until it is shut down.
struct Service {
    world: World,
    router: Router,
    shutdown: oneshot::Sender<()>,
}

impl Service {
    fn new() -> Self {
        Self::on(World::new())
    }

    fn on(world: World) -> Self {
        let (shutdown, closed) = oneshot::channel();
        let api = projections::Api::new(world.store.clone()).clock(world.clock.shared());
        let router = api.until(async { closed.await.unwrap_or_default() }).router();
        Self { world, router, shutdown }
    }

    /// Appends an event for each of these payloads.
    async fn append(&self, stream: &str, payloads: &[&str]) {
        let new = |payload: &&str| NewEvent::new("Said", (*payload).to_owned(), self.world.now());
        let new = payloads.iter().map(new).collect();
        self.world.events.append_new(stream, ExpectStream::Any, new).await.unwrap();
    }

    async fn follow(&self, path: &str) -> Following {
        self.follow_after(path, None).await
    }

    async fn follow_after(&self, path: &str, last: Option<&str>) -> Following {
        let mut request = Request::get(path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Following { body: response.into_body() }
    }
}

/// An answer that goes on.
struct Following {
    body: Body,
}

impl Following {
    /// What comes next; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        let frame = self.body.frame().await?.unwrap().into_data().unwrap();
        Some(String::from_utf8(frame.to_vec()).unwrap())
    }

    /// The id that comes first.
    async fn begins_at(&mut self) -> u64 {
        let frame = self.next().await.unwrap();
        let id = frame.strip_prefix("retry: 1000\nid: ").unwrap_or_else(|| panic!("{frame:?}"));
        id.trim_end().parse().unwrap()
    }

    /// Id and payload of the event that comes next.
    async fn event(&mut self) -> (u64, Value) {
        let frame = self.next().await.unwrap();
        let (id, data) = frame.split_once('\n').unwrap();
        let id = id.strip_prefix("id: ").unwrap_or_else(|| panic!("{frame:?}")).parse().unwrap();
        (id, data_of(data)["payload"].clone())
    }

    async fn events(&mut self, count: usize) -> Vec<(u64, Value)> {
        let mut events = Vec::new();
        for _ in 0..count {
            events.push(self.event().await);
        }
        events
    }
}

/// What a reader makes of the lines with data.
fn data_of(lines: &str) -> Value {
    let lines = lines.strip_suffix("\n\n").unwrap_or_else(|| panic!("{lines:?}")).split('\n');
    let data: Vec<_> = lines.map(|line| line.strip_prefix("data: ").unwrap()).collect();
    serde_json::from_str(&data.join("\n")).unwrap()
}

#[tokio::test]
async fn events_come_as_they_are_appended() {
    let service = Service::new();
    service.append("a", &["1", "2"]).await;
    let mut stream = service.follow("/streams/a/follow?from=1").await;
    let mut log = service.follow("/log/follow?from=2").await;
    assert_eq!((stream.begins_at().await, log.begins_at().await), (0, 1));
    assert_eq!(stream.events(2).await, [(1, json!(1)), (2, json!(2))]);
    assert_eq!(log.event().await, (2, json!(2)));
    let coming = tokio::spawn(async move { tokio::join!(stream.event(), log.events(2)) });
    // Both wait for a hint, or for their next look.
    service.world.clock.wait_for_sleepers(2).await;
    service.append("b", &["3"]).await;
    service.append("a", &["4"]).await;
    let (of_stream, of_log) = coming.await.unwrap();
    assert_eq!(of_stream, (3, json!(4)));
    assert_eq!(of_log, [(3, json!(3)), (4, json!(4))]);
}

#[tokio::test]
async fn an_event_is_as_a_read_answers_it() {
    let service = Service::new();
    service.append("a", &["{\"x\":\n[1,\r\n2]}"]).await;
    let mut stream = service.follow("/streams/a/follow?from=1").await;
    stream.begins_at().await;
    let frame = stream.next().await.unwrap();
    assert!(
        frame.lines().all(|line| line.is_empty() || line.starts_with("data: ") || line == "id: 1"),
        "{frame}"
    );
    let read = service.world.get("/streams/a/events").await.json();
    assert_eq!(data_of(frame.strip_prefix("id: 1\n").unwrap()), read["events"][0]);
}

#[tokio::test]
async fn who_was_cut_off_goes_on_after_the_last_event() {
    let service = Service::new();
    service.append("a", &["1", "2", "3"]).await;
    for path in ["/streams/a/follow", "/streams/a/follow?from=1", "/log/follow"] {
        let mut follows = service.follow_after(path, Some("2")).await;
        assert_eq!(follows.begins_at().await, 2);
        assert_eq!(follows.event().await, (3, json!(3)));
    }
}

#[tokio::test]
async fn who_does_not_say_from_where_begins_at_the_end() {
    let service = Service::new();
    service.append("a", &["1", "2"]).await;
    let mut fresh = service.follow("/streams/b/follow").await;
    assert_eq!(fresh.begins_at().await, 0);
    for path in ["/streams/a/follow", "/log/follow"] {
        let mut follows = service.follow(path).await;
        // With which it goes on, also where it is cut off before the first event.
        assert_eq!(follows.begins_at().await, service.world.events.version("a").await.unwrap());
        service.append("a", &["\"next\""]).await;
        assert_eq!(follows.event().await.1, "next");
    }
}

#[tokio::test]
async fn silence_is_broken_by_comments() {
    let service = Service::new();
    let mut log = service.follow("/log/follow").await;
    log.begins_at().await;
    for _ in 0..3 {
        let next = async { log.next().await };
        let time_passes = async {
            for _ in 0..14 {
                service.world.clock.wait_for_sleepers(1).await;
                service.world.clock.advance(Duration::from_secs(1));
            }
            service.world.clock.wait_for_sleepers(1).await;
            service.world.clock.advance(Duration::from_millis(999));
            service.world.clock.wait_for_sleepers(1).await;
            service.world.clock.advance(Duration::from_millis(1));
        };
        let (heard, ()) = tokio::join!(next, time_passes);
        assert_eq!(heard.as_deref(), Some(":\n\n"));
    }
}

#[tokio::test]
async fn answers_end_at_shutdown() {
    let service = Service::new();
    service.append("a", &["1"]).await;
    let (mut reading, mut waiting) =
        (service.follow("/log/follow?from=1").await, service.follow("/streams/a/follow").await);
    reading.begins_at().await;
    waiting.begins_at().await;
    let waited = tokio::spawn(async move { waiting.next().await });
    service.world.clock.wait_for_sleepers(1).await;
    service.shutdown.send(()).unwrap();
    assert_eq!(waited.await.unwrap(), None);
    // What is held for it is still said.
    assert_eq!(reading.event().await.0, 1);
    assert_eq!(reading.next().await, None);
}

#[tokio::test]
async fn a_slow_reader_holds_a_page_and_nothing_of_the_store() {
    let switch = Switch::default();
    let service = Service::on(World::on(switch.store().any()));
    let payloads: Vec<_> = (1..=150).map(|number: u32| number.to_string()).collect();
    service.append("a", &payloads.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut log = service.follow("/log/follow?from=1").await;
    log.begins_at().await;
    switch.turn_off();
    // The page that it holds comes without the store, and nothing after it.
    assert_eq!(log.events(100).await.last().unwrap().0, 100);
    let rest = tokio::spawn(async move { log.events(50).await });
    service.world.clock.wait_for_sleepers(1).await;
    assert!(!rest.is_finished());
    // It looks again, whatever failed.
    switch.turn_on();
    service.world.clock.advance(Duration::from_secs(1));
    assert_eq!(rest.await.unwrap().last().unwrap().0, 150);
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused() {
    let service = Service::new();
    service.append("a", &["1"]).await;
    let refused = async |path: &str, last: Option<&str>| {
        let mut request = Request::get(path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        send(&service.router, request.body(Body::empty()).unwrap()).await
    };
    refused("/log/follow?from=3", None).await.is_problem(409, "conflict", &["ends before"]);
    refused("/log/follow?partition=9", None).await.is_problem(400, "bad-request", &["partition: 9"]);
    refused("/log/follow?at=1", None).await.is_problem(400, "bad-request", &["`at`"]);
    refused("/streams/a/follow", Some("x")).await.is_problem(400, "bad-request", &["last-event-id"]);
    service.world.events.delete("a").await.unwrap();
    refused("/streams/a/follow", None).await.is_problem(404, "not-found", &["deleted"]);
    refused("/streams/a/follow?from=1", None).await.is_problem(404, "not-found", &["deleted"]);
}

#[tokio::test]
async fn what_ends_it_is_said_last() {
    let service = Service::new();
    service.append("a", &["1"]).await;
    let mut stream = service.follow("/streams/a/follow?from=1").await;
    stream.begins_at().await;
    stream.event().await;
    service.world.events.delete("a").await.unwrap();
    let frame = stream.next().await.unwrap();
    let problem = data_of(frame.strip_prefix("event: problem\n").unwrap_or_else(|| panic!("{frame}")));
    assert_eq!(problem["status"], 404);
    assert!(problem["type"].as_str().unwrap().ends_with("#not-found"), "{problem}");
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_store_that_is_off_is_not_followed_yet() {
    let switch = Switch::default();
    let service = Service::on(World::on(switch.store().any()));
    switch.turn_off();
    let seen = send(&service.router, Request::get("/log/follow").body(Body::empty()).unwrap()).await;
    seen.is_problem(503, "unavailable", &[]);
}
