//! Change notification on any store: one function per promise. A case that its group's list leaves
//! out is dead code, which does not compile.
#![deny(dead_code)]

mod backlog;
mod bench;
mod chaos;
mod damage;
mod deciding;
mod definitions;
mod express;
mod failing;
mod operating;
mod pinging;
mod pulling;
mod telling;
mod unreadable;

use evenkeel_core::Transactional;

use self::bench::Bench;
use crate::capability::{Case, Group, Threads, cases};
use crate::fixture::Fixture;
use crate::harness::Suite;

/// Makes the `main` of a test target with `harness = false`: every promise of `evenkeel-flare` on
/// the store of each fixture, with one partition and with four.
///
/// A case is named `fixture::flare::partitions::group::promise`.
#[macro_export]
macro_rules! flare_suite {
    ($($fixture:expr),+ $(,)?) => {
        $crate::suite!(flare: $($fixture),+);
    };
}

impl Suite {
    /// Adds every promise of `evenkeel-flare`, with one partition and with four.
    pub fn flare<F: Fixture>(&mut self, fixture: F) {
        self.capability("flare", fixture, |promises| {
            promises.groups(Threads::One, Bench::new, groups());
            promises.case(
                "chaos::every_subscriber_ends_with_the_newest",
                chaos::every_subscriber_ends_with_the_newest,
            );
        });
    }
}

/// Every promise, to be kept by a store of `S`.
fn groups<S: Transactional + Clone>() -> Vec<Group<Bench<S>>> {
    vec![
        Group { name: "definitions", cases: definitions::cases() },
        Group { name: "telling", cases: telling::cases() },
        Group { name: "express", cases: express::cases() },
        Group { name: "deciding", cases: deciding::cases() },
        Group { name: "failing", cases: failing::cases() },
        Group { name: "operating", cases: operating::cases() },
        Group { name: "pinging", cases: pinging::cases() },
        Group { name: "damage", cases: damage::cases() },
        Group { name: "pulling", cases: pulling::cases() },
        Group { name: "backlog", cases: backlog::cases() },
    ]
}
