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

use self::bench::Bench;
use crate::capability::{Case, Group, Threads, cases};
use crate::fixture::Fixture;
use crate::harness::Suite;

/// Makes the `main` of a test target with `harness = false`: every promise of
/// `evenkeel-idempotency` on the store of each fixture, with one partition and with four.
///
/// A case is named `fixture::idempotency::partitions::group::promise`.
#[macro_export]
macro_rules! idempotency_suite {
    ($($fixture:expr),+ $(,)?) => {
        $crate::suite!(idempotency: $($fixture),+);
    };
}

impl Suite {
    /// Adds every promise of `evenkeel-idempotency`, with one partition and with four.
    pub fn idempotency<F: Fixture>(&mut self, fixture: F) {
        self.capability("idempotency", fixture, |promises| {
            promises.groups(Threads::Several, Bench::new, groups());
            promises.case("chaos::every_key_takes_effect_once", chaos::every_key_takes_effect_once);
        });
    }
}

/// Every promise, to be kept by a store of `S`.
fn groups<S: Transactional + Clone>() -> Vec<Group<Bench<S>>> {
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
