use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use evenkeel_choreograph::{Definition, Join, RetryPolicy, Run, RunState, StepContext, StepKey};
use evenkeel_core::{ManualClock, Tx};

use super::super::bench::{Bench, Seen, take_effect};

type Ctx = StepContext<u64>;
type Fallible<T> = Result<T, String>;

/// The values are numbers of executions, so that each is of exactly one.
const STEPS: [StepKey<u64>; 12] = [
    StepKey::new("a"),
    StepKey::new("b"),
    StepKey::new("c"),
    StepKey::new("d"),
    StepKey::new("e"),
    StepKey::new("f"),
    StepKey::new("g"),
    StepKey::new("h"),
    StepKey::new("i"),
    StepKey::new("j"),
    StepKey::new("k"),
    StepKey::new("l"),
];

/// How often a job or a compensation that is to succeed fails before, at most.
const FAILURES: u32 = 2;

/// What a seed makes of a definition.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
pub(super) enum Piece {
    Step(Step),
    Group(Join, Vec<Step>),
    Sleep(Duration),
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    number: usize,
    kind: Kind,
    /// Its pre-check skips the job.
    skips: bool,
    /// It fails for good.
    fails: bool,
    undo: Undo,
    /// The steps that come to their end before it begins.
    before: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Job,
    /// A job that is looked for where it was cut off.
    Probed,
    Transaction,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Undo {
    None,
    Works,
    Fails,
}

impl Shape {
    pub(super) fn random(random: &mut fastrand::Rng) -> Self {
        let (mut number, mut before, mut pieces) = (0, Vec::new(), Vec::new());
        let mut step = |before: &[usize], random: &mut fastrand::Rng| {
            number += 1;
            Step {
                number: number - 1,
                kind: [Kind::Job, Kind::Job, Kind::Probed, Kind::Transaction][random.usize(0..4)],
                skips: random.u8(0..6) == 0,
                fails: random.u8(0..10) == 0,
                undo: [Undo::None, Undo::Works, Undo::Works, Undo::Works, Undo::Fails][random.usize(0..5)],
                before: before.to_vec(),
            }
        };
        for _ in 0..random.usize(1..=6) {
            let piece = match random.u8(0..8) {
                0 => Piece::Sleep(Duration::from_millis(random.u64(1..3000))),
                1 | 2 => {
                    let join = if random.bool() { Join::All } else { Join::FailFast };
                    Piece::Group(join, (0..2).map(|_| step(&before, random)).collect())
                }
                _ => Piece::Step(step(&before, random)),
            };
            before.extend(piece.steps().iter().map(|step| step.number));
            pieces.push(piece);
        }
        Self { pieces }
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.pieces.iter().flat_map(Piece::steps)
    }

    pub(super) fn definition<C: Send + 'static>(&self, world: &World) -> Definition<u64, C> {
        let mut builder = Definition::<u64, C>::builder("random");
        for piece in &self.pieces {
            builder = match piece {
                Piece::Sleep(time) => builder.branch(|branch| branch.sleep(*time)),
                Piece::Step(step) => builder.branch(|branch| step.add_to(branch, world)),
                Piece::Group(join, steps) => builder.parallel(*join, |mut group| {
                    for step in steps {
                        group = group.branch(|branch| step.add_to(branch, world));
                    }
                    group
                }),
            };
        }
        builder.build().unwrap()
    }
}

impl Piece {
    fn steps(&self) -> &[Step] {
        match self {
            Self::Step(step) => std::slice::from_ref(step),
            Self::Group(_, steps) => steps,
            Self::Sleep(_) => &[],
        }
    }
}

type Added<C> = evenkeel_choreograph::Builder<u64, C, evenkeel_choreograph::Step<u64, ()>>;

