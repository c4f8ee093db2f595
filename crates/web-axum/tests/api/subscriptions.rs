use std::time::Duration;

use evenkeel_flare::signing::Vault;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{World, hook};

#[tokio::test]
async fn a_created_subscription_is_where_its_location_says_without_its_secret() {
    let world = World::new();
    let resource = world.orders().await;
    let path = format!("/resources/{resource}/subscriptions");
    let created = world.post(&path, everything()).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    let location = created.header("location");
    assert_eq!(location, format!("{path}/{}", created.text("id")));
    assert_eq!(created.text("secret"), "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");

    let shown = world.get(location).await;
    assert_eq!(shown.status, StatusCode::OK);
    let mut expected = created.json();
    expected.as_object_mut().unwrap().remove("secret");
    assert_eq!(shown.json(), expected);
    let text = String::from_utf8(shown.body.to_vec()).unwrap();
    assert!(!text.contains("whsec_") && !text.contains("keys"), "{text}");
}

#[tokio::test]
async fn a_subscription_is_answered_as_it_was_asked_for() {
    let world = World::new();
    let resource = world.orders().await;
    let created = world.post(&format!("/resources/{resource}/subscriptions"), everything()).await.json();
    let asked = everything();
    for field in ["endpoint", "delivery", "content", "data", "filter"] {
        assert_eq!(created[field], asked[field], "{field}");
    }
    assert_eq!(created["resource"], json!(resource));
    assert_eq!(
        (&created["status"], &created["createdAt"]),
        (&json!("active"), &json!("2024-05-01T00:00:00Z"))
    );
}

#[tokio::test]
async fn what_is_not_said_has_its_default() {
    let world = World::new();
    let resource = world.orders().await;
    let created =
        world.post(&format!("/resources/{resource}/subscriptions"), hook("https://b.example/")).await;
    assert!(created.text("secret").starts_with("whsec_"));
    let created = created.json();
    assert_eq!(created["content"], json!({"document": true, "envelope": true}));
    assert_eq!(created["delivery"], json!({"mode": "push", "success": [200]}));
    for absent in ["data", "filter", "resumedAt"] {
        assert!(created.get(absent).is_none(), "{created}");
    }
}

#[tokio::test]
async fn a_second_subscription_of_the_same_url_is_refused_with_the_firsts_id() {
    let world = World::new();
    let path = format!("/resources/{}/subscriptions", world.orders().await);
    let id = world.post(&path, hook("https://b.example/")).await.text("id");
    world.post(&path, hook("https://b.example/")).await.is_problem(409, "already-exists", &[&id]);
}

#[tokio::test]
async fn a_subscription_that_breaks_a_rule_is_refused_by_field() {
    let world = World::new();
    let path = format!("/resources/{}/subscriptions", world.orders().await);
    let with = |pointer: &str, value: Value| {
        let mut body = everything();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[name] = value;
        body
    };
    for (body, words) in [
        (with("/endpoint/url", json!("https://b.example/{item}")), ["endpoint.url", "item"]),
        (with("/endpoint/method", json!("HEAD")), ["endpoint.method", "HEAD"]),
        (with("/delivery/success", json!([])), ["delivery.success", ""]),
        (with("/delivery/concurrency", json!(0)), ["delivery.concurrency", "0"]),
        (with("/delivery/retry/quantity", json!(0)), ["delivery.retry.quantity", "0"]),
        (with("/delivery/mode", json!("carry")), ["delivery.mode", "carry"]),
        (with("/delivery/retry/quantity", json!(-1)), ["delivery.retry.quantity", "-1"]),
        (with("/data/nested", json!({})), ["data", "flat array"]),
        (with("/filter/op", json!("like")), ["filter", "like"]),
        (with("/secret", json!("whsec_short")), ["secret", ""]),
        (with("/endpoint/actions/rename", json!({})), ["endpoint.actions", "rename"]),
        (with("/colour", json!(1)), ["unknown field", "colour"]),
    ] {
        let seen = world.post(&path, body).await;
        seen.is_problem(400, "bad-request", &words);
    }
    world.post(&path, json!({})).await.is_problem(400, "bad-request", &["missing field", "delivery"]);
}

