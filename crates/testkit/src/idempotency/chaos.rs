use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_core::{Clock, ManualClock, NewEvent, Read, Result, Scan, StoreExt, SystemClock, Transactional};
use evenkeel_idempotency::{Idempotency, OnRunning, Operation, RunError, Scope, Status};

use crate::chaos::{Chaos, ChaosStore};
use crate::fixture::{Fixture, Latency};
use crate::harness::open;

/// Charged in a transaction; the last one only runs, so that its effects are nobody's business.
const KEYS: [&str; 4] = ["a", "b", "c", "only run"];
const CLIENTS: usize = 8;
const PROCESSES: u32 = 6;

/// Clients that retry, on processes that die, over a store that loses answers: once for each of the
/// fixture's seeds.
pub(super) async fn every_key_takes_effect_once<F: Fixture>(fixture: Arc<F>, partitions: u32) -> Result<()> {
    let seeds = fixture.seeds();
    let stories = tokio::task::spawn_blocking(move || {
        // One thread, so that a seed is one story wherever the store allows it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a thread may have a runtime");
        let story = async |seed| {
            let database = open(&*fixture, partitions).await?;
            Result::<u64>::Ok(Story::new(seed, database, fixture.latency()).play().await)
        };
        (0..seeds).map(|seed| runtime.block_on(story(seed))).sum::<Result<u64>>()
    });
    let died = stories.await.expect("a story that panics fails its case")?;
    assert!(died >= seeds, "the processes died {died} times only");
    Ok(())
}

/// One seed's world.
struct Story<S> {
    seed: u64,
    database: S,
    latency: Latency,
    clock: ManualClock,
    /// What each client was told.
    answers: Arc<Mutex<HashMap<usize, String>>>,
    runs: Arc<AtomicU32>,
}

impl<S: Transactional + Clone> Story<S> {
    fn new(seed: u64, database: S, latency: Latency) -> Self {
        Self {
            seed,
            database,
            latency,
            clock: ManualClock::default(),
            answers: Arc::default(),
            runs: Arc::default(),
        }
    }

    /// Plays to the end; returns how many processes died.
    async fn play(self) -> u64 {
        let mut died = 0;
        for process in 0..PROCESSES {
            let seed = self.seed * u64::from(PROCESSES) + u64::from(process);
            let chaos = Chaos::new(seed).unavailable(0.03).lost_acknowledgements(0.1).delays(3);
            // Every call of the first process is the one at which it dies, in turn; the last lives.
            let chaos = match process {
                0 => chaos.crash_at(1 + self.seed % 40),
                _ if process < PROCESSES - 1 => chaos.crash_at(1 + fastrand::Rng::with_seed(seed).u64(0..60)),
                _ => chaos,
            };
            let store = self.database.clone().layer(chaos);
            let clients = self.clients(&store, seed);
            tokio::select! {
                () = clients => break,
                () = store.crashed() => died += 1,
                () = tick(&self.clock, self.latency) => unreachable!("the clock ticks on"),
            }
            self.clock.advance(Duration::from_secs(20));
        }
        self.check().await;
        died
    }

    /// All clients that have no answer yet, on one process, with its housekeeping.
    async fn clients(&self, store: &ChaosStore<S>, seed: u64) {
        let process = Idempotency::new(store.clone()).clock(self.clock.shared());
        let housekeeping = process.maintenance().every(Duration::from_secs(5)).run(std::future::pending());
        let waiting = (0..CLIENTS).filter(|client| !self.answers.lock().unwrap().contains_key(client));
        let clients = waiting.map(|client| self.client(process.clone(), client, seed * 100 + client as u64));
        tokio::select! {
            _ = futures_util::future::join_all(clients) => {}
            () = housekeeping => {}
        }
    }

    /// Asks until it is answered.
    fn client(
        &self,
        process: Idempotency<ChaosStore<S>>,
        client: usize,
        seed: u64,
    ) -> impl Future<Output = ()> + Send + 'static + use<S> {
        let (answers, runs, clock) = (Arc::clone(&self.answers), Arc::clone(&self.runs), self.clock.shared());
        let key = KEYS[client % KEYS.len()];
        let mut random = fastrand::Rng::with_seed(seed);
        async move {
            loop {
                let declines = random.u8(0..5) == 0;
                let yields = random.u8(0..4);
                let name = || format!("run {} for client {client}", runs.fetch_add(1, Ordering::Relaxed));
                let result = if key == "only run" {
                    process
                        .run(operation(key), async || {
                            pause(yields).await;
                            if declines { Err("declined".to_owned()) } else { Ok(name()) }
                        })
                        .await
                } else {
                    process
                        .run_tx(operation(key), async |mut tx| {
                            let now = tx.batch().now();
                            tx.conn().await.map_err(|error| error.to_string())?;
                            tx.batch().append_any(key, [NewEvent::new("Charged", "{}", now)]);
                            pause(yields).await;
                            if declines { Err("declined".to_owned()) } else { Ok(name()) }
                        })
                        .await
                };
                match result {
                    Ok(outcome) => {
                        answers.lock().unwrap().insert(client, outcome.value);
                        return;
                    }
                    Err(RunError::Handler(_)) => {}
                    Err(RunError::Idempotency(_)) => clock.sleep(Duration::from_millis(100)).await,
                }
            }
        }
    }

    async fn check(&self) {
        let answers = self.answers.lock().unwrap().clone();
        let seed = self.seed;
        assert_eq!(answers.len(), CLIENTS, "seed {seed}: {answers:?}");
        let mut by_key = BTreeMap::<&str, Vec<&String>>::new();
        for (client, answer) in &answers {
            by_key.entry(KEYS[client % KEYS.len()]).or_default().push(answer);
        }
        let process = Idempotency::new(self.database.clone()).clock(self.clock.shared());
        for (key, answers) in by_key {
            assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}, {key}: {answers:?}");
            let tracked = process.show(operation(key).identity()).await.unwrap().unwrap();
            assert_eq!(tracked.status, Status::Finished, "seed {seed}, {key}");
            let mut effects = 0;
            for at in self.database.partitions() {
                effects += self.database.read(&at, Read::stream(key, 0, 1)).await.unwrap().head;
            }
            let expected = u64::from(key != "only run");
            assert_eq!(effects, expected, "seed {seed}, {key}");
        }
        let running = Scan::new("idempotency.state", "running", 10, self.clock.now());
        assert_eq!(self.database.scan_merged(running).await.unwrap(), [], "seed {seed}");
    }
}

fn operation(key: &str) -> Operation {
    Operation::new(Scope::Global, "charge", key)
        .on_running(OnRunning::Wait(Duration::from_secs(10)))
        .expiration(Duration::ZERO)
}

/// Lets time pass while there is nothing to do, so that renewals and waits come about. A lease that
/// is renewed must outlive a call.
async fn tick(clock: &ManualClock, latency: Latency) {
    loop {
        pause(10).await;
        if latency == Latency::Real {
            SystemClock::shared().sleep(Duration::from_millis(2)).await;
        }
        clock.advance(Duration::from_millis(200));
    }
}

async fn pause(yields: u8) {
    for _ in 0..yields {
        tokio::task::yield_now().await;
    }
}
