use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let (store, stopping) = (store.clone(), Arc::clone(&stopping));
            tokio::spawn(async move {
                let (mut acknowledged, mut failed) = (Vec::new(), 0);
                let mut n = 0;
                while !stopping.load(Ordering::SeqCst) {
                    let id = format!("{caller}-{n}");
                    match store.commit(claim(&store, &id)).await {
                        Ok(_) => acknowledged.push(id),
                        Err(error) => {
                            let kind = error.kind();
                            let expected = [ErrorKind::Unavailable, ErrorKind::OutcomeUnknown];
                            assert!(expected.contains(&kind), "{error:?}");
                            failed += 1;
                            SystemClock::shared().sleep(Duration::from_millis(5)).await;
                        }
                    }
                    n += 1;
                }
                (acknowledged, failed)
            })
        })
        .collect();

    let pause = || SystemClock::shared().sleep(Duration::from_millis(300));
    pause().await;
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
    pause().await;
    server.go_on();
    store.commit(claim(&store, "after")).await.unwrap();
    pause().await;
    stopping.store(true, Ordering::SeqCst);

    let mut failed = 0;
    for caller in callers {
        let (acknowledged, failures) = caller.await.unwrap();
        assert!(!acknowledged.is_empty());
        for id in acknowledged {
            assert!(exists(&store, &id).await, "{id} was acknowledged");
        }
        failed += failures;
    }
    assert!(failed > 0);
    assert!(exists(&store, "before").await && exists(&store, "after").await);
}