#[tokio::test]
async fn the_list_of_subscriptions_is_cut() {
    let world = World::new();
    let resource = world.orders().await;
    let path = format!("/resources/{resource}/subscriptions");
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.puller(&resource).await);
        world.clock.advance(Duration::from_secs(1));
    }
    let of = |list: &Value| -> Vec<String> {
        let subscriptions = list["subscriptions"].as_array().unwrap().iter();
        subscriptions.map(|subscription| subscription["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = world.get(&format!("{path}?limit=2")).await;
    assert_eq!(of(&first.json()), ids[..2]);
    assert_eq!(first.json()["pagination"], json!({"limit": 2, "offset": 0, "total": 3}));
    let second = world.get(&format!("{path}?limit=2&cursor={}", first.text("nextCursor"))).await.json();
    assert_eq!((of(&second), second.get("nextCursor")), (ids[2..].to_vec(), None));
    assert_eq!(of(&world.get(&format!("{path}?offset=3")).await.json()), Vec::<String>::new());
}

#[tokio::test]
async fn a_subscription_of_another_resource_is_not_found() {
    let world = World::new();
    let resource = world.orders().await;
    let id = world.puller(&resource).await;
    let other = json!({"endpoint": "https://b.example/{id}", "change": {"field": "v"}});
    let other = world.post("/resources", other).await.text("id");
    let path = format!("/resources/{other}/subscriptions/{id}");
    world.get(&path).await.is_problem(404, "not-found", &[&other, &id]);
    world.delete(&path).await.is_problem(404, "not-found", &[&other, &id]);
    world.get(&format!("/resources/{resource}/subscriptions/17")).await.is_problem(404, "not-found", &["17"]);

    let path = format!("/resources/{resource}/subscriptions/{id}");
    assert_eq!(world.delete(&path).await.status, StatusCode::NO_CONTENT);
    world.get(&path).await.is_problem(404, "not-found", &[&id]);
}

#[tokio::test]
async fn a_subscription_is_paused_disabled_and_resumed() {
    let world = World::new();
    let resource = world.orders().await;
    let id = world.puller(&resource).await;
    world.clock.advance(Duration::from_secs(1));
    for (verb, status) in [("pause", "paused"), ("disable", "disabled"), ("resume", "active")] {
        let seen = world.call(Method::POST, &format!("/subscriptions/{id}/{verb}"), "").await;
        assert_eq!((seen.status, seen.text("status").as_str()), (StatusCode::OK, status));
        let shown = world.get(&format!("/resources/{resource}/subscriptions/{id}")).await;
        assert_eq!(shown.json(), seen.json());
    }
    let shown = world.get(&format!("/resources/{resource}/subscriptions/{id}")).await;
    assert_eq!(shown.text("resumedAt"), "2024-05-01T00:00:01Z");
    let seen = world.call(Method::POST, &format!("/subscriptions/{id}/recover"), "").await;
    assert_eq!(seen.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_secret_is_replaced_by_a_new_or_a_given_one() {
    let world = World::new();
    let resource = world.orders().await;
    let path = format!("/subscriptions/{}/rotate-secret", world.puller(&resource).await);
    for body in ["", "null", "{}"] {
        let made = world.call(Method::POST, &path, body).await;
        assert_eq!(made.status, StatusCode::OK, "{body:?}");
        assert!(made.text("secret").starts_with("whsec_"));
    }
    let given = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let seen = world.post(&path, json!({"secret": given, "graceSeconds": 60})).await;
    assert_eq!((seen.status, seen.text("secret").as_str()), (StatusCode::OK, given));
    world.post(&path, json!({"secret": "whsec_short"})).await.is_problem(400, "bad-request", &["secret"]);
    world.post(&path, json!({"grace": 1})).await.is_problem(400, "bad-request", &["grace"]);
}

#[tokio::test]
async fn every_verb_of_a_subscription_that_is_not_there_is_not_found() {
    let world = World::new();
    for verb in ["pause", "resume", "disable", "recover", "rotate-secret", "pull"] {
        let seen = world.call(Method::POST, &format!("/subscriptions/17/{verb}"), "").await;
        seen.is_problem(404, "not-found", &["no such subscription", "17"]);
    }
    for list in ["deliveries", "attempts", "told", "stats"] {
        let seen = world.get(&format!("/subscriptions/17/{list}")).await;
        seen.is_problem(404, "not-found", &["no such subscription", "17"]);
    }
    let since = json!({"since": "2024-05-01T12:00:00Z"});
    world.post("/subscriptions/17/replay", since).await.is_problem(404, "not-found", &["17"]);
}

/// A subscription that says everything that can be said.
fn everything() -> Value {
    json!({
        "endpoint": {
            "url": "https://b.example/{order}/{revision}",
            "method": "POST",
            "headers": {"x-order": "{order}"},
            "actions": {
                "create": {"method": "PUT"},
                "update": {"headers": {"x-revision": "{revision}"}},
                "delete": {"url": "https://b.example/gone/{order}", "method": "DELETE"},
            },
        },
        "delivery": {
            "mode": "push",
            "success": [200, 204],
            "discard": [404],
            "retry": {"interval": 1.5, "ttl": 60.0, "quantity": 5, "progression": "geometric", "ratio": 2.0},
            "concurrency": 4,
            "rate": 10.5,
        },
        "content": {"document": false, "envelope": true},
        "data": {"order": "{order}", "flags": [true, 1, "a"]},
        "filter": {"field": "status", "op": "eq", "value": "open"},
        "backfill": true,
        "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    })
}

#[tokio::test]
async fn a_test_message_is_answered_with_what_came_back() {
    let world = World::new();
    let orders = world.orders().await;
    for (host, outcome, status, error) in [
        ("200.example", "delivered", json!(200), json!(null)),
        ("503.example", "failed", json!(503), json!(null)),
        ("nowhere.example", "failed", json!(null), json!("dns")),
    ] {
        let new = hook(&format!("https://{host}/{{order}}"));
        let id = world.post(&format!("/resources/{orders}/subscriptions"), new).await.text("id");
        // Also while nothing else is sent.
        assert_eq!(world.post(&format!("/subscriptions/{id}/pause"), json!({})).await.status, 200);
        let seen = world.call(Method::POST, &format!("/subscriptions/{id}/ping"), "").await;
        let ping = seen.json();
        assert_eq!(seen.status, 200, "{seen:?}");
        assert_eq!(
            (&ping["outcome"], &ping["status"], &ping["error"]["kind"]),
            (&json!(outcome), &status, &error)
        );
        assert!(ping["id"].as_str().unwrap().starts_with("msg_") && ping["tookUs"].is_u64(), "{ping}");
        if status.is_u64() {
            let echoed: serde_json::Value = serde_json::from_str(ping["response"].as_str().unwrap()).unwrap();
            assert_eq!((&echoed["action"], &echoed["id"]), (&json!("ping"), &ping["id"]));
        }
        let attempts = world.get(&format!("/subscriptions/{id}/attempts")).await.json();
        assert_eq!(attempts["attempts"], json!([]), "a test is no attempt at a delivery");
    }
    let puller = world.puller(&orders).await;
    let seen = world.call(Method::POST, &format!("/subscriptions/{puller}/ping"), "").await;
    seen.is_problem(400, "bad-request", &["pull mode", &puller]);
    world.call(Method::POST, "/subscriptions/nonsense/ping", "").await.is_problem(
        404,
        "not-found",
        &["nonsense"],
    );
}

#[tokio::test]
async fn a_subscription_says_what_keeps_its_messages_from_being_made() {
    let key = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse().unwrap();
    let world = World::new();
    let orders = world.orders().await;
    let sealing = world.flare.clone().vault(Vault::new([key]).unwrap());
    let new = serde_json::from_value(hook("https://200.example/")).unwrap();
    let (broken, _) = sealing.subscribe(&orders, new).await.unwrap();
    let shown = world.get(&format!("/resources/{orders}/subscriptions/{}", broken.id)).await;
    assert!(shown.text("problem").contains("key: k1"), "{shown:?}");
    let listed = world.get(&format!("/resources/{orders}/subscriptions")).await.json();
    assert_eq!(listed["subscriptions"][0]["problem"], shown.json()["problem"]);
    world.call(Method::POST, &format!("/subscriptions/{}/ping", broken.id), "").await.is_problem(
        500,
        "failed",
        &[],
    );
}
