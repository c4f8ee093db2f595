use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Seen, World, hook, orders};

#[tokio::test]
async fn a_created_resource_is_where_its_location_says() {
    let world = World::new();
    let created = world.post("/resources", orders()).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let location = created.header("location");
    assert_eq!(location, format!("/resources/{}", created.text("id")));
    assert_eq!(created.text("endpoint"), "https://api.example.com/orders/{order}");
    assert_eq!(created.json()["change"], json!({"field": "version", "format": ""}));
    assert_eq!(created.text("createdAt"), "2024-05-01T00:00:00Z");

    let shown = world.get(location).await;
    assert_eq!((shown.status, shown.json()), (StatusCode::OK, created.json()));
}

#[tokio::test]
async fn a_nested_router_says_where_it_is() {
    let world = World::new();
    let nested = axum::Router::new().nest("/api", world.router.clone());
    let body = orders().to_string();
    let request = http::Request::post("/api/resources").body(body.into()).unwrap();
    let created = crate::support::send(&nested, request).await;
    assert_eq!(created.header("location"), format!("/api/resources/{}", created.text("id")));
}

#[tokio::test]
async fn a_second_resource_of_the_same_documents_is_refused_with_the_firsts_id() {
    let world = World::new();
    let id = world.orders().await;
    let mut other = orders();
    other["endpoint"] = json!("https://API.example.com/orders/{number}/");
    world.post("/resources", other).await.is_problem(409, "already-exists", &[&id]);
}

#[tokio::test]
async fn a_resource_that_breaks_a_rule_is_refused_by_field_and_value() {
    let world = World::new();
    for (body, words) in [
        (
            json!({"endpoint": "https://a.example/b", "change": {"field": "v"}}),
            ["endpoint", "https://a.example/b"],
        ),
        (
            json!({"endpoint": "ftp://a.example/{b}", "change": {"field": "v"}}),
            ["endpoint", "ftp://a.example/{b}"],
        ),
        (json!({"endpoint": "https://a.example/{b}", "change": {"field": ""}}), ["change.field", "empty"]),
        (
            json!({"endpoint": "https://a.example/{b}", "change": {"field": "v", "format": "never"}}),
            ["change.format", "never"],
        ),
    ] {
        world.post("/resources", body).await.is_problem(400, "bad-request", &words);
    }
}

