//! What an operator sees.

use evenkeel_core::{ManualClock, MemoryStore};
use evenkeel_idempotency::{Claim, Idempotency, Operation, Scope};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

fn operation(key: &str, payload: &str) -> Operation {
    Operation::new(Scope::Global, "charge", key).payload(payload)
}

#[tokio::test]
async fn claims_and_ends_of_attempts_are_counted_by_outcome() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let idempotency = Idempotency::new(MemoryStore::new()).clock(ManualClock::default().shared());

    let Claim::Run(guard) = idempotency.claim(operation("a", "")).await.unwrap() else { panic!("it is new") };
    idempotency.claim(operation("a", "")).await.unwrap_err();
    guard.finish("answer").await.unwrap();
    idempotency.claim(operation("a", "")).await.unwrap();
    idempotency.claim(operation("a", "other")).await.unwrap_err();
    let Claim::Run(guard) = idempotency.claim(operation("b", "")).await.unwrap() else { panic!("it is new") };
    guard.fail("no").await.unwrap();

    let mut counted: Vec<_> = recorder
        .snapshotter()
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
            (format!("{} {}", key.key().name(), labels.join(" ")), value)
        })
        .collect();
    counted.sort_by(|(a, _), (b, _)| a.cmp(b));
    let expected = [
        ("evenkeel_idempotency_attempts_total failed", 1),
        ("evenkeel_idempotency_attempts_total finished", 1),
        ("evenkeel_idempotency_claims_total mismatch", 1),
        ("evenkeel_idempotency_claims_total replay", 1),
        ("evenkeel_idempotency_claims_total run", 2),
        ("evenkeel_idempotency_claims_total still running", 1),
    ];
    assert_eq!(counted, expected.map(|(name, count)| (name.to_owned(), DebugValue::Counter(count))));
}
