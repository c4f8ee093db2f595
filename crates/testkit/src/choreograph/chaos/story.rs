use std::time::Duration;

use evenkeel_choreograph::{Event, RunFilter, RunState};
use evenkeel_core::{ErrorKind, Transactional};

use super::super::bench::{Bench, LEASE, Process, work};
use super::world::{Fate, Shape, World};
use crate::chaos::Chaos;
use crate::harness::Running;

const PROCESSES: u64 = 6;
/// A process dies at one of so many calls.
const CALLS: u64 = 40;
const RUNS: [&str; 2] = ["r", "s"];

/// One seed's world.
pub(super) struct Story<S: Transactional> {
    seed: u64,
    bench: Bench<S>,
    random: fastrand::Rng,
    shape: Shape,
    world: World,
    definition: evenkeel_choreograph::Definition<u64, S::Conn>,
}

impl<S: Transactional> Drop for Story<S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the story of seed {}: {:#?}", self.seed, self.shape);
        }
    }
}

impl<S: Transactional + Clone> Story<S> {
    pub(super) fn new(seed: u64, bench: Bench<S>) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let shape = Shape::random(&mut random);
        let world = World::new(random.u64(..), &bench);
        let definition = shape.definition(&world);
        Self { seed, bench, random, shape, world, definition }
    }

    /// Plays to the end; returns how many processes died.
    pub(super) async fn play(mut self) -> u64 {
        let calm = self.bench.process_tx(&self.definition);
        // With each call that the first process may die at.
        let starts_itself = (self.seed + self.seed / CALLS) % 2 == 1;
        let first = u64::from(starts_itself);
        let cancelled = (self.random.u8(0..6) == 0).then(|| self.random.u64(first..PROCESSES));
        let mut died = 0;
        for process in 0..PROCESSES {
            // Runs wait for the first process, or that starts them beside its worker; what it does not
            // live to start is started after it.
            if process >= first {
                for run in RUNS {
                    calm.start("random", run, &self.seed).await.unwrap();
                }
            }
            if cancelled == Some(process) {
                match calm.cancel("s").await {
                    Ok(()) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "it has ended"),
                }
            }
            let starts = if process < first { &RUNS[..] } else { &[] };
            died += u64::from(self.play_until_death(process, starts, &calm).await);
            if self.all_ended(&calm).await {
                break;
            }
            self.bench.clock.advance(LEASE + Duration::from_secs(1));
        }
        self.end(&calm).await;
        self.check(&calm, cancelled.is_some()).await;
        died
    }

    /// A process that dies at one of its calls, or not; sometimes with a rival, and a time in which
    /// neither gets on.
    async fn play_until_death(&mut self, process: u64, starts: &[&'static str], calm: &Process<S>) -> bool {
        let seed = self.seed * PROCESSES + process;
        let trouble = |seed| Chaos::new(seed).unavailable(0.02).lost_acknowledgements(0.08).delays(3);
        // Every call of the first process is the one at which it dies, in turn.
        let call = if process == 0 { self.seed % CALLS } else { self.random.u64(0..CALLS) };
        let dying = self.bench.troubled(trouble(seed).crash_at(1 + call));
        dying.register_tx(self.definition.clone()).unwrap();
        let _worker = work(&dying);
        let _starts: Vec<_> = starts.iter().map(|run| self.start_beside(&dying, run)).collect();
        let _rival = (self.random.u8(0..3) == 0).then(|| {
            let rival = self.bench.troubled(trouble(!seed));
            rival.register_tx(self.definition.clone()).unwrap();
            work(&rival)
        });
        let stops_at = self.random.u8(0..30);
        for moment in 0..40 {
            tokio::select! {
                biased;
                () = dying.store().crashed() => return true,
                () = self.bench.settle_somewhat() => {}
            }
            let time = match () {
                () if moment == stops_at => LEASE + Duration::from_secs(1),
                () => Duration::from_millis(self.random.u64(1..1000)),
            };
            self.bench.clock.advance(time);
            if moment % 4 == 3 && self.all_ended(calm).await {
                return false;
            }
        }
        false
    }

    /// Starts a run once the worker of its process has looked for others, most likely.
    fn start_beside(&self, process: &Process<S>, run: &'static str) -> Running {
        let (process, bench, seed) = (process.clone(), self.bench.clone(), self.seed);
        Running::spawn(async move {
            bench.settle_somewhat().await;
            // It may have trouble, and is started again after it.
            let _ = process.start("random", run, &seed).await;
        })
    }

    async fn all_ended(&self, calm: &Process<S>) -> bool {
        for run in RUNS {
            let found = calm.inspect(run).await.unwrap();
            if !found.is_some_and(|run| run.state.is_final()) {
                return false;
            }
        }
        true
    }

    /// A process without trouble soon ends everything.
    async fn end(&self, calm: &Process<S>) {
        let _worker: Running = work(calm);
        let began = self.bench.now();
        while !self.all_ended(calm).await {
            let waited = self.bench.now().since(began);
            assert!(
                waited < Duration::from_mins(10),
                "seed {}: runs do not end: {:#?}",
                self.seed,
                self.shape
            );
            self.bench.settle().await;
            self.bench.clock.advance(Duration::from_millis(300));
        }
    }

    async fn check(&self, calm: &Process<S>, cancelled: bool) {
        for run in RUNS {
            let fate = if cancelled && run == "s" { Fate::Cancelled } else { Fate::Undisturbed };
            let ended = self.bench.inspect(calm, run).await;
            let history = calm.history(run).await.unwrap().unwrap();
            for (stream, count) in self.world.check(&self.shape, &ended, fate) {
                assert_eq!(self.bench.effects(&stream).await, count, "{stream}");
            }
            let of = |event| history.iter().filter(|entry| entry.event == event).count();
            assert_eq!((of(Event::Started), of(Event::Ended)), (1, 1), "{history:#?}");
            let listed = calm.list(RunFilter::new(ended.state)).await.unwrap();
            assert!(listed.runs.iter().any(|listed| listed.id == run), "{run} is listed as {}", ended.state);
        }
        let running = calm.list(RunFilter::new(RunState::Running)).await.unwrap();
        assert_eq!(running.runs, []);
    }
}
