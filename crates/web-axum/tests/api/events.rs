use evenkeel_core::{ExpectStream, MemoryStore, NewEvent};
use evenkeel_idempotency::{Idempotency, Scope as Keys};
use evenkeel_web_axum::{IdempotencyLayer, projections, value};
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::support::{Seen, World, send};

/// Appends deposits of these amounts.
async fn deposit(world: &World, stream: &str, expect: Value, cents: &[i64]) -> Seen {
    world.post(&format!("/streams/{stream}/events"), deposits(&expect, cents)).await
}

fn deposits(expect: &Value, cents: &[i64]) -> Value {
    let deposit = |cents: &i64| json!({"kind": "Deposited", "payload": {"cents": cents}});
    json!({"expect": expect, "events": cents.iter().map(deposit).collect::<Vec<_>>()})
}

/// What the events of an answer deposit.
fn cents(seen: &Seen) -> Vec<i64> {
    let json = seen.json();
    let events = json["events"].as_array().unwrap_or_else(|| panic!("{seen:?}"));
    events.iter().map(|event| event["payload"]["cents"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn events_are_read_as_they_were_appended() {
    let world = World::new();
    let opened = json!({"kind": "Opened", "payload": {"owner": "ada"}, "metadata": {"tenant": "t1", "n": 7}});
    let new = json!({"expect": "noStream", "events": [opened, {"kind": "Closed"}]});
    let appended = world.post("/streams/account-7/events", new).await;
    let went_to = json!({"stream": "account-7", "partition": 0, "version": 1, "position": 1, "count": 2});
    assert_eq!((appended.status, appended.json()), (StatusCode::CREATED, went_to));

    let stream = world.get("/streams/account-7").await.json();
    assert_eq!(stream, json!({"name": "account-7", "version": 2, "partition": 0}));
    let read = world.get("/streams/account-7/events").await.json();
    let first = &read["events"][0];
    assert_eq!(
        *first,
        json!({
            "id": first["id"], "stream": "account-7", "version": 1, "position": 1, "kind": "Opened",
            "contentType": "application/json", "payload": {"owner": "ada"},
            "metadata": {"tenant": "t1", "n": 7}, "recordedAt": "2024-05-01T00:00:00Z",
        })
    );
    assert!(first["id"].is_string());
    assert_eq!((&read["events"][1]["payload"], &read["head"]), (&Value::Null, &json!(2)));
    assert_eq!((read["events"].as_array().unwrap().len(), read.get("next")), (2, None));
}

#[tokio::test]
async fn a_stream_is_read_in_parts_in_both_directions() {
    let world = World::new();
    deposit(&world, "a", json!("any"), &[1, 2, 3, 4, 5]).await;
    let part = async |query: &str| {
        let seen = world.get(&format!("/streams/a/events?{query}")).await;
        (cents(&seen), seen.json()["next"].as_u64())
    };
    assert_eq!(part("limit=2").await, (vec![1, 2], Some(3)));
    assert_eq!(part("limit=2&from=3").await, (vec![3, 4], Some(5)));
    assert_eq!(part("limit=2&from=5").await, (vec![5], None));
    assert_eq!(part("limit=2&backwards=true").await, (vec![5, 4], Some(3)));
    assert_eq!(part("limit=2&backwards=true&from=3").await, (vec![3, 2], Some(1)));
    assert_eq!(part("limit=2&backwards=true&from=1").await, (vec![1], None));

    let nothing = world.get("/streams/b/events").await.json();
    assert_eq!(nothing, json!({"events": [], "head": 0}));
    world.get("/streams/b").await.is_problem(404, "not-found", &["\"b\""]);
    for (query, word) in
        [("limit=0", "0 is not 1 to 100"), ("from=x", "invalid digit"), ("after=1", "`after`")]
    {
        world.get(&format!("/streams/a/events?{query}")).await.is_problem(400, "bad-request", &[word]);
    }
}

#[tokio::test]
async fn a_streams_name_may_have_what_paths_have_not() {
    let world = World::new();
    deposit(&world, "a%2Fb%20c", json!("any"), &[1]).await;
    assert_eq!(world.events.version("a/b c").await.unwrap(), 1);
    assert_eq!(cents(&world.get("/streams/a%2Fb%20c/events").await), [1]);
}

#[tokio::test]
async fn a_stream_that_is_not_as_expected_stays_as_it_is() {
    let world = World::new();
    deposit(&world, "a", json!("exists"), &[1]).await.is_problem(409, "conflict", &["version: 0"]);
    assert_eq!(deposit(&world, "a", json!(0), &[1]).await.status, StatusCode::CREATED);
    deposit(&world, "a", json!("noStream"), &[2]).await.is_problem(409, "conflict", &["\"a\"", "version: 1"]);
    deposit(&world, "a", json!(2), &[2]).await.is_problem(409, "conflict", &["version: 1"]);
    assert_eq!(deposit(&world, "a", json!(1), &[2]).await.json()["version"], 2);
    assert_eq!(deposit(&world, "a", json!("exists"), &[3]).await.json()["version"], 3);
    assert_eq!(deposit(&world, "a", json!("any"), &[4]).await.json()["version"], 4);
    assert_eq!(cents(&world.get("/streams/a/events").await), [1, 2, 3, 4]);
}

#[tokio::test]
async fn what_is_no_append_is_refused() {
    let world = World::new();
    for (body, words) in [
        (json!({"events": []}), ["at least one event", "a"]),
        (json!({"events": [{"kind": ""}]}), ["kind", "empty"]),
        (json!({"events": [{"kind": "evenkeel.stream-deleted"}]}), ["reserved", "stream-deleted"]),
        (json!({"events": [{"kind": "a", "type": "b"}]}), ["events[0]", "`type`"]),
        (json!({"events": [{"kind": "a", "metadata": {"x": []}}]}), ["metadata", "did not match"]),
        (json!({"events": [{"kind": "a"}], "expect": "nothing"}), ["expect", "noStream"]),
        (json!({"events": [{"kind": "a"}], "expect": -1}), ["expect", "version"]),
        (json!({"kind": "a"}), ["unknown field", "`kind`"]),
    ] {
        world.post("/streams/a/events", body).await.is_problem(400, "bad-request", &words);
    }
    let long = "s".repeat(513);
    deposit(&world, &long, json!("any"), &[1]).await.is_problem(400, "bad-request", &["stream"]);
    let large = json!({"events": [{"kind": "a", "payload": "x".repeat(400_000)}]});
    world.post("/streams/a/events", large).await.is_problem(413, "too-large", &[]);
    assert_eq!(world.events.version("a").await.unwrap(), 0);
}

#[tokio::test]
async fn a_deleted_stream_is_not_found() {
    let world = World::new();
    deposit(&world, "a", json!("any"), &[1]).await;
    world.events.delete("a").await.unwrap();
    world.get("/streams/a").await.is_problem(404, "not-found", &["\"a\""]);
    world.get("/streams/a/events").await.is_problem(404, "not-found", &["deleted"]);
    for expect in [json!("any"), json!(1), json!("noStream")] {
        deposit(&world, "a", expect, &[2]).await.is_problem(404, "not-found", &["deleted"]);
    }
}

#[tokio::test]
async fn a_log_has_the_events_of_all_streams_in_the_order_of_their_commits() {
    let world = World::new();
    deposit(&world, "a", json!("any"), &[1, 2]).await;
    deposit(&world, "b", json!("any"), &[3]).await;
    deposit(&world, "a", json!("any"), &[4]).await;
    let first = world.get("/log?limit=3").await;
    assert_eq!((cents(&first), &first.json()["next"]), (vec![1, 2, 3], &json!(4)));
    let rest = world.get("/log?partition=0&from=4").await;
    assert_eq!((cents(&rest), &rest.json()["head"], rest.json().get("next")), (vec![4], &json!(4), None));
    assert_eq!(cents(&world.get("/log?from=5").await), [0; 0]);
    world.get("/log?from=6").await.is_problem(409, "conflict", &["ends before"]);
    world.get("/log?partition=1").await.is_problem(400, "bad-request", &["partition: 1", "partitions: 1"]);
}

#[tokio::test]
async fn a_payload_that_is_no_json_is_text_or_base64() {
    let world = World::new();
    let mut new: Vec<_> = [&b"hello"[..], &[0xff, 0x00], b"{}"]
        .into_iter()
        .map(|payload| NewEvent::new("Said", payload.to_vec(), world.now()))
        .collect();
    new[2].content_type = "text/plain; charset=utf-8".into();
    world.events.append_new("a", ExpectStream::Any, new).await.unwrap();
    let events = world.get("/streams/a/events").await.json()["events"].clone();
    let payloads = |event: &Value| {
        let of = |name: &str| event.get(name).cloned().unwrap_or_default();
        (of("payload"), of("payloadText"), of("payloadBase64"))
    };
    assert_eq!(payloads(&events[0]), (Value::Null, json!("hello"), Value::Null));
    assert_eq!(payloads(&events[1]), (Value::Null, Value::Null, json!("/wA=")));
    assert_eq!(payloads(&events[2]), (Value::Null, json!("{}"), Value::Null));
}

/// As the service answers a retry where it was cut off before it could keep its answer: it does not
/// know the key.
async fn retry_of_what_was_cut_off(world: &World, path: &str, body: &Value) -> Seen {
    let keys = Idempotency::new(MemoryStore::new()).clock(world.clock.shared());
    let once = IdempotencyLayer::new(keys, value(Keys::Global));
    let api = projections::Api::new(world.store.clone()).clock(world.clock.shared());
    send(&api.idempotency(once).router(), keyed(path, body)).await
}

fn keyed(path: &str, body: &Value) -> Request<axum::body::Body> {
    Request::post(path).header("idempotency-key", "\"k\"").body(body.to_string().into()).unwrap()
}

#[tokio::test]
async fn events_with_an_idempotency_key_are_appended_once() {
    for (stream, expect) in
        [("a", json!("any")), ("b", json!("exists")), ("c", json!(1)), ("d", json!("noStream"))]
    {
        let world = World::new();
        if expect != "noStream" {
            deposit(&world, stream, json!("noStream"), &[1]).await;
        }
        let (path, body) = (format!("/streams/{stream}/events"), deposits(&expect, &[2, 3]));
        let first = world.send(keyed(&path, &body)).await;
        assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
        deposit(&world, stream, json!("any"), &[4]).await;

        let replayed = world.send(keyed(&path, &body)).await;
        assert_eq!((replayed.json(), replayed.header("idempotent-replayed")), (first.json(), "true"));
        let again = retry_of_what_was_cut_off(&world, &path, &body).await;
        assert_eq!((again.status, again.json()), (StatusCode::CREATED, first.json()));
        assert!(cents(&world.get(&path).await).ends_with(&[2, 3, 4]));
        let count = world.events.version(stream).await.unwrap();
        assert_eq!(count, if stream == "d" { 3 } else { 4 });
    }
}

#[tokio::test]
async fn a_retry_of_events_that_were_forgotten_says_so() {
    let world = World::new();
    let body = deposits(&json!("any"), &[1, 2]);
    world.send(keyed("/streams/a/events", &body)).await;
    deposit(&world, "a", json!("any"), &[3]).await;
    world.events.truncate("a", 3).await.unwrap();
    let again = retry_of_what_was_cut_off(&world, "/streams/a/events", &body).await;
    again.is_problem(410, "answer-not-stored", &["appended by an earlier attempt"]);
    assert_eq!(world.events.version("a").await.unwrap(), 3);
}

#[tokio::test]
async fn an_append_that_was_refused_can_be_sent_again_under_its_key() {
    let world = World::new();
    let body = deposits(&json!("exists"), &[2]);
    world.send(keyed("/streams/a/events", &body)).await.is_problem(409, "conflict", &["version: 0"]);
    deposit(&world, "a", json!("any"), &[1]).await;
    assert_eq!(world.send(keyed("/streams/a/events", &body)).await.status, StatusCode::CREATED);
    assert_eq!(cents(&world.get("/streams/a/events").await), [1, 2]);
}
