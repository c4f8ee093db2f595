use std::io::Read;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_choreograph::{Choreographer, Definition, StepContext, StepKey};
use evenkeel_core::{Clock, SystemClock, Tx};
use evenkeel_storage_pg::{PgConfig, PgStore};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::PgConnection;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::ledger::{self, Ledger};

/// Names the database of a worker.
const URL: &str = "RUNS_WORKER_URL";
/// Its number, by which it signs.
const NUMBER: &str = "RUNS_WORKER_NUMBER";

pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// Three steps that are noted when they begin, and two that are noted where they are committed.
pub(crate) const FIVE: &str = "five";
/// A step that is begun, and ends when the gate is open.
pub(crate) const GATED: &str = "gated";
/// The same in a transaction.
pub(crate) const GATED_TX: &str = "gated tx";

/// Who passed the gate.
pub(crate) const GATE: StepKey<i64> = StepKey::new("gate");

type Context = StepContext<()>;

/// A process; killed when dropped.
pub(crate) struct Worker {
    process: Child,
}

impl Worker {
    pub(crate) fn spawn(url: &str, number: usize) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        // It ends when nobody holds its standard input any more.
        command.env(URL, url).env(NUMBER, number.to_string()).stdin(Stdio::piped()).stdout(Stdio::null());
        Self { process: command.spawn().unwrap() }
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn is_asked_for() -> bool {
    std::env::var_os(URL).is_some()
}

/// Works until the standard input ends.
pub(crate) fn be() -> ExitCode {
    let (url, number) = (std::env::var(URL).unwrap(), std::env::var(NUMBER).unwrap().parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let worker = choreographer(&url, number).await.worker().concurrency(16);
        let input_ends = tokio::task::spawn_blocking(|| drop(std::io::stdin().read_to_end(&mut Vec::new())));
        worker.run(async { input_ends.await.unwrap() }).await;
    });
    ExitCode::SUCCESS
}

/// A handle to the runs of a database, with all definitions.
pub(crate) async fn choreographer(url: &str, number: i64) -> Choreographer<PgStore> {
    let config = PgConfig::new(url).unwrap().partitions(4).connections(4).transactions(4);
    let store = config.open().await.unwrap();
    let signature =
        Arc::new(Signature { number, url: url.to_owned(), ledger: Mutex::new(Ledger::open(url).await) });
    let choreographer = Choreographer::with_store(store).lease(LEASE);
    for definition in [five(&signature), gated(&signature), gated_tx(&signature)] {
        choreographer.register_tx(definition).unwrap();
    }
    choreographer
}

/// Who notes, and where.
struct Signature {
    number: i64,
    url: String,
    ledger: Mutex<Ledger>,
}

impl Signature {
    async fn note(&self, run: &str, step: &str) -> sqlx::Result<()> {
        let at = SystemClock.now();
        self.ledger.lock().await.note(run, step, self.number, at).await
    }

    /// A step that notes that it began.
    fn notes(self: &Arc<Self>) -> impl Fn(Context) -> Noted + Send + Sync + use<> {
        let signature = Arc::clone(self);
        move |ctx| {
            let signature = Arc::clone(&signature);
            Box::pin(async move { signature.note(ctx.run_id(), ctx.step()).await })
        }
    }

    /// A step whose note is committed with its record.
    fn books(self: &Arc<Self>) -> impl Fn(Context, Tx<PgConnection>) -> Noted + Send + Sync + use<> {
        let signature = Arc::clone(self);
        move |ctx, mut tx| {
            let (signature, at) = (Arc::clone(&signature), SystemClock.now());
            Box::pin(async move {
                let connection = tx.conn().await.map_err(|error| sqlx::Error::Configuration(error.into()))?;
                ledger::note(connection, ctx.run_id(), ctx.step(), signature.number, at).await
            })
        }
    }

    /// Waits at the gate, and lets nothing else of its run go on: who is paused here learns that its
    /// lease ran out by trying to record what it did.
    fn pass(&self, run: &str) -> sqlx::Result<()> {
        let passing = async {
            self.note(run, "began").await?;
            // On a connection of its own: others note meanwhile.
            Ledger::open(&self.url).await.wait_at_gate().await?;
            self.note(run, "passed the gate").await
        };
        tokio::task::block_in_place(|| Handle::current().block_on(passing))
    }
}

type Noted = futures_util::future::BoxFuture<'static, sqlx::Result<()>>;

fn five(signature: &Arc<Signature>) -> Definition<(), PgConnection> {
    Definition::builder(FIVE)
        .step(StepKey::<()>::new("one"), signature.notes())
        .tx_step(StepKey::<()>::new("tx two"), signature.books())
        .step(StepKey::<()>::new("three"), signature.notes())
        .tx_step(StepKey::<()>::new("tx four"), signature.books())
        .step(StepKey::<()>::new("five"), signature.notes())
        .build()
        .unwrap()
}

fn gated(signature: &Arc<Signature>) -> Definition<(), PgConnection> {
    let gate = Arc::clone(signature);
    Definition::builder(GATED)
        .step(GATE, move |ctx| {
            let gate = Arc::clone(&gate);
            async move {
                gate.pass(ctx.run_id())?;
                Ok::<_, sqlx::Error>(gate.number)
            }
        })
        .step(StepKey::<()>::new("after"), signature.notes())
        .build()
        .unwrap()
}

fn gated_tx(signature: &Arc<Signature>) -> Definition<(), PgConnection> {
    let gate = Arc::clone(signature);
    Definition::builder(GATED_TX)
        .tx_step(GATE, move |ctx: Context, mut tx: Tx<PgConnection>| {
            let gate = Arc::clone(&gate);
            async move {
                let connection = tx.conn().await?;
                ledger::note(connection, ctx.run_id(), "booked", gate.number, SystemClock.now()).await?;
                gate.pass(ctx.run_id())?;
                Ok::<_, evenkeel_core::BoxError>(gate.number)
            }
        })
        .step(StepKey::<()>::new("after"), signature.notes())
        .build()
        .unwrap()
}
