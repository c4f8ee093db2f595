use evenkeel_core::Transactional;
use evenkeel_flare::Published;
use evenkeel_flare::signing::{VerifyingKey, verify};
use serde_json::json;

use super::bench::{Bench, Orders, at, order, subscription};

super::cases![
    a_subscriber_is_told_of_what_becomes_of_a_document,
    the_newest_revision_is_told_not_each,
    every_subscriber_is_told_however_many_there_are,
    a_message_is_signed_for_its_subscriber,
    a_document_is_sent_byte_for_byte,
    each_message_has_the_values_of_its_own_document,
    a_document_outside_the_filter_is_not_told_of,
    a_new_subscriber_hears_of_what_there_is_only_if_it_asks,
    workers_share_the_work,
];

async fn a_subscriber_is_told_of_what_becomes_of_a_document<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    flare.subscribe_at("shop").await;
    let _worker = bench.worker();

    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    flare.publish_order("17", 2).await;
    bench.until_received(2).await;
    flare.delete_order("17").await;
    bench.until_received(3).await;
    flare.publish_order("17", 3).await;
    bench.until_received(4).await;

    assert_eq!(bench.sink.told(), ["create 1", "update 2", "delete 2", "create 3"]);
    let messages = bench.sink.received();
    assert_eq!(messages[0].json()["document"], json!({ "v": 1, "id": "17" }));
    assert_eq!(messages[2].json().get("document"), None);
    let ids: std::collections::HashSet<_> = messages.iter().map(|message| message.id().to_owned()).collect();
    assert_eq!(ids.len(), 4, "each message has an id of its own");
}

async fn the_newest_revision_is_told_not_each<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    flare.subscribe_at("shop").await;
    for v in 1..=9 {
        flare.publish_order("17", v).await;
    }
    let _worker = bench.worker();
    bench.until_received(1).await;
    bench.pass(std::time::Duration::from_secs(10)).await;
    assert_eq!(bench.sink.told(), ["create 9"]);
}

async fn every_subscriber_is_told_however_many_there_are<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    // More than one commit, and more than one page, can hold.
    for subscriber in 0..90 {
        flare.subscribe_at(&format!("shop-{subscriber}")).await;
    }
    let _worker = bench.worker();
    flare.publish_order("17", 1).await;
    let messages = bench.until_received(90).await;
    let mut hosts: Vec<_> = messages.iter().map(|message| message.0.uri.host().unwrap().to_owned()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    assert_eq!(hosts.len(), 90);
}

async fn a_message_is_signed_for_its_subscriber<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let (_, secret) = flare.subscribe(&orders.id, subscription(at("shop"))).await.unwrap();
    let _worker = bench.worker();
    flare.publish_order("17", 1).await;
    let message = &bench.until_received(1).await[0].0;
    let verified = verify(&message.headers, &message.body, &[secret.verifying_key()], bench.now()).unwrap();
    assert!(verified.id.starts_with("msg_"), "{}", verified.id);
    let other: [VerifyingKey; 1] = [evenkeel_flare::signing::Secret::generate().verifying_key()];
    assert!(verify(&message.headers, &message.body, &other, bench.now()).is_err());
}

async fn a_document_is_sent_byte_for_byte<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let mut bare = at("shop");
    bare["content"] = json!({ "envelope": false });
    flare.subscribe(&orders.id, subscription(bare)).await.unwrap();
    let _worker = bench.worker();

    let content = bytes::Bytes::from_static(b"\n { \"v\" :7,\t\"x\": 1.0e0 } \n");
    let published = flare.publish(&order("17"), content.clone(), &Default::default()).await.unwrap();
    assert!(matches!(published, Published::Created(_)));
    let messages = bench.until_received(1).await;
    assert_eq!(messages[0].0.body, content);
    assert_eq!(messages[0].header("content-type"), "application/json");
    assert_eq!(flare.document(&order("17")).await.unwrap().unwrap().content, Some(content));
}

async fn each_message_has_the_values_of_its_own_document<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let new = subscription(json!({
        "endpoint": {
            "url": "https://shop/orders/{order}?at={revision}",
            "method": "POST",
            "headers": { "X-Order": "no {order}" },
            "actions": { "delete": { "method": "DELETE", "headers": {} } },
        },
        "delivery": { "success": [200], "discard": [] },
        "data": { "order": "{order}", "revision": "r{revision}", "fixed": 7, "list": ["{order}", true] },
    }));
    flare.subscribe(&orders.id, new).await.unwrap();
    let _worker = bench.worker();
    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    flare.publish_order("18", 5).await;
    bench.until_received(2).await;
    flare.delete_order("17").await;
    let messages = bench.until_received(3).await;

    let shown: Vec<_> = messages
        .iter()
        .map(|message| format!("{} {} {}", message.0.method, message.0.uri, message.header("x-order")))
        .collect();
    assert_eq!(
        shown,
        [
            "POST https://shop/orders/17?at=1 no 17",
            "POST https://shop/orders/18?at=5 no 18",
            "DELETE https://shop/orders/17?at=1 ",
        ]
    );
    let data = json!({ "order": "18", "revision": "r5", "fixed": 7, "list": ["18", true] });
    assert_eq!(messages[1].json()["data"], data);
}

async fn a_document_outside_the_filter_is_not_told_of<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let mut odd = at("shop");
    odd["filter"] = json!({ "field": "v", "op": "ge", "value": 5 });
    flare.subscribe(&orders.id, subscription(odd)).await.unwrap();
    let _worker = bench.worker();
    flare.publish_order("17", 1).await;
    flare.publish_order("18", 6).await;
    bench.until_received(1).await;
    flare.publish_order("17", 7).await;
    bench.until_received(2).await;
    bench.pass(std::time::Duration::from_secs(5)).await;
    assert_eq!(bench.sink.told(), ["create 6", "create 7"]);
}

async fn a_new_subscriber_hears_of_what_there_is_only_if_it_asks<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let orders = flare.orders().await;
    // More than a page of them, and one that is gone.
    for id in 0..50 {
        flare.publish_order(&id.to_string(), 1).await;
    }
    flare.delete_order("7").await;
    let _worker = bench.worker();
    bench.pass(std::time::Duration::from_secs(2)).await;
    flare.subscribe_at("indifferent").await;
    let mut curious = at("curious");
    curious["backfill"] = json!(true);
    flare.subscribe(&orders.id, subscription(curious)).await.unwrap();
    bench.until_received(49).await;
    bench.pass(std::time::Duration::from_secs(5)).await;
    let messages = bench.sink.received();
    assert_eq!(messages.len(), 49);
    assert!(
        messages
            .iter()
            .all(|message| message.0.uri.host() == Some("curious") && message.told() == "create 1")
    );
}

async fn workers_share_the_work<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    for subscriber in 0..3 {
        flare.subscribe_at(&format!("shop-{subscriber}")).await;
    }
    let _workers = [bench.worker(), bench.worker(), bench.worker()];
    for id in 0..10 {
        flare.publish_order(&id.to_string(), 1).await;
    }
    bench.until_received(30).await;
    bench.pass(std::time::Duration::from_secs(40)).await;
    assert_eq!(bench.sink.received().len(), 30, "nothing is sent twice while nobody dies");
}
