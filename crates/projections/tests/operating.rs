//! What operators do: parked streams and dead letters, rebuilds, resets; and appends that project.

mod kit;

use evenkeel_core::{
    Batch, BoxError, Draft, ErrorKind, ExpectStream, Jobs, MemoryStore, Merge, Result, Store, Tx,
};

use evenkeel_projections::{Context, OnFailure, Operations, Policy, Projection, Projector, Recorded};
use kit::{Bank, Mode, Sums, deposits};

fn parking(bank: &Bank, sums: &Sums) -> Projection<Sums, MemoryStore> {
    Mode::Keyed.of(bank, sums).policy(Policy::new(OnFailure::Park))
}

#[tokio::test]
async fn a_parked_stream_is_listed_and_retried_with_all_that_followed() {
    let (bank, sums) = (Bank::with_partitions(2), Sums::poisoned_by(3));
    let projection = parking(&bank, &sums);
    bank.deposit("a", &[1, 3, 5]).await;
    bank.deposit("b", &[10]).await;
    projection.catch_up().await.unwrap();

    let parked = projection.operations().parked(None, 10).await.unwrap();
    assert_eq!(parked.iter().map(|letter| letter.id.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!((parked[0].failure.version, parked[0].failure.error.as_str()), (2, "3 cents are poison"));

    let error = projection.retry_parked("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected, "{error}");
    assert_eq!(bank.row("sums-1", "a").await, Some(1));

    sums.heal();
    bank.deposit("a", &[7]).await;
    projection.retry_parked("a").await.unwrap();
    assert_eq!(bank.row("sums-1", "a").await, Some(16));
    assert!(projection.operations().parked(None, 10).await.unwrap().is_empty());
    bank.deposit("a", &[9]).await;
    projection.catch_up().await.unwrap();
    assert_eq!(bank.row("sums-1", "a").await, Some(25));
    assert_eq!(bank.row("sums-1-count", "a").await, Some(5));
    assert_eq!(projection.retry_parked("a").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_dismissed_stream_goes_on_after_the_event_that_failed() {
    let (bank, sums) = (Bank::new(), Sums::poisoned_by(3));
    let projection = parking(&bank, &sums);
    bank.deposit("a", &[1, 3, 5, 3, 6]).await;
    projection.catch_up().await.unwrap();

    // The other poison stops it again, and is what is listed then.
    projection.dismiss_parked("a").await.unwrap_err();
    assert_eq!(projection.operations().parked(None, 10).await.unwrap()[0].failure.version, 4);
    projection.dismiss_parked("a").await.unwrap();
    assert_eq!(bank.row("sums-1", "a").await, Some(12));
    assert_eq!(bank.row("sums-1-count", "a").await, Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_that_is_retried_while_the_projection_runs_misses_and_doubles_nothing() {
    let (bank, sums) = (Bank::new(), Sums::poisoned_by(3));
    bank.deposit("a", &[1, 3, 5]).await;
    parking(&bank, &sums).catch_up().await.unwrap();
    sums.heal();
    let appending = tokio::spawn({
        let bank = bank.clone();
        async move {
            for _ in 0..300 {
                bank.deposit("a", &[1]).await;
                bank.deposit("b", &[1]).await;
            }
        }
    });
    let running = tokio::spawn({
        let projection = parking(&bank, &sums).most_events(7);
        async move {
            while !appending.is_finished() {
                projection.catch_up().await.unwrap();
            }
            appending.await.unwrap();
        }
    });
    parking(&bank, &sums).retry_parked("a").await.unwrap();
    running.await.unwrap();
    parking(&bank, &sums).catch_up().await.unwrap();
    assert_eq!(bank.row("sums-1-count", "a").await, Some(303));
    assert_eq!(bank.row("sums-1", "a").await, Some(309));
    assert_eq!(bank.row("sums-1", "b").await, Some(300));
}

#[tokio::test]
async fn a_dead_letter_is_listed_and_retried_or_dismissed() {
    for mode in Mode::BOTH {
        let (bank, sums) = (Bank::with_partitions(2), Sums::poisoned_by(3));
        let projection = mode.of(&bank, &sums).policy(Policy::new(OnFailure::Ignore));
        bank.deposit("a", &[1, 3, 5]).await;
        bank.deposit("b", &[3]).await;
        projection.catch_up().await.unwrap();

        let operations = projection.operations();
        let dead = operations.dead_letters(None, 10).await.unwrap();
        assert_eq!(dead.len(), 2, "{dead:?}");
        let of = |stream: &str| dead.iter().find(|letter| letter.failure.stream == stream).unwrap();
        assert_eq!(projection.retry_dead(of("a")).await.unwrap_err().kind(), ErrorKind::Unexpected);
        assert_eq!(operations.dead_letters(None, 10).await.unwrap().len(), 2);

        sums.heal();
        projection.retry_dead(of("a")).await.unwrap();
        assert_eq!(bank.row("sums-1", "a").await, Some(9));
        assert_eq!(projection.retry_dead(of("a")).await.unwrap_err().kind(), ErrorKind::NotFound);
        operations.dismiss_dead(of("b")).await.unwrap();
        assert!(operations.dead_letters(None, 10).await.unwrap().is_empty());
        assert_eq!(bank.row("sums-1", "b").await, None);

        bank.deposit("a", &[1]).await;
        projection.catch_up().await.unwrap();
        assert_eq!(bank.row("sums-1-count", "a").await, Some(4));
    }
}

#[tokio::test]
async fn projections_are_listed_by_name() {
    let bank = Bank::with_partitions(4);
    for name in ["c", "a", "b"] {
        Projection::stream(bank.events.clone(), name, Sums::default()).catch_up().await.unwrap();
    }
    let list = async |after, limit| Operations::list(&bank.store, bank.now(), after, limit).await.unwrap();
    assert_eq!(list(None, 10).await, ["a", "b", "c"]);
    assert_eq!(list(Some("a"), 1).await, ["b"]);
    let unknown = Operations::new(bank.store.clone(), "unknown");
    assert_eq!(unknown.status().await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_rebuilt_version_takes_the_place_of_the_active_one_when_it_has_caught_up() {
    for mode in Mode::BOTH {
        let (bank, sums) = (Bank::with_partitions(2), Sums::default());
        let projection = mode.of(&bank, &sums).most_events(5);
        for account in 0..10 {
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
        projection.discard(1).await.unwrap();
        let status = projection.operations().status_of(1).await.unwrap();
        assert_eq!(status.progress().0, 0);
    }
}

#[tokio::test]
async fn a_version_that_is_built_never_passes_the_active_one() {
    let (bank, sums) = (Bank::new(), Sums::default());
    let projection = Mode::Stream.of(&bank, &sums);
    bank.deposit("a", &[1, 2]).await;
    projection.catch_up().await.unwrap();
    bank.deposit("a", &[3]).await;
    projection.rebuild().await.unwrap();
    assert_eq!(projection.position(&bank.at()).await.unwrap(), 2);
}

#[tokio::test]
async fn a_reset_begins_anew_with_another_version() {
    let (bank, sums) = (Bank::new(), Sums::default());
    let projection = Mode::Stream.of(&bank, &sums);
    bank.deposit("a", &[1, 2]).await;
    projection.catch_up().await.unwrap();
    assert_eq!(projection.reset().await.unwrap(), 2);
    projection.catch_up().await.unwrap();
    assert_eq!((sums.seen().len(), bank.row("sums-2", "a").await), (4, Some(3)));
}

/// Pushes a job for each event, and makes its tables.
#[derive(Clone, Default)]
struct Mailer;

impl Projector<Draft> for Mailer {
    type State = ();

    async fn init(&self, version: u32, tx: &mut Tx<Draft>) -> Result<(), BoxError> {
        let draft = tx.conn().await?;
        Ok(kit::add(draft, "tables", &format!("mails_v{version}"), 1).await?)
    }

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        let (id, due) = (event.position.to_string(), event.recorded_at);
        if let Some(batch) = context.effects() {
            batch.push("mails", id, due, "hello", Merge::Keep);
        }
        Ok(())
    }

    async fn discard(&self, version: u32, tx: &mut Tx<Draft>) -> Result<(), BoxError> {
        let draft = tx.conn().await?;
        Ok(kit::add(draft, "tables", &format!("mails_v{version}"), -1).await?)
    }
}

#[tokio::test]
async fn effects_are_silent_in_a_version_that_is_built_and_tables_are_made_once() {
    let bank = Bank::new();
    let projection = Projection::stream(bank.events.clone(), "mailer", Mailer);
    bank.deposit("a", &[1, 2]).await;
    projection.catch_up().await.unwrap();
    let mails = async || {
        let page = Jobs::Page { queue: "mails".into(), after: None, limit: 100 };
        bank.store.jobs(&bank.at(), page).await.unwrap().jobs.len()
    };
    assert_eq!(mails().await, 2);
    let mut batch = Batch::new(bank.at(), bank.now());
    batch.cancel("mails", "1").cancel("mails", "2");
    bank.store.commit(batch).await.unwrap();

    projection.rebuild().await.unwrap();
    assert_eq!(mails().await, 0, "what is built repeats nothing");
    bank.deposit("a", &[3]).await;
    projection.catch_up().await.unwrap();
    projection.catch_up().await.unwrap();
    assert_eq!(mails().await, 1);
    assert_eq!(
        (bank.row("tables", "mails_v1").await, bank.row("tables", "mails_v2").await),
        (Some(1), Some(1))
    );
    projection.discard(1).await.unwrap();
    assert_eq!(bank.row("tables", "mails_v1").await, Some(0));
}

#[tokio::test]
async fn each_event_has_its_effects_from_one_version_where_another_takes_over() {
    let bank = Bank::new();
    let projection = || Projection::stream(bank.events.clone(), "mailer", Mailer).most_events(2);
    bank.deposit("a", &[1, 2, 3, 4, 5]).await;
    projection().catch_up().await.unwrap();
    // It begins at the first event again, as the active version.
    projection().reset().await.unwrap();
    bank.deposit("a", &[6, 7]).await;
    let mut batch = Batch::new(bank.at(), bank.now());
    for id in 1..=5 {
        batch.cancel("mails", id.to_string());
    }
    bank.store.commit(batch).await.unwrap();
    projection().catch_up().await.unwrap();
    let page = Jobs::Page { queue: "mails".into(), after: None, limit: 100 };
    let mails = bank.store.jobs(&bank.at(), page).await.unwrap().jobs;
    assert_eq!(mails.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["6", "7"]);
}

#[tokio::test]
async fn an_append_that_projects_is_in_the_read_model_when_it_returns() {
    let (bank, sums) = (Bank::with_partitions(2), Sums::default());
    let projection = Mode::Keyed.of(&bank, &sums);
    let appended = projection.append("a", ExpectStream::NoStream, &deposits(&[1, 2])).await.unwrap();
    assert_eq!((appended.version, appended.count), (1, 2));
    assert_eq!(bank.row("sums-1", "a").await, Some(3));

    // Appended in another way, and applied first.
    bank.deposit("a", &[10]).await;
    projection.append("a", ExpectStream::Any, &deposits(&[4])).await.unwrap();
    assert_eq!(bank.row("sums-1", "a").await, Some(17));

    projection.catch_up().await.unwrap();
    assert_eq!(bank.row("sums-1-count", "a").await, Some(4), "nothing is applied again");
    let error = projection.append("a", ExpectStream::Version(1), &deposits(&[4])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn an_append_whose_events_cannot_be_applied_appends_nothing() {
    let (bank, sums) = (Bank::new(), Sums::poisoned_by(3));
    let projection = Mode::Keyed.of(&bank, &sums);
    let error = projection.append("a", ExpectStream::Any, &deposits(&[1, 3])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected);
    assert!(!bank.events.exists("a").await.unwrap());
    assert!(bank.rows("sums-1").await.is_empty());
    let error = Mode::Stream.of(&bank, &sums).append("a", ExpectStream::Any, &deposits(&[1])).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn an_append_to_a_parked_stream_waits_with_the_rest_and_one_to_a_deleted_stream_is_refused() {
    let (bank, sums) = (Bank::new(), Sums::poisoned_by(3));
    let projection = parking(&bank, &sums);
    bank.deposit("a", &[3]).await;
    projection.catch_up().await.unwrap();
    projection.append("a", ExpectStream::Any, &deposits(&[4])).await.unwrap();
    assert_eq!(bank.row("sums-1", "a").await, None);
    sums.heal();
    projection.retry_parked("a").await.unwrap();
    assert_eq!(bank.row("sums-1", "a").await, Some(7));

    bank.events.delete("a").await.unwrap();
    let error = projection.append("a", ExpectStream::Any, &deposits(&[4])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
