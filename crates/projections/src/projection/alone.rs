//! What becomes of an event that cannot be applied with others.

use std::time::Duration;

use evenkeel_core::{Batch, BoxError, Expect, Result, Transactional};

use super::apply::{in_full, may_pass};
use super::drive::{Attempt, Drive, Stop};
use super::unit::{Unit, json};
use crate::{Failure, OnFailure, Projector, observe, places, settle};

/// How often others may get in the way of an event, and how often of those it is tried again at
/// once. The waits after that double.
const CONFLICTS: u32 = 10;
const AT_ONCE: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(2);

impl<P: Projector<S::Conn>, S: Transactional + Clone> Drive<'_, P, S> {
    /// Applies an event, also where others get in the way for a time. Where that lasts, it is the
    /// handler's failure: what it expects will hardly come to be.
    pub(super) async fn attempt_one(&mut self, chunk: &[Unit], to: Option<u64>) -> Result<Attempt, Stop> {
        let turn = self.turn;
        let (mut held, mut conflicts) = (None, 0);
        loop {
            let error = match self.attempt(chunk, to).await? {
                Attempt::TooMuch(error) if may_pass(&error) => error,
                attempt => return Ok(attempt),
            };
            conflicts += 1;
            if conflicts == CONFLICTS {
                return Ok(Attempt::Failed { unit: 0, at: Some(0), error: Box::new(error) });
            }
            // Of those who run the same partition beside it, one at a time.
            if held.is_none() {
                held = Some(turn.lock().await);
            }
            if conflicts <= AT_ONCE {
                tokio::task::yield_now().await;
            } else {
                self.shared.clock().sleep(FIRST_WAIT * (1 << (conflicts - AT_ONCE))).await;
            }
        }
    }

    /// Applies an event that has failed on its own, again and again as the policy says, and then
    /// does what that says.
    pub(super) async fn alone(
        &mut self,
        unit: &Unit,
        mut error: BoxError,
        to: Option<u64>,
    ) -> Result<(), Stop> {
        let (policy, event) = (self.policy, &unit.events[0]);
        let chunk = [Unit { slot: unit.slot, events: vec![event.clone()] }];
        let mut attempts = 1;
        while let Some(delay) = policy.delay(attempts) {
            tracing::warn!(projection = self.shared.name(), position = event.position, attempts, %error, "an event failed");
            self.shared.clock().sleep(delay).await;
            error = match self.attempt_one(&chunk, to).await? {
                Attempt::Committed => {
                    observe::applied(self.shared.name(), 1);
                    return Ok(());
                }
                Attempt::Failed { error, .. } => error,
                Attempt::TooMuch(error) => Box::new(error),
            };
            attempts += 1;
        }
        let failure = Failure::new(event, in_full(&error), attempts, self.shared.now());
        tracing::error!(projection = self.shared.name(), ?failure, policy = ?policy.then(), "an event was given up");
        observe::given_up(self.shared.name(), policy.then());
        self.give_up(unit, failure, to).await
    }

    async fn give_up(&mut self, unit: &Unit, failure: Failure, to: Option<u64>) -> Result<(), Stop> {
        let (slot, event) = (unit.slot, &unit.events[0]);
        let mut batch = Batch::new(self.at.clone(), self.shared.now());
        let mut entry = self.entries[slot].clone();
        let letter = json(&failure)?;
        match self.policy.then() {
            OnFailure::Fail => return Err(Stop::Failed(failure)),
            OnFailure::Ignore => {
                batch.put(places::dead(self.group, self.at, event.position), letter, Expect::Any);
                entry.version = event.version;
            }
            OnFailure::Park => {
                batch.put(places::parked(self.group, &event.stream), letter, Expect::Any);
                entry.is_parked = true;
            }
        }
        let after = vec![(slot, entry)];
        self.seal(&mut batch, &after, to)?;
        let version = batch.version();
        settle::commit(self.shared.store(), self.shared.clock(), batch).await?;
        self.settled(after, to, version);
        Ok(())
    }
}
