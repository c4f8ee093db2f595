//! Projections on any store: one function per promise. A case that its group's list leaves out is
//! dead code, which does not compile.
#![deny(dead_code)]

pub mod accounts;
mod applying;
mod bench;
mod chaos;
mod events;
mod inline;
mod live;
mod long;
mod native;
mod notebook;
mod operating;
mod processes;
mod resource_versions;
mod running;
mod versions;

pub use self::notebook::{Notebook, Records};
pub use self::processes::{Cast, every_event_is_applied_once_whoever_is_killed, play_projections};

use evenkeel_core::Transactional;

use self::bench::Bank as Bench;
use crate::capability::{Case, Group, Promises, Threads, cases};
use crate::fixture::Fixture;
use crate::harness::{Suite, open};

/// Makes the `main` of a test target with `harness = false`: every promise of
/// `evenkeel-projections` on the store of each fixture, with one partition and with four.
///
/// After `natively` stand those that are also a [`Notebook`](crate::projections::Notebook): what is promised
/// of read models written with the store's own connection. A case is named
/// `fixture::projections::partitions::group::promise`.
#[macro_export]
macro_rules! projections_suite {
    ($($fixture:expr),+ $(; natively $($native:expr),+)? $(,)?) => {
        $crate::suite!(projections: $($fixture),+ $(; native_projections: $($native),+)?);
    };
}

impl Suite {
    /// Adds every promise of `evenkeel-projections`, with one partition and with four.
    pub fn projections<F: Fixture>(&mut self, fixture: F) {
        self.capability("projections", fixture, |promises| {
            add_resource_versions(promises);
            promises.groups(Threads::One, Bench::new, groups());
            promises.case(
                "chaos::every_event_is_applied_once_and_in_order",
                chaos::every_event_is_applied_once_and_in_order,
            );
            promises.case(
                "events::a_long_stream_is_read_from_anywhere_and_projected_and_truncated",
                long::a_long_stream_is_read_from_anywhere_and_projected_and_truncated,
            );
        });
    }

    /// Adds every promise of `evenkeel-projections` about versions of resources: those that need no
    /// more than the store.
    pub fn resource_versions<F: Fixture>(&mut self, fixture: F) {
        self.capability("projections", fixture, add_resource_versions);
    }

    /// Adds every promise of `evenkeel-projections` about read models that are written with the store's
    /// own connection.
    pub fn native_projections<F>(&mut self, fixture: F)
    where
        F: Fixture + Notebook<<F::Store as Transactional>::Conn>,
    {
        self.capability("projections", fixture, |promises| {
            let groups = vec![
                Group { name: "native", cases: native::cases::<F, F::Store>() },
                Group { name: "live", cases: live::cases::<F, F::Store>() },
            ];
            promises.groups(Threads::One, Bench::new, groups);
        });
    }
}

fn add_resource_versions<F: Fixture>(promises: &mut Promises<'_, F>) {
    for resource_versions::Case { name, run } in resource_versions::cases::<F::Store>() {
        promises.case(&format!("resource_versions::{name}"), move |fixture, partitions| async move {
            run(open(&*fixture, partitions).await?).await
        });
    }
}

/// Every promise but those of resource versions, to be kept by a store of `S`.
fn groups<S: Transactional + Clone>() -> Vec<Group<Bench<S>>> {
    vec![
        Group { name: "events", cases: events::cases() },
        Group { name: "applying", cases: applying::cases() },
        Group { name: "inline", cases: inline::cases() },
        Group { name: "operating", cases: operating::cases() },
        Group { name: "versions", cases: versions::cases() },
        Group { name: "running", cases: running::cases() },
    ]
}
