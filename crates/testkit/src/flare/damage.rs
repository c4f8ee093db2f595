use std::time::Duration;

use evenkeel_core::{Batch, Expect, Key, Scan, Store, StoreExt, Timestamp, Transactional};
use evenkeel_flare::signing::{Vault, VaultKey};
use evenkeel_flare::{AttemptFilter, DeliveryState, Flare, NoticeKind, Outcome};
use serde_json::json;

use super::bench::{Bench, Orders, at, order, subscription};

super::cases![
    a_subscription_whose_vault_key_is_missing_waits_for_it_and_no_other_does,
    a_subscription_whose_vault_key_is_lost_goes_on_with_a_new_secret,
    a_corrupt_record_of_what_was_told_fails_its_own_delivery_only,
    a_corrupt_document_fails_its_own_deliveries_only,
    a_corrupt_record_keeps_no_other_from_a_replay_or_a_backfill,
    a_message_that_cannot_be_made_is_given_up_in_the_end,
    a_message_that_cannot_be_made_keeps_no_other_from_being_fetched,
];

const MINUTE: Duration = Duration::from_secs(60);

fn vault<const N: usize>(ids: [&str; N]) -> Vault {
    const BYTES: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    Vault::new(ids.map(|id| format!("{id}:{BYTES}").parse::<VaultKey>().unwrap())).unwrap()
}

/// Kinds of the notices, the latest first.
async fn notices(flare: &Flare) -> Vec<NoticeKind> {
    flare.notices(None, 100).await.unwrap().items.iter().map(|notice| notice.kind).collect()
}

impl<S: Transactional + Clone> Bench<S> {
    /// Writes `value` over every record of a group; says how many there were.
    async fn overwrite(&self, space: &'static str, group: &str, value: &str) -> usize {
        self.overwrite_where(space, group, value, |_| true).await
    }

    async fn overwrite_where(
        &self,
        space: &'static str,
        group: &str,
        value: &str,
        is_meant: impl Fn(&str) -> bool,
    ) -> usize {
        let mut count = 0;
        for at in self.store.partitions() {
            let scan = Scan::new(space, group.to_owned(), 100, self.now());
            for (id, record) in self.store.scan(&at, scan).await.unwrap().records {
                if !is_meant(std::str::from_utf8(&record.value).unwrap()) {
                    continue;
                }
                let mut batch = Batch::new(at.clone(), self.now());
                batch.put(Key::new(space, group.to_owned(), id), value.to_owned(), Expect::Any);
                self.store.commit(batch).await.unwrap();
                count += 1;
            }
        }
        count
    }
}

async fn a_subscription_whose_vault_key_is_missing_waits_for_it_and_no_other_does<S>(bench: Bench<S>)
where
    S: Transactional + Clone,
{
    let (old, new) = (bench.process().vault(vault(["k1"])), bench.process().vault(vault(["k2", "k1"])));
    let broken = old.subscribe_at("broken").await;
    let whole = new.subscribe_at("whole").await;
    let lacking = bench.process().vault(vault(["k2"]));
    let worker = bench.worker_of(&lacking);
    for v in 1..=3 {
        lacking.publish_order("17", v).await;
        lacking.publish_order("18", v).await;
        bench.pass(2 * MINUTE).await;
    }
    let messages = bench.sink.received();
    assert_eq!(messages.len(), 6);
    assert!(messages.iter().all(|message| message.0.uri.host() == Some("whole")));
    assert_eq!(lacking.counts(&broken.id).await.unwrap().pending, 2, "what is published waits");

    // Who looks is told what is wrong, once.
    let listed = lacking.subscriptions(&broken.resource).await.unwrap();
    let problem = listed.into_iter().find(|listed| listed.id == broken.id).unwrap().problem.unwrap();
    assert!(problem.contains("key: k1") && problem.contains(&broken.id), "{problem}");
    assert_eq!(lacking.subscription(&whole.id).await.unwrap().problem, None);
    let said = lacking.notices(None, 10).await.unwrap().items;
    assert_eq!((said.len(), said[0].kind, &said[0].subscription), (1, NoticeKind::Broken, &broken.id));
    assert!(said[0].message.contains("key: k1"), "{}", said[0].message);

    drop(worker);
    let _worker = bench.worker_of(&new);
    let messages = bench.until_received(8).await.split_off(6);
    assert!(messages.iter().all(|message| message.0.uri.host() == Some("broken")));
    assert!(messages.iter().all(|message| message.told() == "create 3"));
    bench.pass(MINUTE).await;
    assert_eq!(bench.sink.received().len(), 8);
    assert_eq!(notices(&new).await, [NoticeKind::Recovered, NoticeKind::Broken]);
}

