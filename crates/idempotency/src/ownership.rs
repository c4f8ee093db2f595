use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use evenkeel_core::{Batch, Store, Timestamp, Version};
use tokio::sync::{Mutex, MutexGuard, Notify};

use crate::engine::{Engine, Task};
use crate::error::Result;
use crate::operation::Place;
use crate::record::put_record;
use crate::send::{Insist, Sent, send};
use crate::{Error, ErrorKind, Tracked};

/// An attempt that this process owns: its record bears a version that only this process knows.
///
/// The guard ends it, the keeper renews it, and a door-2 transaction may hold its renewals up.
pub(crate) struct Ownership<S> {
    pub(crate) task: Task<S>,
    pub(crate) attempt: u32,
    renewable_until: Timestamp,
    held: Mutex<Held>,
    ticket: AtomicU64,
    /// How many door-2 transactions are connected, where those hold up every other commit.
    connected: AtomicUsize,
    closed: AtomicBool,
    lost: AtomicBool,
    loss: Notify,
}

/// What is known of the record.
pub(crate) struct Held {
    pub(crate) version: Version,
    pub(crate) tracked: Tracked,
    /// A renewal that may or may not have been applied.
    unresolved: Option<Renewal>,
}

#[derive(Clone)]
struct Renewal {
    batch: Batch,
    until: Timestamp,
}

impl<S> Ownership<S> {
    pub(crate) fn new(task: Task<S>, tracked: Tracked, version: Version) -> Self {
        Self {
            task,
            attempt: tracked.attempt,
            renewable_until: tracked.renewable_until(),
            held: Mutex::new(Held { version, tracked, unresolved: None }),
            ticket: AtomicU64::new(0),
            connected: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            loss: Notify::new(),
        }
    }

    pub(crate) fn engine(&self) -> &Arc<Engine<S>> {
        &self.task.engine
    }

    pub(crate) fn place(&self) -> &Place {
        &self.task.place
    }

    pub(crate) fn renewable_until(&self) -> Timestamp {
        self.renewable_until
    }

    /// Under the keeper's lock, as [`set_ticket`](Self::set_ticket).
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket.load(Ordering::Relaxed)
    }

    pub(crate) fn set_ticket(&self, ticket: u64) {
        self.ticket.store(ticket, Ordering::Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Holds back renewals for one more connected transaction; waits for one in flight.
    pub(crate) async fn hold_renewals(&self) -> Timestamp {
        self.connected.fetch_add(1, Ordering::AcqRel);
        self.held.lock().await.tracked.lease_until
    }

    pub(crate) fn resume_renewals(&self) {
        self.connected.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn error(&self, kind: ErrorKind, message: &'static str) -> Error {
        Error::of(&self.task.operation.identity, kind, message).with("attempt", self.attempt)
    }

    pub(crate) fn lease_lost(&self) -> Error {
        self.error(ErrorKind::LeaseLost, "another took the operation over")
    }

    /// Completes once another has taken the operation over.
    pub(crate) async fn lost(&self) {
        loop {
            let loss = self.loss.notified();
            if self.is_lost() {
                return;
            }
            loss.await;
        }
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.loss.notify_waiters();
    }
}

impl<S: Store + Clone> Ownership<S> {
    /// Renews the lease, unless a connected transaction would hold the commit up.
    pub(crate) async fn renew(&self) {
        let mut held = self.held.lock().await;
        if self.connected.load(Ordering::Acquire) == 0 && !self.is_closed() {
            self.renew_held(&mut held).await;
        }
    }

    /// Renews the lease ahead of a transaction that holds renewals up; says until when it lasts.
    pub(crate) async fn renew_now(&self) -> evenkeel_core::Result<Timestamp> {
        let mut held = self.held.lock().await;
        self.renew_held(&mut held).await;
        if self.is_lost() {
            let kind = evenkeel_core::ErrorKind::LeaseLost;
            return Err(evenkeel_core::Error::new(kind, "another took the operation over"));
        }
        if held.unresolved.is_some() {
            let kind = evenkeel_core::ErrorKind::Unavailable;
            return Err(evenkeel_core::Error::new(kind, "the lease was not renewed"));
        }
        Ok(held.tracked.lease_until)
    }

    /// Ends renewals, after the one in flight, and hands out what is known of the record.
    pub(crate) async fn close(&self) -> Result<MutexGuard<'_, Held>> {
        self.closed.store(true, Ordering::Release);
        self.engine().keeper.dismiss(self);
        let mut held = self.held.lock().await;
        self.resolve(&mut held).await?;
        Ok(held)
    }

    async fn renew_held(&self, held: &mut Held) {
        if self.resolve(held).await.is_err() {
            // Lost, or not to be known now: the next round tries again.
            return;
        }
        let now = self.engine().now();
        let until = self.renewable_until.min(now + self.engine().settings.lease);
        if until <= held.tracked.lease_until {
            return;
        }
        let tracked = Tracked { lease_until: until, ..held.tracked.clone() };
        let mut batch = Batch::new(self.place().at.clone(), now);
        put_record(&mut batch, self.place(), &tracked, tracked.encode(), held.version, self.engine());
        held.unresolved = Some(Renewal { batch, until });
        if let Err(error) = self.resolve(held).await {
            tracing::warn!(%error, "a lease was not renewed");
        }
    }

    /// Finds out what became of the last renewal, sending it again if need be.
    async fn resolve(&self, held: &mut Held) -> Result<()> {
        let Some(Renewal { batch, until }) = held.unresolved.clone() else { return Ok(()) };
        let version = batch.version();
        match self.send(batch, Insist::OnSuccess).await {
            Ok(Sent::Applied) => {
                held.version = version;
                held.tracked.lease_until = until;
                held.unresolved = None;
                Ok(())
            }
            Ok(Sent::Beaten(_)) => {
                self.lose();
                Err(self.lease_lost())
            }
            Err(error) => {
                if error.kind() != evenkeel_core::ErrorKind::OutcomeUnknown {
                    held.unresolved = None;
                }
                Err(error.into())
            }
        }
    }

    pub(crate) async fn send(&self, batch: Batch, insist: Insist) -> evenkeel_core::Result<Sent> {
        let engine = self.engine();
        send(&engine.store, &*engine.settings.clock, self.place(), batch, insist).await
    }
}
