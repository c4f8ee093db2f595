//! Projections on any store: one function per promise. A case that its group's list leaves out is
//! dead code, which does not compile.
#![deny(dead_code)]

mod resource_versions;

use futures_util::future::BoxFuture;

use crate::Suite;
use crate::fixture::Fixture;
use crate::harness::{Member, open};

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
            for Case { name, run } in resource_versions::cases::<F::Store>() {
                let name = format!("projections::n{partitions}::resource_versions::{name}");
                self.add(&member, &name, move |fixture| async move {
                    run(open(&*fixture, partitions).await?).await
                });
            }
        }
    }
}

/// A promise of projections.
struct Case<S> {
    name: &'static str,
    run: fn(S) -> BoxFuture<'static, evenkeel_core::Result<()>>,
}

/// Lists the cases of a group.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        pub(super) fn cases<S: evenkeel_core::Transactional + Clone>() -> Vec<super::Case<S>> {
            vec![$(super::Case { name: stringify!($case), run: |store| Box::pin($case(store)) }),+]
        }
    };
}
use cases;
