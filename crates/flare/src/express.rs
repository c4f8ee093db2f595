//! Deliveries that need not wait in a queue: published in the process where their pump runs, while that
//! has room and nothing else to do.
//!
//! ```text
//!   publish ── reserve a place ── commit { document; delivery, leased from its birth } ── hand it over
//!                    ^                                                                        │
//!                    └── the pump opens places, and makes what is handed over <───────────────┘
//! ```
//!
//! If this process dies, whoever has the pump next looks after what was leased. So that none looks too
//! early, a pump that opens places leaves a *sign*, a record: the commit expects it as it was left, and
//! the next pump takes it away before its first look.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_core::{Batch, ErrorKind, Expect, Hold, LeasedJob, Result, Timestamp, Token, Version};
use tokio::sync::{Notify, mpsc};

use crate::catalog::Subscriber;
use crate::delivery::Delivery;
use crate::pump::{Seat, Seats};
use crate::recent::KnownTold;
use crate::{Document, places};

/// The pumps that run in this process, by their subscription.
#[derive(Debug, Default)]
pub(crate) struct Pumps {
    running: Mutex<HashMap<String, Arc<Express>>>,
}

/// A pump among those that run.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    pumps: &'a Pumps,
    subscription: &'a str,
    pump: &'a Arc<Express>,
}

/// A running pump, as those see it who have something for it.
#[derive(Debug)]
pub(crate) struct Express {
    lease: Duration,
    seats: Arc<Seats>,
    counter: Mutex<Counter>,
    handed: mpsc::UnboundedSender<Handed>,
    /// Told when there may be something to lease, or somebody left with a place.
    pub(crate) wake: Notify,
}

#[derive(Debug, Default)]
struct Counter {
    /// The version of the pump's sign, once there is one.
    sign: Option<Version>,
    /// Whether somebody would have had a use for it.
    is_wanted: bool,
    /// How many places may be reserved.
    open: usize,
    /// How many are, by publications whose commits are under way.
    reserved: usize,
    /// Until when there may be deliveries that are leased here and unknown to the pump.
    unsure_until: Option<Timestamp>,
}

/// A delivery that is leased here, and its seat.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) delivery: Delivery,
    /// As it was when that was committed: the pump may not have heard yet of what changed before.
    pub(crate) subscriber: Arc<Subscriber>,
    pub(crate) seat: Seat,
}

/// A reserved place. Dropped before it is settled, it leaves open whether a delivery was committed for it.
#[derive(Debug)]
pub(crate) struct Place {
    express: Arc<Express>,
    subscriber: Arc<Subscriber>,
    sign: Version,
    hold: Hold,
    seat: Option<Seat>,
}

impl Pumps {
    pub(crate) fn get(&self, subscription: &str) -> Option<Arc<Express>> {
        self.all().get(subscription).cloned()
    }

    /// Counts the pump among them until what is returned is dropped.
    pub(crate) fn running<'a>(&'a self, subscription: &'a str, pump: &'a Arc<Express>) -> Running<'a> {
        self.all().insert(subscription.to_owned(), Arc::clone(pump));
        Running { pumps: self, subscription, pump }
    }

    pub(crate) fn wake_all(&self) {
        self.all().values().for_each(|pump| pump.wake.notify_one());
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Express>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut all = self.pumps.all();
        // Another may have begun here after this one lost its lease.
        if all.get(self.subscription).is_some_and(|found| Arc::ptr_eq(found, self.pump)) {
            all.remove(self.subscription);
        }
    }
}

impl Express {
    /// Of a pump that leases for `lease`, with where it takes what is handed over. No place is open yet.
    pub(crate) fn new(lease: Duration, seats: Arc<Seats>) -> (Arc<Self>, mpsc::UnboundedReceiver<Handed>) {
        let (handed, taken) = mpsc::unbounded_channel();
        let (counter, wake) = (Mutex::default(), Notify::new());
        (Arc::new(Self { lease, seats, counter, handed, wake }), taken)
    }

