//! A run from its lease to its rest or end.

use std::sync::Arc;

use evenkeel_core::{ErrorKind, LeasedJob, Partition, Result};
use tokio::sync::watch;

use super::choreographer::Engine;
use super::commit;
use super::driver::{Driver, Held, Reload, Stop, Work};
use super::journal::Journal;
use super::records::RunRecord;
use crate::outcome::RunState;
use crate::policy::VersionPolicy;

/// Works on a leased run until it rests or ends. `known` is everything that is kept of it, where
/// that need not be read.
pub(crate) async fn drive(
    engine: &Arc<Engine>,
    at: &Partition,
    job: LeasedJob,
    known: Option<Journal>,
    closing: watch::Receiver<bool>,
) {
    if let Err(error) = hold(engine, at, &job, known, closing).await {
        if error.kind() == ErrorKind::LeaseLost {
            tracing::info!(run = job.id, "another worker took the run over");
        } else {
            tracing::warn!(%error, run = job.id, "a run was left to its next worker");
        }
    }
}

async fn hold(
    engine: &Arc<Engine>,
    at: &Partition,
    job: &LeasedJob,
    mut known: Option<Journal>,
    closing: watch::Receiver<bool>,
) -> Result<()> {
    let LeasedJob { id, token, attempt, until, .. } = job;
    let mut lease = Held { token: *token, attempt: *attempt, until: *until };
    let mut reload: Option<Reload> = None;
    loop {
        let journal = match known.take() {
            Some(journal) => Some(journal),
            None => Journal::load(&engine.store, at, id, engine.now()).await?,
        };
        let Some(journal) = journal else {
            return commit::ack(engine, at, id, lease.token).await;
        };
        match journal.record.state {
            RunState::Running => {}
            RunState::Parked => return commit::ack(engine, at, id, lease.token).await,
            _ => return engine.forget(at, id, lease.token, journal).await,
        }
        let RunRecord { definition, version, .. } = &journal.record;
        let Some(registered) = engine.shared.version(definition, version) else {
            return leave(engine, at, id, lease, journal).await;
        };
        let mut driver = Box::new(Driver::new(
            engine,
            registered,
            (at, id),
            lease,
            closing.clone(),
            journal,
            reload.as_ref(),
        )?);
        if let Some((step, began_at, failed)) = reload.take().and_then(|reload| reload.failed) {
            driver.failed(Work::Step(step), began_at, failed);
        }
        match Box::pin(driver.work()).await {
            Ok(()) => return Ok(()),
            Err(Stop::Reload(again)) => {
                lease.until = driver.lease.until;
                reload = Some(again);
            }
            Err(Stop::Anew) => lease.until = driver.lease.until,
            Err(Stop::Abandon(error)) => return Err(error),
        }
    }
}

/// What becomes of a run whose version is not registered here.
async fn leave(engine: &Arc<Engine>, at: &Partition, id: &str, lease: Held, journal: Journal) -> Result<()> {
    let policy = engine.shared.newest(&journal.record.definition).map(|newest| newest.plan.version_policy);
    commit::leave(engine, at, id, lease, journal, policy.unwrap_or(VersionPolicy::Pin)).await
}
