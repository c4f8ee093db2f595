use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::common::process::{PATIENCE, Program, Server};

const DOCUMENT: &str = r#"{"version":1}"#;

async fn with_orders(server: &Server) {
    let resource =
        json!({ "endpoint": "https://shop.example/orders/{order}", "change": { "field": "version" } });
    let created = server.client.post("/resources", resource).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text());
}

/// A request whose body is still missing, and that the server has begun to answer.
async fn begun(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(&server.client.address).await.unwrap();
    let head = format!(
        "PUT /documents/https://shop.example/orders/17 HTTP/1.1\r\nhost: {}\r\n\
         content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        server.client.address,
        DOCUMENT.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // It is asked for where the handler begins to read it.
    let mut asked = [0; 25];
    timeout(PATIENCE, stream.read_exact(&mut asked)).await.expect("it begins").unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

async fn rest_of(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("it ends").unwrap();
    answer
}

#[tokio::test]
async fn a_request_that_is_under_way_is_answered_when_the_server_is_asked_to_end() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&[]).await;
        with_orders(&server).await;
        let mut stream = begun(&server).await;

        server.signal(signal);
        let refused = async { while TcpStream::connect(&server.client.address).await.is_ok() {} };
        timeout(PATIENCE, refused).await.expect("it takes no more connections");
        stream.write_all(DOCUMENT.as_bytes()).await.unwrap();

        let answer = rest_of(stream).await;
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        assert!(server.ended().await.success());
    }
}

#[tokio::test]
async fn what_does_not_end_within_the_grace_is_cut_off() {
    let mut server = Server::start(&["--shutdown-grace", "200ms"]).await;
    with_orders(&server).await;
    let stream = begun(&server).await;
    server.signal(Signal::TERM);
    assert!(server.ended().await.success());
    drop(stream);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_with_503() {
    let server = Server::start(&["--request-timeout", "200ms"]).await;
    with_orders(&server).await;
    let answer = rest_of(begun(&server).await).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("#not-known"), "{answer}");
}

#[tokio::test]
async fn a_body_or_a_head_beyond_the_limit_is_refused() {
    let server = Server::start(&["--body-limit", "1000"]).await;
    with_orders(&server).await;
    let long = "x".repeat(1_000);
    let order = "/documents/https://shop.example/orders/17";
    let answer = server.client.put(order, json!({ "version": 1, "text": long })).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let request = Request::get("/resources").header("x-long", "x".repeat(70_000));
    let answer = server.client.send(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn metrics_tell_of_requests_by_their_route() {
    let server = Server::start(&[]).await;
    with_orders(&server).await;
    let answer = server.client.get("/metrics").await;
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    let text = answer.text();
    let counted = |line: &str| {
        line.starts_with("evenkeel_http_request_seconds_count") && line.contains("route=\"/resources\"")
    };
    assert!(text.lines().any(counted), "{text}");
    assert!(text.contains("evenkeel_store_calls_total"), "{text}");
}

#[tokio::test]
async fn a_request_is_logged_with_method_route_status_and_seconds() {
    let arguments =
        ["--listen", "127.0.0.1:0", "--log-format", "json", "--log-level", "evenkeel_server=debug"];
    let mut server = Program::new(&arguments).logging_to("log").serve().await;
    with_orders(&server).await;
    server.signal(Signal::TERM);
    assert!(server.ended().await.success());

    let log = server.file("log");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let answered = lines.iter().find(|line| line["message"] == "answered").expect(&log);
    assert_eq!((&answered["status"], &answered["level"]), (&json!(201), &json!("DEBUG")));
    assert_eq!(
        (&answered["span"]["method"], &answered["span"]["route"]),
        (&json!("POST"), &json!("/resources"))
    );
    assert!(answered["seconds"].is_f64(), "{answered}");
}

#[cfg(feature = "otlp")]
#[tokio::test]
async fn spans_are_with_the_collector_when_the_server_has_ended() {
    use crate::walk::Sink;

    let collector = Sink::start().await;
    let mut server = Server::start(&["--otlp-endpoint", &format!("http://{}", collector.address)]).await;
    with_orders(&server).await;
    server.signal(Signal::TERM);
    assert!(server.ended().await.success());
    let taken = collector.taken();
    let says = |text: &str| {
        taken.iter().any(|(_, body)| body.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    assert!(says("evenkeel") && says("request") && says("/resources"), "{taken:?}");
}

#[tokio::test]
async fn what_was_kept_is_there_after_a_restart() {
    let server = Server::start(&[]).await;
    with_orders(&server).await;
    server.signal(Signal::TERM);
    let Server { folder, .. } = &server;
    let store = format!("sqlite://{}", folder.path().join("evenkeel.db").display());
    let again = Program::new(&["--listen", "127.0.0.1:0", "--store", &store]).serve().await;
    assert!(again.client.get("/resources").await.text().contains("shop.example"));
}

#[tokio::test]
async fn a_subscriber_on_a_private_address_is_told_only_where_that_is_allowed() {
    use crate::walk::Sink;

    for (allowed, arguments) in [(true, &["--allow-target", "127.0.0.0/8"][..]), (false, &[])] {
        let sink = Sink::start().await;
        let server = Server::start(arguments).await;
        with_orders(&server).await;
        let resource = server.client.get("/resources").await.json()["resources"][0]["id"].clone();
        let path = format!("/resources/{}/subscriptions", resource.as_str().unwrap());
        let subscription = json!({
            "endpoint": { "url": format!("http://{}/", sink.address), "method": "POST" },
            "delivery": { "success": [200], "discard": [] },
        });
        let subscribed = server.client.post(&path, subscription).await;
        assert_eq!(subscribed.status, StatusCode::CREATED, "{}", subscribed.text());
        let id = subscribed.json()["id"].as_str().unwrap().to_owned();
        let document = json!({ "version": 1 });
        server.client.put("/documents/https://shop.example/orders/17", document).await;

        let attempts = async {
            loop {
                let attempts = server.client.get(&format!("/subscriptions/{id}/attempts")).await;
                if attempts.json()["attempts"].as_array().is_some_and(|attempts| !attempts.is_empty()) {
                    return attempts.text().to_owned();
                }
            }
        };
        let attempts = timeout(PATIENCE, attempts).await.expect("it is tried");
        assert_eq!(sink.taken().len(), usize::from(allowed), "{attempts}");
        assert_eq!(attempts.contains("loopback"), !allowed, "{attempts}");
    }
}
