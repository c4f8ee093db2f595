use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use evenkeel_flare::net::{Outgoing, Reply, SendError, Transport};
use http::StatusCode;
use serde_json::{Value, json};

use crate::pulling::pull;
use crate::support::{World, hook};

fn document(order: u32) -> String {
    format!("https://api.example.com/orders/{order}")
}

/// A world where some orders were published to one who fetches messages; its subscription.
async fn with_orders(orders: u32) -> (World, String) {
    let world = World::new();
    let resource = world.orders().await;
    let id = world.puller(&resource).await;
    for order in 0..orders {
        world.put(&format!("/documents/{}", document(order)), r#"{"version": 1}"#).await;
    }
    (world, id)
}

/// Takes the messages that there are, one after the other.
async fn take(world: &World, id: &str) {
    for message in pull(world, id).await.json()["messages"].as_array().unwrap() {
        world.clock.advance(Duration::from_secs(1));
        let receipt = json!({"receipt": message["receipt"]});
        assert_eq!(
            world.post(&format!("/subscriptions/{id}/ack"), receipt).await.status,
            StatusCode::NO_CONTENT
        );
    }
}

/// Every page of a list, two items at a time.
async fn walk(world: &World, path: &str, name: &str) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("{path}?limit=2{cursor}")).await.json();
        let found = page[name].as_array().unwrap();
        assert!(found.len() <= 2, "{page}");
        items.extend(found.iter().cloned());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

