//! Runs on any store: one function per promise. A case that its group's list leaves out is dead code,
//! which does not compile.
#![deny(dead_code)]

mod bench;
mod chaos;
mod children;
mod compensating;
mod interrupting;
mod looking;
mod retrying;
mod signalling;
mod starting;
mod stepping;
mod stopping;
mod structure;
mod transactions;
mod versions;

use evenkeel_core::Transactional;

use self::bench::Bench;
use crate::capability::{Case, Group, Threads, cases};
use crate::fixture::Fixture;
use crate::harness::Suite;

/// Makes the `main` of a test target with `harness = false`: every promise of
/// `evenkeel-choreograph` on the store of each fixture, with one partition and with four.
///
/// A case is named `fixture::choreograph::partitions::group::promise`.
#[macro_export]
macro_rules! choreograph_suite {
    ($($fixture:expr),+ $(,)?) => {
        $crate::suite!(choreograph: $($fixture),+);
    };
}

impl Suite {
    /// Adds every promise of `evenkeel-choreograph`, with one partition and with four.
    pub fn choreograph<F: Fixture>(&mut self, fixture: F) {
        self.capability("choreograph", fixture, |promises| {
            promises.groups(Threads::One, Bench::new, groups());
            promises.case("chaos::every_run_ends_as_it_must", chaos::every_run_ends_as_it_must);
        });
    }
}

/// Every promise, to be kept by a store of `S`.
fn groups<S: Transactional + Clone>() -> Vec<Group<Bench<S>>> {
    vec![
        Group { name: "starting", cases: starting::cases() },
        Group { name: "stepping", cases: stepping::cases() },
        Group { name: "retrying", cases: retrying::cases() },
        Group { name: "interrupting", cases: interrupting::cases() },
        Group { name: "stopping", cases: stopping::cases() },
        Group { name: "compensating", cases: compensating::cases() },
        Group { name: "structure", cases: structure::cases() },
        Group { name: "signalling", cases: signalling::cases() },
        Group { name: "children", cases: children::cases() },
        Group { name: "transactions", cases: transactions::cases() },
        Group { name: "versions", cases: versions::cases() },
        Group { name: "looking", cases: looking::cases() },
    ]
}
