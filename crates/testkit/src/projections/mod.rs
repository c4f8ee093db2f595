//! Projections on any store: one function per promise. A case that its group's list leaves out is
//! dead code, which does not compile.
#![deny(dead_code)]

mod applying;
mod bench;
mod chaos;
mod events;
mod inline;
mod operating;
mod resource_versions;
mod running;
mod versions;

use evenkeel_core::Transactional;
use futures_util::future::LocalBoxFuture;

use self::bench::Bank;
use crate::Suite;
use crate::fixture::Fixture;
use crate::harness::{Member, on_one_thread, open};

/// Makes the `main` of a test target with `harness = false`: every promise of
/// `evenkeel-projections` on the store of each fixture, with one partition and with four.
///
/// A case is named `fixture::projections::partitions::group::promise`.
#[macro_export]
macro_rules! projections_suite {
    ($($fixture:expr),+ $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            let mut suite = $crate::Suite::default();
            $(suite.projections($fixture);)+
            suite.run()
        }
    };
}

impl Suite {
    /// Adds every promise of `evenkeel-projections`, with one partition and with four.
    pub fn projections<F: Fixture>(&mut self, fixture: F) {
        let member = Member::new(fixture);
        for partitions in [1, 4] {
            for resource_versions::Case { name, run } in resource_versions::cases::<F::Store>() {
                let name = format!("projections::n{partitions}::resource_versions::{name}");
                self.add(&member, &name, move |fixture| async move {
                    run(open(&*fixture, partitions).await?).await
                });
            }
            for Group { name: group, cases } in groups::<F::Store>() {
                for Case { name, run } in cases {
                    let name = format!("projections::n{partitions}::{group}::{name}");
                    self.add(&member, &name, move |fixture| {
                        on_one_thread(move || async move {
                            run(Bank::new(open(&*fixture, partitions).await?)).await;
                            Ok(())
                        })
                    });
                }
            }
            let name = format!("projections::n{partitions}::chaos::every_event_is_applied_once_and_in_order");
            self.add(&member, &name, move |fixture| {
                chaos::every_event_is_applied_once_and_in_order(fixture, partitions)
            });
        }
    }
}

/// A promise of projections.
struct Case<S> {
    name: &'static str,
    run: fn(Bank<S>) -> LocalBoxFuture<'static, ()>,
}

/// Promises that belong together.
struct Group<S> {
    name: &'static str,
    cases: Vec<Case<S>>,
}

/// Every promise but those of resource versions, to be kept by a store of `S`.
fn groups<S: Transactional + Clone>() -> Vec<Group<S>> {
    vec![
        Group { name: "events", cases: events::cases() },
        Group { name: "applying", cases: applying::cases() },
        Group { name: "inline", cases: inline::cases() },
        Group { name: "operating", cases: operating::cases() },
        Group { name: "versions", cases: versions::cases() },
        Group { name: "running", cases: running::cases() },
    ]
}

/// Lists the cases of a group.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        pub(super) fn cases<S: evenkeel_core::Transactional + Clone>() -> Vec<super::Case<S>> {
            vec![$(super::Case { name: stringify!($case), run: |bank| Box::pin($case(bank)) }),+]
        }
    };
}
use cases;
