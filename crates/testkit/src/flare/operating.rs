use std::time::Duration;

use evenkeel_core::{ErrorKind, Store, Transactional};
use evenkeel_flare::Status;
use evenkeel_flare::signing::{Vault, VaultKey, verify};
use serde_json::json;

use super::bench::{Bench, Orders, at, order, reply, subscription};

super::cases![
    nothing_is_sent_while_a_subscription_is_paused,
    an_ended_subscription_is_forgotten,
    a_replay_sends_the_same_message_again,
    a_replay_of_what_was_told_since_is_of_that_only,
    a_rotated_secret_signs_beside_the_old_one_for_a_while,
    secrets_are_kept_sealed,
    secrets_are_sealed_again_under_the_newest_key,
    a_subscription_gets_no_more_at_once_than_it_takes,
    a_subscription_gets_no_more_a_second_than_it_takes,
    a_publication_can_join_a_commit,
];

async fn nothing_is_sent_while_a_subscription_is_paused<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    let _worker = bench.worker();
    flare.set_status(&shop.id, Status::Paused).await.unwrap();
    // Long enough for every process to know.
    bench.pass(Duration::from_secs(3)).await;
    for v in 1..=3 {
        flare.publish_order("17", v).await;
    }
    bench.pass(Duration::from_secs(60)).await;
    assert_eq!(bench.sink.received().len(), 0);
    assert_eq!(flare.counts(&shop.id).await.unwrap().pending, 1);
    flare.set_status(&shop.id, Status::Active).await.unwrap();
    bench.until_received(1).await;
    bench.pass(Duration::from_secs(60)).await;
    assert_eq!(bench.sink.told(), ["create 3"]);
}

async fn an_ended_subscription_is_forgotten<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    let worker = bench.worker();
    for id in 0..60 {
        flare.publish_order(&id.to_string(), 1).await;
    }
    bench.until_received(60).await;
    bench.pass(Duration::from_secs(5)).await;
    drop(worker);
    for id in 0..60 {
        flare.publish_order(&id.to_string(), 2).await;
    }
    flare.unsubscribe(&shop.id).await.unwrap();
    let _worker = bench.worker();
    let left = async || {
        let mut left = 0;
        for at in evenkeel_core::StoreExt::partitions(&bench.store) {
            let told = evenkeel_core::Scan::new("flare.told", shop.id.clone(), 100, bench.now());
            left += bench.store.scan(&at, told).await.unwrap().records.len();
            for queue in [format!("flare.deliver/{}", shop.id), "flare.pumps".into(), "flare.tasks".into()] {
                let jobs = evenkeel_core::Jobs::Page { queue, after: None, limit: 100 };
                left += bench.store.jobs(&at, jobs).await.unwrap().jobs.len();
            }
        }
        left
    };
    bench.until(async || left().await == 0).await;
    assert_eq!(bench.sink.received().len(), 60);
}

async fn a_replay_sends_the_same_message_again<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    let _worker = bench.worker();
    assert!(!flare.replay(&shop.id, &order("17")).await.unwrap(), "nothing was told yet");
    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    bench.until(async || flare.told_of(&shop.id, &order("17")).await.unwrap().is_some()).await;
    assert!(flare.replay(&shop.id, &order("17")).await.unwrap());
    let messages = bench.until_received(2).await;
    assert_eq!(messages[0].id(), messages[1].id());
    assert_eq!(messages[0].0.body, messages[1].0.body);
    bench.pass(Duration::from_secs(60)).await;
    assert_eq!(bench.sink.received().len(), 2);
}

async fn a_replay_of_what_was_told_since_is_of_that_only<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    let _worker = bench.worker();
    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    bench.pass(Duration::from_secs(60)).await;
    let since = bench.now();
    for id in 20..70 {
        flare.publish_order(&id.to_string(), 2).await;
    }
    bench.until_received(51).await;
    bench.pass(Duration::from_secs(5)).await;
    flare.replay_since(&shop.id, since).await.unwrap();
    let messages = bench.until_received(101).await;
    bench.pass(Duration::from_secs(60)).await;
    assert_eq!(bench.sink.received().len(), 101);
    assert!(messages[51..].iter().all(|message| message.told() == "create 2"));
}

async fn a_rotated_secret_signs_beside_the_old_one_for_a_while<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let (shop, old) = flare.subscribe(&orders.id, subscription(at("shop"))).await.unwrap();
    let new = flare.rotate_secret(&shop.id, None, Duration::from_secs(3600)).await.unwrap();
    let _worker = bench.worker();
    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    bench.pass(Duration::from_secs(3601)).await;
    flare.publish_order("17", 2).await;
    let messages = bench.until_received(2).await;
    assert!(messages[0].is_signed_with(&old) && messages[0].is_signed_with(&new));
    assert!(!messages[1].is_signed_with(&old) && messages[1].is_signed_with(&new));

    for _ in 0..10 {
        flare.rotate_secret(&shop.id, None, Duration::from_secs(3600)).await.unwrap();
    }
    let one_more = flare.rotate_secret(&shop.id, None, Duration::from_secs(3600)).await;
    assert_eq!(one_more.err().map(|error| error.kind()), Some(ErrorKind::InvalidInput));
}

