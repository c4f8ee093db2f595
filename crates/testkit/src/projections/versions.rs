use evenkeel_core::{ErrorKind, Transactional};
use evenkeel_projections::Projection;

use super::accounts::{Mode, Sums};
use super::bench::{Bank, Mailer};
use crate::chaos::{Chaos, ChaosStore};

super::cases![
    a_rebuilt_version_takes_the_place_of_the_active_one,
    a_version_that_is_built_never_passes_the_active_one,
    a_reset_begins_anew_with_another_version,
    a_version_that_is_built_repeats_no_effects,
    each_event_has_its_effects_from_one_version_where_another_takes_over,
    effects_are_not_repeated_after_resets_and_discards,
];

async fn a_rebuilt_version_takes_the_place_of_the_active_one<S: Transactional + Clone>(bank: Bank<S>) {
    for mode in Mode::BOTH {
        let bank = bank.fresh();
        let projection = mode.of(&bank.events, &Sums::default()).most_events(5);
        for account in 0..8 {
            bank.deposit(&format!("account-{account}"), &[1, 2, 3]).await;
        }
        projection.catch_up().await.unwrap();
        assert_eq!(projection.rebuild().await.unwrap(), 2);
        assert_eq!(bank.rows("sums-2").await, bank.rows("sums-1").await);
        let status = projection.operations().status().await.unwrap();
        assert_eq!((status.version, status.active, status.building), (2, 2, None));

        bank.deposit("account-1", &[4]).await;
        projection.catch_up().await.unwrap();
        assert_eq!(bank.row("sums-2", "account-1").await, Some(10));
        assert_eq!(bank.row("sums-1", "account-1").await, Some(6), "nobody writes the old one");

        assert_eq!(projection.discard(2).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(projection.discard(3).await.unwrap_err().kind(), ErrorKind::NotFound);
        projection.discard(1).await.unwrap();
        assert_eq!(projection.operations().status_of(1).await.unwrap().progress().0, 0);
    }
}

async fn a_version_that_is_built_never_passes_the_active_one<S: Transactional + Clone>(bank: Bank<S>) {
    let projection = Mode::Stream.of(&bank.events, &Sums::default());
    bank.deposit("a", &[1, 2]).await;
    projection.catch_up().await.unwrap();
    bank.deposit("a", &[3]).await;
    projection.rebuild().await.unwrap();
    assert_eq!(projection.position(&bank.at("a")).await.unwrap(), 2);
}

async fn a_reset_begins_anew_with_another_version<S: Transactional + Clone>(bank: Bank<S>) {
    let sums = Sums::default();
    let projection = Mode::Stream.of(&bank.events, &sums);
    bank.deposit("a", &[1, 2]).await;
    projection.catch_up().await.unwrap();
    assert_eq!(projection.operations().reset().await.unwrap(), 2);
    projection.catch_up().await.unwrap();
    assert_eq!((sums.seen().len(), bank.row("sums-2", "a").await), (4, Some(3)));
}

/// A projection with the store's own connection.
type Native<S> = Projection<Mailer, ChaosStore<ChaosStore<S>>>;

/// A mailer whose five mails are sent.
async fn mailed<S: Transactional + Clone>(bank: &Bank<S>) -> Native<S> {
    let native = bank.troubled(Chaos::new(0)).native;
    let projection = Projection::stream(native, "mailer", Mailer).most_events(2);
    bank.deposit("a", &[1, 2, 3, 4, 5]).await;
    projection.catch_up().await.unwrap();
    assert_eq!(bank.mails().await, ["1", "2", "3", "4", "5"]);
    bank.send_mails().await;
    projection
}

async fn a_version_that_is_built_repeats_no_effects<S: Transactional + Clone>(bank: Bank<S>) {
    let projection = mailed(&bank).await;
    projection.rebuild().await.unwrap();
    bank.deposit("a", &[6]).await;
    projection.catch_up().await.unwrap();
    projection.catch_up().await.unwrap();
    assert_eq!(bank.mails().await, ["6"]);
}

async fn each_event_has_its_effects_from_one_version_where_another_takes_over<S: Transactional + Clone>(
    bank: Bank<S>,
) {
    let projection = mailed(&bank).await;
    // It begins at the first event again, as the active version.
    projection.operations().reset().await.unwrap();
    bank.deposit("a", &[6, 7]).await;
    projection.catch_up().await.unwrap();
    assert_eq!(bank.mails().await, ["6", "7"]);
}

async fn effects_are_not_repeated_after_resets_and_discards<S: Transactional + Clone>(bank: Bank<S>) {
    let projection = mailed(&bank).await;
    projection.operations().reset().await.unwrap();
    projection.operations().reset().await.unwrap();
    projection.discard(1).await.unwrap();
    projection.catch_up().await.unwrap();
    projection.operations().reset().await.unwrap();
    projection.discard(3).await.unwrap();
    projection.discard(2).await.unwrap();
    projection.catch_up().await.unwrap();
    assert_eq!(bank.mails().await, [""; 0]);
    bank.deposit("a", &[6]).await;
    projection.catch_up().await.unwrap();
    assert_eq!(bank.mails().await, ["6"]);
}
