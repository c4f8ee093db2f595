use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::support::{Seen, World, hook, orders};

async fn post(world: &World, path: &str, key: &str, body: &Value) -> Seen {
    let request = Request::post(path).header("idempotency-key", format!("{key:?}"));
    world.send(request.body(body.to_string().into()).unwrap()).await
}

#[tokio::test]
async fn a_retry_with_the_same_key_gets_the_same_answer() {
    let world = World::new();
    let first = post(&world, "/resources", "a", &orders()).await;
    let second = post(&world, "/resources", "a", &orders()).await;
    assert_eq!((second.status, &second.body), (StatusCode::CREATED, &first.body));
    assert_eq!(second.header("location"), first.header("location"));
    assert_eq!(second.header("idempotent-replayed"), "true");
    post(&world, "/resources", "b", &orders()).await.is_problem(409, "already-exists", &[]);
    post(&world, "/resources", "a", &json!({})).await.is_problem(422, "payload-mismatch", &[]);
}

#[tokio::test]
async fn a_secret_is_answered_once_and_kept_nowhere_in_clear() {
    let world = World::new();
    let resource = world.orders().await;
    let path = format!("/resources/{resource}/subscriptions");
    let body = json!({"delivery": {"mode": "pull"}});
    let first = post(&world, &path, "a", &body).await;
    assert_eq!((first.status, first.header("idempotent-stored")), (StatusCode::CREATED, "false"));
    post(&world, &path, "a", &body).await.is_problem(410, "answer-not-stored", &[]);
    let list = world.get(&path).await.json();
    assert_eq!(list["subscriptions"].as_array().unwrap().len(), 1, "{list}");

    let path = format!("/subscriptions/{}/rotate-secret", first.text("id"));
    assert!(post(&world, &path, "b", &json!({})).await.text("secret").starts_with("whsec_"));
    post(&world, &path, "b", &json!({})).await.is_problem(410, "answer-not-stored", &[]);
}

#[tokio::test]
async fn a_subscription_that_was_refused_can_be_corrected_under_the_same_key() {
    let world = World::new();
    let resource = world.orders().await;
    let path = format!("/resources/{resource}/subscriptions");
    let broken = hook("https://b.example/{nothing}");
    post(&world, &path, "a", &broken).await.is_problem(400, "bad-request", &["nothing"]);
    post(&world, &path, "a", &broken).await.is_problem(400, "bad-request", &["nothing"]);
}
