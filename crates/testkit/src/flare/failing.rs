use std::collections::HashMap;
use std::time::Duration;

use evenkeel_core::Transactional;
use evenkeel_flare::net::SendError;
use evenkeel_flare::{AttemptFilter, DeliveryState, NoticeKind, Outcome, Status};
use serde_json::json;

use super::bench::{Bench, Orders, Slow, at, order, reply, subscription};

super::cases![
    a_failure_is_tried_again_with_the_same_id,
    what_is_sent_is_the_newest_at_the_time,
    a_status_to_discard_settles_a_message,
    a_delivery_is_exhausted_after_its_last_try,
    a_recovered_delivery_is_tried_anew,
    what_was_given_up_can_be_recovered_again_and_again,
    a_newer_revision_of_an_exhausted_document_is_tried_anew,
    a_subscriber_may_ask_for_a_longer_wait,
    a_subscriber_that_is_gone_is_disabled,
    a_late_answer_does_not_disable_what_was_resumed_since,
    a_subscriber_that_fails_for_days_is_disabled,
    a_subscriber_that_fails_is_left_alone_for_a_while,
    a_subscriber_that_is_back_is_told_of_everything_at_once,
    a_crash_after_the_answer_means_the_same_message_again,
    an_attempt_remembers_what_came_of_it,
    a_dead_subscriber_does_not_delay_another,
];

const MINUTE: Duration = Duration::from_secs(60);

async fn a_failure_is_tried_again_with_the_same_id<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    flare.subscribe_at("shop").await;
    let _worker = bench.worker();
    bench.sink.answer(503);
    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    bench.pass(Duration::from_secs(4)).await;
    assert_eq!(bench.sink.received().len(), 1, "the first wait is 5 s");
    bench.sink.answer(200);
    let messages = bench.until_received(2).await;
    assert_eq!(messages[0].id(), messages[1].id());
    assert_eq!(messages[0].0.body, messages[1].0.body);
    assert_ne!(messages[0].header("webhook-timestamp"), messages[1].header("webhook-timestamp"));
    bench.pass(10 * MINUTE).await;
    assert_eq!(bench.sink.received().len(), 2);
}

async fn what_is_sent_is_the_newest_at_the_time<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    flare.subscribe_at("shop").await;
    let _worker = bench.worker();
    bench.sink.answer(500);
    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    for v in 2..=5 {
        flare.publish_order("17", v).await;
    }
    bench.sink.answer(200);
    bench.until_received(2).await;
    bench.pass(10 * MINUTE).await;
    assert_eq!(bench.sink.told(), ["create 1", "create 5"]);
}

async fn a_status_to_discard_settles_a_message<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    let _worker = bench.worker();
    bench.sink.answer(204);
    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    bench.pass(10 * MINUTE).await;
    assert_eq!(bench.sink.received().len(), 1);
    let attempts = flare.attempts(&shop.id, &AttemptFilter::default(), None, 10).await.unwrap();
    assert_eq!(attempts.items[0].outcome, Outcome::Discarded);
    flare.publish_order("17", 2).await;
    bench.until_received(2).await;
    assert_eq!(bench.sink.told(), ["create 1", "update 2"]);
}

/// Three tries, ten seconds apart.
async fn impatient<S: Transactional + Clone>(bench: &Bench<S>) -> (evenkeel_flare::Flare, String) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let mut new = at("shop");
    new["delivery"]["retry"] = json!({ "interval": 10.0, "quantity": 3 });
    let (shop, _) = flare.subscribe(&orders.id, subscription(new)).await.unwrap();
    (flare, shop.id)
}

