//! A subscription in JSON: it is written as it was read, what is refused is refused as a bad input, and
//! what is accepted is read by another process. One that could not be read would stop its resource.

#![no_main]

use std::sync::LazyLock;

use evenkeel_core::{ErrorKind, MemoryStore};
use evenkeel_flare::{Change, Flare, NewResource, NewSubscription, Template};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a thread may have a runtime"));

fuzz_target!(|json: &[u8]| {
    let Ok(new) = serde_json::from_slice::<NewSubscription>(json) else { return };
    let written = serde_json::to_value(&new).expect("a subscription is JSON");
    let again: NewSubscription = serde_json::from_value(written).expect("it is read as it was written");
    assert_eq!(again, new);
    RUNTIME.block_on(subscribe(new));
});

async fn subscribe(new: NewSubscription) {
    let store = MemoryStore::new();
    let flare = Flare::new(store.clone());
    let endpoint = Template::parse("https://api.example.com/orders/{order}").expect("it has a wildcard");
    let change = Change::new("v", "").expect("it names a field");
    let resource = flare.create_resource(NewResource { endpoint, change }).await.expect("it is the first");
    match flare.subscribe(&resource.id, new).await {
        Ok((subscription, _)) => {
            let elsewhere = Flare::new(store);
            let read = elsewhere.subscription(&subscription.id).await.expect("what is accepted is read");
            assert_eq!((read.endpoint, read.content), (subscription.endpoint, subscription.content));
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}"),
    }
}
