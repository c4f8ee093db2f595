//! A run in the hands of a worker.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use evenkeel_core::{Error, ErrorKind, Key, Partition, Result, Timestamp, Token, Version};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, watch};

use super::choreographer::{Engine, Live, Registered};
use super::door::Transaction;
use super::history::{Entry, Event};
use super::journal::Journal;
use super::places;
use super::records::RunRecord;
use super::restore::restore;
use crate::attempt::{Failed, Tried};
use crate::context::{RunName, RunShared};
use crate::error::StepError;
use crate::key::Stored;
use crate::plan::Plan;

/// A run, held.
pub(crate) struct Driver {
    pub(crate) engine: Arc<Engine>,
    pub(crate) registered: Arc<Registered>,
    pub(crate) at: Partition,
    pub(crate) id: String,
    pub(crate) lease: Held,
    pub(crate) live: Arc<Live>,
    /// Raised where the worker shuts down.
    pub(crate) closing: watch::Receiver<bool>,

    pub(crate) journal: Journal,
    /// The items of lists, read.
    pub(crate) items: BTreeMap<usize, Vec<Stored>>,
    /// Steps that a vanished holder may have begun.
    pub(crate) in_doubt: Doubt,
    pub(crate) fence: Fence,
    /// Signals that were taken here.
    pub(crate) taken: HashSet<String>,
    /// Why the run is to be parked, once nothing is under way.
    pub(crate) parking: Option<StepError>,
    /// When the next of what waits is over.
    pub(crate) next_wake: Option<Timestamp>,
    /// No renewal is tried before, since the last one did not get through.
    pub(crate) renew_after: Timestamp,

    pub(crate) changes: Changes,
    pub(crate) working: FuturesUnordered<BoxFuture<'static, Finished>>,
    pub(crate) in_flight: HashSet<Work>,
    pub(crate) done: VecDeque<Finished>,
}

/// The lease of a run's job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) token: Token,
    pub(crate) attempt: u32,
    pub(crate) until: Timestamp,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Another holder vanished, and which steps it may have begun was not yet looked into.
    Everything,
    /// These.
    Steps(BTreeSet<usize>),
}

/// What shuts out those who held the run before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    /// The version of the run's record: this holder wrote it, or was handed the run in order. Who
    /// takes the run over writes the record before anything else.
    Version,
    /// The lease's token: somebody else wrote the record, so that its version proves nothing.
    Token,
    /// Nothing yet: the run was taken over, and who held it may still write until this holder does.
    /// What is known of it holds only if nobody has.
    Open,
}

/// What is written with the next commit.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) puts: Vec<(Key, Bytes)>,
    /// Parts that the run's own record has no room for.
    pub(crate) fresh: Vec<(Key, Bytes)>,
    /// How many parts there are, wherever they are kept.
    pub(crate) parts: usize,
    pub(crate) tasks: Vec<(String, Timestamp, Bytes)>,
    pub(crate) record: bool,
    /// The transaction that the next commit goes through, and of which step.
    pub(crate) transaction: Option<(usize, Timestamp, Box<dyn Transaction>)>,
}

/// What a future of the driver works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    Step(usize),
    Probe(usize),
    Item(usize, usize),
    Undo(usize),
}

impl Work {
    pub(crate) const fn step(self) -> usize {
        let (Self::Step(step) | Self::Probe(step) | Self::Item(step, _) | Self::Undo(step)) = self;
        step
    }
}

pub(crate) struct Finished {
    pub(crate) work: Work,
    pub(crate) attempt: u32,
    pub(crate) began_at: Timestamp,
    pub(crate) what: What,
}

/// What came of it.
pub(crate) enum What {
    Tried(Tried, Option<Box<dyn Transaction>>),
    Probed(std::result::Result<Option<Stored>, StepError>),
    Item(std::result::Result<Stored, Failed>),
    Undone(std::result::Result<(), StepError>),
    /// The store did not open a transaction.
    NotBegun(Error),
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Begin these, and wait for what is under way.
    Go(Vec<Work>),
    /// Put the run back until then.
    Rest(Timestamp),
    /// Give the run to a person.
    Park(StepError),
    /// The run is over.
    End(crate::RunState),
}

/// Why a driver stops short.
pub(crate) enum Stop {
    /// The records are to be read again: a transaction did not commit.
    Reload(Reload),
    /// So they are, as if the run had just been leased: who held it before wrote them again.
    Anew,
    /// Another holds the run, or nobody can say who does.
    Abandon(Error),
}