async fn a_delivery_is_exhausted_after_its_last_try<S: Transactional + Clone>(bench: Bench<S>) {
    let (flare, shop) = impatient(&bench).await;
    let _worker = bench.worker();
    bench.sink.answer(500);
    flare.publish_order("17", 1).await;
    bench.until_received(3).await;
    bench.pass(60 * MINUTE).await;
    assert_eq!(bench.sink.received().len(), 3);

    let waiting = flare.deliveries(&shop, Some(DeliveryState::Exhausted), None, 10).await.unwrap().items;
    assert_eq!((waiting[0].state, waiting[0].due), (DeliveryState::Exhausted, None));
    assert_eq!(flare.counts(&shop).await.unwrap().exhausted, 1);
    let notices = flare.notices(None, 10).await.unwrap().items;
    assert_eq!(notices.iter().map(|notice| notice.kind).collect::<Vec<_>>(), [NoticeKind::Exhausted]);
    let attempts = flare.attempts(&shop, &AttemptFilter::default(), None, 10).await.unwrap().items;
    let outcomes: Vec<_> = attempts.iter().map(|attempt| (attempt.outcome, attempt.tries)).collect();
    assert_eq!(outcomes, [(Outcome::Exhausted, 3), (Outcome::Failed, 2), (Outcome::Failed, 1)]);
}

async fn a_recovered_delivery_is_tried_anew<S: Transactional + Clone>(bench: Bench<S>) {
    let (flare, shop) = impatient(&bench).await;
    let _worker = bench.worker();
    bench.sink.answer(500);
    flare.publish_order("17", 1).await;
    bench.until_received(3).await;
    bench.pass(MINUTE).await;
    flare.set_status(&shop, Status::Active).await.unwrap();
    bench.until_received(6).await;
    bench.pass(MINUTE).await;
    assert_eq!(bench.sink.received().len(), 6, "a new series has three tries, too");
    bench.sink.answer(200);
    flare.recover(&shop).await.unwrap();
    bench.until_received(7).await;
    assert_eq!(flare.counts(&shop).await.unwrap(), Default::default());
}

async fn what_was_given_up_can_be_recovered_again_and_again<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let mut new = at("shop");
    new["delivery"]["retry"] = json!({ "interval": 10.0, "quantity": 1 });
    let shop = flare.subscribe(&orders.id, subscription(new)).await.unwrap().0;
    let _worker = bench.worker();
    bench.sink.answer(500);
    flare.publish_order("17", 1).await;
    for tries in 1..=3 {
        bench.until_received(tries).await;
        bench.pass(Duration::from_secs(5)).await;
        assert_eq!(flare.counts(&shop.id).await.unwrap().exhausted, 1, "after {tries} tries");
        flare.recover(&shop.id).await.unwrap();
    }
    bench.sink.answer(200);
    bench.until(async || flare.counts(&shop.id).await.unwrap() == Default::default()).await;
}

async fn a_newer_revision_of_an_exhausted_document_is_tried_anew<S: Transactional + Clone>(bench: Bench<S>) {
    let (flare, shop) = impatient(&bench).await;
    let _worker = bench.worker();
    bench.sink.answer(500);
    flare.publish_order("17", 1).await;
    bench.until_received(3).await;
    bench.pass(MINUTE).await;
    flare.publish_order("17", 2).await;
    bench.until_received(6).await;
    bench.pass(MINUTE).await;
    assert_eq!(flare.counts(&shop).await.unwrap().exhausted, 1);
    bench.sink.answer(200);
    flare.publish_order("17", 3).await;
    bench.until_received(7).await;
    bench.pass(MINUTE).await;
    assert_eq!(flare.counts(&shop).await.unwrap(), Default::default());
    assert_eq!(
        bench.sink.told(),
        ["create 1", "create 1", "create 1", "create 2", "create 2", "create 2", "create 3"]
    );
}

async fn a_subscriber_may_ask_for_a_longer_wait<S: Transactional + Clone>(bench: Bench<S>) {
    let (flare, _) = impatient(&bench).await;
    let _worker = bench.worker();
    bench.sink.answer_with(|_| Ok(evenkeel_flare::net::Reply { retry_after: Some(MINUTE), ..reply(503) }));
    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    bench.pass(Duration::from_secs(18)).await;
    assert_eq!(bench.sink.received().len(), 1, "twice the wait at most");
    bench.until_received(2).await;
}

