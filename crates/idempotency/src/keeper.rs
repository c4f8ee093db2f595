use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use evenkeel_core::{Store, Timestamp};

use crate::engine::Engine;
use crate::ownership::Ownership;

/// Renews the leases of the attempts that live in this process.
///
/// One task serves all of them and exists only while there are any: an attempt that is over
/// within a third of its lease costs two moves in a map, no task and no timer.
pub(crate) struct Keeper<S> {
    roster: Mutex<Roster<S>>,
}

struct Roster<S> {
    /// By ticket. Tickets are handed out in the order in which renewals fall due, since the
    /// interval is always the same.
    attempts: BTreeMap<u64, (Timestamp, Arc<Ownership<S>>)>,
    last_ticket: u64,
    awake: bool,
}

impl<S> Default for Keeper<S> {
    fn default() -> Self {
        let roster = Roster { attempts: BTreeMap::new(), last_ticket: 0, awake: false };
        Self { roster: Mutex::new(roster) }
    }
}

impl<S> std::fmt::Debug for Keeper<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("attempts", &self.lock().attempts.len()).finish()
    }
}

impl<S> Keeper<S> {
    /// Takes an attempt off the roster. A renewal in flight goes on.
    pub(crate) fn dismiss(&self, attempt: &Ownership<S>) {
        self.lock().attempts.remove(&attempt.ticket());
    }

    fn lock(&self) -> MutexGuard<'_, Roster<S>> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Store + Clone> Keeper<S> {
    /// Renews the attempt's lease until it is dismissed.
    pub(crate) fn watch(&self, engine: &Arc<Engine<S>>, attempt: Arc<Ownership<S>>) {
        let mut roster = self.lock();
        roster.admit(attempt, engine.now() + engine.settings.lease / 3);
        if !roster.awake {
            roster.awake = true;
            drop(roster);
            tokio::spawn(tend(Arc::downgrade(engine)));
        }
    }

    /// Starts the renewals that are due; returns when the next will be.
    fn renew_due(&self, engine: &Engine<S>) -> Option<Timestamp> {
        let now = engine.now();
        let mut roster = self.lock();
        while let Some(first) = roster.attempts.first_entry() {
            if first.get().0 > now {
                return Some(first.get().0);
            }
            let (_, attempt) = first.remove();
            tokio::spawn({
                let attempt = Arc::clone(&attempt);
                async move { attempt.renew().await }
            });
            roster.admit(attempt, now + engine.settings.lease / 3);
        }
        roster.awake = false;
        None
    }
}

impl<S> Roster<S> {
    fn admit(&mut self, attempt: Arc<Ownership<S>>, due: Timestamp) {
        self.last_ticket += 1;
        attempt.set_ticket(self.last_ticket);
        self.attempts.insert(self.last_ticket, (due, attempt));
    }
}

async fn tend<S: Store + Clone>(engine: Weak<Engine<S>>) {
    let mut cut_off = AsleepOnDrop(Weak::clone(&engine));
    loop {
        let Some(strong) = engine.upgrade() else { return };
        let Some(next) = strong.keeper.renew_due(&strong) else {
            // It is marked asleep already, and its successor may be awake by now.
            cut_off.0 = Weak::new();
            return;
        };
        let sleep = strong.settings.clock.sleep_until(next);
        drop(strong);
        sleep.await;
    }
}

/// Where the runtime that the task lives in shuts down, the next attempt starts another.
struct AsleepOnDrop<S>(Weak<Engine<S>>);

impl<S> Drop for AsleepOnDrop<S> {
    fn drop(&mut self) {
        if let Some(engine) = self.0.upgrade() {
            engine.keeper.lock().awake = false;
        }
    }
}