fn urls(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["url"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn deliveries_are_listed_by_state_and_walked_by_cursor() {
    let (world, id) = with_orders(5).await;
    let path = format!("/subscriptions/{id}/deliveries");
    let all = walk(&world, &path, "deliveries").await;
    let mut found = urls(&all);
    found.sort_unstable();
    assert_eq!(found, (0..5).map(document).collect::<Vec<_>>());
    assert_eq!(all[0]["state"], "pending");
    assert_eq!((&all[0]["due"], &all[0]["attempt"]), (&json!("2024-05-01T00:00:00Z"), &json!(0)));

    world.post(&format!("/subscriptions/{id}/pull"), json!({"max": 2})).await;
    let of = async |state: &str| {
        let seen = world.get(&format!("{path}?state={state}")).await;
        seen.json()["deliveries"].as_array().unwrap().len()
    };
    assert_eq!((of("pending").await, of("under_way").await), (3, 2));
    assert_eq!((of("retrying").await, of("exhausted").await), (0, 0));
    world.get(&format!("{path}?state=lost")).await.is_problem(400, "bad-request", &["state", "lost"]);
    world.get(&format!("{path}?offset=1")).await.is_problem(400, "bad-request", &["offset"]);
}

#[tokio::test]
async fn attempts_are_listed_the_latest_first() {
    let (world, id) = with_orders(3).await;
    take(&world, &id).await;
    let path = format!("/subscriptions/{id}/attempts");
    let all = walk(&world, &path, "attempts").await;
    let times: Vec<_> = all.iter().map(|attempt| attempt["at"].as_str().unwrap()).collect();
    assert_eq!(times, ["2024-05-01T00:00:03Z", "2024-05-01T00:00:02Z", "2024-05-01T00:00:01Z"]);
    let latest = &all[0];
    assert_eq!((&latest["outcome"], &latest["action"]), (&json!("delivered"), &json!("create")));
    assert_eq!((&latest["revision"], &latest["tries"]), (&json!(1), &json!(1)));
    assert!(latest["message"].is_string() && latest["tookUs"].is_number(), "{latest}");

    let of = async |filter: &str| world.get(&format!("{path}?{filter}")).await.json()["attempts"].clone();
    assert_eq!(of("outcome=failed").await, json!([]));
    let url = latest["url"].as_str().unwrap();
    assert_eq!(of(&format!("outcome=delivered&url={url}")).await, json!([latest]));
    world.get(&format!("{path}?outcome=odd")).await.is_problem(400, "bad-request", &["outcome", "odd"]);
    world.get(&format!("{path}?url=odd")).await.is_problem(400, "bad-request", &["url", "odd"]);
}

#[tokio::test]
async fn what_was_told_is_listed_and_found_by_document() {
    let (world, id) = with_orders(3).await;
    take(&world, &id).await;
    let path = format!("/subscriptions/{id}/told");
    let all = walk(&world, &path, "told").await;
    let mut found = urls(&all);
    found.sort_unstable();
    assert_eq!(found, (0..3).map(document).collect::<Vec<_>>());

    let one = world.get(&format!("{path}?url={}", document(1))).await.json();
    let told = &one["told"][0];
    assert_eq!((&told["url"], &told["again"]), (&json!(document(1)), &json!(false)));
    assert_eq!((&told["last"]["revision"], &told["last"]["action"]), (&json!(1), &json!("create")));
    assert!(told["last"]["at"].is_string() && told["last"]["status"].is_number(), "{told}");
    assert_eq!(world.get(&format!("{path}?url={}", document(9))).await.json(), json!({"told": []}));
    world.get(&format!("{path}?url=a&cursor=b")).await.is_problem(400, "bad-request", &["not both"]);
}

#[tokio::test]
async fn a_message_is_told_once_more_with_the_same_id() {
    let (world, id) = with_orders(1).await;
    let path = format!("/subscriptions/{id}/replay");
    let refused = world.post(&path, json!({"url": document(0)})).await;
    refused.is_problem(404, "not-found", &["told nothing", &document(0)]);

    let first = pull(&world, &id).await.json()["messages"][0].clone();
    world.post(&format!("/subscriptions/{id}/ack"), json!({"receipt": first["receipt"]})).await;
    assert_eq!(world.post(&path, json!({"url": document(0)})).await.status, StatusCode::ACCEPTED);
    let again = pull(&world, &id).await.json()["messages"][0].clone();
    assert_eq!((&again["id"], &again["body"]), (&first["id"], &first["body"]));

    let since = json!({"since": "2024-05-01T00:00:00+00:00"});
    assert_eq!(world.post(&path, since).await.status, StatusCode::ACCEPTED);
    for (body, word) in [
        (json!({}), "one of the two"),
        (json!({"url": document(0), "since": "2024-05-01T00:00:00Z"}), "one of the two"),
        (json!({"since": "yesterday"}), "yesterday"),
        (json!({"since": "2024-05-01T12:00:00+02:00[Europe/Berlin]"}), "RFC 3339"),
        (json!({"url": "odd"}), "odd"),
    ] {
        world.post(&path, body).await.is_problem(400, "bad-request", &[word]);
    }
}

#[tokio::test]
async fn the_stats_count_by_state() {
    let (world, id) = with_orders(3).await;
    world.post(&format!("/subscriptions/{id}/pull"), json!({"max": 1})).await;
    let expected = json!({
        "status": "active",
        "deliveries": {"pending": 2, "underWay": 1, "retrying": 0, "exhausted": 0, "isCapped": false},
    });
    assert_eq!(world.get(&format!("/subscriptions/{id}/stats")).await.json(), expected);
}

/// Answers with a status that can be changed.
#[derive(Debug)]
struct Sink(AtomicU16);

#[async_trait::async_trait]
impl Transport for Sink {
    async fn send(&self, _: Outgoing) -> Result<Reply, SendError> {
        let status = self.0.load(Ordering::SeqCst);
        Ok(Reply { status, retry_after: None, body: "gone fishing".into(), took: Duration::from_millis(3) })
    }
}

#[tokio::test]
async fn a_subscriber_that_is_gone_is_seen_in_notices_stats_and_attempts() {
    let world = World::new();
    let resource = world.orders().await;
    let path = format!("/resources/{resource}/subscriptions");
    let id = world.post(&path, hook("https://b.example/")).await.text("id");
    world.put(&format!("/documents/{}", document(1)), r#"{"version": 1}"#).await;
    let worker = tokio::spawn(world.flare.worker(Sink(AtomicU16::new(410))).run(std::future::pending()));
    let notices = loop {
        let notices = world.get("/notices").await.json();
        if notices["notices"] != json!([]) {
            break notices;
        }
        tokio::task::yield_now().await;
    };
    worker.abort();

    let notice = &notices["notices"][0];
    assert_eq!((&notice["kind"], &notice["subscription"]), (&json!("disabled"), &json!(id)));
    assert!(notice["at"].is_string() && notice["message"].is_string(), "{notice}");
    assert!(notices.get("nextCursor").is_none());
    let stats = world.get(&format!("/subscriptions/{id}/stats")).await.json();
    assert_eq!(stats["status"], "disabled");
    let attempts = world.get(&format!("/subscriptions/{id}/attempts")).await.json();
    let attempt = &attempts["attempts"][0];
    assert_eq!((&attempt["status"], &attempt["response"]), (&json!(410), &json!("gone fishing")));
    world.get("/notices?since=1").await.is_problem(400, "bad-request", &["since"]);
}