async fn a_subscriber_that_is_gone_is_disabled<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    let _worker = bench.worker();
    bench.sink.answer(410);
    flare.publish_order("17", 1).await;
    let status = async || flare.subscription(&shop.id).await.unwrap().status;
    bench.until(async || status().await == Status::Disabled).await;
    flare.publish_order("18", 1).await;
    bench.pass(60 * MINUTE).await;
    assert_eq!(bench.sink.received().len(), 1);
    assert_eq!(flare.notices(None, 10).await.unwrap().items[0].kind, NoticeKind::Disabled);

    bench.sink.answer(200);
    flare.set_status(&shop.id, Status::Active).await.unwrap();
    bench.until_received(3).await;
}

async fn a_late_answer_does_not_disable_what_was_resumed_since<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    let sink = Slow::answering(410, bench.clock.shared(), Duration::from_secs(10));
    let _worker = super::bench::worker_through(&flare, sink.clone());
    flare.publish_order("17", 1).await;
    bench.until(async || sink.most_at_once() == 1).await;
    flare.set_status(&shop.id, Status::Paused).await.unwrap();
    bench.pass(Duration::from_secs(1)).await;
    flare.set_status(&shop.id, Status::Active).await.unwrap();
    bench.until(async || sink.answered() == 1).await;
    bench.settle().await;
    assert_eq!(flare.subscription(&shop.id).await.unwrap().status, Status::Active);
    assert_eq!(flare.notices(None, 10).await.unwrap().items, []);
    // The next one began after it was resumed, and counts.
    let status = async || flare.subscription(&shop.id).await.unwrap().status;
    bench.until(async || status().await == Status::Disabled).await;
    assert_eq!(sink.answered(), 2);
}

async fn a_subscriber_that_fails_for_days_is_disabled<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let mut new = at("shop");
    new["delivery"]["retry"] = json!({ "interval": 3600.0, "quantity": 1000 });
    let (shop, _) = flare.subscribe(&orders.id, subscription(new)).await.unwrap();
    let _worker = bench.worker();
    bench.sink.answer_with(|_| Err(SendError::Dns { host: "shop".into(), reason: "no such host".into() }));
    flare.publish_order("17", 1).await;
    bench.pass(Duration::from_secs(3600 * 24 * 4)).await;
    assert_eq!(flare.subscription(&shop.id).await.unwrap().status, Status::Active);
    bench.pass(Duration::from_secs(3600 * 34)).await;
    assert_eq!(flare.subscription(&shop.id).await.unwrap().status, Status::Disabled);
    assert_eq!(flare.counts(&shop.id).await.unwrap().retrying, 1, "what waits stays");
}

async fn a_subscriber_that_fails_is_left_alone_for_a_while<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    flare.subscribe_at("shop").await;
    bench.sink.answer(500);
    for id in 0..100 {
        flare.publish_order(&id.to_string(), 1).await;
    }
    let _worker = bench.worker();
    bench.until_received(10).await;
    bench.pass(Duration::from_secs(3)).await;
    let sent = bench.sink.received().len();
    // What was under way when it was noticed is on its way.
    assert!((10..=18).contains(&sent), "{sent} messages were sent to a subscriber that fails");
    let notices = flare.notices(None, 10).await.unwrap().items;
    assert_eq!(notices.iter().map(|notice| notice.kind).collect::<Vec<_>>(), [NoticeKind::Failing]);
}

async fn a_subscriber_that_is_back_is_told_of_everything_at_once<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    let _worker = bench.worker();
    bench.sink.answer(500);
    for id in 0..30 {
        flare.publish_order(&id.to_string(), 1).await;
    }
    bench.pass(60 * MINUTE).await;
    bench.sink.answer(200);
    // The longest pause is five minutes; the deliveries' own waits are hours by now.
    bench.pass(6 * MINUTE).await;
    assert_eq!(flare.counts(&shop.id).await.unwrap(), Default::default());
    let kinds: Vec<_> =
        flare.notices(None, 10).await.unwrap().items.iter().map(|notice| notice.kind).collect();
    assert_eq!(kinds, [NoticeKind::Recovered, NoticeKind::Failing]);
}