impl Step {
    fn add_to<C: Send + 'static>(
        &self,
        builder: evenkeel_choreograph::Builder<u64, C>,
        world: &World,
    ) -> Added<C> {
        let key = STEPS[self.number];
        let shared = Arc::new((self.clone(), world.clone()));
        let with = |shared: &Arc<(Self, World)>| Arc::clone(shared);
        let step = if self.kind == Kind::Transaction {
            let shared = with(&shared);
            builder.tx_step(key, move |ctx, tx| {
                let shared = with(&shared);
                async move { shared.1.book(&shared.0, ctx, tx).await }
            })
        } else {
            let shared = with(&shared);
            builder.step(key, move |ctx| {
                let shared = with(&shared);
                async move { shared.1.work(&shared.0, ctx).await }
            })
        };
        let policy = RetryPolicy::attempts(FAILURES + 2).first(Duration::from_millis(500));
        let mut step = step.retry(policy);
        if self.kind == Kind::Probed {
            let shared = with(&shared);
            step = step.probe(move |ctx: Ctx| {
                let found = shared.1.lock().done(ctx.run_id(), shared.0.number);
                std::future::ready(Fallible::Ok(found))
            });
        }
        if self.skips {
            step = step.pre_check(async |_| Err::<(), _>("not needed"));
        }
        if self.undo != Undo::None {
            step = step.compensate_with(policy, move |ctx| {
                let shared = with(&shared);
                async move { shared.1.take_back(&shared.0, ctx).await }
            });
        }
        step
    }
}

/// What callbacks did, over all processes.
#[derive(Clone, Debug)]
pub(super) struct World {
    clock: ManualClock,
    seen: Seen,
    diary: Arc<Mutex<Diary>>,
}

/// A step of a run.
type Name = (String, usize);

#[derive(Debug, Default)]
struct Diary {
    random: fastrand::Rng,
    executions: u64,
    /// What the executions of a step gave that came to their end.
    given: BTreeMap<Name, Vec<u64>>,
    failures: BTreeMap<Name, u32>,
    /// What others saw of steps that had finished.
    seen: BTreeMap<Name, u64>,
    /// Compensations in the order in which they were begun, and those that worked.
    undone: BTreeMap<String, Vec<usize>>,
    undo_failures: BTreeMap<Name, u32>,
    undo_worked: BTreeSet<Name>,
    violations: Vec<String>,
}

impl World {
    pub(super) fn new<S>(seed: u64, bench: &Bench<S>) -> Self {
        let diary = Diary { random: fastrand::Rng::with_seed(seed), ..Diary::default() };
        let (clock, seen) = (bench.clock.clone(), bench.seen.clone());
        Self { clock, seen, diary: Arc::new(Mutex::new(diary)) }
    }

    fn lock(&self) -> MutexGuard<'_, Diary> {
        self.diary.lock().unwrap()
    }

    async fn work(&self, step: &Step, ctx: Ctx) -> Fallible<u64> {
        let execution = self.lock().begin(step, &ctx);
        self.take_time().await;
        self.lock().end(step, &ctx, execution)
    }

    async fn book<C: Send + 'static>(&self, step: &Step, ctx: Ctx, mut tx: Tx<C>) -> Fallible<u64> {
        let execution = self.lock().begin(step, &ctx);
        self.take_time().await;
        // Only now: on some stores the connection holds everybody up, and time stands still meanwhile.
        let stream = stream(ctx.run_id(), step.number);
        take_effect(&self.seen, &mut tx, &stream).await.map_err(|error| error.to_string())?;
        self.lock().end(step, &ctx, execution)
    }

    async fn take_back(&self, step: &Step, ctx: Ctx) -> Fallible<()> {
        self.lock().begin_undo(step, &ctx);
        self.take_time().await;
        self.lock().end_undo(step, &ctx)
    }

    /// A moment, in which other things happen, or a longer one.
    async fn take_time(&self) {
        let (yields, sleeps) = {
            let random = &mut self.lock().random;
            (random.u8(0..4), random.u8(0..6) == 0)
        };
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        if sleeps {
            self.clock.shared().sleep(Duration::from_secs(1)).await;
        }
    }
}

