use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{ManualClock, Namespace, Result, Store, StoreExt, SystemClock};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::cases::{self, Case, TxCase};
use crate::door::{PassThrough, ViaTx};
use crate::fixture::Fixture;
use crate::services::Required;
use crate::tested::Tested;

/// Makes the `main` of a test target: the suite of this name on the store of each fixture.
#[doc(hidden)]
#[macro_export]
macro_rules! suite {
    ($($suite:ident: $($fixture:expr),+);+) => {
        fn main() -> ::std::process::ExitCode {
            let mut suite = $crate::Suite::default();
            $($(suite.$suite($fixture);)+)+
            suite.run()
        }
    };
}

/// Makes the `main` of a test target with `harness = false`: the conformance suite on the store of
/// each fixture.
///
/// The target takes the arguments of the standard test harness and works under cargo-nextest. A
/// case is named `fixture::door::group::sentence`.
#[macro_export]
macro_rules! conformance {
    ($($fixture:expr),+ $(,)?) => {
        $crate::suite!(conformance: $($fixture),+);
    };
}

/// Makes the `main` of a test target with `harness = false`: a store's own tests, each an
/// `async fn()` that fails by panicking, under the server that they need.
///
/// Where the server is missing, they are ignored or fail by the rule of the suites, and never pass. A
/// test is named `store::own::test`.
///
/// # Example
/// ```no_run
/// use evenkeel_testkit::services::{self, Postgres};
///
/// async fn a_reader_never_skips() {
///     let url = services::pg_url().unwrap();
///     // ...
/// }
///
/// async fn what_is_acknowledged_survives_a_kill() {
///     let postgres = Postgres::start().unwrap();
///     // ...
/// }
///
/// evenkeel_testkit::server_tests! {
///     "pg", services::pg_url => [a_reader_never_skips],
///     "pg", Postgres::available => [what_is_acknowledged_survives_a_kill],
/// }
/// ```
#[macro_export]
macro_rules! server_tests {
    ($($store:literal, $available:path => [$($test:path),+ $(,)?]),+ $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            let mut suite = $crate::Suite::default();
            $(
                let available = $available().map(drop);
                $(suite.own($store, available.clone(), stringify!($test), $test);)+
            )+
            suite.run()
        }
    };
}

/// The allowance for skewed clocks that the stores are opened with.
const MAX_SKEW: Duration = Duration::from_secs(30);

/// How long a case may take by the machine's clock before it counts as hanging: three minutes, or so many
/// seconds as `EVENKEEL_PATIENCE` says.
fn patience() -> Duration {
    let seconds = std::env::var("EVENKEEL_PATIENCE").ok().map(|seconds| seconds.parse());
    Duration::from_secs(
        seconds.map_or(180, |seconds| seconds.expect("EVENKEEL_PATIENCE is a number of seconds")),
    )
}

/// What a test target runs; [`conformance!`] makes and runs one.
#[derive(Debug)]
pub struct Suite {
    trials: Vec<Trial>,
    required: Required,
}

/// The way from a case to the store.
#[derive(Clone, Copy)]
enum Door {
    One,
    Two,
    Erased,
}

impl Suite {
    /// Adds every case of the store contract, through door 1, through door 2, and through an
    /// erased store behind a layer.
    pub fn conformance<F: Fixture>(&mut self, fixture: F) {
        let member = Member::new(fixture);
        for door in [Door::One, Door::Two, Door::Erased] {
            for group in cases::GROUPS {
                for &partitions in group.partitions {
                    let prefix = match group.partitions.len() {
                        1 => group.name.to_owned(),
                        _ => format!("{}::n{partitions}", group.name),
                    };
                    for &case in group.cases {
                        let name = format!("{}::{prefix}::{}", door.name(), case.name);
                        self.add(&member, &name, move |fixture| async move {
                            through(door, &*fixture, partitions, case).await
                        });
                    }
                }
            }
        }
        for case in cases::tx_cases::<F::Store>() {
            let name = format!("door2::tx::{}", case.name);
            self.add(&member, &name, move |fixture| natively(fixture, case));
        }
        for &case in cases::DRAFT {
            let name = format!("erased::draft::{}", case.name);
            self.add(&member, &name, move |fixture| async move {
                through(Door::Erased, &*fixture, 1, case).await
            });
        }
    }

