use evenkeel_core::{
    Batch, BoxError, Error, ErrorKind, Expect, Result, Store, StoreExt, Transactional, Version,
};
use serde::{Deserialize, Serialize};

use crate::projection::{Projection, guarded, may_pass};
use crate::{Operations, Projector, places, settle};

/// What is to run of a projection: one record, by which everything about it is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Control {
    /// The version that readers read.
    pub(crate) active: u32,
    /// The version that is to take its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) building: Option<u32>,
    /// The versions that were active before, oldest first, but for those that were discarded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) previous: Vec<u32>,
    /// The last version that there was.
    pub(crate) latest: u32,
    #[serde(default)]
    pub(crate) paused: bool,
}

impl Control {
    /// Makes a version the active one.
    pub(crate) fn activate(&mut self, version: u32) {
        self.previous.push(self.active);
        self.active = version;
        self.building = None;
    }

    pub(crate) fn is_in_use(&self, version: u32) -> bool {
        self.active == version || self.building == Some(version)
    }
}

/// How often a change is tried where others change the same.
const ATTEMPTS: usize = 10;

impl<S: Store + Clone> Operations<S> {
    /// What is to run, if anything has run yet.
    pub(crate) async fn find_control(&self) -> Result<Option<(Control, Version)>> {
        self.store.get_json(&self.home(), self.now(), &places::control(&self.name)).await
    }

    /// What is to run; version 1 from the first time that it is asked for.
    pub(crate) async fn control(&self) -> Result<Control> {
        match self.find_control().await? {
            Some((control, _)) => Ok(control),
            None => self.change(|_| Ok(())).await,
        }
    }

    /// Changes what is to run, by compare-and-set, and returns it as it is then. A change that
    /// changes nothing is not written.
    pub(crate) async fn change(&self, change: impl Fn(&mut Control) -> Result<()>) -> Result<Control> {
        let mut attempt = 1;
        loop {
            let (known, expect) = match self.find_control().await? {
                Some((control, version)) => (Some(control), Expect::Version(version)),
                None => (None, Expect::Absent),
            };
            let first =
                || Control { active: 1, building: None, previous: Vec::new(), latest: 1, paused: false };
            let mut control = known.clone().unwrap_or_else(first);
            change(&mut control)?;
            if known.as_ref() == Some(&control) {
                return Ok(control);
            }
            let mut batch = Batch::new(self.home(), self.now());
            let json = serde_json::to_vec(&control).expect("numbers and a flag turn into JSON");
            batch.put(places::control(&self.name), json, expect);
            match settle::commit(&self.store, &*self.clock, batch).await {
                Ok(_) => return Ok(control),
                Err(error) if error.kind() == ErrorKind::Conflict && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl<P: Projector<S::Conn>, S: Transactional + Clone> Projection<P, S> {
    /// Makes what a version needs, once.
    pub(crate) async fn initialise(&self, version: u32) -> Result<()> {
        if self.is_initialised(version).await? {
            return Ok(());
        }
        let shared = &*self.shared;
        let mut tx = shared.store().begin(shared.operations.home(), shared.now()).await?;
        let made = guarded(async { shared.projector.init(version, &mut tx).await }).await;
        let error = match made {
            Err(source) => {
                shared.store().rollback(tx).await;
                self.failed("the projector could not initialise its read model", version, source)
            }
            Ok(()) => {
                let key = places::initialised(shared.name(), version);
                tx.batch().set_now(shared.now()).put(key, "{}", Expect::Absent);
                match shared.store().finish(tx).await {
                    Err(error) if may_pass(&error) => error,
                    outcome => return outcome.map(drop),
                }
            }
        };
        // Another node may have made it at the same time, so that its tables were in the way here;
        // or it has been made after all.
        if self.is_initialised(version).await? { Ok(()) } else { Err(error) }
    }

    pub(crate) async fn is_initialised(&self, version: u32) -> Result<bool> {
        let (shared, key) = (&*self.shared, places::initialised(self.name(), version));
        Ok(shared.store().get_one(&shared.operations.home(), shared.now(), &key).await?.is_some())
    }

    pub(crate) fn failed(&self, problem: &'static str, version: u32, source: BoxError) -> Error {
        Error::new(ErrorKind::Unexpected, problem)
            .with("projection", self.name())
            .with("version", version)
            .with_source(source)
    }
}
