use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use evenkeel_web_axum::Body;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tower::{ServiceBuilder, service_fn};

use crate::support::World;

#[tokio::test]
async fn the_layer_serves_plain_hyper() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let charge = service_fn(move |request: Request<Body<Incoming>>| {
        let run = counter.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let answer = format!("run {run}: {}", String::from_utf8_lossy(&body));
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer))))
        }
    });
    let service = ServiceBuilder::new().layer(World::default().layer()).service(charge);

    let (client, server) = tokio::io::duplex(64 * 1024);
    let server = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(server), TowerToHyperService::new(service));
    let server = tokio::spawn(server);
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
    let connection = tokio::spawn(connection);

    for (key, expected, replayed) in [
        (Some("\"k\""), Ok("run 1: 42"), false),
        (Some("\"k\""), Ok("run 1: 42"), true),
        (None, Err(400), false),
    ] {
        let mut request = Request::post("/charges").header("host", "localhost");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let response =
            client.send_request(request.body(Full::new(Bytes::from("42"))).unwrap()).await.unwrap();
        assert_eq!(response.headers().contains_key("idempotent-replayed"), replayed);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        match expected {
            Ok(text) => assert_eq!(body, text),
            Err(code) => assert_eq!(status, code),
        }
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    drop(client);
    connection.await.unwrap().unwrap();
    server.await.unwrap().unwrap();
}
