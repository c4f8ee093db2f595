//! Change notification on any store: one function per promise. A case that its group's list leaves
//! out is dead code, which does not compile.
#![deny(dead_code)]

mod backlog;
mod bench;
mod chaos;
mod damage;
mod deciding;
mod definitions;
mod failing;
mod operating;
mod pinging;
mod pulling;
mod telling;
mod unreadable;

use evenkeel_core::Transactional;
use futures_util::future::LocalBoxFuture;

use self::bench::Bench;
use crate::Suite;
use crate::fixture::Fixture;
use crate::harness::{Member, on_one_thread, open};

/// Makes the `main` of a test target with `harness = false`: every promise of `evenkeel-flare` on
/// the store of each fixture, with one partition and with four.
///
/// A case is named `fixture::flare::partitions::group::promise`.
#[macro_export]
macro_rules! flare_suite {
    ($($fixture:expr),+ $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            let mut suite = $crate::Suite::default();
            $(suite.flare($fixture);)+
            suite.run()
        }
    };
}

impl Suite {
    /// Adds every promise of `evenkeel-flare`, with one partition and with four.
    pub fn flare<F: Fixture>(&mut self, fixture: F) {
        let member = Member::new(fixture);
        for partitions in [1, 4] {
            for Group { name: group, cases } in groups::<F::Store>() {
                for Case { name, run } in cases {
                    let name = format!("flare::n{partitions}::{group}::{name}");
                    self.add(&member, &name, move |fixture| {
                        on_one_thread(move || async move {
                            run(Bench::new(open(&*fixture, partitions).await?)).await;
                            Ok(())
                        })
                    });
                }
            }
            let name = format!("flare::n{partitions}::chaos::every_subscriber_ends_with_the_newest");
            self.add(&member, &name, move |fixture| {
                chaos::every_subscriber_ends_with_the_newest(fixture, partitions)
            });
        }
    }
}

/// A promise of flare.
struct Case<S> {
    name: &'static str,
    run: fn(Bench<S>) -> LocalBoxFuture<'static, ()>,
}

/// Promises that belong together.
struct Group<S> {
    name: &'static str,
    cases: Vec<Case<S>>,
}

/// Every promise, to be kept by a store of `S`.
fn groups<S: Transactional + Clone>() -> Vec<Group<S>> {
    vec![
        Group { name: "definitions", cases: definitions::cases() },
        Group { name: "telling", cases: telling::cases() },
        Group { name: "deciding", cases: deciding::cases() },
        Group { name: "failing", cases: failing::cases() },
        Group { name: "operating", cases: operating::cases() },
        Group { name: "pinging", cases: pinging::cases() },
        Group { name: "damage", cases: damage::cases() },
        Group { name: "pulling", cases: pulling::cases() },
        Group { name: "backlog", cases: backlog::cases() },
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