/// What is known besides the records.
#[derive(Default)]
pub(crate) struct Reload {
    pub(crate) interrupted: bool,
    pub(crate) failed: Option<(usize, Timestamp, Failed)>,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Abandon(error)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let name = (self.at.clone(), self.id.clone());
        let mut live = self.engine.shared.live();
        // Another may hold it here after this one lost its lease.
        if live.get(&name).is_some_and(|live| Arc::ptr_eq(live, &self.live)) {
            live.remove(&name);
        }
    }
}

impl Driver {
    pub(super) fn new(
        engine: &Arc<Engine>,
        registered: Arc<Registered>,
        (at, id): (&Partition, &str),
        lease: Held,
        closing: watch::Receiver<bool>,
        journal: Journal,
        reload: Option<&Reload>,
    ) -> Result<Self> {
        let plan = &registered.plan;
        let unreadable = |what: &str, source| super::records::corrupt(id, what).with_source(source);
        let input =
            (plan.input.decode)(&journal.input).map_err(|source| unreadable(places::INPUT, source))?;
        let name = RunName { namespace: at.namespace().to_string(), id: id.to_owned() };
        let run = Arc::new(RunShared::named(Arc::clone(plan), input, name));
        restore(&run, plan, &journal)
            .map_err(|(step, source)| unreadable(&plan.leaves[step].name, source))?;
        if journal.record.cancelled_at.is_some() {
            run.stop.raise();
        }
        let live = Arc::new(Live { run, changed: Notify::new() });
        engine.shared.live().insert((at.clone(), id.to_owned()), Arc::clone(&live));

        let record = &journal.record;
        let taken_over = record.in_doubt || lease.attempt > record.released.saturating_add(1);
        let interrupted = reload.map_or(taken_over && !record.resumed, |reload| reload.interrupted);
        let in_doubt = if interrupted { Doubt::Everything } else { Doubt::Steps(BTreeSet::new()) };
        let fence = match reload {
            Some(_) => Fence::Token,
            None if interrupted || record.resumed => Fence::Open,
            None => Fence::Version,
        };
        let mut driver = Self {
            engine: Arc::clone(engine),
            registered,
            at: at.clone(),
            id: id.to_owned(),
            lease,
            live,
            closing,
            journal,
            items: BTreeMap::new(),
            in_doubt,
            fence,
            taken: HashSet::new(),
            parking: None,
            next_wake: None,
            renew_after: Timestamp::MIN,
            changes: Changes::default(),
            working: FuturesUnordered::new(),
            in_flight: HashSet::new(),
            done: VecDeque::new(),
        };
        driver.read_lists().map_err(|(step, source)| {
            let name = &driver.plan().leaves[step].name;
            super::records::corrupt(id, name).with_source(source)
        })?;
        if driver.journal.record.resumed {
            // Whoever holds it after this one is to know that it was begun.
            driver.journal.record.resumed = false;
            driver.journal.record.in_doubt = false;
            driver.journal.record.released = lease.attempt.saturating_sub(1);
        }
        driver.changes.record = driver.fence == Fence::Open;
        Ok(driver)
    }

    pub(crate) fn plan(&self) -> &Arc<Plan> {
        &self.registered.plan
    }

    /// Goes on with the run until it is somebody else's.
    pub(super) async fn work(&mut self) -> Result<(), Stop> {
        loop {
            let next = self.advance();
            match next {
                Next::Go(_) if self.holds_writer() && self.changes.transaction.is_none() => {
                    // A commit would wait for the transaction, and the transaction for this.
                    if let Some(finished) = self.finished().await? {
                        self.finish(finished).await;
                    }
                }
                Next::Go(begin) => {
                    if !self.changes.is_empty() && self.commit(super::commit::Ending::Hold).await? {
                        // Somebody changed the run meanwhile: what is next may have changed.
                        continue;
                    }
                    if begin.is_empty() && self.in_flight.is_empty() {
                        continue;
                    }
                    self.check_lease()?;
                    begin.into_iter().for_each(|work| self.launch(work));
                    if let Some(finished) = self.finished().await? {
                        self.finish(finished).await;
                        self.finish_others().await;
                    }
                }
                Next::Rest(due) => {
                    self.commit(super::commit::Ending::Rest(due)).await?;
                    return Ok(());
                }
                Next::Park(error) => {
                    self.commit(super::commit::Ending::Park(error)).await?;
                    return Ok(());
                }
                Next::End(state) => {
                    self.commit(super::commit::Ending::End(state)).await?;
                    return Ok(());
                }
            }
        }
    }

