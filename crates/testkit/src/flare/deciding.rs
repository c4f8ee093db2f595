use bytes::Bytes;
use evenkeel_core::{ErrorKind, Transactional};
use evenkeel_flare::{Precondition, Published, Revision};
use std::time::Duration;

use super::bench::{Bench, Orders, kind, order};

super::cases![
    a_publication_that_is_not_newer_changes_nothing,
    an_older_publication_does_not_bring_back_what_was_deleted,
    a_forgotten_deletion_is_forgotten,
    a_document_that_nobody_was_told_of_is_deleted_in_silence,
    a_document_whose_first_message_may_have_arrived_is_deleted_aloud,
    a_publication_can_be_conditional,
    a_document_without_a_resource_or_revision_is_refused,
];

async fn a_publication_that_is_not_newer_changes_nothing<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    flare.subscribe_at("shop").await;
    let _worker = bench.worker();
    flare.publish_order("17", 5).await;
    bench.until_received(1).await;
    for v in [5, 4] {
        let published = flare.publish_order("17", v).await;
        assert!(matches!(&published, Published::Stale(document) if document.revision == Revision::from(5)));
    }
    flare.publish_order("17", 6).await;
    bench.until_received(2).await;
    assert_eq!(bench.sink.told(), ["create 5", "update 6"]);
}

async fn an_older_publication_does_not_bring_back_what_was_deleted<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let flare = bench.process();
    flare.subscribe_at("shop").await;
    let _worker = bench.worker();
    flare.publish_order("17", 5).await;
    bench.until_received(1).await;
    flare.delete_order("17").await;
    bench.until_received(2).await;
    for v in [4, 5] {
        assert!(matches!(flare.publish_order("17", v).await, Published::Stale(_)));
        assert_eq!(flare.document(&order("17")).await.unwrap(), None);
    }
    assert!(matches!(flare.publish_order("17", 6).await, Published::Created(_)));
    bench.until_received(3).await;
    assert_eq!(bench.sink.told(), ["create 5", "delete 5", "create 6"]);
}

async fn a_forgotten_deletion_is_forgotten<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process().tombstones(Duration::from_secs(3600));
    flare.orders().await;
    flare.publish_order("17", 5).await;
    flare.delete_order("17").await;
    bench.clock.advance(Duration::from_secs(3600));
    assert!(matches!(flare.publish_order("17", 4).await, Published::Created(_)));
}

async fn a_document_that_nobody_was_told_of_is_deleted_in_silence<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    flare.subscribe_at("shop").await;
    flare.publish_order("17", 1).await;
    flare.delete_order("17").await;
    flare.publish_order("18", 1).await;
    let _worker = bench.worker();
    bench.until_received(1).await;
    bench.pass(Duration::from_secs(10)).await;
    assert_eq!(bench.sink.told(), ["create 1"]);
}

async fn a_document_whose_first_message_may_have_arrived_is_deleted_aloud<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let flare = bench.process();
    flare.subscribe_at("shop").await;
    let _worker = bench.worker();
    bench.sink.answer(500);
    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    flare.delete_order("17").await;
    bench.sink.answer(200);
    bench.until_received(2).await;
    assert_eq!(bench.sink.told(), ["create 1", "delete 1"]);
}

async fn a_publication_can_be_conditional<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    flare.orders().await;
    let publish = async |v: i64, precondition: Precondition| {
        flare.publish(&order("17"), Bytes::from(format!(r#"{{"v":{v}}}"#)), &precondition).await
    };
    let at = |v: i64| Some(vec![Revision::from(v)]);
    assert_eq!(kind(publish(1, Precondition::Match(None)).await), ErrorKind::Conflict);
    publish(1, Precondition::NoneMatch(None)).await.unwrap();
    assert_eq!(kind(publish(2, Precondition::NoneMatch(None)).await), ErrorKind::Conflict);
    assert_eq!(kind(publish(2, Precondition::Match(at(7))).await), ErrorKind::Conflict);
    publish(2, Precondition::Match(at(1))).await.unwrap();
    publish(3, Precondition::NoneMatch(at(1))).await.unwrap();
    assert_eq!(
        kind(flare.delete_document(&order("17"), &Precondition::Match(at(2))).await),
        ErrorKind::Conflict
    );
    flare.delete_document(&order("17"), &Precondition::Match(at(3))).await.unwrap();
}

async fn a_document_without_a_resource_or_revision_is_refused<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let publish = async |content: &'static str| {
        flare.publish(&order("17"), Bytes::from_static(content.as_bytes()), &Precondition::None).await
    };
    assert_eq!(kind(publish("{}").await), ErrorKind::NotFound);
    flare.orders().await;
    for content in ["", "7", "{}", r#"{"v": "7"}"#, r#"{"v": 1.5}"#, r#"{"v": 1"#] {
        assert_eq!(kind(publish(content).await), ErrorKind::InvalidInput, "{content}");
    }
    let huge = Bytes::from(format!(r#"{{"v": 1, "x": "{}"}}"#, "x".repeat(4_000_000)));
    assert_eq!(kind(flare.publish(&order("17"), huge, &Precondition::None).await), ErrorKind::TooLarge);
}
