use std::time::Duration;

use axum::body::Body;
use evenkeel_web_axum::flare::Api;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::support::{Seen, World, send};

const DOCUMENT: &str = "/documents/https://api.example.com/orders/17";

#[tokio::test]
async fn a_document_is_given_byte_for_byte_as_it_was_published() {
    let world = World::new();
    world.orders().await;
    let content = "\n{ \"version\" :7,\t\"é\": 1.50, \"version\": 7 }\r\n ";
    world.clock.advance(Duration::from_millis(1_500));
    let published = world.put(DOCUMENT, content).await;
    assert_eq!(published.status, StatusCode::ACCEPTED);
    assert_eq!(published.header("etag"), "\"7\"");
    let url = "https://api.example.com/orders/17";
    let expected =
        json!({"url": url, "revision": 7, "updatedAt": "2024-05-01T00:00:01.5Z", "outcome": "created"});
    assert_eq!(published.json(), expected);

    let read = world.get(DOCUMENT).await;
    assert_eq!((read.status, &read.body[..]), (StatusCode::OK, content.as_bytes()));
    assert_eq!(read.header("content-type"), "application/json");
    assert_eq!(read.header("etag"), "\"7\"");
    assert_eq!(read.header("last-modified"), "Wed, 01 May 2024 00:00:01 GMT");
}

