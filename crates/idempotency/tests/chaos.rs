//! Clients that retry, on processes that die, over a store that loses answers.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_core::{Clock, ManualClock, MemoryStore, NewEvent, Read, Scan, Store, StoreExt};
use evenkeel_idempotency::{Idempotency, OnRunning, Operation, RunError, Scope, Status};
use evenkeel_testkit::{Chaos, ChaosStore};

/// Charged in a transaction; the last one only runs, so that its effects are nobody's business.
const KEYS: [&str; 4] = ["a", "b", "c", "only run"];
const CLIENTS: usize = 8;
const PROCESSES: u32 = 6;

#[test]
fn every_key_takes_effect_once_whatever_fails_and_whoever_dies() {
    let mut crashes = 0;
    for seed in 0..2400 {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        crashes += runtime.block_on(Story::new(seed).play());
    }
    assert!(crashes > 2400, "the processes died {crashes} times only");
}

/// One seed's world.
struct Story {
    seed: u64,
    database: MemoryStore,
    clock: ManualClock,
    /// What each client was told.
    answers: Arc<Mutex<HashMap<usize, String>>>,
    runs: Arc<AtomicU32>,
}

impl Story {
    fn new(seed: u64) -> Self {
        let partitions = if seed.is_multiple_of(2) { 1 } else { 4 };
        Self {
            seed,
            database: MemoryStore::with_partitions(partitions).unwrap(),
            clock: ManualClock::default(),
            answers: Arc::default(),
            runs: Arc::default(),
        }
    }

    /// Plays to the end; returns how many processes died.
    async fn play(self) -> usize {
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
                () = tick(&self.clock) => unreachable!("the clock ticks on"),
            }
            self.clock.advance(Duration::from_secs(20));
        }
        self.check().await;
        died
    }

    /// All clients that have no answer yet, on one process, with its housekeeping.
    async fn clients(&self, store: &ChaosStore<MemoryStore>, seed: u64) {
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
        process: Idempotency<ChaosStore<MemoryStore>>,
        client: usize,
        seed: u64,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
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

/// Lets time pass while there is nothing to do, so that renewals and waits come about.
async fn tick(clock: &ManualClock) {
    loop {
        pause(10).await;
        clock.advance(Duration::from_millis(200));
    }
}

async fn pause(yields: u8) {
    for _ in 0..yields {
        tokio::task::yield_now().await;
    }
}
