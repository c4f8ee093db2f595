//! Idempotency on any store: one function per promise. A case that its group's list leaves out is
//! dead code, which does not compile.
#![deny(dead_code)]

mod admin;
mod answers;
mod bench;
mod chaos;
mod claims;
mod concurrency;
mod endings;
mod leases;
mod maintenance;
mod transactions;
mod waiting;

use evenkeel_core::Transactional;
use futures_util::future::BoxFuture;

use self::bench::Bench;
use crate::Suite;
use crate::fixture::Fixture;
use crate::harness::{Member, open};

/// Makes the `main` of a test target with `harness = false`: every promise of
/// `evenkeel-idempotency` on the store of each fixture, with one partition and with four.
///
/// A case is named `fixture::idempotency::partitions::group::promise`.
#[macro_export]
macro_rules! idempotency_suite {
    ($($fixture:expr),+ $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            let mut suite = $crate::Suite::default();
            $(suite.idempotency($fixture);)+
            suite.run()
        }
    };
}

impl Suite {
    /// Adds every promise of `evenkeel-idempotency`, with one partition and with four.
    pub fn idempotency<F: Fixture>(&mut self, fixture: F) {
        let member = Member::new(fixture);
        for partitions in [1, 4] {
            for Group { name: group, cases } in groups::<F::Store>() {
                for Case { name, run } in cases {
                    let name = format!("idempotency::n{partitions}::{group}::{name}");
                    self.add(&member, &name, move |fixture| async move {
                        run(Bench::new(open(&*fixture, partitions).await?)).await;
                        Ok(())
                    });
                }
            }
            let name = format!("idempotency::n{partitions}::chaos::every_key_takes_effect_once");
            self.add(&member, &name, move |fixture| chaos::every_key_takes_effect_once(fixture, partitions));
        }
    }
}

/// A promise of idempotency.
struct Case<S> {
    name: &'static str,
    run: fn(Bench<S>) -> BoxFuture<'static, ()>,
}

/// Promises that belong together.
struct Group<S> {
    name: &'static str,
    cases: Vec<Case<S>>,
}

/// Every promise, to be kept by a store of `S`.
fn groups<S: Transactional + Clone>() -> Vec<Group<S>> {
    vec![
        Group { name: "claims", cases: claims::cases() },
        Group { name: "endings", cases: endings::cases() },
        Group { name: "transactions", cases: transactions::cases() },
        Group { name: "leases", cases: leases::cases() },
        Group { name: "waiting", cases: waiting::cases() },
        Group { name: "concurrency", cases: concurrency::cases() },
        Group { name: "answers", cases: answers::cases() },
        Group { name: "maintenance", cases: maintenance::cases() },
        Group { name: "admin", cases: admin::cases() },
    ]
}

/// Lists the cases of a group.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        pub(super) fn cases<S: evenkeel_core::Transactional + Clone>() -> Vec<super::Case<S>> {
            vec![$(super::Case { name: stringify!($case), run: |bench| Box::pin($case(bench)) }),+]
        }
    };
}
use cases;