    /// Adds a test of a store's own that runs where what it needs is available;
    /// [`server_tests!`](crate::server_tests) lists them.
    pub fn own<Run: Future<Output = ()>>(
        &mut self,
        store: &str,
        available: Result<(), String>,
        name: &str,
        test: impl FnOnce() -> Run + Send + 'static,
    ) {
        self.push(store, &format!("own::{name}"), available.err(), || {
            run_to_end(async {
                test().await;
                Ok(())
            })
        });
    }

    /// Runs what the arguments of the process ask for.
    #[must_use]
    pub fn run(self) -> ExitCode {
        libtest_mimic::run(&Arguments::from_args(), self.trials).exit_code()
    }

    pub(crate) fn add<F, Run>(
        &mut self,
        member: &Member<F>,
        name: &str,
        case: impl FnOnce(Arc<F>) -> Run + Send + 'static,
    ) where
        F: Fixture,
        Run: Future<Output = Result<()>>,
    {
        let Member { fixture, missing } = member.clone();
        let store = fixture.name();
        self.push(store, name, missing, move || run_to_end(case(fixture)));
    }

    /// Where something is missing, the trial is not run: it fails if the store is required, and is
    /// else ignored for the reason that stands in its name.
    fn push(
        &mut self,
        store: &str,
        name: &str,
        missing: Option<String>,
        run: impl FnOnce() -> Result<(), Failed> + Send + 'static,
    ) {
        let name = format!("{store}::{name}");
        self.trials.push(match missing {
            None => Trial::test(name, run),
            Some(missing) => {
                let ignored = !self.required.includes(store);
                let reason = if ignored { missing.clone() } else { String::new() };
                let trial = Trial::test(name, || Err(Failed::from(missing)));
                trial.with_kind(reason).with_ignored_flag(ignored)
            }
        });
    }
}

impl Default for Suite {
    /// No case yet. Those of a store that is missing will be ignored, or fail where the environment
    /// variable `EVENKEEL_TEST_REQUIRE` names the store or says `all`.
    fn default() -> Self {
        Self { trials: Vec::new(), required: Required::by_environment() }
    }
}

/// A fixture, and what it lacks.
pub(crate) struct Member<F> {
    fixture: Arc<F>,
    missing: Option<String>,
}

impl<F: Fixture> Member<F> {
    pub(crate) fn new(fixture: F) -> Self {
        let missing = fixture.available().err();
        Self { fixture: Arc::new(fixture), missing }
    }
}

impl<F> Clone for Member<F> {
    fn clone(&self) -> Self {
        Self { fixture: Arc::clone(&self.fixture), missing: self.missing.clone() }
    }
}

impl Door {
    const fn name(self) -> &'static str {
        match self {
            Self::One => "door1",
            Self::Two => "door2",
            Self::Erased => "erased",
        }
    }
}

async fn through(door: Door, fixture: &impl Fixture, partitions: u32, case: Case) -> Result<()> {
    let native = open(fixture, partitions).await?;
    let store = match door {
        Door::One => native.any(),
        Door::Two => ViaTx(native).any(),
        Door::Erased => native.any().layer(PassThrough).any(),
    };
    let store = Tested::new(store, ManualClock::default(), fixture.hints(), fixture.histories());
    store.furnish_neighbours().await?;
    (case.run)(store).await
}

async fn natively<F: Fixture>(fixture: Arc<F>, case: TxCase<F::Store>) -> Result<()> {
    let native = open(&*fixture, 1).await?;
    let tested =
        Tested::new(native.clone().any(), ManualClock::default(), fixture.hints(), fixture.histories());
    (case.run)(native, tested).await
}

pub(crate) async fn open<F: Fixture>(fixture: &F, partitions: u32) -> Result<F::Store> {
    let namespace = Namespace::new(format!("case-{}", Uuid::new_v4()))?;
    Ok(fixture.open(partitions, MAX_SKEW).await?.namespace(namespace))
}

/// A task that runs until it is dropped, as if its process were killed.
pub(crate) struct Running(JoinHandle<()>);