async fn secrets_are_kept_sealed<S: Transactional + Clone>(bench: Bench<S>) {
    let vault = || {
        Vault::new(["k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse::<VaultKey>().unwrap()]).unwrap()
    };
    let flare = bench.process().vault(vault());
    let orders = flare.orders().await;
    let (shop, secret) = flare.subscribe(&orders.id, subscription(at("shop"))).await.unwrap();
    for at in evenkeel_core::StoreExt::partitions(&bench.store) {
        let scan = evenkeel_core::Scan::new("flare.subscription", orders.id.clone(), 10, bench.now());
        for (_, record) in bench.store.scan(&at, scan).await.unwrap().records {
            let text = String::from_utf8(record.value.to_vec()).unwrap();
            assert!(text.contains("enc1:k1:") && !text.contains(&secret.to_string()), "{text}");
        }
    }
    let _worker = bench.worker_of(&bench.process().vault(vault()));
    flare.publish_order("17", 1).await;
    let message = &bench.until_received(1).await[0].0;
    verify(&message.headers, &message.body, &[secret.verifying_key()], bench.now()).unwrap();
    // Without the key the secret cannot be read, and it is said which is missing.
    let problem = bench.process().subscription(&shop.id).await.unwrap().problem.unwrap();
    assert!(problem.contains("key: k1"), "{problem}");
}

async fn secrets_are_sealed_again_under_the_newest_key<S: Transactional + Clone>(bench: Bench<S>) {
    let key =
        |id: &str| format!("{id}:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").parse::<VaultKey>().unwrap();
    let with = |ids: &[&str]| bench.process().vault(Vault::new(ids.iter().map(|id| key(id))).unwrap());
    let orders = bench.process().orders().await;
    let mut secrets = Vec::new();
    for (host, ids) in [("bare", &[] as &[&str]), ("old", &["k1"]), ("new", &["k2"]), ("lost", &["k0"])] {
        let (subscription, secret) = with(ids).subscribe(&orders.id, subscription(at(host))).await.unwrap();
        secrets.push((host, subscription.id, secret));
    }
    let replaced = &secrets[1];
    with(&["k1"]).rotate_secret(&replaced.1, None, Duration::from_secs(3600)).await.unwrap();

    let report = with(&["k2", "k1"]).reseal().await.unwrap();
    assert_eq!((report.resealed, report.current, report.left.len()), (2, 1, 1));
    assert_eq!(report.left[0].subscription, secrets[3].1);
    assert_eq!(report.left[0].error.kind(), ErrorKind::Config);
    assert!(report.left[0].error.to_string().contains("key: k0"), "{}", report.left[0].error);
    let again = with(&["k2", "k1"]).reseal().await.unwrap();
    assert_eq!((again.resealed, again.current, again.left.len()), (0, 3, 1), "a second time changes nothing");

    // The old key is taken away; every secret that could be read is as it was, also the replaced one.
    let flare = with(&["k2"]);
    let _worker = bench.worker_of(&flare);
    flare.publish_order("17", 1).await;
    for message in bench.until_received(3).await {
        let host = message.0.uri.host().unwrap().to_owned();
        let (.., secret) = secrets.iter().find(|(known, ..)| *known == host).unwrap();
        let (headers, body) = (&message.0.headers, &message.0.body);
        verify(headers, body, &[secret.verifying_key()], bench.now()).unwrap();
    }
}

async fn a_subscription_gets_no_more_at_once_than_it_takes<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let mut new = at("shop");
    new["delivery"]["concurrency"] = json!(2);
    flare.subscribe(&orders.id, subscription(new)).await.unwrap();
    for id in 0..20 {
        flare.publish_order(&id.to_string(), 1).await;
    }
    let sink = super::bench::Slow::new(bench.clock.shared(), Duration::from_millis(500));
    let _worker = super::bench::worker_through(&flare, sink.clone());
    bench.until(async || sink.answered() == 20).await;
    assert_eq!(sink.most_at_once(), 2);
}

async fn a_subscription_gets_no_more_a_second_than_it_takes<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let mut new = at("shop");
    new["delivery"]["rate"] = json!(2.0);
    flare.subscribe(&orders.id, subscription(new)).await.unwrap();
    for id in 0..20 {
        flare.publish_order(&id.to_string(), 1).await;
    }
    let (clock, began) = (bench.clock.clone(), bench.now());
    let times = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = std::sync::Arc::clone(&times);
    bench.sink.answer_with(move |_| {
        heard.lock().unwrap().push(evenkeel_core::Clock::now(&clock).since(began));
        Ok(reply(200))
    });
    let _worker = bench.worker();
    bench.until_received(10).await;
    let times = times.lock().unwrap();
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(490), "{times:?}");
    }
}

async fn a_publication_can_join_a_commit<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    flare.subscribe_at("shop").await;
    let _worker = bench.worker();
    let partition = evenkeel_core::StoreExt::partition_of(&bench.store, "order-17");
    let content = bytes::Bytes::from_static(br#"{"v": 1}"#);

    let mut lost = evenkeel_core::Batch::new(partition.clone(), bench.now());
    flare.publish_in(&mut lost, &order("16"), content.clone()).await.unwrap();
    drop(lost);

    let mut batch = evenkeel_core::Batch::new(partition, bench.now());
    batch.append_any("order-17", [evenkeel_core::NewEvent::new("Placed", "{}", bench.now())]);
    flare.publish_in(&mut batch, &order("17"), content.clone()).await.unwrap();
    flare.publish_in(&mut batch, &order("18"), content.clone()).await.unwrap();
    bench.store.commit(batch).await.unwrap();
    bench.until_received(2).await;
    assert_eq!(flare.document(&order("17")).await.unwrap().unwrap().content, Some(content));
    assert_eq!(flare.document(&order("16")).await.unwrap(), None);
}