    /// Nobody begins work after its lease ran out.
    fn check_lease(&self) -> Result<(), Stop> {
        if self.engine.now() < self.lease.until {
            return Ok(());
        }
        let error = Error::new(ErrorKind::LeaseLost, "the lease ran out before the next step");
        Err(Stop::Abandon(error.with("run", format_args!("{:?}", self.id))))
    }

    /// Takes what has finished as well into the same commit. A transaction is committed with nothing
    /// that it could take down with it.
    async fn finish_others(&mut self) {
        while self.changes.transaction.is_none() && !self.changes.is_full() {
            if self.done.is_empty()
                && let Some(Some(finished)) = self.working.next().now_or_never()
            {
                self.done.push_back(finished);
            }
            match self.done.pop_front() {
                Some(finished) if !matches!(finished.what, What::Tried(_, Some(_))) => {
                    let finished = self.landed(finished);
                    self.finish(finished).await;
                }
                Some(transaction) => return self.done.push_front(transaction),
                None => return,
            }
        }
    }

    /// What finishes next, or `None` where something else is to be looked at.
    async fn finished(&mut self) -> Result<Option<Finished>, Stop> {
        if let Some(finished) = self.done.pop_front() {
            return Ok(Some(self.landed(finished)));
        }
        let clock = Arc::clone(&self.engine.settings.clock);
        let renew_at =
            if self.holds_writer() { Timestamp::MAX } else { self.renewal().max(self.renew_after) };
        let wake_at = self.next_wake.map_or(renew_at, |wake| wake.min(renew_at));
        let live = Arc::clone(&self.live);
        tokio::select! {
            biased;
            Some(finished) = self.working.next(), if !self.working.is_empty() => {
                return Ok(Some(self.landed(finished)));
            }
            () = live.changed.notified() => self.look_again().await?,
            () = clock.sleep_until(wake_at) => {
                if self.engine.now() >= renew_at {
                    self.renew().await?;
                    self.look_again().await?;
                }
            }
        }
        Ok(None)
    }

    fn landed(&mut self, finished: Finished) -> Finished {
        self.in_flight.remove(&finished.work);
        finished
    }

    /// Reads what others may have written: a cancellation, signals, the ends of children.
    async fn look_again(&mut self) -> Result<(), Stop> {
        let now = self.engine.now();
        let found = match Journal::load(&self.engine.store, &self.at, &self.id, now).await {
            Err(error) if is_passing(&error) => {
                tracing::warn!(%error, run = self.id, "a run that is held could not be looked at");
                return Ok(());
            }
            found => found?,
        };
        let Some(found) = found else {
            let error = Error::new(ErrorKind::LeaseLost, "the run is gone");
            return Err(Stop::Abandon(error.with("run", format_args!("{:?}", self.id))));
        };
        self.journal.signals = found.signals;
        self.journal.signals.retain(|id, _| !self.taken.contains(id));
        self.journal.children = found.children;
        if found.version != self.journal.version {
            self.merge(&found.record, found.version);
        }
        Ok(())
    }

    /// Takes over what somebody else may change of a run that is held: that it is to be cancelled.
    pub(crate) fn merge(&mut self, found: &RunRecord, version: Version) {
        self.journal.version = version;
        self.fence = Fence::Token;
        if found.cancelled_at.is_some() && self.journal.record.cancelled_at.is_none() {
            self.journal.record.cancelled_at = found.cancelled_at;
            self.live.run.stop.raise();
        }
    }

    /// Adds an entry to the run's history, with the next commit.
    pub(crate) fn note(&mut self, entry: &Entry) {
        self.journal.record.entries += 1;
        self.changes.record = true;
        let key = places::history(&self.id, self.journal.record.entries);
        self.changes.puts.push((key, super::records::encode(entry)));
    }

    /// Adds an entry about a step.
    pub(crate) fn note_step(&mut self, event: Event, step: usize, entry: Entry) {
        let step = Some(self.plan().leaves[step].name.clone().into_owned());
        self.note(&Entry { event, step, ..entry });
    }
}

/// Whether the store is away for a while; what is under way need not end for that.
pub(crate) fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown)
}
