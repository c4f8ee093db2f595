use evenkeel_core::{Batch, Error, ErrorKind, Expect, Partition, Result, Scan, StoreExt, Transactional};

use super::Projection;
use crate::projector::Effects;
use crate::{Projector, places, settle};

/// How many records are removed at a time.
const PAGE: usize = 50;

impl<P: Projector<S::Conn>, S: Transactional + Clone> Projection<P, S> {
    /// Asks for a new version of the read model, to be built from the first event beside the active
    /// one by whoever [runs](Self::run) the projection; returns its number. Where one is being
    /// built already, it goes on.
    ///
    /// The new version follows the active one and never passes it. Once it has come, in every
    /// partition, to where the active one was at the last look, it becomes the active one by one
    /// compare-and-set. Its handlers are given no [effects](crate::Context::effects) for what the
    /// one before has applied.
    pub async fn start_rebuild(&self) -> Result<u32> {
        let control = self
            .shared
            .operations
            .change(|control| {
                if control.building.is_none() {
                    control.latest += 1;
                    control.building = Some(control.latest);
                }
                Ok(())
            })
            .await?;
        Ok(control.building.expect("one is being built, since that was asked for"))
    }

    /// Gives up the version that is being built, where there is one; it is to be
    /// [discarded](Self::discard).
    pub async fn cancel_rebuild(&self) -> Result<Option<u32>> {
        let found = self.shared.operations.known().await?.building;
        self.shared
            .operations
            .change(|control| {
                control.building = None;
                Ok(())
            })
            .await?;
        Ok(found)
    }

    /// Builds a new version here and now, and makes it the active one; returns its number.
    ///
    /// # Errors
    /// Those of [`catch_up`](Self::catch_up).
    pub async fn rebuild(&self) -> Result<u32> {
        self.check()?;
        let version = self.start_rebuild().await?;
        loop {
            for at in self.shared.store().partitions() {
                self.build_partition(&at, version).await?;
            }
            if self.activate_where_caught_up(version).await? {
                return Ok(version);
            }
        }
    }

    /// Begins anew with an empty read model, a new version that is the active one at once; returns
    /// its number.
    ///
    /// Its handlers are given no [effects](crate::Context::effects) for what the version before has
    /// applied.
    pub async fn reset(&self) -> Result<u32> {
        let control = self
            .shared
            .operations
            .change(|control| {
                control.latest += 1;
                control.activate(control.latest);
                Ok(())
            })
            .await?;
        Ok(control.active)
    }

    /// Removes what a version that is no longer wanted has: the projector's own, and its positions,
    /// states and letters. Doing it again finishes what was cut off.
    ///
    /// # Errors
    /// `InvalidInput` where it is the active one or being built.
    pub async fn discard(&self, version: u32) -> Result<()> {
        let shared = &*self.shared;
        let control = shared.operations.known().await?;
        if control.active == version || control.building == Some(version) {
            return Err(Error::new(ErrorKind::InvalidInput, "the version is in use")
                .with("projection", self.name())
                .with("version", version));
        }
        let home = shared.operations.home();
        let mut tx = shared.store().begin(home, shared.now()).await?;
        if let Err(source) = shared.projector.discard(version, &mut tx).await {
            shared.store().rollback(tx).await;
            return Err(self.failed("the projector could not discard its read model", version, source));
        }
        let key = places::initialised(self.name(), version);
        tx.batch().set_now(shared.now()).delete(key, Expect::Any);
        shared.store().finish(tx).await?;
        for at in shared.store().partitions() {
            self.discard_partition(&at, version).await?;
        }
        Ok(())
    }

    async fn discard_partition(&self, at: &Partition, version: u32) -> Result<()> {
        let shared = &*self.shared;
        let group = places::group(self.name(), version);
        // The position first: a node that has not noticed fails at its next commit, or begins anew
        // at the first event, with no state left to find.
        let mut batch = Batch::new(at.clone(), shared.now());
        batch.delete(places::position(self.name(), version), Expect::Any);
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
                    batch.delete(evenkeel_core::Key::new(space, group.clone(), id), Expect::Any);
                }
                settle::commit(shared.store(), shared.clock(), batch).await?;
            }
        }
        Ok(())
    }

    /// Brings the version that is being built to where the active one is, in a partition.
    pub(super) async fn build_partition(&self, at: &Partition, version: u32) -> Result<()> {
        let shared = &*self.shared;
        self.initialise(version).await?;
        let active = shared.operations.known().await?.active;
        let until = shared.operations.stored_position(at, active).await?.position;
        self.catch_up_partition(at.clone(), version, Effects::Silent, until).await.map(drop)
    }

    /// Makes a version the active one where it has come, in every partition, to where the active one
    /// is or nearly so; says whether it is the active one now.
    pub(super) async fn activate_where_caught_up(&self, version: u32) -> Result<bool> {
        let operations = &self.shared.operations;
        let active = operations.known().await?.active;
        for at in self.shared.store().partitions() {
            let target = operations.stored_position(&at, active).await?.position;
            let built = operations.stored_position(&at, version).await?.position;
            // Under load the active one has moved since the other followed it.
            let nearly = u64::try_from(self.shared.settings.most_events).expect("a usize fits a u64");
            if built + nearly < target {
                return Ok(false);
            }
        }
        let control = operations
            .change(|control| {
                if control.building == Some(version) {
                    control.activate(version);
                }
                Ok(())
            })
            .await?;
        Ok(control.active == version)
    }
}
