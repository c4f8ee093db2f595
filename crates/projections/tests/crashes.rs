//! Projections under errors, lost answers and crashes, from seeds.

mod kit;

use evenkeel_core::{ManualClock, MemoryStore, Namespace, Read, Store, StoreExt};
use evenkeel_projections::{OnFailure, Policy};
use evenkeel_testkit::Chaos;
use kit::{Bank, Mode, Sums};

/// Whatever goes wrong, and wherever a process dies, each event is applied once and in order.
#[tokio::test]
async fn nothing_is_skipped_and_nothing_doubled_whatever_crashes() {
    for seed in 0..400 {
        for mode in Mode::BOTH {
            let name = Namespace::new(format!("seed-{seed}")).unwrap();
            let database = MemoryStore::with_partitions(2).unwrap().namespace(name);
            let bank = Bank::on(database, ManualClock::default());
            let mut random = fastrand_of(seed);
            for round in 0..6 {
                for account in ["a", "b", "c"] {
                    bank.deposit(account, &[round, 1, 1]).await;
                }
                let crash_at = random(30) + 1;
                let chaos = Chaos::new(seed * 100 + u64::try_from(round).unwrap())
                    .unavailable(0.05)
                    .lost_acknowledgements(0.05)
                    .delays(2)
                    .crash_at(crash_at);
                let process = bank.store.clone().layer(chaos);
                let there = Bank::on(process.clone(), bank.clock.clone());
                let work = || {
                    let policy = Policy::new(OnFailure::Ignore);
                    let projection = mode.of(&there, &Sums::default());
                    projection.policy(policy).most_events(4)
                };
                // Two of its threads at once, and another process beside it.
                let (one, two) = (work(), work());
                let beside = mode.of(&bank, &Sums::default()).most_events(3);
                tokio::select! {
                    _ = async { tokio::join!(one.catch_up(), two.catch_up(), beside.catch_up()) } => {}
                    () = process.crashed() => {}
                    () = kit::moving(&bank.clock) => {}
                }
            }
            mode.of(&bank, &Sums::default()).catch_up().await.unwrap();
            for account in ["a", "b", "c"] {
                assert_eq!(bank.row("sums-1-count", account).await, Some(18), "seed {seed} {account}");
                assert_eq!(bank.row("sums-1", account).await, Some(27), "seed {seed} {account}");
            }
            for at in bank.store.partitions() {
                let head = bank.store.read(&at, Read::partition(0, 1)).await.unwrap().head;
                let projection = mode.of(&bank, &Sums::default());
                assert_eq!(projection.position(&at).await.unwrap(), head);
            }
        }
    }
}

/// Small numbers that follow from a seed.
fn fastrand_of(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}