impl Running {
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs a story on one thread, so that "everything that can happen has happened" is known, and that a
/// seed is one story wherever the store allows it.
pub(crate) async fn on_one_thread<Story: Future<Output = Result<()>>>(
    story: impl FnOnce() -> Story + Send + 'static,
) -> Result<()> {
    let thread = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a thread may have a runtime").block_on(story())
    });
    thread.await.expect("a story that panics fails its case")
}

fn run_to_end(case: impl Future<Output = Result<()>>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failed::from)?;
    runtime.block_on(async {
        let clock = SystemClock::shared();
        let patience = patience();
        match clock.timeout_at(clock.now() + patience, case).await {
            Some(result) => result.map_err(|error| Failed::from(format!("{error:?}"))),
            None => Err(Failed::from(format!("the case did not end within {patience:?}"))),
        }
    })
}

#[cfg(test)]
mod tests {
    use evenkeel_core::MemoryStore;
    use libtest_mimic::Conclusion;

    use super::*;

    struct Missing;

    impl Fixture for Missing {
        type Store = MemoryStore;

        fn name(&self) -> &'static str {
            "missing"
        }

        fn available(&self) -> Result<(), String> {
            Err("no server".to_owned())
        }

        async fn open(&self, _partitions: u32, _max_skew: Duration) -> Result<MemoryStore> {
            unreachable!("what is missing is not opened")
        }
    }

    fn conclude(required: Required) -> Conclusion {
        let mut suite = Suite { trials: Vec::new(), required };
        suite.conformance(Missing);
        suite.own("missing", Err("no server".to_owned()), "panics", || async { unreachable!("no server") });
        let arguments = Arguments { quiet: true, logfile: Some("/dev/null".into()), ..Arguments::default() };
        libtest_mimic::run(&arguments, suite.trials)
    }

    #[test]
    fn the_cases_of_a_missing_store_are_ignored_or_fail_and_never_pass() {
        let ignored = conclude(Required::Named(vec!["other".to_owned()]));
        assert!(ignored.num_ignored > 100);
        assert_eq!((ignored.num_passed, ignored.num_failed), (0, 0));

        let failed = conclude(Required::Named(vec!["missing".to_owned()]));
        assert_eq!(failed.num_failed, ignored.num_ignored);
        assert_eq!((failed.num_passed, failed.num_ignored), (0, 0));
    }

    #[test]
    fn the_reason_for_ignoring_a_case_stands_in_its_name() {
        let mut suite = Suite { trials: Vec::new(), required: Required::Named(Vec::new()) };
        suite.conformance(Missing);
        assert!(suite.trials.iter().all(|trial| trial.kind() == "no server"));
    }

    #[test]
    fn a_test_of_a_stores_own_passes_or_fails_where_its_server_is_there() {
        let mut suite = Suite { trials: Vec::new(), required: Required::All };
        suite.own("there", Ok(()), "passes", || async {});
        suite.own("there", Ok(()), "fails", || async { panic!("it fails") });
        let arguments = Arguments { quiet: true, logfile: Some("/dev/null".into()), ..Arguments::default() };
        let conclusion = libtest_mimic::run(&arguments, suite.trials);
        assert_eq!((conclusion.num_passed, conclusion.num_failed, conclusion.num_ignored), (1, 1, 0));
    }

    /// The names of all cases.
    fn names() -> Vec<String> {
        let mut suite = Suite { trials: Vec::new(), required: Required::All };
        suite.conformance(Missing);
        suite.choreograph(Missing);
        suite.flare(Missing);
        suite.idempotency(Missing);
        suite.projections(Missing);
        suite.trials.iter().map(|trial| trial.name().to_owned()).collect()
    }

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let mut names = names();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_the_guarantees_are_shown_by_is_a_case() {
        let guarantees = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guarantees.md");
        let guarantees = std::fs::read_to_string(guarantees).unwrap();
        let (names, mut found) = (names(), 0);
        for section in guarantees.split("\n### ").skip(1) {
            let (capability, section) = section.split_once('\n').unwrap();
            let section = section.split("\n## ").next().unwrap();
            for case in section.split('`').filter(|quoted| quoted.contains("::")) {
                let name = format!("missing::{capability}::n4::{case}");
                assert!(names.contains(&name), "{name}");
                found += 1;
            }
        }
        assert!(found > 90, "{found} cases");
    }
}
