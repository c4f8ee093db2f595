use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::common::client::Answer;
use crate::common::process::{Program, Server};

/// A token as `keys token` prints it: what its caller shows, and its line for the settings.
async fn token(name: &str, scopes: &str) -> (String, String) {
    let printed = Program::new(&["keys", "token", "--name", name, "--scopes", scopes]).printed().await;
    let secret = printed.lines().find(|line| line.trim().starts_with("evk_")).unwrap().trim();
    let line = printed.lines().find(|line| line.trim().starts_with("tokens = ")).unwrap().trim();
    (secret.to_owned(), line.to_owned())
}

#[tokio::test]
async fn a_request_is_let_through_with_a_token_of_the_scope_only() {
    let (secret, line) = token("reader", "read").await;
    assert!(!line.contains(&secret));
    let server =
        Program::new(&["serve", "--listen", "127.0.0.1:0"]).file("evenkeel.toml", &line).serve().await;

    for stranger in
        [server.client.clone(), server.client.with_token("evk_wrong"), server.client.with_token("")]
    {
        for path in ["/resources", "/metrics", "/subscriptions/x/stats", "/nowhere"] {
            let answer = stranger.get(path).await;
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (StatusCode::UNAUTHORIZED, "unauthenticated")
            );
            assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        }
        for open in ["/", "/health", "/ready", "/openapi.json", "/docs"] {
            assert_eq!(stranger.get(open).await.status, StatusCode::OK, "{open}");
        }
    }

    let reader = server.client.with_token(&secret);
    assert_eq!(reader.get("/resources").await.status, StatusCode::OK);
    assert_eq!(reader.get("/metrics").await.status, StatusCode::OK);
    let answer = reader.post("/resources", json!({})).await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::FORBIDDEN, "forbidden"));
    assert!(answer.text().contains("admin"), "{}", answer.text());
}

#[tokio::test]
async fn metrics_need_the_scope_read_where_there_are_tokens() {
    let (secret, line) = token("publisher", "publish").await;
    let server =
        Program::new(&["serve", "--listen", "127.0.0.1:0"]).file("evenkeel.toml", &line).serve().await;
    let answer = server.client.with_token(&secret).get("/metrics").await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::FORBIDDEN, "forbidden"));
}

#[tokio::test]
async fn with_a_token_it_listens_beyond_loopback() {
    let (_, line) = token("ops", "admin").await;
    let server = Program::new(&["--listen", "0.0.0.0:0"]).file("evenkeel.toml", &line).serve().await;
    assert_eq!(server.client.get("/resources").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn without_tokens_a_web_page_of_another_host_is_refused() {
    let server = Server::start(&[]).await;
    let send = async |name: &'static str, value: &str| -> Answer {
        let request = Request::get("/resources").header(name, value);
        server.client.send(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap()
    };
    for (name, value) in [("host", "evil.example"), ("origin", "https://evil.example"), ("origin", "null")] {
        assert_eq!(send(name, value).await.status, StatusCode::FORBIDDEN, "{name}: {value}");
    }
    for (name, value) in [("host", "localhost:8080"), ("origin", "http://127.0.0.1:8080")] {
        assert_eq!(send(name, value).await.status, StatusCode::OK, "{name}: {value}");
    }
}
