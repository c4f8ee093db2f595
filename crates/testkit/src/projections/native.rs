use evenkeel_core::{ErrorKind, Transactional};

use super::Case;
use super::accounts::Mode;
use super::bench::Bank;
use super::notebook::{Notebook, Noting, noted, numbers};
use crate::chaos::Chaos;

const SEEDS: u64 = 6;
const ROUNDS: u64 = 5;

/// What holds for read models that are written with a store's own connection.
pub(super) fn cases<N: Notebook<S::Conn>, S: Transactional + Clone>() -> Vec<Case<Bank<S>>> {
    macro_rules! cases {
        ($($case:ident),+) => {
            vec![$(Case { name: stringify!($case), run: |bank| Box::pin($case::<N, S>(bank)) }),+]
        };
    }
    cases![
        every_event_is_written_once_and_in_order_whatever_crashes,
        a_statement_that_fails_takes_its_commit_back_and_nothing_before_it,
        a_new_version_is_written_beside_the_active_one
    ]
}

/// A projector of either mode; those of a bank do not know each other's notes.
fn both<N>() -> [Noting<N>; 2] {
    Mode::BOTH.map(|mode| Noting::new("notes", mode))
}

/// What is noted of a stream.
async fn note<N, S>(bank: &Bank<S>, noting: &Noting<N>, version: u32, stream: &str) -> String
where
    N: Notebook<S::Conn>,
    S: Transactional + Clone,
{
    let (calm, at) = (bank.troubled(Chaos::new(0)), bank.at(stream));
    noted::<N, _>(&calm.store, &at, bank.now(), &noting.name(&at, version, Some(stream))).await
}

async fn every_event_is_written_once_and_in_order_whatever_crashes<N, S>(bank: Bank<S>)
where
    N: Notebook<S::Conn>,
    S: Transactional + Clone,
{
    let mut died = 0;
    for noting in both::<N>() {
        for seed in 0..SEEDS {
            let (bank, mut random) = (bank.fresh(), fastrand::Rng::with_seed(seed));
            for round in 0..ROUNDS {
                for stream in ["a", "b", "c"] {
                    bank.deposit(stream, &[1, 2, 3][..random.usize(1..=3)]).await;
                }
                let trouble = Chaos::new(seed * ROUNDS + round).unavailable(0.04).lost_acknowledgements(0.06);
                let dying = bank.troubled(trouble.delays(2).crash_at(random.u64(1..40)));
                let other = bank.troubled(Chaos::new(!seed).delays(2));
                let one = noting.on(dying.native.clone()).most_events(2);
                let two = noting.on(other.native.clone()).most_events(3);
                let runs = async {
                    let both = Box::pin(async { tokio::join!(one.catch_up(), two.catch_up()) });
                    let (one, two) = bank.passing(both).await;
                    for error in [one, two].into_iter().filter_map(Result::err) {
                        assert!(
                            matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown),
                            "seed {seed}: {error:?}"
                        );
                    }
                };
                tokio::select! {
                    biased;
                    () = dying.store.crashed() => died += 1,
                    () = runs => {}
                }
            }
            bank.passing(noting.on(bank.troubled(Chaos::new(0)).native).catch_up()).await.unwrap();
            for stream in ["a", "b", "c"] {
                let last = bank.events.version(stream).await.unwrap();
                assert_eq!(note(&bank, &noting, 1, stream).await, numbers(last), "seed {seed}, {stream}");
            }
        }
    }
    assert!(died >= SEEDS, "the processes died {died} times only");
}

async fn a_statement_that_fails_takes_its_commit_back_and_nothing_before_it<N, S>(bank: Bank<S>)
where
    N: Notebook<S::Conn>,
    S: Transactional + Clone,
{
    for noting in both::<N>() {
        let bank = bank.fresh();
        let projection = noting.on(bank.troubled(Chaos::new(0)).native);
        noting.fail_at(3);
        bank.deposit("a", &[1; 5]).await;
        let error = projection.catch_up().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unexpected, "{error:?}");
        assert_eq!(note(&bank, &noting, 1, "a").await, "1 2 ");

        noting.fail_at(0);
        projection.catch_up().await.unwrap();
        assert_eq!(note(&bank, &noting, 1, "a").await, "1 2 3 4 5 ");
        assert_eq!(projection.position(&bank.at("a")).await.unwrap(), 5);
    }
}

async fn a_new_version_is_written_beside_the_active_one<N, S>(bank: Bank<S>)
where
    N: Notebook<S::Conn>,
    S: Transactional + Clone,
{
    for noting in both::<N>() {
        let bank = bank.fresh();
        let projection = noting.on(bank.troubled(Chaos::new(0)).native).most_events(2);
        bank.deposit("a", &[1; 5]).await;
        projection.catch_up().await.unwrap();
        assert_eq!(projection.rebuild().await.unwrap(), 2);
        assert_eq!(note(&bank, &noting, 2, "a").await, numbers(5));
        bank.deposit("a", &[1]).await;
        projection.catch_up().await.unwrap();
        assert_eq!(note(&bank, &noting, 2, "a").await, numbers(6));
        assert_eq!(note(&bank, &noting, 1, "a").await, numbers(5));
    }
}
