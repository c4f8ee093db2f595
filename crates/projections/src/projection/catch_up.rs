use std::time::Duration;

use evenkeel_core::{Error, ErrorKind, Partition, Result, StoreExt, Transactional};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::Projection;
use super::apply::may_pass;
use super::drive::Stop;
use super::partition::{PartitionRun, Reached};
use crate::projector::Effects;
use crate::{Failure, Projector};

/// How many partitions are caught up with side by side.
const PARTITIONS: usize = 8;

/// How often a pass is begun anew that got nowhere.
const ATTEMPTS: u32 = 10;

impl<P: Projector<S::Conn>, S: Transactional + Clone> Projection<P, S> {
    /// Applies what there is in all partitions; returns when nothing is left to apply.
    ///
    /// Others may run the projection meanwhile. Dropping the future stops it between two commits,
    /// or leaves one under way to end.
    ///
    /// # Errors
    /// Those of the store; `InvalidInput` where the projection is paused; `Unexpected` where a
    /// handler failed and the policy is to stop; `Corrupt` where the log ends before what was
    /// applied.
    pub async fn catch_up(&self) -> Result<()> {
        self.check()?;
        let control = self.shared.operations.control().await?;
        if control.paused {
            return Err(Error::new(ErrorKind::InvalidInput, "the projection is paused")
                .with("projection", self.name()));
        }
        self.initialise(control.active).await?;
        self.catch_up_version(control.active, Effects::Live).await
    }

    /// How far the active version has come in a partition.
    ///
    /// # Errors
    /// Those of [`Store::get`](evenkeel_core::Store::get).
    pub async fn position(&self, at: &Partition) -> Result<u64> {
        let version = self.shared.operations.control().await?.active;
        Ok(PartitionRun::open(&self.shared, at.clone(), version, Effects::Silent).await?.position())
    }

    pub(crate) async fn catch_up_version(&self, version: u32, effects: Effects) -> Result<()> {
        stream::iter(self.shared.store().partitions())
            .map(|at| self.catch_up_partition(at, version, effects, u64::MAX))
            .buffer_unordered(PARTITIONS)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
    }

    /// Applies what there is in a partition, up to the head or to `until`.
    pub(crate) async fn catch_up_partition(
        &self,
        at: Partition,
        version: u32,
        effects: Effects,
        until: u64,
    ) -> Result<Reached> {
        let (mut attempt, mut reached) = (1, 0);
        loop {
            let passed = async {
                let mut run = PartitionRun::open(&self.shared, at.clone(), version, effects).await?;
                if run.position() > reached {
                    (attempt, reached) = (1, run.position());
                }
                run.pass(until).await
            };
            let error = match passed.await {
                Ok(reached) => return Ok(reached),
                Err(Stop::Failed(failure)) => return Err(self.stopped(&at, &failure)),
                Err(Stop::Store(error)) if may_pass(&error) && attempt < ATTEMPTS => error,
                Err(Stop::Store(error)) => return Err(error),
            };
            tracing::debug!(%error, %at, projection = self.name(), attempt, "a pass over the log is begun anew");
            if error.kind() != ErrorKind::Conflict {
                self.shared.clock().sleep(Duration::from_millis(10 << attempt)).await;
            }
            attempt += 1;
        }
    }

    pub(super) fn stopped(&self, at: &Partition, failure: &Failure) -> Error {
        Error::new(ErrorKind::Unexpected, "the projection stopped at an event that it could not apply")
            .with("projection", self.name())
            .with("partition", at)
            .with("position", failure.position)
            .with("kind", &failure.kind)
            .with("error", &failure.error)
    }
}
