use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_choreograph::{Choreographer, Definition, StepContext, StepKey};
use evenkeel_core::{Clock, SystemClock, Tx};
use evenkeel_storage_pg::{PgConfig, PgStore};
use evenkeel_testkit::Process;
use sqlx::PgConnection;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::ledger::{self, Ledger};

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

/// The database of a worker, and its number, by which it signs.
pub(crate) type Part = (String, i64);

/// Works until nobody can tell this process anything any more.
pub(crate) fn be((url, number): Part) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut told = Process::told();
        let worker = choreographer(&url, number).await.worker().concurrency(16);
        worker.run(async { while told.recv().await.is_some() {} }).await;
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