async fn a_subscription_whose_vault_key_is_lost_goes_on_with_a_new_secret<S>(bench: Bench<S>)
where
    S: Transactional + Clone,
{
    let broken = bench.process().vault(vault(["k1"])).subscribe_at("broken").await;
    let flare = bench.process().vault(vault(["k2"]));
    let _worker = bench.worker_of(&flare);
    flare.publish_order("17", 1).await;
    bench.pass(2 * MINUTE).await;
    assert_eq!(bench.sink.received().len(), 0);
    let secret = flare.rotate_secret(&broken.id, None, Duration::ZERO).await.unwrap();
    let message = &bench.until_received(1).await[0].0;
    let keys = [secret.verifying_key()];
    evenkeel_flare::signing::verify(&message.headers, &message.body, &keys, bench.now()).unwrap();
    assert_eq!(flare.subscription(&broken.id).await.unwrap().problem, None);
}

async fn a_corrupt_record_of_what_was_told_fails_its_own_delivery_only<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    let _worker = bench.worker();
    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    bench.until(async || flare.told_of(&shop.id, &order("17")).await.unwrap().is_some()).await;
    assert_eq!(bench.overwrite("flare.told", &shop.id, "nonsense").await, 1);

    flare.publish_order("17", 2).await;
    for id in 20..30 {
        flare.publish_order(&id.to_string(), 1).await;
    }
    bench.pass(Duration::from_secs(3)).await;
    assert_eq!(bench.sink.received().len(), 11, "the others are told");
    let failed = AttemptFilter { outcome: Some(Outcome::Failed), url: Some(order("17")) };
    let failed = flare.attempts(&shop.id, &failed, None, 100).await.unwrap().items;
    let error = failed[0].error.as_ref().unwrap();
    assert_eq!((failed.len(), failed[0].status, error.kind.as_str()), (1, None, "message"));
    assert!(error.message.contains("a record of what was told is not one"), "{}", error.message);

    // What it was told is not known any more, so that it is told anew.
    assert_eq!(bench.until_received(12).await[11].told(), "create 2");
    bench.until(async || flare.counts(&shop.id).await.unwrap() == Default::default()).await;
    assert_eq!(
        flare.health(&shop.id).await.unwrap().failing_since,
        None,
        "it was not the subscriber's fault"
    );
}

async fn a_corrupt_document_fails_its_own_deliveries_only<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    let whole = |url: &str| format!("{{\"url\":\"{url}\",\"revision\":1,\"updated_at\":0}}\n{{\"v\":1}}");
    flare.publish_order("17", 1).await;
    assert_eq!(bench.overwrite("flare.document", &shop.resource, "nonsense").await, 1);
    let _worker = bench.worker();
    bench.pass(Duration::from_secs(4)).await;
    // The second try is after five seconds.
    let elsewhere = whole("https://api.example.com/elsewhere/17");
    bench.overwrite("flare.document", &shop.resource, &elsewhere).await;
    bench.pass(Duration::from_secs(4)).await;
    for id in 20..30 {
        flare.publish_order(&id.to_string(), 1).await;
    }
    bench.until_received(10).await;
    let failed = AttemptFilter { outcome: None, url: Some(order("17")) };
    let failed = flare.attempts(&shop.id, &failed, None, 100).await.unwrap().items;
    let said: Vec<_> =
        failed.iter().map(|attempt| attempt.error.as_ref().unwrap().message.as_str()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("a document is not of its resource"), "{said:?}");
    assert!(said[1].contains("a document's record is not one"), "{said:?}");

    let is_broken = |value: &str| value.contains("elsewhere");
    let mended = whole(order("17").as_str());
    assert_eq!(bench.overwrite_where("flare.document", &shop.resource, &mended, is_broken).await, 1);
    flare.recover(&shop.id).await.unwrap();
    assert_eq!(bench.until_received(11).await[10].told(), "create 1");
}