#[tokio::test]
async fn json_that_cannot_be_read_is_refused_by_the_place() {
    let world = World::new();
    for (body, words) in [
        (
            r#"{"endpoint": "https://a.example/{b}", "change": {"field": "v"}, "colour": 1}"#,
            ["unknown field", "colour"],
        ),
        (r#"{"endpoint": "https://a.example/{b}", "change": {"field": "v", "size": 1}}"#, ["change", "size"]),
        (
            r#"{"endpoint": "https://a.example/{b}", "change": {"field": 1}}"#,
            ["change.field", "expected a string"],
        ),
        (r#"{"endpoint": "https://a.example/{b}"}"#, ["missing field", "change"]),
        (r#"{"endpoint": "https://a.example/{b}", "change": {"field": "v"}} {}"#, ["trailing", "characters"]),
        ("", ["the json", "EOF"]),
    ] {
        world.call(Method::POST, "/resources", body).await.is_problem(400, "bad-request", &words);
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let world = World::new();
    world.get("/resources/17").await.is_problem(404, "not-found", &["no such resource", "17"]);
    world.delete("/resources/17").await.is_problem(404, "not-found", &["no such resource", "17"]);
    world.get("/resources/17/subscriptions").await.is_problem(404, "not-found", &["no such resource", "17"]);
    let seen = world.post("/resources/17/subscriptions", hook("https://b.example/")).await;
    seen.is_problem(404, "not-found", &["no such resource", "17"]);
}

#[tokio::test]
async fn a_resource_is_deleted_once_it_has_no_subscriptions() {
    let world = World::new();
    let id = world.orders().await;
    let subscription = world.puller(&id).await;
    let path = format!("/resources/{id}");
    world.delete(&path).await.is_problem(409, "conflict", &["the resource has subscriptions", &id]);

    assert_eq!(
        world.delete(&format!("{path}/subscriptions/{subscription}")).await.status,
        StatusCode::NO_CONTENT
    );
    let deleted = world.delete(&path).await;
    assert_eq!((deleted.status, deleted.body.len()), (StatusCode::NO_CONTENT, 0));
    world.get(&path).await.is_problem(404, "not-found", &[]);
}

#[tokio::test]
async fn the_list_is_cut_by_limit_and_offset() {
    let world = World::new();
    let ids = five(&world).await;
    let seen = world.get("/resources").await.json();
    assert_eq!(of(&seen), ids);
    assert_eq!(seen["pagination"], json!({"limit": 30, "offset": 0, "total": 5}));
    assert!(seen.get("nextCursor").is_none());

    let seen = world.get("/resources?limit=2&offset=1").await.json();
    assert_eq!(of(&seen), ids[1..3]);
    assert_eq!(seen["pagination"], json!({"limit": 2, "offset": 1, "total": 5}));

    for offset in ["5", "6", "18446744073709551615"] {
        let seen = world.get(&format!("/resources?offset={offset}")).await;
        assert_eq!((seen.status, of(&seen.json()).len()), (StatusCode::OK, 0), "{offset}");
        assert_eq!(seen.json()["pagination"]["total"], 5);
    }
}

#[tokio::test]
async fn the_list_is_walked_by_cursor() {
    let world = World::new();
    let ids = five(&world).await;
    let (mut walked, mut path, mut pages) = (Vec::new(), "/resources?limit=2".to_owned(), 0);
    loop {
        let seen = world.get(&path).await.json();
        walked.extend(of(&seen));
        pages += 1;
        let Some(cursor) = seen["nextCursor"].as_str() else { break };
        path = format!("/resources?limit=2&cursor={cursor}");
    }
    assert_eq!((walked, pages), (ids, 3));
}

#[tokio::test]
async fn a_cursor_goes_on_where_its_resource_was() {
    let world = World::new();
    let ids = five(&world).await;
    let seen = world.get("/resources?limit=2").await;
    world.delete(&format!("/resources/{}", ids[1])).await;
    let seen = world.get(&format!("/resources?cursor={}", seen.text("nextCursor"))).await.json();
    assert_eq!(of(&seen), ids[2..]);
    assert_eq!(seen["pagination"], json!({"limit": 30, "offset": 1, "total": 4}));
}

#[tokio::test]
async fn parameters_of_the_query_are_refused_by_name() {
    let world = World::new();
    let id = world.orders().await;
    let refused = async |path: &str, words: &[&str]| {
        let seen: Seen = world.get(path).await;
        seen.is_problem(400, "bad-request", words);
    };
    refused("/resources?page=2", &["the query", "unknown field `page`"]).await;
    refused("/resources?limit=0", &["limit", "0 is not 1 to 100"]).await;
    refused("/resources?limit=101", &["limit", "101 is not 1 to 100"]).await;
    refused("/resources?limit=many", &["limit", "invalid digit"]).await;
    refused("/resources?offset=-1", &["offset", "invalid digit"]).await;
    refused("/resources?limit=1&limit=2", &["duplicate field `limit`"]).await;
    refused("/resources?cursor=a&offset=1", &["cursor or an offset"]).await;
    refused(&format!("/resources/{id}?verbose=1"), &["unknown field `verbose`"]).await;
    let seen = world.post("/resources?dry=1", orders()).await;
    seen.is_problem(400, "bad-request", &["unknown field `dry`"]);
}

async fn five(world: &World) -> Vec<String> {
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        let endpoint = format!("https://{name}.example/{{id}}");
        let seen = world.post("/resources", json!({"endpoint": endpoint, "change": {"field": "v"}})).await;
        ids.push(seen.text("id"));
        world.clock.advance(std::time::Duration::from_secs(1));
    }
    ids
}

fn of(list: &Value) -> Vec<String> {
    let resources = list["resources"].as_array().unwrap().iter();
    resources.map(|resource| resource["id"].as_str().unwrap().to_owned()).collect()
}
