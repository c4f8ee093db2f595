use std::sync::Arc;

use evenkeel_core::Result;
use futures_util::future::LocalBoxFuture;

use crate::fixture::Fixture;
use crate::harness::{Member, Suite, on_one_thread, open};

/// A promise of a capability, to be kept on a bench: a store and what its story needs besides.
pub(crate) struct Case<Bench> {
    pub(crate) name: &'static str,
    pub(crate) run: fn(Bench) -> LocalBoxFuture<'static, ()>,
}

/// Promises that belong together.
pub(crate) struct Group<Bench> {
    pub(crate) name: &'static str,
    pub(crate) cases: Vec<Case<Bench>>,
}

/// Lists the cases of a group. The module above has `Case`, and the bench as `Bench`.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        pub(super) fn cases<S: evenkeel_core::Transactional + Clone>() -> Vec<super::Case<super::Bench<S>>> {
            vec![$(super::Case { name: stringify!($case), run: |bench| Box::pin($case(bench)) }),+]
        }
    };
}
pub(crate) use cases;

/// Whether what a case starts runs beside it or in turn with it.
#[derive(Clone, Copy)]
pub(crate) enum Threads {
    One,
    Several,
}

/// What a capability promises on a fixture with so many partitions.
pub(crate) struct Promises<'a, F> {
    suite: &'a mut Suite,
    member: &'a Member<F>,
    capability: &'static str,
    partitions: u32,
}

impl Suite {
    /// Adds what `fill` does, once with one partition and once with four.
    pub(crate) fn capability<F: Fixture>(
        &mut self,
        capability: &'static str,
        fixture: F,
        fill: impl Fn(&mut Promises<'_, F>),
    ) {
        let member = Member::new(fixture);
        for partitions in [1, 4] {
            fill(&mut Promises { suite: self, member: &member, capability, partitions });
        }
    }
}

impl<F: Fixture> Promises<'_, F> {
    /// Adds a case that opens its store itself.
    pub(crate) fn case<Run: Future<Output = Result<()>>>(
        &mut self,
        name: &str,
        case: impl FnOnce(Arc<F>, u32) -> Run + Send + 'static,
    ) {
        let Self { capability, partitions, .. } = *self;
        let name = format!("{capability}::n{partitions}::{name}");
        self.suite.add(self.member, &name, move |fixture| case(fixture, partitions));
    }

    /// Adds cases that each get a bench of their own.
    pub(crate) fn groups<Bench: 'static>(
        &mut self,
        threads: Threads,
        bench: fn(F::Store) -> Bench,
        groups: Vec<Group<Bench>>,
    ) {
        for Group { name: group, cases } in groups {
            for Case { name, run } in cases {
                self.case(&format!("{group}::{name}"), move |fixture, partitions| async move {
                    let story = async move || {
                        run(bench(open(&*fixture, partitions).await?)).await;
                        Ok(())
                    };
                    match threads {
                        Threads::One => on_one_thread(story).await,
                        Threads::Several => story().await,
                    }
                });
            }
        }
    }
}