async fn a_corrupt_record_keeps_no_other_from_a_replay_or_a_backfill<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    let _worker = bench.worker();
    for id in ["17", "18"] {
        flare.publish_order(id, 1).await;
    }
    bench.until_received(2).await;
    bench.pass(Duration::from_secs(2)).await;
    let is_17 = |value: &str| value.contains("orders/17");
    assert_eq!(bench.overwrite_where("flare.told", &shop.id, "nonsense", is_17).await, 1);
    assert_eq!(bench.overwrite_where("flare.document", &shop.resource, "nonsense", is_17).await, 1);

    flare.replay_since(&shop.id, Timestamp::EPOCH).await.unwrap();
    let mut curious = at("curious");
    curious["backfill"] = json!(true);
    flare.subscribe(&shop.resource, subscription(curious)).await.unwrap();
    let messages = bench.until_received(4).await.split_off(2);
    let mut hosts: Vec<_> = messages.iter().map(|message| message.0.uri.host().unwrap()).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["curious", "shop"]);
    assert!(messages.iter().all(|message| message.json()["document"]["id"] == "18"));
}

async fn a_message_that_cannot_be_made_is_given_up_in_the_end<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let mut new = at("shop");
    new["delivery"]["retry"] = json!({ "interval": 10.0, "quantity": 3 });
    let shop = flare.subscribe(&orders.id, subscription(new)).await.unwrap().0;
    flare.publish_order("17", 1).await;
    bench.overwrite("flare.document", &orders.id, "nonsense").await;
    let _worker = bench.worker();
    bench.pass(10 * MINUTE).await;
    let attempts = flare.attempts(&shop.id, &AttemptFilter::default(), None, 10).await.unwrap().items;
    let outcomes: Vec<_> = attempts.iter().map(|attempt| (attempt.outcome, attempt.tries)).collect();
    assert_eq!(outcomes, [(Outcome::Exhausted, 3), (Outcome::Failed, 2), (Outcome::Failed, 1)]);
    assert_eq!(notices(&flare).await, [NoticeKind::Exhausted]);
    let waiting = flare.deliveries(&shop.id, None, Some("exhausted/".into()), 10).await.unwrap().items;
    assert_eq!(waiting[0].state, DeliveryState::Exhausted);
    assert_eq!(bench.sink.received().len(), 0);
}

async fn a_message_that_cannot_be_made_keeps_no_other_from_being_fetched<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let pull = subscription(json!({ "delivery": { "mode": "pull" } }));
    let pulls = flare.subscribe(&orders.id, pull).await.unwrap().0;
    let _worker = bench.worker();
    flare.publish_order("17", 1).await;
    bench.overwrite("flare.document", &orders.id, "nonsense").await;
    flare.publish_order("18", 1).await;
    bench.until(async || flare.counts(&pulls.id).await.unwrap().pending == 2).await;
    let messages = flare.pull(&pulls.id, 10, MINUTE).await.unwrap();
    let urls: Vec<_> = messages.iter().map(|message| message.url.as_str()).collect();
    assert_eq!(urls, [order("18").as_str()]);
    let attempts = flare.attempts(&pulls.id, &AttemptFilter::default(), None, 10).await.unwrap().items;
    assert_eq!((attempts.len(), attempts[0].outcome), (1, Outcome::Failed));
    assert_eq!(attempts[0].error.as_ref().unwrap().kind, "message");
}
