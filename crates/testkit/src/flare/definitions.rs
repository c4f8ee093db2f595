use evenkeel_core::{ErrorKind, Store, Transactional};
use evenkeel_flare::{Change, NewResource, Template};
use serde_json::json;

use super::bench::{Bench, Orders, at, kind, subscription};

super::cases![
    two_resources_cannot_have_the_same_documents,
    the_resource_of_a_document_is_the_most_literal,
    a_resource_with_subscriptions_is_not_deleted,
    a_deleted_resource_forgets_its_documents,
    two_subscriptions_of_a_resource_cannot_have_the_same_url,
    a_subscription_that_breaks_a_rule_is_refused_by_name,
    another_process_learns_of_a_subscription,
    many_may_subscribe_at_the_same_moment,
];

async fn two_resources_cannot_have_the_same_documents<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let again = |template: &str| NewResource {
        endpoint: Template::parse(template).unwrap(),
        change: Change::new("v", "").unwrap(),
    };
    let renamed = flare.create_resource(again("https://api.example.com/orders/{id}/")).await;
    assert_eq!(kind(renamed), ErrorKind::AlreadyExists);
    flare.create_resource(again("https://api.example.com/orders/{id}/items/{item}")).await.unwrap();
    flare.create_resource(again("http://api.example.com/orders/{id}")).await.unwrap();
    assert_eq!(flare.resources().await.unwrap().len(), 3);
    assert_eq!(flare.resource(&orders.id).await.unwrap(), orders);
    assert_eq!(kind(flare.resource("nonsense").await), ErrorKind::NotFound);
}

async fn the_resource_of_a_document_is_the_most_literal<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    flare.orders().await;
    let endpoint = Template::parse("https://api.example.com/{kind}/special").unwrap();
    let change = Change::new("other", "").unwrap();
    flare.create_resource(NewResource { endpoint, change }).await.unwrap();
    let publish = async |url: &str, content: &'static str| {
        let url = evenkeel_flare::DocumentUrl::parse(url).unwrap();
        let content = bytes::Bytes::from_static(content.as_bytes());
        flare.publish(&url, content, &Default::default()).await
    };
    publish("https://api.example.com/orders/special", r#"{"v": 1}"#).await.unwrap();
    publish("https://api.example.com/goods/special", r#"{"other": 1}"#).await.unwrap();
    assert_eq!(kind(publish("https://api.example.com/goods/17", "{}").await), ErrorKind::NotFound);
}

async fn a_resource_with_subscriptions_is_not_deleted<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let subscription = flare.subscribe_at("shop").await;
    assert_eq!(kind(flare.delete_resource(&subscription.resource).await), ErrorKind::Conflict);
    flare.unsubscribe(&subscription.id).await.unwrap();
    flare.delete_resource(&subscription.resource).await.unwrap();
    assert_eq!(kind(flare.delete_resource(&subscription.resource).await), ErrorKind::NotFound);
    assert_eq!(flare.resources().await.unwrap(), []);
}

async fn a_deleted_resource_forgets_its_documents<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let orders = flare.orders().await;
    for id in 0..60 {
        flare.publish_order(&id.to_string(), 9).await;
    }
    flare.delete_resource(&orders.id).await.unwrap();
    let _worker = bench.worker();
    let documents = async || {
        let mut count = 0;
        for at in evenkeel_core::StoreExt::partitions(&bench.store) {
            let scan = evenkeel_core::Scan::new("flare.document", orders.id.clone(), 100, bench.now());
            count += bench.store.scan(&at, scan).await.unwrap().records.len();
        }
        count
    };
    bench.until(async || documents().await == 0).await;
}

async fn two_subscriptions_of_a_resource_cannot_have_the_same_url<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let first = flare.subscribe_at("shop").await;
    let again = flare.subscribe(&first.resource, subscription(at("shop"))).await;
    assert_eq!(kind(again), ErrorKind::AlreadyExists);
    flare.subscribe_at("other").await;
    assert_eq!(flare.subscriptions(&first.resource).await.unwrap().len(), 2);

    flare.unsubscribe(&first.id).await.unwrap();
    assert_eq!(kind(flare.subscription(&first.id).await), ErrorKind::NotFound);
    flare.subscribe_at("shop").await;
}

async fn a_subscription_that_breaks_a_rule_is_refused_by_name<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let orders = flare.orders().await;
    for (path, value, named) in [
        ("/endpoint/url", json!(null), "endpoint.url"),
        ("/endpoint/url", json!("ftp://shop"), "ftp://shop"),
        ("/endpoint/url", json!("https://shop/{nobody}"), "nobody"),
        ("/endpoint/method", json!(null), "endpoint.method"),
        ("/endpoint/method", json!("BREW"), "BREW"),
        ("/endpoint/headers", json!({ "webhook-id": "x" }), "webhook-id"),
        ("/endpoint/headers", json!({ "x-a": "{nobody}" }), "nobody"),
        ("/delivery/success", json!([]), "delivery.success"),
        ("/delivery/success", json!([99]), "99"),
        ("/delivery/discard", json!([600]), "600"),
        ("/delivery/discard", json!([200]), "200"),
        ("/delivery/concurrency", json!(0), "delivery.concurrency"),
        ("/delivery/rate", json!(0.0), "delivery.rate"),
        ("/delivery/retry", json!({ "interval": -1.0, "quantity": 3 }), "delivery.retry.interval"),
        ("/secret", json!("whsec_short"), "secret"),
    ] {
        let mut new = json!({
            "endpoint": { "url": "https://shop/hook", "method": "POST", "headers": {} },
            "delivery": { "success": [200], "discard": [204], "concurrency": 1, "rate": 1.0, "retry": null },
            "secret": null,
        });
        *new.pointer_mut(path).unwrap() = value;
        let error = flare.subscribe(&orders.id, subscription(new)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(named), "{error} names {named}");
    }
    let bare = json!({
        "endpoint": { "url": "https://shop/hook", "method": "POST" },
        "delivery": { "success": [200] },
        "content": { "envelope": false },
        "data": { "order": "{order}" },
    });
    let error = flare.subscribe(&orders.id, subscription(bare)).await.unwrap_err();
    assert!(error.to_string().contains("data"), "{error}");
    assert_eq!(kind(flare.subscribe("nonsense", subscription(at("shop"))).await), ErrorKind::NotFound);
}

async fn another_process_learns_of_a_subscription<S: Transactional + Clone>(bench: Bench<S>) {
    let (here, there) = (bench.process(), bench.process());
    here.orders().await;
    let _worker = bench.worker_of(&there);
    // There, it is remembered that nobody subscribed.
    there.publish_order("16", 1).await;
    bench.pass(std::time::Duration::from_secs(1)).await;
    here.subscribe_at("shop").await;
    there.publish_order("17", 1).await;
    bench.until_received(1).await;
    assert_eq!(bench.sink.told(), ["create 1"]);
}

async fn many_may_subscribe_at_the_same_moment<S: Transactional + Clone>(bench: Bench<S>) {
    let (here, there) = (bench.process(), bench.process());
    let orders = here.orders().await;
    let subscribers = (0..8).map(|nth| {
        let flare = if nth % 2 == 0 { &here } else { &there };
        flare.subscribe(&orders.id, subscription(at(&format!("shop-{nth}"))))
    });
    for result in futures_util::future::join_all(subscribers).await {
        result.unwrap();
    }
    assert_eq!(here.subscriptions(&orders.id).await.unwrap().len(), 8);
}
