use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use evenkeel_core::ManualClock;
use http::{HeaderMap, Method, Uri};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;
use peer::{Peer, Then};

mod peer; // a server that does as it is told

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A name server that always gives the same answer.
#[derive(Clone, Debug, Default)]
struct Names {
    addresses: Vec<IpAddr>,
    asked: Arc<AtomicUsize>,
}

impl Names {
    fn of(addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Self { addresses, ..Self::default() }
    }
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.addresses.clone())
    }
}

/// A name server that does not answer.
#[derive(Debug)]
struct Mute;

#[async_trait]
impl Resolve for Mute {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        std::future::pending().await
    }
}

/// A name server that knows no names.
#[derive(Debug)]
struct Ignorant;

#[async_trait]
impl Resolve for Ignorant {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Err(io::Error::other("no such name"))
    }
}

/// A name server that takes two seconds.
#[derive(Debug)]
struct Late(ManualClock);

#[async_trait]
impl Resolve for Late {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        self.0.advance(Duration::from_secs(2));
        Ok(vec![[127, 0, 0, 1].into()])
    }
}

/// A sender that may talk to this machine.
fn local() -> SenderBuilder {
    Sender::builder().policy(AddressPolicy { allow: vec!["127.0.0.0/8".parse().unwrap()] })
}

fn post(uri: Uri) -> Outgoing {
    Outgoing { method: Method::POST, uri, headers: HeaderMap::new(), body: "{}".into() }
}

async fn fails(sender: SenderBuilder, uri: Uri) -> SendError {
    sender.build().unwrap().send(post(uri)).await.unwrap_err()
}

/// What becomes of a request that came to rest somewhere, once `after` has passed.
async fn outlasts(
    sender: SenderBuilder,
    uri: Uri,
    came_to_rest: impl AsyncFnOnce(&ManualClock),
    after: Duration,
) -> SendError {
    let clock = ManualClock::default();
    let sender = sender.clock(clock.shared()).build().unwrap();
    let sending = tokio::spawn(async move { sender.send(post(uri)).await });
    came_to_rest(&clock).await;
    clock.advance(after);
    sending.await.unwrap().unwrap_err()
}

#[tokio::test]
async fn a_request_arrives_as_it_was_given() {
    let peer = Peer::start(OK, Then::ReadOn).await;
    let mut outgoing = post(peer.uri("/a%20b?c=d"));
    outgoing.method = Method::PATCH;
    outgoing.headers.insert("x-key", "7".parse().unwrap());
    let reply = local().build().unwrap().send(outgoing).await.unwrap();

    assert_eq!((reply.status, reply.body.as_ref(), reply.retry_after), (200, b"ok".as_slice(), None));
    let request = peer.seen().requests.remove(0);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("PATCH /a%20b?c=d HTTP/1.1"));
    let mut headers: Vec<_> = lines.collect();
    headers.sort_unstable();
    let (host, agent) =
        (format!("host: {}", peer.address), format!("user-agent: evenkeel/{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(headers, ["content-length: 2", &host, &agent, "x-key: 7"]);
    assert_eq!(body, "{}");
}

#[tokio::test]
async fn a_redirect_is_reported_and_not_followed() {
    let elsewhere = Peer::start(OK, Then::ReadOn).await;
    for status in [301, 302, 303, 307, 308] {
        let answer =
            format!("HTTP/1.1 {status} Go\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", elsewhere.uri("/"));
        let peer = Peer::start(answer, Then::ReadOn).await;
        let reply = local().build().unwrap().send(post(peer.uri("/"))).await.unwrap();
        assert_eq!(reply.status, status);
    }
    assert_eq!(elsewhere.seen().connections, 0);
}

#[tokio::test]
async fn sixteen_kib_of_a_body_are_kept() {
    for (length, kept) in [(0, 0), (16_383, 16_383), (16_384, 16_384), (16_385, 16_384), (300_000, 16_384)] {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length));
        let peer = Peer::start(answer, Then::ReadOn).await;
        let reply = local().build().unwrap().send(post(peer.uri("/"))).await.unwrap();
        assert_eq!(reply.body, "x".repeat(kept), "{length}");
    }
}

#[tokio::test]
async fn the_rest_of_a_long_body_is_not_waited_for() {
    let begun = format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n{}", "x".repeat(20_000));
    let peer = Peer::start(begun, Then::ReadOn).await;
    let reply = local().build().unwrap().send(post(peer.uri("/"))).await.unwrap();
    assert_eq!(reply.body.len(), 16_384);
    peer.until(|seen| seen.closed == 1).await;
}

#[tokio::test]
async fn an_answer_that_does_not_end_in_time_is_none() {
    for begun in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab"] {
        let peer = Peer::start(begun, Then::ReadOn).await;
        let came_to_rest = async |_: &ManualClock| peer.until(|seen| seen.requests.len() == 1).await;
        let error = outlasts(local(), peer.uri("/"), came_to_rest, Duration::from_secs(15)).await;
        assert_eq!(error.to_string(), "no complete answer within 15s", "{begun:?}");
        peer.until(|seen| seen.closed == 1).await;
    }
}

