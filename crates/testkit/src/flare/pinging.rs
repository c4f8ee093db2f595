use std::time::Duration;

use evenkeel_core::{ErrorKind, Transactional};
use evenkeel_flare::net::SendError;
use evenkeel_flare::signing::verify;
use evenkeel_flare::{AttemptFilter, Outcome, Status};
use serde_json::json;

use super::bench::{Bench, Orders, Slow, at, kind, order, reply, subscription};

super::cases![
    a_test_message_is_signed_and_says_that_it_is_one,
    a_test_message_says_what_came_back,
    a_test_message_is_no_attempt_at_a_delivery,
    a_subscription_that_is_not_active_can_be_tested,
    a_subscription_that_fetches_its_messages_is_not_sent_a_test,
];

async fn a_test_message_is_signed_and_says_that_it_is_one<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let new = subscription(json!({
        "endpoint": {
            "url": "https://shop/orders/{order}?at={revision}",
            "method": "PATCH",
            "headers": { "X-Order": "{order}" },
            "actions": { "delete": { "method": "DELETE" } },
        },
        "delivery": { "success": [200] },
        "data": { "order": "{order}" },
    }));
    let (shop, secret) = flare.subscribe(&orders.id, new).await.unwrap();
    let first = flare.ping(&shop.id, &bench.sink).await.unwrap();
    let second = flare.ping(&shop.id, &bench.sink).await.unwrap();
    assert_ne!(first.id, second.id, "each is a message of its own");

    let message = &bench.sink.received()[0];
    let request = &message.0;
    let seen = format!("{} {} {}", request.method, request.uri, message.header("x-order"));
    assert_eq!(seen, "PATCH https://shop/orders/ping?at=0 ping");
    let verified = verify(&request.headers, &request.body, &[secret.verifying_key()], bench.now()).unwrap();
    assert_eq!(verified.id, first.id);
    let json = message.json();
    assert_eq!(
        (&json["id"], &json["action"], &json["revision"], &json["data"], json.get("document")),
        (&json!(first.id), &json!("ping"), &json!(0), &json!({ "order": "ping" }), None)
    );

    let mut bare = at("bare");
    bare["content"] = json!({ "envelope": false });
    let (bare, _) = flare.subscribe(&orders.id, subscription(bare)).await.unwrap();
    flare.ping(&bare.id, &bench.sink).await.unwrap();
    assert_eq!(bench.sink.received()[2].0.body, "");
}

async fn a_test_message_says_what_came_back<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    for (status, outcome) in
        [(200, Outcome::Delivered), (204, Outcome::Discarded), (500, Outcome::Failed), (410, Outcome::Failed)]
    {
        bench
            .sink
            .answer_with(move |_| Ok(evenkeel_flare::net::Reply { body: "so".into(), ..reply(status) }));
        let ping = flare.ping(&shop.id, &bench.sink).await.unwrap();
        assert_eq!((ping.outcome, ping.status, ping.response.as_str()), (outcome, Some(status), "so"));
        assert_eq!(ping.error, None);
    }
    bench.sink.answer_with(|_| Err(SendError::Dns { host: "shop".into(), reason: "no such host".into() }));
    let ping = flare.ping(&shop.id, &bench.sink).await.unwrap();
    assert_eq!((ping.outcome, ping.status), (Outcome::Failed, None));
    assert_eq!(ping.error.unwrap().kind, "dns");

    for (takes, status) in [(Duration::from_secs(7), Some(200)), (Duration::from_secs(3600), None)] {
        let slow = Slow::new(bench.clock.shared(), takes);
        let (flare, shop) = (flare.clone(), shop.id.clone());
        let ping = tokio::spawn(async move { flare.ping(&shop, &slow).await });
        bench.until(async || ping.is_finished()).await;
        let ping = ping.await.unwrap().unwrap();
        assert_eq!(ping.status, status);
        let longest = takes.min(Duration::from_secs(30));
        assert!(ping.took >= longest && ping.took < longest + Duration::from_secs(1), "{:?}", ping.took);
    }
}

async fn a_test_message_is_no_attempt_at_a_delivery<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    flare.publish_order("17", 1).await;
    for status in [410, 500, 200] {
        bench.sink.answer(status);
        flare.ping(&shop.id, &bench.sink).await.unwrap();
    }
    assert_eq!(flare.subscription(&shop.id).await.unwrap().status, Status::Active);
    assert_eq!(flare.health(&shop.id).await.unwrap(), Default::default());
    assert_eq!(flare.attempts(&shop.id, &AttemptFilter::default(), None, 10).await.unwrap().items, []);
    assert_eq!(flare.told_of(&shop.id, &order("17")).await.unwrap(), None);
    assert_eq!(flare.notices(None, 10).await.unwrap().items, []);
}

async fn a_subscription_that_is_not_active_can_be_tested<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    for status in [Status::Paused, Status::Disabled] {
        flare.set_status(&shop.id, status).await.unwrap();
        assert_eq!(flare.ping(&shop.id, &bench.sink).await.unwrap().outcome, Outcome::Delivered);
        assert_eq!(flare.subscription(&shop.id).await.unwrap().status, status);
    }
    assert_eq!(bench.sink.received().len(), 2);
}

async fn a_subscription_that_fetches_its_messages_is_not_sent_a_test<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let pull = subscription(json!({ "delivery": { "mode": "pull" } }));
    let (pulls, _) = flare.subscribe(&orders.id, pull).await.unwrap();
    assert_eq!(kind(flare.ping(&pulls.id, &bench.sink).await), ErrorKind::InvalidInput);
    assert_eq!(kind(flare.ping("nonsense", &bench.sink).await), ErrorKind::NotFound);
    assert_eq!(bench.sink.received().len(), 0);
}
