//! What an operator counts.

mod kit;

use evenkeel_projections::{OnFailure, Policy};
use kit::{Bank, Mode, Sums};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

#[tokio::test]
async fn events_are_counted_on_their_way() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let (bank, sums) = (Bank::new(), Sums::poisoned_by(3));
    bank.deposit("a", &[1, 2, 3, 4]).await;
    bank.events.delete("a").await.unwrap();
    bank.deposit("b", &[1, 3]).await;
    Mode::Stream.of(&bank.events, &sums).policy(Policy::new(OnFailure::Ignore)).catch_up().await.unwrap();

    let mut found: Vec<_> = recorder
        .snapshotter()
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
            let value = match value {
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Gauge(gauge) => gauge.to_string(),
                DebugValue::Histogram(_) => panic!("there is none"),
            };
            format!(
                "{} {} {value}",
                key.key().name().trim_start_matches("evenkeel_projections_"),
                labels.join(" ")
            )
        })
        .collect();
    found.sort();
    // The tombstone and two more are there. All are handed over; then those before the poison, and it alone.
    assert_eq!(
        found,
        [
            "applied_total sums 2",
            "given_up_total sums ignored 1",
            "lag_events sums default/0 0",
            "polled_seconds sums default/0 1000000000",
            "queued_total sums 3",
            "received_total sums 3",
            "started_total sums 6",
        ]
    );
}
