//! New runs that a worker holds from their birth.

use std::sync::Arc;

use bytes::Bytes;
use evenkeel_core::{Batch, Hold, Jobs, LeasedJob, Result, Store};
use tokio::sync::{oneshot, watch};

use super::choreographer::Engine;
use super::commit::AGAIN;
use super::driver::is_passing;
use super::hold;
use super::journal::Journal;
use super::places;

/// A run whose first commit makes it held.
#[derive(Clone)]
pub(super) struct Born {
    pub(super) id: String,
    pub(super) hold: Hold,
    pub(super) batch: Batch,
}

impl Born {
    /// Commits the run, says so, and works on it until it rests or ends. `journal` is what is kept of
    /// it then.
    pub(super) async fn live(
        self,
        engine: Arc<Engine>,
        journal: Journal,
        answer: oneshot::Sender<Result<()>>,
        closing: watch::Receiver<bool>,
    ) {
        let written = engine.store.commit(self.batch.clone()).await.map(drop);
        let (is_written, is_unknown) = (written.is_ok(), written.as_ref().is_err_and(is_passing));
        // Who started it may be gone.
        let _ = answer.send(written);
        // Who did is likely to wait for its end, and is told of it without a look if that comes first.
        tokio::task::yield_now().await;
        if is_written {
            self.drive(&engine, Some(journal), closing).await;
        } else if is_unknown && self.is_held(&engine, &closing).await {
            // Others have had the time to change it.
            self.drive(&engine, None, closing).await;
        }
    }

    /// Commits the run where nobody knows whether that was done, and nobody works on it: the next
    /// worker finds it put back in order.
    pub(super) async fn put_back(self, engine: &Arc<Engine>) -> Result<()> {
        // Where it was done, the batch finds itself.
        engine.store.commit(self.batch.clone()).await?;
        let (_closed, closing) = watch::channel(true);
        Box::pin(self.drive(engine, None, closing)).await;
        Ok(())
    }

    /// Works on it as if it had been leased.
    async fn drive(self, engine: &Arc<Engine>, known: Option<Journal>, closing: watch::Receiver<bool>) {
        let Self { id, hold: Hold { token, until }, batch } = self;
        let job = LeasedJob { id, payload: Bytes::new(), due: batch.now(), attempt: 1, token, until };
        hold::drive(engine, batch.at(), job, known, closing).await;
    }

    /// Whether the store shows that the commit, which had no clear answer, was made.
    async fn is_held(&self, engine: &Engine, closing: &watch::Receiver<bool>) -> bool {
        let want = Jobs::ByIds { queue: places::RUNS.to_owned(), ids: vec![self.id.clone()] };
        while engine.now() < self.hold.until {
            match engine.store.jobs(self.batch.at(), want.clone()).await {
                Ok(page) => return page.jobs.iter().any(|(_, job)| job.is_held_by(self.hold.token)),
                Err(error) => {
                    tracing::warn!(%error, run = self.id, "whether a run was started is not known yet");
                }
            }
            if *closing.borrow() {
                break;
            }
            engine.settings.clock.sleep(AGAIN).await;
        }
        false
    }
}
