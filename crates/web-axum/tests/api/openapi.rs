use std::collections::BTreeSet;

use evenkeel_web_axum::openapi;
use http::StatusCode;
use serde_json::Value;

use crate::support::World;

#[tokio::test]
async fn the_document_is_served_as_it_is_made() {
    let world = World::new();
    let seen = world.get("/openapi.json").await;
    assert_eq!((seen.status, seen.header("content-type")), (StatusCode::OK, "application/json"));
    assert_eq!(seen.json(), serde_json::to_value(openapi::document()).unwrap());
    assert!(seen.text("openapi").starts_with("3.1."));
}

#[tokio::test]
async fn every_documented_operation_is_served() {
    let world = World::new();
    let document = world.get("/openapi.json").await.json();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let path = path.replace("{url}", "https://a.example/b").replace(['{', '}'], "");
            let seen = world.call(method.to_uppercase().parse().unwrap(), &path, "").await;
            assert_ne!(seen.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            let text = String::from_utf8_lossy(&seen.body);
            assert!(!text.contains("no such route"), "{method} {path}: {text}");
        }
    }
}

#[test]
fn the_document_is_whole() {
    let document = serde_json::to_value(openapi::document()).unwrap();
    let mut references = BTreeSet::new();
    collect(&document, &mut references);
    assert!(references.contains("#/components/schemas/Subscription"), "{references:?}");
    for reference in &references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in schemas.keys() {
        let reference = format!("#/components/schemas/{name}");
        assert!(references.contains(&reference), "nobody uses {name}");
    }
    let tags: Vec<_> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{place}: its id is another's");
            assert!(tags.contains(&&operation["tags"][0]), "{place}: {}", operation["tags"]);
            assert!(operation["summary"].is_string(), "{place}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.len() >= 2 && responses.contains_key("default"), "{place}");
            let wanted: BTreeSet<_> = path.split(['{', '}']).skip(1).step_by(2).collect();
            let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
            let of_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
            let found: BTreeSet<_> = of_path.map(|parameter| parameter["name"].as_str().unwrap()).collect();
            assert_eq!(found, wanted, "{place}");
        }
    }
}

#[test]
fn schemas_say_what_is_answered_and_taken() {
    let document = serde_json::to_value(openapi::document()).unwrap();
    let schema = |name: &str| &document["components"]["schemas"][name];
    assert_eq!(schema("Resource")["properties"]["createdAt"]["$ref"], "#/components/schemas/Time");
    assert_eq!(schema("Time")["format"], "date-time");
    let words = &schema("Subscription")["properties"]["status"]["enum"];
    assert_eq!(words, &serde_json::json!(["active", "paused", "disabled"]));
    let required = schema("NewSubscription")["required"].as_array().unwrap();
    assert_eq!(required, &["delivery"]);
    assert_eq!(schema("NewSubscription")["additionalProperties"], false);
}

#[tokio::test]
async fn the_page_loads_nothing_but_the_document() {
    let world = World::new();
    let seen = world.get("/docs").await;
    assert_eq!((seen.status, seen.header("content-type")), (StatusCode::OK, "text/html; charset=utf-8"));
    let page = String::from_utf8(seen.body.to_vec()).unwrap();
    assert!(page.contains("fetch(\"openapi.json\")"));
    for word in ["http://", "https://", "src=", "<link", "import"] {
        assert!(!page.contains(word), "the page has {word}");
    }
}

fn collect(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                references.insert(reference.clone());
            }
            members.values().for_each(|member| collect(member, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
