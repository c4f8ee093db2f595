//! What the trace layer measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use evenkeel_core::layer::Trace;
use evenkeel_core::{
    Batch, Clock, Expect, Jobs, Key, Lease, ManualClock, MemoryStore, Read, Scan, Store, StoreExt, Timestamp,
    Transactional,
};
use futures_util::future::BoxFuture;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

const NOW: Timestamp = Timestamp::EPOCH;

/// What was recorded: the metric with its labels, and its value.
fn recorded(snapshotter: &Snapshotter) -> Vec<(String, DebugValue)> {
    let snapshot = snapshotter.snapshot().into_vec();
    let mut found: Vec<_> = snapshot
        .into_iter()
        .map(|(key, _, _, value)| {
            let labels: Vec<_> =
                key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            (format!("{} {}", key.key().name(), labels.join(" ")), value)
        })
        .collect();
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

fn count_of(found: &[(String, DebugValue)], metric: &str) -> Option<u64> {
    found.iter().find(|(name, _)| name == metric).map(|(_, value)| match value {
        DebugValue::Counter(count) => *count,
        DebugValue::Histogram(values) => u64::try_from(values.len()).unwrap(),
        DebugValue::Gauge(_) => unreachable!("there are no gauges"),
    })
}

#[tokio::test]
async fn every_call_is_counted_with_its_outcome_and_timed() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let clock = ManualClock::default();
    let store = MemoryStore::new().layer(Trace::default().clock(clock.shared()));
    let at = store.partition_of("home");

    let claim = || {
        let mut batch = Batch::new(at.clone(), NOW);
        batch.put(Key::new("test", "group", "id"), "", Expect::Absent);
        batch
    };
    store.commit(claim()).await.unwrap();
    store.commit(claim()).await.unwrap_err();
    store.commit(claim()).await.unwrap_err();
    store.get(&at, NOW, &[]).await.unwrap();
    store.scan(&at, Scan::new("test", "group", 1, NOW)).await.unwrap();
    store.read(&at, Read::partition(7, 1)).await.unwrap_err();
    store.jobs(&at, Jobs::Page { queue: "queue".into(), after: None, limit: 1 }).await.unwrap();
    store
        .lease(&at, Lease { queue: "queue".into(), max: 0, hold_for: Duration::ZERO, now: NOW })
        .await
        .unwrap_err();
    store.sweep(&at, NOW, 1).await.unwrap();
    let tx = store.begin(at.clone(), NOW).await.unwrap();
    store.finish(tx).await.unwrap();

    let found = recorded(&recorder.snapshotter());
    for (call, outcome, count) in [
        ("commit", "ok", 1),
        ("commit", "conflict", 2),
        ("get", "ok", 1),
        ("scan", "ok", 1),
        ("read", "corrupt", 1),
        ("jobs", "ok", 1),
        ("lease", "invalid input", 1),
        ("sweep", "ok", 1),
        ("finish", "ok", 1),
    ] {
        let metric = format!("evenkeel_store_calls_total store=memory call={call} outcome={outcome}");
        assert_eq!(count_of(&found, &metric), Some(count), "{metric} in {found:?}");
    }
    for (call, count) in [("commit", 3), ("finish", 1)] {
        let metric = format!("evenkeel_store_call_seconds store=memory call={call}");
        assert_eq!(count_of(&found, &metric), Some(count), "{metric} in {found:?}");
    }
}

/// Each look at it is a second and a half later than the one before.
#[derive(Debug, Default)]
struct Ticking {
    looks: AtomicI64,
}

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_500_000 * self.looks.fetch_add(1, Ordering::SeqCst))
    }

    fn sleep_until(&self, _at: Timestamp) -> BoxFuture<'static, ()> {
        unreachable!("measuring does not sleep")
    }
}

#[tokio::test]
async fn a_call_is_timed_in_seconds_of_the_clock() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let store = MemoryStore::new().layer(Trace::default().clock(Arc::new(Ticking::default())));
    store.sweep(&store.partition_of("home"), NOW, 1).await.unwrap();
    let found = recorded(&recorder.snapshotter());
    let seconds = (
        "evenkeel_store_call_seconds store=memory call=sweep".to_owned(),
        DebugValue::Histogram(vec![1.5.into()]),
    );
    assert!(found.contains(&seconds), "{found:?}");
}
