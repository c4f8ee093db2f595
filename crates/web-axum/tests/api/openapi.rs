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
fn the_document_keeps_the_rules_of_openapi() {
    let document = serde_json::to_value(openapi::document()).unwrap();
    for text in ["/info/title", "/info/version"] {
        assert!(document.pointer(text).is_some_and(Value::is_string), "{text}");
    }
    let known = document["components"]["securitySchemes"].as_object().unwrap();
    for scheme in known.values() {
        assert!(scheme["type"] == "http" && scheme["scheme"].is_string(), "{scheme}");
    }
    for (path, item) in members(&document["paths"]) {
        assert!(path.starts_with('/'), "{path}");
        for (method, operation) in members(item) {
            let place = format!("{method} {path}");
            assert!(["get", "put", "post", "delete"].contains(&method.as_str()), "{place}");
            let mut seen = BTreeSet::new();
            for parameter in items(&operation["parameters"]) {
                let (name, within) = (&parameter["name"], &parameter["in"]);
                assert!(
                    seen.insert((name.to_string(), within.to_string())),
                    "{place}: {name} is there twice"
                );
                assert!(["path", "query", "header"].iter().any(|known| within == known), "{place}: {name}");
                assert!(parameter["schema"].is_object(), "{place}: {name} has no schema");
                assert!(within != "path" || parameter["required"] == true, "{place}: {name} is not required");
            }
            for (status, response) in members(&operation["responses"]) {
                let is_status = status.parse().is_ok_and(|status: u16| (100..600).contains(&status));
                assert!(is_status || status == "default", "{place}: {status}");
                let described =
                    |response: &Value| response["description"].as_str().is_some_and(|it| !it.is_empty());
                assert!(
                    response["$ref"].is_string() || described(response),
                    "{place}: {status} has no description"
                );
                check_content(&place, &response["content"]);
            }
            let body = &operation["requestBody"];
            assert!(
                body.is_null() || !members(&body["content"]).is_empty(),
                "{place}: a body without a type"
            );
            check_content(&place, &body["content"]);
            for requirement in items(&operation["security"]) {
                for (scheme, _) in members(requirement) {
                    assert!(known.contains_key(scheme), "{place}: {scheme}");
                }
            }
        }
    }
    for (name, response) in members(&document["components"]["responses"]) {
        assert!(response["description"].is_string(), "{name}");
        check_content(name, &response["content"]);
    }
    for (name, schema) in members(&document["components"]["schemas"]) {
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)), "{name}");
        check_schema(name, schema);
    }
}

fn check_content(place: &str, content: &Value) {
    for (media_type, content) in members(content) {
        assert!(media_type.contains('/'), "{place}: {media_type}");
        assert!(content["schema"].is_object(), "{place}: {media_type} has no schema");
        check_schema(place, &content["schema"]);
    }
}

/// What JSON Schema 2020-12 says of the keywords that are used; another one is an error.
fn check_schema(place: &str, schema: &Value) {
    let types = ["null", "boolean", "object", "array", "number", "string", "integer"];
    for (keyword, value) in members(schema) {
        let is_right = match keyword.as_str() {
            "type" => value
                .as_array()
                .map_or_else(|| std::slice::from_ref(value), Vec::as_slice)
                .iter()
                .all(|name| types.iter().any(|known| name == known)),
            "$ref" | "description" | "title" | "format" => value.is_string(),
            "enum" => !items(value).is_empty(),
            "required" => {
                items(value).iter().all(|name| schema["properties"].get(name.as_str().unwrap()).is_some())
            }
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.is_number(),
            "minItems" | "maxItems" | "minLength" | "maxLength" => value.is_u64(),
            "properties" => {
                members(value)
                    .iter()
                    .for_each(|(name, schema)| check_schema(&format!("{place}.{name}"), schema));
                value.is_object()
            }
            "items" | "additionalProperties" | "propertyNames" => {
                check_schema(place, value);
                value.is_object() || value.is_boolean()
            }
            "oneOf" | "anyOf" | "allOf" => {
                items(value).iter().for_each(|schema| check_schema(place, schema));
                !items(value).is_empty()
            }
            "default" | "example" | "examples" | "const" => true,
            _ => false,
        };
        assert!(is_right, "{place}: {keyword}: {value}");
    }
}

fn members(value: &Value) -> Vec<(&String, &Value)> {
    value.as_object().into_iter().flatten().collect()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
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
