use evenkeel_core::{Batch, Store};

use crate::engine::{Engine, Idempotency};
use crate::error::Result;
use crate::operation::Place;
use crate::record::{Entry, Pointer, Sight, list, put_record};
use crate::send::{Insist, Sent, send};
use crate::state::{Ending, Failure, INDEX};
use crate::{Error, ErrorKind, Identity, Status, Tracked};

/// A page of running operations.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunningPage {
    /// In an order that stays; may be fewer than asked for.
    pub operations: Vec<Tracked>,
    /// Where to go on; `None` at the end.
    pub cursor: Option<String>,
}

impl<S: Store + Clone> Idempotency<S> {
    /// Lists the operations that run at this moment, over all partitions, those whose owner is gone
    /// among them; begin with `None` and go on after the cursor.
    ///
    /// # Errors
    /// `InvalidInput` for a limit of 0; `Store`.
    pub async fn running(&self, after: Option<String>, limit: usize) -> Result<RunningPage> {
        let engine = &*self.engine;
        let entries = INDEX.list(&engine.store, Status::Running.group(), after, limit, engine.now()).await?;
        let cursor = entries.last().map(|entry| entry.id.clone());
        let mut operations = Vec::with_capacity(entries.len());
        for entry in entries {
            let place = Pointer::place(&entry.at, &entry.id, &entry.record)?;
            let sight = engine.look(&place).await?;
            operations.extend(sight.map(|sight| sight.tracked).filter(|it| it.status == Status::Running));
        }
        Ok(RunningPage { operations, cursor })
    }

    /// What is tracked of an operation; `None` where there is no such, or not any more.
    ///
    /// # Errors
    /// `InvalidInput` for malformed text in the identity; `Store`.
    pub async fn show(&self, identity: &Identity) -> Result<Option<Tracked>> {
        let place = identity.place(&self.engine.store)?;
        Ok(self.engine.look(&place).await?.map(|sight| sight.tracked))
    }

    /// Takes an operation from whoever runs it, and lets the next arrival run it again. The owner,
    /// should it still live, can record nothing any more.
    ///
    /// For operations that are running, and for those that failed because they were cut off and
    /// are refused since. Returns what is tracked now.
    ///
    /// # Errors
    /// `InvalidInput` where the operation is neither; `Store`.
    pub async fn release(&self, identity: &Identity, reason: &str) -> Result<Tracked> {
        let place = identity.place(&self.engine.store)?;
        let failure = Failure { ending: Ending::Released, message: reason };
        loop {
            let held_up = |sight: &Sight| match sight.tracked.status {
                Status::Running => true,
                Status::Failed => sight.tracked.ending == Some(Ending::Interrupted),
                Status::Finished => false,
            };
            let Some(sight) = self.engine.look(&place).await?.filter(held_up) else {
                return Err(Error::of(identity, ErrorKind::InvalidInput, "the operation is not held up"));
            };
            // A renewal may come between; the next round takes that one away too.
            if let Some(released) = self.engine.fail(&place, &sight, failure).await? {
                return Ok(released);
            }
        }
    }
}

impl<S: Store + Clone> Engine<S> {
    /// Records a failure over what was seen; `None` where that has changed.
    pub(crate) async fn fail(
        &self,
        place: &Place,
        sight: &Sight,
        failure: Failure<'_>,
    ) -> Result<Option<Tracked>> {
        let now = self.now();
        let mut tracked = sight.tracked.clone();
        tracked.fail(failure, now);
        let mut batch = Batch::new(place.at.clone(), now);
        put_record(&mut batch, place, &tracked, tracked.encode(), sight.version, self);
        list(&mut batch, place, Entry::of(&sight.tracked, place), &tracked, self);
        let sent = send(&self.store, &*self.settings.clock, place, batch, Insist::OnOutcome).await?;
        self.waiters.wake(&place.id);
        Ok(matches!(sent, Sent::Applied).then_some(tracked))
    }
}