async fn a_crash_after_the_answer_means_the_same_message_again<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    flare.subscribe_at("shop").await;
    bench.sink.lose_answers(true);
    let worker = bench.worker();
    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    // It was heard and answered, but that is not recorded.
    drop(worker);
    bench.sink.lose_answers(false);
    let _worker = bench.worker();
    let messages = bench.until_received(2).await;
    assert_eq!(messages[0].id(), messages[1].id());
    assert_eq!(messages[0].0.body, messages[1].0.body);
}

async fn an_attempt_remembers_what_came_of_it<S: Transactional + Clone>(bench: Bench<S>) {
    let (flare, shop) = impatient(&bench).await;
    let _worker = bench.worker();
    let mut answers = vec![
        Ok(evenkeel_flare::net::Reply { body: "thanks".into(), ..reply(200) }),
        Err(SendError::Dns { host: "shop".into(), reason: "no such host".into() }),
        Ok(evenkeel_flare::net::Reply { body: "oops".into(), ..reply(500) }),
    ];
    bench.sink.answer_with(move |_| answers.pop().unwrap());
    flare.publish_order("17", 1).await;
    bench.until_received(3).await;
    bench.pass(Duration::from_secs(1)).await;

    let all = flare.attempts(&shop, &AttemptFilter::default(), None, 10).await.unwrap().items;
    let shown: Vec<_> = all
        .iter()
        .map(|attempt| {
            (
                attempt.outcome,
                attempt.status,
                attempt.response.as_str(),
                attempt.error.as_ref().map(|error| error.kind.as_str()),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (Outcome::Delivered, Some(200), "thanks", None),
            (Outcome::Failed, None, "", Some("dns")),
            (Outcome::Failed, Some(500), "oops", None),
        ]
    );
    let failed = AttemptFilter { outcome: Some(Outcome::Failed), url: Some(order("17")) };
    assert_eq!(flare.attempts(&shop, &failed, None, 10).await.unwrap().items.len(), 2);
    let other = AttemptFilter { outcome: None, url: Some(order("18")) };
    assert_eq!(flare.attempts(&shop, &other, None, 10).await.unwrap().items, []);
    let first = flare.attempts(&shop, &AttemptFilter::default(), None, 2).await.unwrap();
    let rest = flare.attempts(&shop, &AttemptFilter::default(), first.cursor, 2).await.unwrap();
    assert_eq!([first.items, rest.items].concat(), all);
}

async fn a_dead_subscriber_does_not_delay_another<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    flare.subscribe_at("dead").await;
    flare.subscribe_at("slow").await;
    flare.subscribe_at("shop").await;
    let clock = bench.clock.clone();
    let began = bench.now();
    let mut heard = HashMap::new();
    let (note, mut notes) = tokio::sync::mpsc::unbounded_channel();
    bench.sink.answer_with(move |received| {
        let host = received.0.uri.host().unwrap().to_owned();
        note.send((host.clone(), evenkeel_core::Clock::now(&clock).since(began))).unwrap();
        if host == "dead" { Err(SendError::Protocol { reason: "closed".into() }) } else { Ok(reply(200)) }
    });
    let _worker = bench.worker();
    for id in 0..100 {
        flare.publish_order(&id.to_string(), 1).await;
    }
    while heard.get("shop").is_none_or(|times: &Vec<Duration>| times.len() < 100) {
        bench.pass(Duration::from_millis(100)).await;
        while let Ok((host, at)) = notes.try_recv() {
            heard.entry(host).or_default().push(at);
        }
        assert!(bench.now().since(began) < Duration::from_secs(60), "{} arrived", heard["shop"].len());
    }
}