impl Diary {
    fn done(&self, run: &str, step: usize) -> Option<u64> {
        self.given.get(&(run.to_owned(), step)).and_then(|given| given.first().copied())
    }

    /// An execution of a job begins, and sees what finished before.
    fn begin(&mut self, step: &Step, ctx: &Ctx) -> u64 {
        for before in &step.before {
            if let Some(value) = ctx.get(STEPS[*before]) {
                self.sees(ctx.run_id(), *before, *value);
            }
        }
        self.may_begin(step, ctx.run_id());
        self.executions += 1;
        self.executions
    }

    fn may_begin(&mut self, step: &Step, run: &str) {
        let number = step.number;
        if self.seen.contains_key(&(run.to_owned(), number)) {
            self.violations.push(format!("{run}: step {number} had finished, and runs again"));
        }
        if step.skips {
            self.violations.push(format!("{run}: step {number} was skipped, and runs"));
        }
        if self.undone.contains_key(run) {
            self.violations.push(format!("{run}: step {number} runs after a compensation"));
        }
    }

    fn end(&mut self, step: &Step, ctx: &Ctx, execution: u64) -> Fallible<u64> {
        let name = (ctx.run_id().to_owned(), step.number);
        let failures = self.failures.entry(name.clone()).or_default();
        if step.fails || (*failures < FAILURES && self.random.u8(0..4) == 0) {
            *failures += 1;
            return Err("declined".to_owned());
        }
        self.given.entry(name).or_default().push(execution);
        Ok(execution)
    }

    /// Somebody sees the value of a step that has finished.
    fn sees(&mut self, run: &str, step: usize, value: u64) {
        let name = (run.to_owned(), step);
        let first = *self.seen.entry(name.clone()).or_insert(value);
        if first != value {
            self.violations.push(format!("{run}: step {step} gave {first}, and then {value}"));
        }
        if !self.given.get(&name).is_some_and(|given| given.contains(&value)) {
            self.violations.push(format!("{run}: no execution of step {step} gave {value}"));
        }
    }

    fn begin_undo(&mut self, step: &Step, ctx: &Ctx) {
        let run = ctx.run_id();
        match ctx.get(STEPS[step.number]) {
            Some(value) => self.sees(run, step.number, *value),
            None => {
                self.violations.push(format!("{run}: step {} did not finish, and is taken back", step.number))
            }
        }
        let undone = self.undone.entry(run.to_owned()).or_default();
        if undone.last() != Some(&step.number) {
            undone.push(step.number);
        }
    }

    fn end_undo(&mut self, step: &Step, ctx: &Ctx) -> Fallible<()> {
        let name = (ctx.run_id().to_owned(), step.number);
        let failures = self.undo_failures.entry(name.clone()).or_default();
        if step.undo == Undo::Fails || (*failures < FAILURES && self.random.u8(0..4) == 0) {
            *failures += 1;
            return Err("it resists".to_owned());
        }
        self.undo_worked.insert(name);
        Ok(())
    }
}

/// The stream that a transactional step appends to.
pub(super) fn stream(run: &str, step: usize) -> String {
    format!("{run}/{step}")
}

/// How a run was to end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    /// As its steps say.
    Undisturbed,
    /// Somebody cancelled it, in time or not.
    Cancelled,
}

