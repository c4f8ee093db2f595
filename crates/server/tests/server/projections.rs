use evenkeel::core::{AnyStore, BoxError, Draft, ExpectStream};
use evenkeel::projections::{Context, Event, EventStore, OnFailure, Policy, Projection, Projector, Recorded};
use http::StatusCode;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::common::process::{PATIENCE, Program, Server};

#[derive(Serialize, Deserialize)]
struct Deposited {
    cents: i64,
}

impl Event for Deposited {}

/// A projector of another program, that does not take what is less than nothing.
struct Sums;

impl Projector<Draft> for Sums {
    type State = i64;

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, i64>) -> Result<(), BoxError> {
        let Some(Deposited { cents }) = event.decode()? else { return Ok(()) };
        if cents < 0 {
            return Err("a deposit takes\nnothing away".into());
        }
        *context.state += cents;
        Ok(())
    }
}

/// Another program on a store of its own.
struct Other {
    url: String,
    events: EventStore<AnyStore>,
    sums: Projection<Sums, AnyStore>,
    _folder: TempDir,
}

impl Other {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite://{}", folder.path().join("other.db").display());
        let events = EventStore::new(evenkeel::open(&url).await.unwrap());
        let sums = Projection::keyed(events.clone(), "sums", Sums).policy(Policy::new(OnFailure::Fail));
        Self { url, events, sums, _folder: folder }
    }

    async fn deposit(&self, account: &str, cents: &[i64]) {
        let deposits: Vec<_> = cents.iter().map(|cents| Deposited { cents: *cents }).collect();
        for some in deposits.chunks(500) {
            self.events.append(account, ExpectStream::Any, some).await.unwrap();
        }
    }

    /// The program on the same store.
    fn evenkeel(&self, arguments: &[&str]) -> Program {
        Program::new(&[arguments, &["--store", &self.url]].concat())
    }
}

#[tokio::test]
async fn events_are_appended_read_and_followed_until_the_server_ends() {
    let mut server = Server::start(&[]).await;
    let mut stream = TcpStream::connect(&server.client.address).await.unwrap();
    let head = format!("GET /log/follow?from=1 HTTP/1.1\r\nhost: {}\r\n\r\n", server.client.address);
    stream.write_all(head.as_bytes()).await.unwrap();

    let new =
        json!({ "expect": "noStream", "events": [{ "kind": "Opened", "payload": { "owner": "ada" } }] });
    let appended = server.client.post("/streams/account-7/events", new).await;
    assert_eq!(appended.status, StatusCode::CREATED, "{}", appended.text());
    let read = server.client.get("/streams/account-7/events").await.json();
    assert_eq!(read["events"][0]["payload"], json!({ "owner": "ada" }));

    let mut said = String::new();
    let mut buffer = [0; 4096];
    let hearing = async {
        while !said.contains("\"owner\":\"ada\"") {
            let read = stream.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "{said}");
            said.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
    };
    timeout(PATIENCE, hearing).await.expect("the event comes");
    assert!(said.contains("text/event-stream") && said.contains("id: 1\ndata: {"), "{said}");

    server.signal(Signal::TERM);
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it ends").unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the answer is whole: {}", String::from_utf8_lossy(&rest));
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn projections_of_another_program_on_the_same_store_are_shown_and_steered() {
    let server = Server::start(&[]).await;
    let file = server.folder.path().join("evenkeel.db");
    let events = EventStore::new(evenkeel::open(&format!("sqlite://{}", file.display())).await.unwrap());
    let sums = Projection::keyed(events.clone(), "sums", Sums);
    events.append("a", ExpectStream::Any, &[Deposited { cents: 1 }]).await.unwrap();
    sums.catch_up().await.unwrap();

    let listed = server.client.get("/projections").await.json();
    assert_eq!(
        (&listed["projections"][0]["name"], &listed["projections"][0]["lag"]),
        (&json!("sums"), &json!(0))
    );
    let paused = server.client.post("/projections/sums/pause", json!(null)).await;
    assert_eq!(paused.status, StatusCode::OK, "{}", paused.text());
    assert!(sums.catch_up().await.unwrap_err().to_string().contains("paused"));
}

#[tokio::test]
async fn projections_are_listed_with_their_lag() {
    let other = Other::start().await;
    assert_eq!(other.evenkeel(&["projections", "ls"]).printed().await, "NAME  VERSION  STATE  LAG\n");
    other.deposit("a", &[1, 2]).await;
    other.sums.catch_up().await.unwrap();
    other.deposit("a", &vec![3; 1_200]).await;

    let listed = other.evenkeel(&["projections", "ls"]).printed().await;
    assert_eq!(listed, "NAME  VERSION  STATE  LAG\nsums  1        on     1,200\n");
    let lag = other.evenkeel(&["projections", "lag", "sums"]).printed().await;
    let row: Vec<_> = lag.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..5], ["sums", "0", "2", "1,202", "1,200"], "{lag}");
}

