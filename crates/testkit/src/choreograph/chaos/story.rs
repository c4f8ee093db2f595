use std::time::Duration;

use evenkeel_choreograph::{Event, RunFilter, RunState};
use evenkeel_core::{ErrorKind, Transactional};

use super::super::bench::{Bench, LEASE, Process, work};
use super::world::{Fate, Shape, World};
use crate::chaos::Chaos;
use crate::harness::Running;

const PROCESSES: u64 = 6;
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
        for run in RUNS {
            calm.start("random", run, &self.seed).await.unwrap();
        }
        let cancelled = (self.random.u8(0..6) == 0).then(|| self.random.u64(0..PROCESSES));
        let mut died = 0;
        for process in 0..PROCESSES {
            if cancelled == Some(process) {
                match calm.cancel("s").await {
                    Ok(()) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "it has ended"),
                }
            }
            died += u64::from(self.play_until_death(process, &calm).await);
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
    async fn play_until_death(&mut self, process: u64, calm: &Process<S>) -> bool {
        let seed = self.seed * PROCESSES + process;
        let trouble = |seed| Chaos::new(seed).unavailable(0.02).lost_acknowledgements(0.08).delays(3);
        // Every call of the first process is the one at which it dies, in turn.
        let call = if process == 0 { self.seed % 40 } else { self.random.u64(0..40) };
        let dying = self.bench.troubled(trouble(seed).crash_at(1 + call));
        dying.register_tx(self.definition.clone()).unwrap();
        let _worker = work(&dying);
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

    async fn all_ended(&self, calm: &Process<S>) -> bool {
        for run in RUNS {
            if !self.bench.state(calm, run).await.is_final() {
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
