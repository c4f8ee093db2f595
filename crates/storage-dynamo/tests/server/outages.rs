use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel_core::{ErrorKind, Store, SystemClock};
use evenkeel_storage_dynamo::{DynamoConfig, TableOptions};

use crate::emulator::Emulator;
use crate::shop::{claim, exists};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_unavailable_and_work_goes_on_when_it_is_back() {
    let mut server = Emulator::start();
    let config = DynamoConfig::new(&format!("dynamo://shop?endpoint={}", server.url())).unwrap();
    config.create_table(&TableOptions::new()).await.unwrap();
    let store = config.open().await.unwrap();
    store.commit(claim(&store, "before")).await.unwrap();

    let stopping = Arc::new(AtomicBool::new(false));
    let (acknowledgements, failures) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let (store, stopping) = (store.clone(), Arc::clone(&stopping));
            let (acknowledgements, failures) = (Arc::clone(&acknowledgements), Arc::clone(&failures));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                let mut n = 0;
                while !stopping.load(Ordering::SeqCst) {
                    let id = format!("{caller}-{n}");
                    match store.commit(claim(&store, &id)).await {
                        Ok(_) => {
                            acknowledged.push(id);
                            acknowledgements.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => {
                            let kind = error.kind();
                            let expected = [ErrorKind::Unavailable, ErrorKind::OutcomeUnknown];
                            assert!(expected.contains(&kind), "{error:?}");
                            failures.fetch_add(1, Ordering::SeqCst);
                            tokio::task::yield_now().await;
                        }
                    }
                    n += 1;
                }
                acknowledged
            })
        })
        .collect();

    until_more(&acknowledgements, MANY).await;
    server.stop();
    let mut n = 0;
    let unavailable = loop {
        // What is under way when it stops may succeed, or have an unknown outcome; what comes after is
        // not sent.
        n += 1;
        match store.commit(claim(&store, &format!("during-{n}"))).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => break error,
            Err(error) => assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error:?}"),
            Ok(_) => {}
        }
    };
    assert!(unavailable.to_string().contains("could not be reached"), "{unavailable}");
    until_more(&failures, MANY).await;
    server.go_on();
    store.commit(claim(&store, "after")).await.unwrap();
    until_more(&acknowledgements, MANY).await;
    stopping.store(true, Ordering::SeqCst);

    for caller in callers {
        for id in caller.await.unwrap() {
            assert!(exists(&store, &id).await, "{id} was acknowledged");
        }
    }
    assert!(exists(&store, "before").await && exists(&store, "after").await);
}

/// So many that every caller is likely to be among them.
const MANY: usize = 40;

/// Waits until a count has grown by as much.
async fn until_more(count: &AtomicUsize, by: usize) {
    let wanted = count.load(Ordering::SeqCst) + by;
    let counted = async {
        while count.load(Ordering::SeqCst) < wanted {
            tokio::task::yield_now().await;
        }
    };
    let clock = SystemClock::shared();
    let in_time = clock.timeout_at(clock.now() + Duration::from_secs(60), counted).await;
    assert!(in_time.is_some(), "{} instead of {wanted}", count.load(Ordering::SeqCst));
}
