//! Where everything is kept. Names without a bound are hashed; the original is in the value.

use std::fmt::Write;

use evenkeel_core::{AnyStore, Key, Partition, StoreExt};
use sha2::{Digest, Sha256};

use crate::DocumentUrl;

/// The queue of [`Task`](crate::task::Task)s, in every partition.
pub(crate) const TASKS: &str = "flare.tasks";

/// The queue of the subscriptions that have deliveries, by the subscription's id.
pub(crate) const PUMPS: &str = "flare.pumps";

const DELIVERIES: &str = "flare.deliver/";

pub(crate) const DOCUMENTS: &str = "flare.document";
pub(crate) const RESOURCES: &str = "flare.resource";
pub(crate) const SUBSCRIPTIONS: &str = "flare.subscription";
pub(crate) const TOLD: &str = "flare.told";
pub(crate) const ATTEMPTS: &str = "flare.attempt";
pub(crate) const NOTICES: &str = "flare.notice";
pub(crate) const SIGNS: &str = "flare.pump";

/// The group of a space that is not divided.
pub(crate) const ALL: &str = "all";

/// The queue of a subscription's deliveries, by the document's hash.
pub(crate) fn deliveries(subscription: &str) -> String {
    format!("{DELIVERIES}{subscription}")
}

/// The queue of a subscription's deliveries that were tried for the last time, by the document's hash.
/// They fall due only when they are moved back.
pub(crate) fn exhausted(subscription: &str) -> String {
    format!("flare.exhausted/{subscription}")
}

/// The subscription whose deliveries are in `queue`, if it is such a queue.
pub(crate) fn subscription_of(queue: &str) -> Option<&str> {
    queue.strip_prefix(DELIVERIES)
}

/// Resources and subscriptions are few and live together, so that a publication can expect them
/// unchanged.
pub(crate) fn catalog(store: &AnyStore) -> Partition {
    store.partition_of("flare.catalog")
}

/// Rewritten whenever a resource or subscription changes.
pub(crate) fn catalog_version() -> Key {
    Key::new("flare.catalog", ALL, "version")
}

pub(crate) fn resource(id: &str) -> Key {
    Key::new(RESOURCES, ALL, id)
}

/// What keeps a second resource from having the same endpoint.
pub(crate) fn resource_endpoint(pattern: &str) -> Key {
    Key::new("flare.resource.endpoint", ALL, hash(&[pattern]))
}

pub(crate) fn subscription(resource: &str, id: &str) -> Key {
    Key::new(SUBSCRIPTIONS, resource, id)
}

/// What keeps a second subscription of the resource from having the same endpoint.
pub(crate) fn subscription_endpoint(resource: &str, urls: &str) -> Key {
    Key::new("flare.subscription.endpoint", resource, hash(&[urls]))
}

pub(crate) fn document_partition(store: &AnyStore, url: &DocumentUrl) -> Partition {
    store.partition_of(url.as_str())
}

pub(crate) fn document(resource: &str, url: &DocumentUrl) -> Key {
    Key::new(DOCUMENTS, resource, document_id(url))
}

/// What a document is called among a resource's documents and a subscription's deliveries.
///
/// It begins as the last segment of its URL does: documents that come one after the other often have
/// names in their order, and are then neighbours where they are kept.
pub(crate) fn document_id(url: &DocumentUrl) -> String {
    let name = url.segments().last().unwrap_or_default().chars().take(MOST_OF_NAME);
    format!("{}~{}", name.collect::<String>(), hash(&[url.as_str()]))
}

/// How many characters of a name are kept: of one that begins with a time, enough to sort by it.
const MOST_OF_NAME: usize = 20;

pub(crate) fn subscription_partition(store: &AnyStore, subscription: &str) -> Partition {
    store.partition_of(subscription)
}

pub(crate) fn told(subscription: &str, document: &str) -> Key {
    Key::new(TOLD, subscription, document)
}

pub(crate) fn health(subscription: &str) -> Key {
    Key::new("flare.health", ALL, subscription)
}

/// What a pump leaves while it takes deliveries past the queue.
pub(crate) fn sign(subscription: &str) -> Key {
    Key::new(SIGNS, ALL, subscription)
}

/// The hex digits of 128 bits of SHA-256, with which the parts cannot be told apart wrongly.
pub(crate) fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_be_bytes());
        hasher.update(part);
    }
    let mut digits = String::with_capacity(32);
    for byte in &hasher.finalize()[..16] {
        write!(digits, "{byte:02x}").expect("a string takes every write");
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_kept_in_the_order_of_their_names() {
        let id = |url: &str| document_id(&DocumentUrl::parse(url).unwrap());
        let ids = [
            "https://api.example.com/orders/0192f3a1-7c1e-7000-8000-0123456789ab",
            "https://api.example.com/orders/0192f3a1-7c1f-7000-8000-0123456789ab",
            "https://api.example.com/orders/1041",
            "https://api.example.com/orders/1042",
        ]
        .map(id);
        assert!(ids.is_sorted(), "{ids:?}");
        assert_ne!(id("https://api.example.com/orders/17"), id("https://api.example.com/carts/17"));
        let long = format!("https://api.example.com/orders/{}", "%C3%A9".repeat(300));
        assert_eq!(id(&long).len(), MOST_OF_NAME + 1 + 32);
    }
}