#[tokio::test]
async fn a_documents_url_is_taken_as_it_is_encoded_or_with_one_slash() {
    let world = World::new();
    world.orders().await;
    world.put(DOCUMENT, r#"{"version": 1}"#).await;
    for url in [
        "https://api.example.com/orders/17",
        "https:/api.example.com/orders/17",
        "https%3A%2F%2Fapi.example.com%2Forders%2F17",
        "https%3a%2f%2fapi.example.com/orders/17",
        "HTTPS://API.example.com:443/orders/%31%37/",
    ] {
        let seen = world.get(&format!("/documents/{url}")).await;
        assert_eq!((seen.status, seen.body), (StatusCode::OK, r#"{"version": 1}"#.into()), "{url}");
    }
    let put =
        world.put("/documents/https%3A%2F%2Fapi.example.com%2Forders%2Fa%252Fb", r#"{"version": 1}"#).await;
    assert_eq!(put.text("url"), "https://api.example.com/orders/a%2Fb");
}

#[tokio::test]
async fn a_url_that_breaks_a_rule_is_refused() {
    let world = World::new();
    for (url, word) in [
        ("orders/17", "absolute"),
        ("ftp://a.example/b", "absolute"),
        ("https://joe@a.example/b", "user information"),
        ("https://a.example/%ff", "UTF-8"),
    ] {
        world.put(&format!("/documents/{url}"), "{}").await.is_problem(400, "bad-request", &["url", word]);
    }
    let seen = world.get(&format!("{DOCUMENT}?version=1")).await;
    seen.is_problem(400, "bad-request", &["unknown field `version`"]);
}

#[tokio::test]
async fn only_a_newer_document_replaces_one() {
    let world = World::new();
    world.orders().await;
    for (version, outcome, stored) in [(7, "created", 7), (8, "updated", 8), (8, "stale", 8), (5, "stale", 8)]
    {
        let seen = world.put(DOCUMENT, format!("{{\"version\": {version}}}")).await;
        assert_eq!(seen.status, StatusCode::ACCEPTED);
        assert_eq!((seen.text("outcome").as_str(), &seen.json()["revision"]), (outcome, &json!(stored)));
        assert_eq!(seen.header("etag"), format!("\"{stored}\""));
    }
    assert_eq!(world.get(DOCUMENT).await.body, r#"{"version": 8}"#);
}

#[tokio::test]
async fn what_no_resource_has_is_not_found() {
    let world = World::new();
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let seen = world.call(method, DOCUMENT, r#"{"version": 1}"#).await;
        seen.is_problem(404, "not-found", &["no resource", "https://api.example.com/orders/17"]);
    }
}

#[tokio::test]
async fn a_document_without_its_revision_is_refused() {
    let world = World::new();
    world.orders().await;
    for (content, word) in
        [("{}", "no such field"), ("[]", "not a JSON object"), (r#"{"version": "a"}"#, "format")]
    {
        world.put(DOCUMENT, content).await.is_problem(400, "bad-request", &["version", word]);
    }
}

#[tokio::test]
async fn a_deleted_document_is_gone_and_stays_so_for_older_ones() {
    let world = World::new();
    world.orders().await;
    world.delete(DOCUMENT).await.is_problem(404, "not-found", &["no such document"]);
    world.put(DOCUMENT, r#"{"version": 7}"#).await;

    let deleted = world.delete(DOCUMENT).await;
    assert_eq!((deleted.status, deleted.header("etag")), (StatusCode::ACCEPTED, "\"7\""));
    assert_eq!((deleted.text("outcome").as_str(), &deleted.json()["revision"]), ("deleted", &json!(7)));
    world.get(DOCUMENT).await.is_problem(404, "not-found", &["no such document"]);
    world.delete(DOCUMENT).await.is_problem(404, "not-found", &["no such document"]);

    assert_eq!(world.put(DOCUMENT, r#"{"version": 7}"#).await.text("outcome"), "stale");
    assert_eq!(world.put(DOCUMENT, r#"{"version": 8}"#).await.text("outcome"), "created");
}

#[tokio::test]
async fn a_publication_takes_place_only_where_its_precondition_holds() {
    let world = World::new();
    world.orders().await;
    let put = async |version: u32, name: &str, value: &str| -> Seen {
        let content = format!("{{\"version\": {version}}}");
        world.send(Request::put(DOCUMENT).header(name, value).body(content.into()).unwrap()).await
    };
    put(1, "if-match", "*").await.is_problem(412, "precondition-failed", &["precondition", "revision: none"]);
    assert_eq!(put(1, "if-none-match", "*").await.status, StatusCode::ACCEPTED);
    put(2, "if-none-match", "*").await.is_problem(412, "precondition-failed", &["revision: 1"]);
    put(2, "if-match", "\"3\"").await.is_problem(412, "precondition-failed", &["revision: 1"]);
    put(2, "if-match", "W/\"1\"").await.is_problem(412, "precondition-failed", &["revision: 1"]);
    assert_eq!(put(2, "if-match", "\"3\", \"1\"").await.text("outcome"), "updated");
    put(3, "if-none-match", "\"2\"").await.is_problem(412, "precondition-failed", &["revision: 2"]);
    assert_eq!(put(3, "if-none-match", "\"1\"").await.text("outcome"), "updated");
    put(4, "if-match", "3").await.is_problem(400, "bad-request", &["if-match", "value: 3"]);

    let both = Request::put(DOCUMENT).header("if-match", "*").header("if-none-match", "*");
    world.send(both.body("{}".into()).unwrap()).await.is_problem(400, "bad-request", &["not both"]);

    let delete = |tag: &str| Request::delete(DOCUMENT).header("if-match", tag).body(Body::empty()).unwrap();
    world.send(delete("\"2\"")).await.is_problem(412, "precondition-failed", &["revision: 3"]);
    assert_eq!(world.send(delete("\"3\"")).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_reader_that_has_the_revision_is_not_given_it_again() {
    let world = World::new();
    world.orders().await;
    world.put(DOCUMENT, r#"{"version": 7}"#).await;
    let read = |tag: &str| Request::get(DOCUMENT).header("if-none-match", tag).body(Body::empty()).unwrap();
    for tag in ["\"7\"", "W/\"7\"", "*"] {
        let seen = world.send(read(tag)).await;
        assert_eq!(
            (seen.status, seen.body.len(), seen.header("etag")),
            (StatusCode::NOT_MODIFIED, 0, "\"7\"")
        );
    }
    assert_eq!(world.send(read("\"6\"")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_head_of_a_document_can_be_asked_for() {
    let world = World::new();
    world.orders().await;
    world.put(DOCUMENT, r#"{"version": 7}"#).await;
    let seen = world.call(Method::HEAD, DOCUMENT, "").await;
    assert_eq!((seen.status, seen.body.len(), seen.header("etag")), (StatusCode::OK, 0, "\"7\""));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let world = World::new();
    world.orders().await;
    let router = Api::new(world.flare.clone()).body_limit(64).router();
    let seen = send(&router, Request::put(DOCUMENT).body(padded(65).into()).unwrap()).await;
    seen.is_problem(413, "body-too-large", &["larger than this service takes"]);
    let seen = send(&router, Request::put(DOCUMENT).body(padded(64).into()).unwrap()).await;
    assert_eq!(seen.status, StatusCode::ACCEPTED);

    let seen = world.put(DOCUMENT, padded(1024 * 1024 + 1)).await;
    seen.is_problem(413, "body-too-large", &[]);
}

#[tokio::test]
async fn a_document_beyond_what_the_store_takes_is_refused() {
    let world = World::new();
    world.orders().await;
    world.put(DOCUMENT, padded(400_000)).await.is_problem(413, "too-large", &[]);
}

#[tokio::test]
async fn many_documents_are_published_each_by_itself() {
    let world = World::new();
    world.orders().await;
    world.put(DOCUMENT, r#"{"version": 7}"#).await;
    let lines = [
        r#"{"url": "https://api.example.com/orders/16", "document":  { "version" : 1 } }"#,
        "",
        r#"{"document": {"version": 8}, "url": "https://api.example.com/orders/17"}"#,
        r#"{"url": "https://api.example.com/bills/1", "document": {"version": 1}}"#,
        r#"{"url": "https://api.example.com/orders/18", "document": {"v": 1}}"#,
        r#"{"url": "https://api.example.com/orders/19", "document": {"version": 1}, "now": true}"#,
        "not json",
    ];
    let body = lines.join("\r\n") + "\n";
    let seen = world.call(Method::POST, "/documents", body).await;
    assert_eq!((seen.status, seen.header("content-type")), (StatusCode::OK, "application/x-ndjson"));
    let text = String::from_utf8(seen.body.to_vec()).unwrap();
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = answers
        .iter()
        .map(|answer| match answer.get("outcome") {
            Some(outcome) => format!("{} {}", outcome.as_str().unwrap(), answer["revision"]),
            None => format!("{} {}", answer["line"], answer["problem"]["status"]),
        })
        .collect();
    assert_eq!(told, ["created 1", "updated 8", "4 404", "5 400", "6 400", "7 400"]);
    assert!(answers[4]["problem"]["detail"].as_str().unwrap().contains("`now`"), "{answers:?}");

    let read = world.get("/documents/https://api.example.com/orders/16").await;
    assert_eq!(read.body, r#"{ "version" : 1 }"#);
}

#[tokio::test]
async fn more_than_a_thousand_lines_are_refused_whole() {
    let world = World::new();
    world.orders().await;
    let line = |id: usize| {
        format!("{{\"url\": \"https://api.example.com/orders/{id}\", \"document\": {{\"version\": 1}}}}\n")
    };
    let bulk = async |lines: usize| {
        world.call(Method::POST, "/documents", (0..lines).map(line).collect::<String>()).await
    };
    bulk(1001).await.is_problem(413, "too-large", &["1000", "lines: 1001"]);
    world.get("/documents/https://api.example.com/orders/0").await.is_problem(404, "not-found", &[]);
    let seen = bulk(1000).await;
    assert_eq!(String::from_utf8(seen.body.to_vec()).unwrap().lines().count(), 1000);
    assert_eq!(world.get("/documents/https://api.example.com/orders/999").await.status, StatusCode::OK);
}

/// A document of so many bytes.
fn padded(length: usize) -> String {
    let document = r#"{"version": 7}"#;
    document.to_owned() + &" ".repeat(length - document.len())
}
