use std::collections::VecDeque;
use std::fmt;

use evenkeel_core::{
    Batch, Error, Expect, Found, Key, Partition, Record, Result, Scan, Store, StoreExt, Transactional, Tx,
};

use super::{ResourceVersions, SPACE, Stored, lent};
use crate::settle;

/// How many versions go with one commit unless something else is said: on any store there is room for
/// the work to do as much with each.
const PAGE: usize = 40;

/// Forgets all versions of a handler, so that it begins anew; a page in each commit, however many
/// there are.
///
/// It holds nothing but how far it is: dropped, or cut off, another goes on with what is left. Steps
/// that fail can be made again.
///
/// Beside a handler at work, each version is forgotten as it is found or not at all. The handler
/// learns of it from its next update, which finds the resource absent, and begins anew with it; what
/// it has begun anew may be forgotten once more by the same reset. With
/// [`step_with`](Self::step_with) the read model of a resource goes in the commit of its version, so
/// that nothing is applied twice to it whatever happens meanwhile.
pub struct Reset<S> {
    versions: ResourceVersions<S>,
    /// The first is under way.
    left: VecDeque<Partition>,
    after: Option<String>,
    most: usize,
    /// How many versions go into the next commit: fewer after the handler was faster.
    next: usize,
    forgotten: u64,
}

/// Versions that are forgotten together.
struct Page {
    at: Partition,
    versions: Vec<(Key, Record)>,
    /// Where those after it begin; `None` for the end.
    cursor: Option<String>,
}

impl<S: Store + Clone> ResourceVersions<S> {
    /// Forgets all versions of this handler, when it is [run](Reset::run) or taken a
    /// [step](Reset::step) at a time.
    #[must_use]
    pub fn reset(&self) -> Reset<S> {
        let left = self.store.partitions().into();
        Reset { versions: self.clone(), left, after: None, most: PAGE, next: PAGE, forgotten: 0 }
    }
}

impl<S: Store + Clone> Reset<S> {
    /// How many versions go with one commit; 40 unless set, at most what the store takes.
    #[must_use]
    pub fn page(mut self, versions: usize) -> Self {
        self.most = versions.clamp(1, self.versions.store.info().limits.units);
        self.next = self.most;
        self
    }

    /// How many versions were forgotten, as far as was answered.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// How many partitions are left, of which the first is under way.
    #[must_use]
    pub fn partitions_left(&self) -> usize {
        self.left.len()
    }

    /// Forgets a page; says how many versions that were, or `None` where nothing is left. It is 0
    /// where the handler has moved one of them meanwhile: the next step looks again, for fewer.
    ///
    /// # Errors
    /// Those of [`Store::scan`] and [`Store::commit`].
    pub async fn step(&mut self) -> Result<Option<usize>> {
        let Some(page) = self.look().await? else { return Ok(None) };
        let mut batch = Batch::new(page.at.clone(), self.versions.clock.now());
        page.forget_in(&mut batch);
        let outcome = settle::commit(&self.versions.store, &*self.versions.clock, batch).await.map(drop);
        self.passed(page, outcome).map(Some)
    }

    /// Takes steps until nothing is left, and says how many versions were forgotten.
    ///
    /// # Errors
    /// Those of [`step`](Self::step).
    pub async fn run(mut self) -> Result<u64> {
        while self.step().await?.is_some() {}
        Ok(self.forgotten)
    }

    /// The next page that has anything in it.
    async fn look(&mut self) -> Result<Option<Page>> {
        while let Some(at) = self.left.front() {
            let mut scan = Scan::new(SPACE, &*self.versions.handler, self.next, self.versions.clock.now());
            scan.after.clone_from(&self.after);
            let found = self.versions.store.scan(at, scan).await?;
            if !found.records.is_empty() {
                let key = |id| Key::new(SPACE, &*self.versions.handler, id);
                let versions = found.records.into_iter().map(|(id, record)| (key(id), record)).collect();
                return Ok(Some(Page { at: at.clone(), versions, cursor: found.cursor }));
            }
            self.after_page(found.cursor);
        }
        Ok(None)
    }

    fn passed(&mut self, page: Page, outcome: Result<()>) -> Result<usize> {
        if let Err(error) = outcome {
            let found = error.conflict().map(|conflict| &conflict.found);
            let is_moved = |key: &Key| page.versions.iter().any(|(version, _)| version == key);
            return match found {
                Some(Found::Record { key, .. }) if is_moved(key) => {
                    self.next = (page.versions.len() / 2).max(1);
                    Ok(0)
                }
                _ => Err(error),
            };
        }
        let forgotten = page.versions.len();
        self.next = (self.next * 2).min(self.most);
        self.forgotten += u64::try_from(forgotten).expect("a usize fits a u64");
        self.after_page(page.cursor);
        Ok(forgotten)
    }

    fn after_page(&mut self, cursor: Option<String>) {
        if cursor.is_none() {
            self.left.pop_front();
        }
        self.after = cursor;
    }
}

impl<S: Transactional + Clone> Reset<S> {
    /// Takes a [`step`](Self::step) in one commit with what `work` writes, which is given the names
    /// of the page's resources, to remove what the read model has of them.
    ///
    /// `work` is as for [`update_with`](ResourceVersions::update_with).
    ///
    /// # Errors
    /// Those of [`step`](Self::step) and of [`update_with`](ResourceVersions::update_with).
    pub async fn step_with<E, F, Fut>(&mut self, work: F) -> Result<Option<usize>, E>
    where
        E: From<Error>,
        F: FnOnce(Tx<S::Conn>, Vec<String>) -> Fut,
        Fut: Future<Output = Result<(), E>> + Send,
    {
        let Some(page) = self.look().await? else { return Ok(None) };
        let store = &self.versions.store;
        let mut tx = store.begin(page.at.clone(), self.versions.clock.now()).await?;
        page.forget_in(tx.batch());
        let names = page.names()?;
        let tx = lent(tx, |tx| work(tx, names)).await?;
        let outcome = store.finish(tx).await.map(drop);
        Ok(self.passed(page, outcome).map(Some)?)
    }
}

impl Page {
    fn forget_in(&self, batch: &mut Batch) {
        for (key, record) in &self.versions {
            batch.delete(key.clone(), Expect::Version(record.version));
        }
    }

    fn names(&self) -> Result<Vec<String>> {
        self.versions.iter().map(|(key, record)| Ok(Stored::read(key, record)?.resource)).collect()
    }
}

impl<S> fmt::Debug for Reset<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reset")
            .field("versions", &self.versions)
            .field("left", &self.left)
            .field("after", &self.after)
            .field("forgotten", &self.forgotten)
            .finish_non_exhaustive()
    }
}