#[tokio::test]
async fn lag_ends_with_1_where_a_projection_stopped() {
    let other = Other::start().await;
    other.deposit("a", &[1, -2]).await;
    other.sums.catch_up().await.unwrap_err();
    let output = other.evenkeel(&["projections", "lag"]).run().await;
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    // What handlers say does not break lines.
    assert!(printed.contains(r"at 2, Deposited of a: a deposit takes\nnothing away"), "{printed}");
    assert_eq!(printed.lines().count(), 2, "{printed}");
    assert!(other.evenkeel(&["projections", "ls"]).printed().await.contains("stopped"));
}

#[tokio::test]
async fn a_projection_is_paused_and_resumed_by_its_name() {
    let other = Other::start().await;
    other.sums.catch_up().await.unwrap();
    let paused = other.evenkeel(&["projections", "pause", "sums"]).printed().await;
    assert_eq!(paused, "sums is paused\n");
    assert!(other.sums.catch_up().await.unwrap_err().to_string().contains("paused"));
    assert_eq!(other.evenkeel(&["projections", "resume", "sums"]).printed().await, "sums runs again\n");
    other.sums.catch_up().await.unwrap();
    for command in ["pause", "resume", "rebuild", "lag"] {
        let complaint = other.evenkeel(&["projections", command, "sum"]).complaint().await;
        assert!(complaint.contains("no projection of this name has run (projection: sum)"), "{complaint}");
    }
}

#[tokio::test]
async fn a_rebuild_is_waited_for() {
    let other = Other::start().await;
    other.deposit("a", &[1, 2, 3]).await;
    other.sums.catch_up().await.unwrap();
    let mut rebuild = other.evenkeel(&["projections", "rebuild", "sums"]).printing();
    assert_eq!(rebuild.line().await, "the programs that run sums are asked to build version 2");
    // As whoever runs it does, asked by the line above.
    assert_eq!(other.sums.rebuild().await.unwrap(), 2);
    let done = rebuild.line().await;
    assert!(done.starts_with("version 2 of sums is the one to read: "), "{done}");
}

#[tokio::test]
async fn a_rebuild_goes_on_where_nobody_waits_for_it() {
    let other = Other::start().await;
    other.sums.catch_up().await.unwrap();
    let mut rebuild = other.evenkeel(&["projections", "rebuild", "sums"]).printing();
    rebuild.line().await;
    assert_eq!(rebuild.interrupted().await.code(), Some(1));
    assert_eq!(other.sums.operations().status().await.unwrap().building, Some(2));
    assert!(other.evenkeel(&["projections", "ls"]).printed().await.contains("on, building 2"));
}

#[tokio::test]
async fn a_rebuild_that_is_given_up_is_no_longer_waited_for() {
    let other = Other::start().await;
    other.sums.catch_up().await.unwrap();
    let mut rebuild = other.evenkeel(&["projections", "rebuild", "sums"]).printing();
    rebuild.line().await;
    other.sums.operations().cancel_rebuild().await.unwrap();
    assert_eq!(rebuild.ended().await.code(), Some(1));
}

#[tokio::test]
async fn the_tail_of_a_log_is_printed_and_goes_on() {
    let other = Other::start().await;
    other.deposit("a", &(1..=12).collect::<Vec<_>>()).await;
    let mut tail = other.evenkeel(&["events", "tail"]).printing();
    for version in 3..=12 {
        let line = tail.line().await;
        let words: Vec<_> = line.split_whitespace().skip(1).collect();
        let (place, stream) = (format!("0/{version}"), format!("a@{version}"));
        let payload = format!("{{\"cents\":{version}}}");
        assert_eq!(words, [&*place, &*stream, "Deposited", &*payload], "{line}");
    }
    other.deposit("b", &[13]).await;
    let line = tail.line().await;
    assert!(line.contains("0/13  b@1  Deposited"), "{line}");
    assert!(tail.interrupted().await.success());
}

#[tokio::test]
async fn a_tail_begins_where_it_is_told_and_keeps_to_a_stream() {
    let other = Other::start().await;
    other.deposit("a", &[1]).await;
    other.deposit("b", &[2, 3]).await;
    other.deposit("a", &[4]).await;
    for (arguments, first) in [
        (&["--from", "2"][..], "0/2  b@1"),
        (&["--partition", "0", "--from", "3"], "0/3  b@2"),
        (&["--stream", "a", "--from", "2"], "0/4  a@2"),
        (&["--stream", "b"], "0/2  b@1"),
    ] {
        let mut tail = other.evenkeel(&[&["events", "tail"], arguments].concat()).printing();
        let line = tail.line().await;
        assert!(line.contains(first), "{arguments:?}: {line}");
        assert!(tail.interrupted().await.success());
    }
    let complaint = other.evenkeel(&["events", "tail", "--partition", "1"]).complaint().await;
    assert!(complaint.contains("no such partition (partition: 1, partitions: 1)"), "{complaint}");
}