impl World {
    /// Checks a run that has ended; returns how many events each stream is to have.
    pub(super) fn check(&self, shape: &Shape, run: &Run, fate: Fate) -> Vec<(String, u64)> {
        let mut diary = self.lock();
        let mut finished = BTreeSet::new();
        for step in shape.steps() {
            if let Some(value) = run.get(STEPS[step.number]).unwrap() {
                diary.sees(&run.id, step.number, value);
                finished.insert(step.number);
            }
        }
        assert_eq!(diary.violations, Vec::<String>::new());
        let took_back = diary.undone.get(&run.id).cloned().unwrap_or_default();
        let expected = if run.state == RunState::Completed {
            let all: BTreeSet<_> = shape.steps().filter(|step| !step.skips).map(|step| step.number).collect();
            assert_eq!(finished, all, "all steps of a completed run have finished");
            RunState::Completed
        } else {
            Self::check_taken_back(&diary, shape, run, &finished, &took_back)
        };
        assert_eq!(run.state, expected);
        if fate == Fate::Undisturbed {
            let completes = shape.steps().all(|step| step.skips || !step.fails);
            assert_eq!(run.state == RunState::Completed, completes);
        }
        let booked = shape.steps().filter(|step| step.kind == Kind::Transaction);
        booked
            .map(|step| (stream(&run.id, step.number), u64::from(finished.contains(&step.number))))
            .collect()
    }

    /// What was taken back is what finished, in reverse order; how a run that failed is to have ended.
    fn check_taken_back(
        diary: &Diary,
        shape: &Shape,
        run: &Run,
        finished: &BTreeSet<usize>,
        took_back: &[usize],
    ) -> RunState {
        let undo = |undo: Undo| {
            let steps =
                shape.steps().filter(move |step| step.undo == undo && finished.contains(&step.number));
            steps.map(|step| step.number).collect::<BTreeSet<_>>()
        };
        let (works, fails) = (undo(Undo::Works), undo(Undo::Fails));
        let worked: BTreeSet<_> =
            diary.undo_worked.iter().filter(|(id, _)| *id == run.id).map(|(_, step)| *step).collect();
        assert_eq!(worked, works, "what finished is taken back, and nothing else");
        let tried: BTreeSet<_> = took_back.iter().copied().collect();
        assert_eq!(tried, works.union(&fails).copied().collect());
        assert_eq!(tried.len(), took_back.len(), "one after the other, and none again: {took_back:?}");
        for step in shape.steps() {
            let place = |number| took_back.iter().position(|it| *it == number);
            for before in &step.before {
                if let (Some(later), Some(earlier)) = (place(step.number), place(*before)) {
                    assert!(later < earlier, "in reverse order: {took_back:?}");
                }
            }
        }
        let cancelled = run
            .error
            .as_ref()
            .is_some_and(|error| error.kind() == evenkeel_choreograph::StepErrorKind::Cancelled);
        match (fails.is_empty(), works.is_empty(), cancelled) {
            (false, _, _) => RunState::CompensationFailed,
            (true, false, _) => RunState::Compensated,
            (true, true, true) => RunState::Cancelled,
            (true, true, false) => RunState::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_diary_notices_what_must_not_happen() {
        let step = |number, skips| {
            let (kind, undo) = (Kind::Job, Undo::None);
            Step { number, kind, skips, fails: false, undo, before: Vec::new() }
        };
        let mut diary = Diary::default();
        diary.given.insert(("r".to_owned(), 0), vec![1, 2]);
        diary.may_begin(&step(0, false), "r");
        diary.sees("r", 0, 1);
        diary.sees("r", 0, 1);
        diary.may_begin(&step(0, false), "s");
        assert_eq!(diary.violations, Vec::<String>::new());

        diary.may_begin(&step(0, false), "r");
        diary.sees("r", 0, 2);
        diary.sees("r", 1, 3);
        diary.may_begin(&step(2, true), "r");
        diary.undone.insert("s".to_owned(), vec![0]);
        diary.may_begin(&step(1, false), "s");
        let expected = [
            "r: step 0 had finished, and runs again",
            "r: step 0 gave 1, and then 2",
            "r: no execution of step 1 gave 3",
            "r: step 2 was skipped, and runs",
            "s: step 1 runs after a compensation",
        ];
        assert_eq!(diary.violations, expected);
    }
}