    /// Lets so many places be reserved, as long as the sign is of this version.
    pub(crate) fn open(&self, places: usize, sign: Option<Version>) {
        let mut counter = self.counter();
        (counter.open, counter.sign) = (places, sign);
    }

    /// Whether somebody would have had a use for a place.
    pub(crate) fn is_wanted(&self) -> bool {
        self.counter().is_wanted
    }

    /// How many places are reserved.
    pub(crate) fn reserved(&self) -> usize {
        self.counter().reserved
    }

    /// Lets no more places be reserved; whether nobody has one, so that nothing more is handed over.
    pub(crate) fn close(&self) -> bool {
        let mut counter = self.counter();
        counter.open = 0;
        counter.reserved == 0
    }

    /// Until when there may be deliveries that are leased here and unknown to the pump.
    pub(crate) fn unsure_until(&self) -> Option<Timestamp> {
        self.counter().unsure_until
    }

    /// A place for a delivery to the subscriber that begins as soon as it is committed, if one is open.
    pub(crate) fn reserve(self: &Arc<Self>, subscriber: &Arc<Subscriber>, now: Timestamp) -> Option<Place> {
        let mut counter = self.counter();
        counter.is_wanted = true;
        let sign = counter.sign.filter(|_| !self.handed.is_closed())?;
        counter.open = counter.open.checked_sub(1)?;
        counter.reserved += 1;
        drop(counter);
        let hold = Hold { token: Token::fresh(), until: now + self.lease };
        let (express, subscriber, seat) = (Arc::clone(self), Arc::clone(subscriber), Some(self.seats.take()));
        Some(Place { express, subscriber, sign, hold, seat })
    }

    fn counter(&self) -> MutexGuard<'_, Counter> {
        self.counter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Writes into `batch` that the subscriber is to be told of a document, by whoever has this place;
    /// under the condition that it was told what is `known`. The delivery that this makes.
    pub(crate) fn tell_in(
        &self,
        batch: &mut Batch,
        (id, document): (&str, &Document),
        known: KnownTold,
    ) -> Delivery {
        let (now, Hold { token, until }, subscriber) = (batch.now(), self.hold, &self.subscriber);
        let payload = document.url.as_str().to_owned();
        let subscription = &subscriber.subscription.id;
        let expect = known.as_ref().map_or(Expect::Absent, |(_, version)| Expect::Version(*version));
        batch.check(places::told(subscription, id), expect);
        batch.push_leased(&subscriber.queue, id, now, payload.clone(), self.hold);
        batch.check(places::sign(subscription), Expect::Version(self.sign));
        let (id, payload) = (id.to_owned(), payload.into());
        let job = LeasedJob { id, payload, due: now, attempt: 1, token, until };
        Delivery::of(job, known, document.clone())
    }

    /// What became of the commit that it was reserved for.
    pub(crate) fn settle(mut self, outcome: Result<(), ErrorKind>, delivery: Delivery) {
        match outcome {
            Ok(()) => {
                if let Some(seat) = self.seat.take() {
                    let mut counter = self.express.counter();
                    counter.reserved -= 1;
                    // Within the lock, so that whoever closes finds all that was handed over. Where the
                    // worker was dropped meanwhile the lease runs out.
                    let subscriber = Arc::clone(&self.subscriber);
                    let _ = self.express.handed.send(Handed { delivery, subscriber, seat });
                }
            }
            Err(ErrorKind::Unavailable | ErrorKind::OutcomeUnknown) => {}
            Err(_) => {
                self.seat = None;
                self.express.counter().reserved -= 1;
                self.express.wake.notify_one();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.seat.is_some() {
            let mut counter = self.express.counter();
            counter.reserved -= 1;
            counter.unsure_until = counter.unsure_until.max(Some(self.hold.until));
            drop(counter);
            self.express.wake.notify_one();
        }
    }
}
