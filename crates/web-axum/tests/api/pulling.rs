use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Seen, World, hook};

const DOCUMENT: &str = "/documents/https://api.example.com/orders/17";

#[tokio::test]
async fn a_message_is_fetched_and_acknowledged() {
    let world = World::new();
    let resource = world.orders().await;
    let id = world.puller(&resource).await;
    world.put(DOCUMENT, r#"{"version": 7}"#).await;

    let message = one(&pull(&world, &id).await);
    assert_eq!((&message["action"], &message["revision"]), (&json!("create"), &json!(7)));
    assert_eq!(message["url"], "https://api.example.com/orders/17");
    assert_eq!((&message["attempt"], &message["until"]), (&json!(1), &json!("2024-05-01T00:00:30Z")));
    assert_eq!(
        (&message["body"]["id"], &message["body"]["document"]),
        (&message["id"], &json!({"version": 7}))
    );
    assert_eq!(pull(&world, &id).await.json(), json!({"messages": []}));

    let receipt = json!({"receipt": message["receipt"]});
    let acknowledged = world.post(&format!("/subscriptions/{id}/ack"), receipt.clone()).await;
    assert_eq!((acknowledged.status, acknowledged.body.len()), (StatusCode::NO_CONTENT, 0));
    let seen = world.post(&format!("/subscriptions/{id}/ack"), receipt).await;
    seen.is_problem(409, "lease-lost", &["held for too long"]);
    world.clock.advance(Duration::from_secs(3600));
    assert_eq!(pull(&world, &id).await.json(), json!({"messages": []}));
}

#[tokio::test]
async fn a_message_without_an_envelope_is_the_document_byte_for_byte() {
    let world = World::new();
    let resource = world.orders().await;
    let body = json!({"delivery": {"mode": "pull"}, "content": {"envelope": false}});
    let id = world.post(&format!("/resources/{resource}/subscriptions"), body).await.text("id");
    let content = r#"{ "version" : 7, "price": 1.50 }"#;
    world.put(DOCUMENT, content).await;
    let seen = pull(&world, &id).await;
    let text = String::from_utf8(seen.body.to_vec()).unwrap();
    assert!(text.contains(&format!("\"body\":{content}")), "{text}");
}

#[tokio::test]
async fn a_message_is_given_back_at_once_or_after_a_delay() {
    let world = World::new();
    let resource = world.orders().await;
    let id = world.puller(&resource).await;
    world.put(DOCUMENT, r#"{"version": 7}"#).await;
    let release = async |message: &Value, delay: Option<u64>| {
        let mut body = json!({"receipt": message["receipt"]});
        if let Some(delay) = delay {
            body["delaySeconds"] = delay.into();
        }
        world.post(&format!("/subscriptions/{id}/release"), body).await
    };
    let first = one(&pull(&world, &id).await);
    assert_eq!(release(&first, None).await.status, StatusCode::NO_CONTENT);
    let second = one(&pull(&world, &id).await);
    assert_eq!((&second["id"], &second["attempt"]), (&first["id"], &json!(2)));
    release(&first, None).await.is_problem(409, "lease-lost", &[]);

    assert_eq!(release(&second, Some(60)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(pull(&world, &id).await.json(), json!({"messages": []}));
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(one(&pull(&world, &id).await)["attempt"], 3);
}

#[tokio::test]
async fn how_many_and_how_long_are_checked() {
    let world = World::new();
    let resource = world.orders().await;
    let id = world.puller(&resource).await;
    let path = format!("/subscriptions/{id}/pull");
    for order in 0..3 {
        world.put(&format!("/documents/https://api.example.com/orders/{order}"), r#"{"version": 1}"#).await;
    }
    let seen = world.post(&path, json!({"max": 2, "holdSeconds": 5})).await;
    assert_eq!(seen.json()["messages"].as_array().unwrap().len(), 2);
    assert_eq!(seen.json()["messages"][0]["until"], "2024-05-01T00:00:05Z");

    for (body, words) in [
        (json!({"max": 0}), ["max", "0"]),
        (json!({"max": 41}), ["max", "41"]),
        (json!({"holdSeconds": 0}), ["hold", "0"]),
        (json!({"holdSeconds": 43201}), ["hold", "43201"]),
        (json!({"hold": 1}), ["unknown field", "hold"]),
    ] {
        world.post(&path, body).await.is_problem(400, "bad-request", &words);
    }
    for path in ["ack", "release"] {
        let seen = world.post(&format!("/subscriptions/{id}/{path}"), json!({"receipt": "none"})).await;
        seen.is_problem(400, "bad-request", &["receipt", "none"]);
    }
}

#[tokio::test]
async fn a_subscription_that_is_sent_its_messages_has_none_to_fetch() {
    let world = World::new();
    let resource = world.orders().await;
    let path = format!("/resources/{resource}/subscriptions");
    let id = world.post(&path, hook("https://b.example/")).await.text("id");
    pull(&world, &id).await.is_problem(400, "bad-request", &["not in pull mode", &id]);
}

pub(crate) async fn pull(world: &World, id: &str) -> Seen {
    world.call(Method::POST, &format!("/subscriptions/{id}/pull"), "").await
}

fn one(seen: &Seen) -> Value {
    let json = seen.json();
    let messages = json["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 1, "{json}");
    messages[0].clone()
}
