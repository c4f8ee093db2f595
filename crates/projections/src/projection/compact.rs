use std::convert::Infallible;
use std::time::Duration;

use evenkeel_core::{ErrorKind, Expect, Partition, Result, StoreExt, Timestamp, Transactional};

use super::apply::{guarded, may_pass, passing};
use super::host::{Host, LONGEST_WAIT};
use super::patience::Patience;
use super::unit::json;
use super::{Projection, Shared};
use crate::projector::Compacted;
use crate::{Projector, observe, places};

impl<P: Projector<S::Conn>, S: Transactional + Clone> Projection<P, S> {
    /// Compacts the active version of the read model here and now, in one partition after the other,
    /// whether it is [time](Self::compact_every) or not.
    ///
    /// Dropping the future stops it between two steps, or leaves one under way to end.
    ///
    /// # Errors
    /// Those of the store; `InvalidInput` where the projection is paused; `Unexpected` where the
    /// projector fails, with its error.
    pub async fn compact(&self) -> Result<()> {
        self.check()?;
        let version = self.running().await?.active;
        self.initialise(version).await?;
        for at in self.shared.store().partitions() {
            self.compact_partition(&at, version).await?;
        }
        Ok(())
    }

    async fn compact_partition(&self, at: &Partition, version: u32) -> Result<()> {
        let mut patience = Patience::default();
        loop {
            match self.compact_step(at, version).await {
                Ok(Compacted::All) => return Ok(()),
                Ok(Compacted::More) => {
                    patience = Patience::default();
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    let is_beaten = error.kind() == ErrorKind::Conflict;
                    if is_beaten && self.shared.operations.control().await?.active != version {
                        return Ok(());
                    }
                    patience.another(self.shared.clock(), error).await?;
                }
            }
        }
    }

    async fn compact_step(&self, at: &Partition, version: u32) -> Result<Compacted> {
        let shared = &*self.shared;
        let mut tx = shared.store().begin(at.clone(), shared.now()).await?;
        let compacted = match guarded(async { shared.projector.compact(version, &mut tx).await }).await {
            Ok(compacted) => compacted,
            Err(error) => {
                shared.store().rollback(tx).await;
                let problem = "the projector could not compact its read model";
                return Err(passing(error).unwrap_or_else(|error| self.failed(problem, version, error)));
            }
        };
        let batch = tx.batch().set_now(shared.now());
        if compacted == Compacted::All {
            let now = json(&batch.now())?;
            batch.put(places::compacted(self.name(), version), now, Expect::Any);
        }
        shared.unless_retired(batch, version);
        shared.store().finish(tx).await?;
        Ok(compacted)
    }
}

impl<P: Projector<S::Conn>, S: Transactional + Clone> Host<P, S> {
    /// Compacts the active version whenever it is time.
    pub(super) async fn compact(&self) -> Infallible {
        let shared = &self.node.shared;
        let Some(interval) = shared.settings.compact_every else { return std::future::pending().await };
        loop {
            let again = match self.compact_where_due(interval).await {
                Ok(again) => again,
                Err(error) => {
                    observe::compacted(shared.name(), "failed");
                    tracing::warn!(%error, at = %self.at, projection = shared.name(), "a read model is not compacted");
                    shared.now() + if may_pass(&error) { interval.min(LONGEST_WAIT) } else { interval }
                }
            };
            shared.clock().sleep_until(again).await;
        }
    }

    /// Says when to look again.
    async fn compact_where_due(&self, interval: Duration) -> Result<Timestamp> {
        let shared = &*self.node.shared;
        let control = self.node.control().await?;
        let version = control.active;
        if control.paused || !self.projection.is_initialised(version).await? {
            return Ok(shared.now() + shared.settings.poll);
        }
        let due =
            shared.compacted_at(&self.at, version).await?.map_or(Timestamp::MIN, |last| last + interval);
        if due > shared.now() {
            return Ok(due);
        }
        self.projection.compact_partition(&self.at, version).await?;
        observe::compacted(shared.name(), "done");
        Ok(shared.now() + interval)
    }
}

impl<P, S: evenkeel_core::Store + Clone> Shared<P, S> {
    async fn compacted_at(&self, at: &Partition, version: u32) -> Result<Option<Timestamp>> {
        let key = places::compacted(self.name(), version);
        let found = self.store().get_json::<Timestamp>(at, self.now(), &key).await?;
        Ok(found.map(|(last, _)| last))
    }
}
