use evenkeel_core::{Batch, Error, ErrorKind, Expect, Key, Partition, Result, Scan, StoreExt, Transactional};

use super::partition::PartitionRun;
use super::{Mode, Projection, guarded};
use crate::control::Control;
use crate::projector::Effects;
use crate::{Projector, places};

/// How many records are removed at a time.
const PAGE: usize = 50;

impl<P: Projector<S::Conn>, S: Transactional + Clone> Projection<P, S> {
    /// Builds a new version here and now, up to where the active one is, and makes it the active
    /// one; returns its number.
    ///
    /// What was [appended](Self::append) with the read model is applied first, in a keyed
    /// projection, by whoever is behind.
    ///
    /// # Errors
    /// Those of [`catch_up`](Self::catch_up); `Conflict` where the version is
    /// [given up](crate::Operations::cancel_rebuild) meanwhile.
    pub async fn rebuild(&self) -> Result<u32> {
        self.check()?;
        let active = self.running().await?.active;
        if self.shared.settings.mode == Mode::Keyed {
            match self.catch_up_active(active).await {
                // Where it has stopped at an event, it is followed up to there.
                Err(error) if error.kind() != ErrorKind::Unexpected => return Err(error),
                _ => {}
            }
        }
        let version = self.operations().start_rebuild().await?;
        self.initialise(version).await?;
        // From the first event on, and then what came meanwhile.
        for _ in 0..2 {
            for at in self.shared.store().partitions() {
                let until = self.shared.operations.stored_position(&at, active).await?.position;
                self.catch_up_partition(at, version, Effects::Silent, until).await?;
            }
        }
        self.activate(version).await?;
        Ok(version)
    }

    /// Removes what a version that is no longer wanted has: the projector's own, and its positions,
    /// states and letters. Doing it again finishes what was cut off.
    ///
    /// # Errors
    /// `InvalidInput` where it is the active one or being built; `NotFound` where there has been no
    /// such version yet.
    pub async fn discard(&self, version: u32) -> Result<()> {
        let shared = &*self.shared;
        let control = shared.operations.known().await?;
        if control.is_in_use(version) {
            return Err(Error::new(ErrorKind::InvalidInput, "the version is in use")
                .with("projection", self.name())
                .with("version", version));
        }
        if !(1..=control.latest).contains(&version) {
            return Err(Error::new(ErrorKind::NotFound, "there has been no such version")
                .with("projection", self.name())
                .with("version", version));
        }
        for at in shared.store().partitions() {
            // What this version has done is known for good then.
            PartitionRun::open(&self.shared, at.clone(), control.active, Effects::Live).await?;
            shared.retire(&at, version).await?;
        }
        let mut tx = shared.store().begin(shared.operations.home(), shared.now()).await?;
        let discarded = guarded(async { shared.projector.discard(version, &mut tx).await }).await;
        if let Err(source) = discarded {
            shared.store().rollback(tx).await;
            return Err(self.failed("the projector could not discard its read model", version, source));
        }
        let key = places::initialised(self.name(), version);
        tx.batch().set_now(shared.now()).delete(key, Expect::Any);
        shared.store().finish(tx).await?;
        for at in shared.store().partitions() {
            self.discard_partition(&at, version).await?;
        }
        let forget = |control: &mut Control| {
            control.previous.retain(|previous| *previous != version);
            Ok(())
        };
        shared.operations.change(forget).await.map(drop)
    }

    async fn discard_partition(&self, at: &Partition, version: u32) -> Result<()> {
        let shared = &*self.shared;
        let group = places::group(self.name(), version);
        let mut batch = Batch::new(at.clone(), shared.now());
        for key in [places::position(self.name(), version), places::compacted(self.name(), version)] {
            batch.delete(key, Expect::Any);
        }
        shared.store().commit(batch).await?;
        for space in [places::STATE, places::PARKED, places::DEAD] {
            loop {
                let scan = Scan::new(space, group.clone(), PAGE, shared.now());
                let page = shared.store().scan(at, scan).await?;
                if page.records.is_empty() && page.cursor.is_none() {
                    break;
                }
                let mut batch = Batch::new(at.clone(), shared.now());
                for (id, _) in page.records {
                    batch.delete(Key::new(space, group.clone(), id), Expect::Any);
                }
                shared.store().commit(batch).await?;
            }
        }
        Ok(())
    }

    /// Where a version stands in each partition.
    pub(super) async fn positions(&self, version: u32) -> Result<Vec<u64>> {
        let mut positions = Vec::new();
        for at in self.shared.store().partitions() {
            positions.push(self.shared.operations.stored_position(&at, version).await?.position);
        }
        Ok(positions)
    }

    /// Makes the version that is being built the active one.
    pub(super) async fn activate(&self, version: u32) -> Result<()> {
        let activate = |control: &mut Control| {
            if control.building == Some(version) {
                control.activate(version);
            }
            if control.active == version {
                return Ok(());
            }
            Err(Error::new(ErrorKind::Conflict, "the version is not the one that is being built any more")
                .with("projection", self.name())
                .with("version", version))
        };
        self.shared.operations.change(activate).await.map(drop)
    }
}
