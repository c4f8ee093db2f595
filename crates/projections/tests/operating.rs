//! What operators do, beside what the suite says of every store: letters and marks in odd places.

mod kit;

use evenkeel_core::{Batch, ErrorKind, Expect, Key, MemoryStore, Store, StoreExt, Transactional};
use evenkeel_projections::{Letter, OnFailure, Operations, Policy, Projection, Projector};
use evenkeel_testkit::Chaos;
use kit::{Bank, Mode, Sums};

fn parking(bank: &Bank, sums: &Sums) -> Projection<Sums, MemoryStore> {
    Mode::Keyed.of(&bank.events, sums).policy(Policy::new(OnFailure::Park))
}

#[tokio::test]
async fn a_dismissal_leaves_out_the_event_of_the_letter_and_no_other() {
    let (bank, sums) = (Bank::new(), Sums::poisoned_by(3));
    bank.deposit("a", &[1, 3, 10, 20]).await;
    parking(&bank, &sums).catch_up().await.unwrap();
    bank.events.truncate("a", 3).await.unwrap();
    parking(&bank, &sums).dismiss_parked("a").await.unwrap();
    assert_eq!(bank.row("sums-1", "a").await, Some(31));
}

#[tokio::test]
async fn what_a_handler_says_of_its_failure_is_kept_to_a_bounded_length() {
    let (bank, sums) = (Bank::new(), Sums::poisoned_by(3));
    sums.says("ü".repeat(1_000_000));
    bank.deposit("a", &[3]).await;
    let projection = parking(&bank, &sums);
    projection.catch_up().await.unwrap();
    let parked = projection.operations().parked(None, 1).await.unwrap();
    let error = &parked[0].failure.error;
    assert!(error.starts_with("üüü") && error.ends_with(" ...") && error.len() < 5_000, "{}", error.len());
}

#[tokio::test]
async fn a_letter_of_no_event_is_not_found() {
    let (bank, sums) = (Bank::new(), Sums::poisoned_by(3));
    let projection = Mode::Stream.of(&bank.events, &sums).policy(Policy::new(OnFailure::Ignore));
    bank.deposit("a", &[3]).await;
    projection.catch_up().await.unwrap();
    let mut letter: Letter = projection.operations().dead_letters(None, 1).await.unwrap().remove(0);
    letter.failure.position = 0;
    let key = Key::new("projections.dead", "sums/0000000001", format!("{:020}-0", 0));
    let mut batch = Batch::new(bank.at(), bank.now());
    batch.put(key, "{}", Expect::Absent);
    bank.store.commit(batch).await.unwrap();
    assert_eq!(projection.retry_dead(&letter).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_dead_letter_is_found_by_its_id() {
    let (bank, sums) = (Bank::new(), Sums::poisoned_by(3));
    let projection = Mode::Stream.of(&bank.events, &sums).policy(Policy::new(OnFailure::Ignore));
    bank.deposit("a", &[3]).await;
    projection.catch_up().await.unwrap();
    let operations = projection.operations();
    let letter = operations.dead_letters(None, 1).await.unwrap().remove(0);
    assert_eq!(operations.dead_letter(&letter.id).await.unwrap(), Some(letter));
    for none in ["", "3", "00000000000000000009-0", "00000000000000000001-9"] {
        assert_eq!(operations.dead_letter(none).await.unwrap(), None, "{none}");
    }
}

/// That it compiles is the test: what is awaited in a task of its own has to be `Send`, for every
/// store and projector.
#[allow(dead_code, reason = "only its types matter")]
fn what_operators_do_may_be_done_in_a_task<P, S>(projection: &Projection<P, S>, letter: &Letter)
where
    P: Projector<S::Conn>,
    S: Transactional + Clone,
{
    fn is_send(_: impl Send) {}
    is_send(projection.catch_up());
    is_send(projection.run(std::future::pending::<()>()));
    is_send(projection.rebuild());
    is_send(projection.discard(1));
    is_send(projection.retry_parked("a"));
    is_send(projection.dismiss_parked("a"));
    is_send(projection.retry_dead(letter));
    let operations = projection.operations();
    is_send(operations.status());
    is_send(operations.resume());
    is_send(operations.reset());
    is_send(operations.start_rebuild());
    is_send(operations.cancel_rebuild());
    is_send(operations.dismiss_dead(letter));
}

#[tokio::test]
async fn a_store_that_is_away_is_asked_a_few_times_with_waits_in_between() {
    let (bank, sums) = (Bank::new(), Sums::poisoned_by(3));
    bank.deposit("a", &[3]).await;
    parking(&bank, &sums).catch_up().await.unwrap();
    let away = bank.store.clone().layer(Chaos::new(1).unavailable(1.0));
    let there = Bank::on(away.clone(), bank.clock.clone());
    let projection = Mode::Keyed.of(&there.events, &sums);
    let began = bank.now();
    let retried = kit::with_moving_clock(&bank.clock, projection.retry_parked("a")).await;
    assert_eq!(retried.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(away.calls() <= 12, "{} calls", away.calls());
    assert!(bank.now().since(began) > std::time::Duration::from_secs(3));
}

#[tokio::test]
async fn resuming_clears_the_mark_of_a_stop_also_where_its_record_is_written_meanwhile() {
    for seed in 0..100 {
        let (bank, sums) = (Bank::new(), Sums::poisoned_by(3));
        bank.deposit("a", &[1, 3]).await;
        Mode::Stream.of(&bank.events, &sums).catch_up().await.unwrap_err();
        let slow = bank.store.clone().layer(Chaos::new(seed).delays(4));
        let operations = Operations::new(slow, "sums").clock(bank.clock.shared());
        let writes = async {
            let key = Key::new("projections.position", "sums", "0000000001");
            for _ in 0..6 {
                let record = bank.store.get_one(&bank.at(), bank.now(), &key).await.unwrap().unwrap();
                tokio::task::yield_now().await;
                let mut batch = Batch::new(bank.at(), bank.now());
                batch.put(key.clone(), record.value, Expect::Version(record.version));
                // Whoever was faster has written it.
                drop(bank.store.commit(batch).await);
                tokio::task::yield_now().await;
            }
        };
        let (resumed, ()) = tokio::join!(operations.resume(), writes);
        resumed.unwrap();
        let status = operations.status().await.unwrap();
        assert_eq!((status.partitions[0].failed.clone(), status.partitions[0].position), (None, 1));
    }
}
