use std::time::Duration;

use evenkeel_core::{NewEvent, Store, SystemClock};
use evenkeel_storage_dynamo::TableOptions;
use tokio::runtime::Handle;

use crate::shop::{at, batch, claim, head, new_table, now};

/// Tasks of the runtime, and files and sockets of the process.
#[derive(Debug, PartialEq, PartialOrd)]
struct Held {
    tasks: usize,
    files: usize,
}

fn held() -> Held {
    Held {
        tasks: Handle::current().metrics().num_alive_tasks(),
        files: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_behind() {
    let config = new_table();
    config.create_table(&TableOptions::new()).await.unwrap();
    let before = held();
    for round in 0..5 {
        let store = config.clone().open().await.unwrap();
        let mut signals = store.signals();
        store.commit(claim(&store, &round.to_string())).await.unwrap();
        let append = batch(&store, |batch| batch.append_any("s", [NewEvent::new("E", "{}", now())]));
        store.commit(append).await.unwrap();
        signals.next().await;
        assert_eq!(head(&store).await, round + 1);
        store.sweep(&at(&store), now(), 10).await.unwrap();
    }
    // Connections close a moment after their last user is gone.
    let clock = SystemClock::shared();
    let deadline = clock.now() + Duration::from_secs(20);
    loop {
        let after = held();
        if after.tasks <= before.tasks && after.files <= before.files {
            return;
        }
        assert!(clock.now() < deadline, "{after:?} after {before:?}");
        clock.sleep(Duration::from_millis(20)).await;
    }
}
