use evenkeel_core::{Error, ErrorKind, Partition, Result, StoreExt, Transactional};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::Projection;
use super::drive::Stop;
use super::partition::{PartitionRun, Reached};
use super::patience::Patience;
use crate::control::Control;
use crate::projector::Effects;
use crate::{Failure, Projector};

/// How many partitions are caught up with side by side.
const PARTITIONS: usize = 8;

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
        let mut version = self.running().await?.active;
        loop {
            let outrun = match self.catch_up_active(version).await {
                Err(error) if error.kind() == ErrorKind::Conflict => error,
                caught_up => return caught_up,
            };
            let active = self.running().await?.active;
            if active == version {
                return Err(outrun);
            }
            version = active;
        }
    }

    /// How far the active version has come in a partition.
    ///
    /// # Errors
    /// Those of [`Store::get`](evenkeel_core::Store::get).
    pub async fn position(&self, at: &Partition) -> Result<u64> {
        let operations = &self.shared.operations;
        let active = operations.control().await?.active;
        Ok(operations.stored_position(at, active).await?.position)
    }

    /// What is to run.
    ///
    /// # Errors
    /// `InvalidInput` where nothing is.
    pub(super) async fn running(&self) -> Result<Control> {
        let control = self.shared.operations.control().await?;
        if control.paused {
            return Err(Error::new(ErrorKind::InvalidInput, "the projection is paused")
                .with("projection", self.name()));
        }
        Ok(control)
    }

    pub(super) async fn catch_up_active(&self, version: u32) -> Result<()> {
        self.initialise(version).await?;
        stream::iter(self.shared.store().partitions())
            .map(|at| self.catch_up_partition(at, version, Effects::Live, u64::MAX))
            .buffer_unordered(PARTITIONS)
            .try_collect()
            .await
    }

    /// Applies what there is in a partition, up to the head or to `until`.
    pub(super) async fn catch_up_partition(
        &self,
        at: Partition,
        version: u32,
        effects: Effects,
        until: u64,
    ) -> Result<()> {
        let (mut patience, mut reached) = (Patience::default(), 0);
        loop {
            let passed = async {
                let mut run = PartitionRun::open(&self.shared, at.clone(), version, effects).await?;
                if run.position() > reached {
                    (patience, reached) = (Patience::default(), run.position());
                }
                while run.window(until).await? == Reached::More {}
                Ok(())
            };
            match Box::pin(passed).await {
                Ok(()) => return Ok(()),
                Err(Stop::Failed(failure)) => return Err(self.stopped(&at, &failure)),
                Err(Stop::Store(error)) => patience.another(self.shared.clock(), error).await?,
            }
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
