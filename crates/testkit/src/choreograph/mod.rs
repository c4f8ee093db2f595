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
use futures_util::future::LocalBoxFuture;

use self::bench::Bench;
use crate::Suite;
use crate::fixture::Fixture;
use crate::harness::{Member, on_one_thread, open};

/// Makes the `main` of a test target with `harness = false`: every promise of
/// `evenkeel-choreograph` on the store of each fixture, with one partition and with four.
///
/// A case is named `fixture::choreograph::partitions::group::promise`.
#[macro_export]
macro_rules! choreograph_suite {
    ($($fixture:expr),+ $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            let mut suite = $crate::Suite::default();
            $(suite.choreograph($fixture);)+
            suite.run()
        }
    };
}

impl Suite {
    /// Adds every promise of `evenkeel-choreograph`, with one partition and with four.
    pub fn choreograph<F: Fixture>(&mut self, fixture: F) {
        let member = Member::new(fixture);
        for partitions in [1, 4] {
            for Group { name: group, cases } in groups::<F::Store>() {
                for Case { name, run } in cases {
                    let name = format!("choreograph::n{partitions}::{group}::{name}");
                    self.add(&member, &name, move |fixture| {
                        on_one_thread(move || async move {
                            run(Bench::new(open(&*fixture, partitions).await?)).await;
                            Ok(())
                        })
                    });
                }
            }
            let name = format!("choreograph::n{partitions}::chaos::every_run_ends_as_it_must");
            self.add(&member, &name, move |fixture| chaos::every_run_ends_as_it_must(fixture, partitions));
        }
    }
}

/// A promise of choreograph.
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

/// Lists the cases of a group.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        pub(super) fn cases<S: evenkeel_core::Transactional + Clone>() -> Vec<super::Case<S>> {
            vec![$(super::Case { name: stringify!($case), run: |bench| Box::pin($case(bench)) }),+]
        }
    };
}
use cases;