#[tokio::test]
async fn a_name_that_is_not_resolved_in_time_is_a_connection_that_is_late() {
    // One waits for the answer, one for the connection.
    let came_to_rest = async |clock: &ManualClock| clock.wait_for_sleepers(2).await;
    let uri = Uri::from_static("http://example.com/");
    let error = outlasts(local().resolver(Mute), uri, came_to_rest, Duration::from_secs(5)).await;
    assert_eq!(error.to_string(), "no connection within 5s");
}

#[tokio::test]
async fn a_handshake_that_is_not_answered_in_time_is_a_connection_that_is_late() {
    let peer = Peer::start("", Then::ReadOn).await;
    let came_to_rest = async |_: &ManualClock| peer.until(|seen| seen.connections == 1).await;
    let uri = peer.named("https", "127.0.0.1");
    let error = outlasts(local(), uri, came_to_rest, Duration::from_secs(5)).await;
    assert_eq!(error.to_string(), "no connection within 5s");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_told_apart() {
    // Bound, so that nobody else gets the port, but not listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let error = fails(local(), format!("http://{address}/").parse().unwrap()).await;
    assert!(matches!(&error, SendError::Connect { address: tried, .. } if *tried == address), "{error}");
}

#[tokio::test]
async fn an_address_that_is_refused_is_not_connected_to() {
    let peer = Peer::start(OK, Then::ReadOn).await;
    for (host, found) in [
        ("127.0.0.1", "127.0.0.1: loopback"),
        ("[::1]", "::1: loopback"),
        ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1: loopback"),
        ("0.0.0.0", "0.0.0.0: unspecified"),
    ] {
        for scheme in ["http", "https"] {
            let error = fails(Sender::builder(), peer.named(scheme, host)).await;
            let (address, range) = found.rsplit_once(": ").unwrap();
            assert_eq!(error.to_string(), format!("address {address} is refused: {range}"));
            assert_eq!(error.kind(), "refused_address");
        }
    }
    assert_eq!(peer.seen().connections, 0);
}

#[tokio::test]
async fn a_name_for_a_refused_address_is_not_connected_to() {
    let peer = Peer::start(OK, Then::ReadOn).await;
    let uri = peer.named("http", "innocent.example");
    for addresses in [["127.0.0.1", "10.0.0.1"], ["::ffff:127.0.0.1", "127.0.0.1"]] {
        let error = fails(Sender::builder().resolver(Names::of(&addresses)), uri.clone()).await;
        assert_eq!(error.to_string(), format!("address {} is refused: loopback", addresses[0]));
    }
    let error = fails(Sender::builder(), peer.named("http", "localhost")).await;
    assert_eq!(error.kind(), "refused_address", "{error}");
    assert_eq!(peer.seen().connections, 0);
}

#[tokio::test]
async fn of_several_addresses_the_allowed_ones_are_tried_until_one_connects() {
    let peer = Peer::start(OK, Then::ReadOn).await;
    // Not allowed, nobody there, and the peer.
    let names = Names::of(&["10.0.0.1", "127.0.0.2", "127.0.0.1"]);
    let sender = local().resolver(names).build().unwrap();
    assert_eq!(sender.send(post(peer.named("http", "several.example"))).await.unwrap().status, 200);
}

#[cfg(target_os = "linux")] // where a full backlog lets connections wait
#[tokio::test]
async fn an_address_that_swallows_packets_gets_its_share_of_the_time_only() {
    let peer = Peer::start(OK, Then::ReadOn).await;
    let swallowing = SocketAddr::from(([127, 0, 0, 2], peer.address.port()));
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(swallowing).unwrap();
    let _listener = socket.listen(0).unwrap();
    let _fills_it = TcpStream::connect(swallowing).await.unwrap();

    let clock = ManualClock::default();
    let names = Names::of(&["127.0.0.2", "127.0.0.1"]);
    let sender = local().resolver(names).clock(clock.shared()).build().unwrap();
    let uri = peer.named("http", "several.example");
    let sending = tokio::spawn(async move { sender.send(post(uri)).await });
    // For the answer, for any connection, for this one.
    clock.wait_for_sleepers(3).await;
    clock.advance(Duration::from_millis(2_500));
    let reply = sending.await.unwrap().unwrap();
    assert_eq!((reply.status, reply.took), (200, Duration::from_millis(2_500)));
}

#[tokio::test]
async fn a_name_is_looked_up_once_a_connection() {
    let peer = Peer::start(OK, Then::Close).await;
    let names = Names::of(&["127.0.0.1"]);
    let asked = Arc::clone(&names.asked);
    local().resolver(names).build().unwrap().send(post(peer.named("http", "example.com"))).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_name_without_an_address_is_told_apart() {
    let uri = Uri::from_static("http://example.com/");
    let error = fails(local().resolver(Ignorant), uri.clone()).await;
    assert_eq!(error.to_string(), r#"host "example.com" has no address: no such name"#);
    assert_eq!(error.kind(), "dns");
    let error = fails(local().resolver(Names::default()), uri).await;
    assert_eq!(error.to_string(), r#"host "example.com" has no address: the answer is empty"#);
}

#[tokio::test]
async fn a_certificate_is_accepted_from_who_is_trusted_only() {
    let (peer, certificate) = Peer::with_tls(OK).await;
    let names = Names::of(&["127.0.0.1"]);
    let uri = peer.named("https", "localhost");

    let error = fails(local().resolver(names.clone()), uri.clone()).await;
    assert!(matches!(&error, SendError::Tls { host, .. } if host == "localhost"), "{error}");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");

    let trusting = local().resolver(names).trust(certificate);
    let error = fails(trusting.clone(), peer.named("https", "other.example")).await;
    assert!(matches!(&error, SendError::Tls { host, .. } if host == "other.example"), "{error}");
    assert_eq!(peer.seen().requests.len(), 0);

    assert_eq!(trusting.build().unwrap().send(post(uri)).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_peer_without_tls_is_told_apart() {
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
        // It speaks at once, because what a client says first in TLS is no request.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let error = fails(local(), format!("https://{address}/").parse().unwrap()).await;
        assert_eq!(error.kind(), "tls", "{error}");
    }
}

#[tokio::test]
async fn retry_after_counts_from_the_answer() {
    // The clock stands at 2001-09-09T01:46:40Z.
    for value in ["90", "Sun, 09 Sep 2001 01:48:10 GMT"] {
        let answer = format!("HTTP/1.1 503 Busy\r\nretry-after: {value}\r\ncontent-length: 0\r\n\r\n");
        let peer = Peer::start(answer, Then::ReadOn).await;
        let sender = local().clock(ManualClock::default().shared()).build().unwrap();
        let reply = sender.send(post(peer.uri("/"))).await.unwrap();
        assert_eq!((reply.status, reply.retry_after), (503, Some(Duration::from_secs(90))), "{value}");
    }
}

#[tokio::test]
async fn a_reply_says_how_long_it_took() {
    let clock = ManualClock::default();
    let peer = Peer::start(OK, Then::ReadOn).await;
    let sender = local().resolver(Late(clock.clone())).clock(clock.shared()).build().unwrap();
    let reply = sender.send(post(peer.named("http", "late.example"))).await.unwrap();
    assert_eq!(reply.took, Duration::from_secs(2));
}

#[tokio::test]
async fn a_connection_is_used_again_by_every_clone() {
    let peer = Peer::start(OK, Then::ReadOn).await;
    let sender = local().build().unwrap();
    for _ in 0..50 {
        sender.clone().send(post(peer.uri("/"))).await.unwrap();
    }
    assert_eq!((peer.seen().requests.len(), peer.seen().connections), (50, 1));
}

#[tokio::test]
async fn a_connection_that_is_not_to_be_kept_is_closed() {
    for sender in [local().idle_per_target(0), local().keep_idle(Duration::from_millis(1))] {
        let (peer, sender) = (Peer::start(OK, Then::ReadOn).await, sender.build().unwrap());
        for sent in 1..=3 {
            sender.send(post(peer.uri("/"))).await.unwrap();
            peer.until(|seen| seen.closed == sent).await;
        }
        assert_eq!(peer.seen().connections, 3);
    }
}

#[tokio::test]
async fn what_may_have_reached_the_peer_is_not_sent_again() {
    let peer = Peer::start(OK, Then::HangUp).await;
    let sender = local().build().unwrap();
    sender.send(post(peer.uri("/"))).await.unwrap();

    let error = sender.send(post(peer.uri("/"))).await.unwrap_err();
    assert_eq!(error.to_string(), "no valid answer: connection closed before message completed");
    let seen = peer.seen();
    assert_eq!((seen.requests.len(), seen.connections), (2, 1));
}

#[tokio::test]
async fn a_target_that_closes_its_connections_gets_new_ones() {
    let peer =
        Peer::start("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", Then::Close).await;
    let sender = local().build().unwrap();
    for _ in 0..3 {
        sender.send(post(peer.uri("/"))).await.unwrap();
    }
    assert_eq!(peer.seen().connections, 3);
}

#[tokio::test]
async fn what_is_no_answer_is_told_apart() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    for answer in [
        "",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
        &long,
    ] {
        let peer = Peer::start(answer, Then::Close).await;
        let error = fails(local(), peer.uri("/")).await;
        assert_eq!(error.kind(), "protocol", "{error}");
    }
}

#[tokio::test]
async fn dropping_the_future_abandons_the_request() {
    let peer = Peer::start("", Then::ReadOn).await;
    let (sender, uri) = (local().build().unwrap(), peer.uri("/"));
    let sending = tokio::spawn(async move { sender.send(post(uri)).await });
    peer.until(|seen| seen.requests.len() == 1).await;
    sending.abort();
    peer.until(|seen| seen.closed == 1).await;
}
