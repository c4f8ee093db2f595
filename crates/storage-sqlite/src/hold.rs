//! The writing connection in a user's hands: door 2 from the writer's side.

use std::collections::VecDeque;
use std::fs::File;

use evenkeel_core::judge::{self, Verdict};
use evenkeel_core::{Batch, Committed, Error, ErrorKind, Result, Timestamp};
use futures_util::FutureExt;
use rusqlite::Connection;
use sqlx::{Sqlite, Transaction};
use tokio::sync::oneshot;

use crate::config::{Mode, Synchronous};
use crate::error::SqlResult;
use crate::working_set::WorkingSet;
use crate::writer::{Asked, Connect, Request, Writer, commit_loaded, commit_on, roll_back, stopped};

/// The writing connection, lent out inside a transaction. Dropped, it is rolled back.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) tx: Transaction<'static, Sqlite>,
    /// When its commit is safe.
    level: Synchronous,
    /// No statement may be begun from this instant on.
    pub(crate) until: Timestamp,
    back: oneshot::Sender<Returned>,
}

/// How a lent connection comes back.
#[derive(Debug)]
enum Returned {
    Finish(Transaction<'static, Sqlite>, Synchronous, Asked<Batch, Committed>),
    RollBack(Transaction<'static, Sqlite>, oneshot::Sender<()>),
}

impl Held {
    /// Has the batch judged, applied and committed with what was written on the connection.
    pub(crate) async fn finish(self, batch: Batch) -> Result<Committed> {
        let (reply, verdict) = oneshot::channel();
        let returned = Returned::Finish(self.tx, self.level, Asked { what: batch, reply });
        self.back.send(returned).map_err(|_| stopped(ErrorKind::Unavailable))?;
        verdict.await.unwrap_or_else(|_| Err(stopped(ErrorKind::OutcomeUnknown)))
    }

    /// Takes back what was written on the connection.
    pub(crate) async fn roll_back(self) {
        let (reply, done) = oneshot::channel();
        // Where the writer is gone, dropping the transaction rolls it back.
        if self.back.send(Returned::RollBack(self.tx, reply)).is_ok() {
            let _ = done.await;
        }
    }
}

impl Writer {
    /// Lends the connection out, and until it is back answers what can be answered without it.
    pub(crate) async fn hold(&mut self, asked: Asked<Connect, Held>, line: &mut VecDeque<Request>) {
        let level = self.level_of(asked.what.is_synced);
        let tx = match self.lent.begin_with(level.begin()).await.or_store_error("beginning") {
            Ok(tx) => tx,
            Err(error) => return asked.answer(Err(error)),
        };
        let until = self.clock.now() + asked.what.hold_for.min(self.max_hold);
        let (back, mut returned) = oneshot::channel();
        asked.answer(Ok(Held { tx, level, until, back }));

        let mut overdue = self.clock.sleep_until(until);
        let mut is_overdue = false;
        let mut is_open = true;
        let mut judged = 0;
        loop {
            judged = self.answer_early(line, judged).await;
            if is_overdue {
                refuse(line);
                judged = 0;
            }
            tokio::select! {
                returned = &mut returned => {
                    // An error means that the transaction was dropped, which rolls it back.
                    if let Ok(returned) = returned {
                        self.take_back(returned).await;
                    }
                    return;
                }
                request = self.requests.recv(), if is_open => {
                    is_open = request.is_some();
                    line.extend(request);
                    self.line_up(line);
                }
                () = &mut overdue, if !is_overdue => {
                    tracing::warn!("a transaction holds the database for longer than it may");
                    is_overdue = true;
                }
            }
        }
    }

    async fn take_back(&mut self, returned: Returned) {
        match returned {
            Returned::Finish(tx, level, asked) => {
                let mut verdict = self.commit_held(tx, &asked.what).await;
                if verdict.is_ok() && asked.what.is_synced() && level != self.synchronous {
                    verdict = self.sync().and(verdict);
                }
                if verdict.is_ok() {
                    self.signals.committed(&asked.what);
                }
                asked.answer(verdict);
            }
            Returned::RollBack(tx, done) => {
                roll_back(tx).await;
                let _ = done.send(());
            }
        }
    }

    /// Judges a batch, applies it in the transaction that was held, and commits both.
    async fn commit_held(&mut self, tx: Transaction<'static, Sqlite>, batch: &Batch) -> Result<Committed> {
        // Connections to a database in memory would wait for each other.
        if self.mode == Mode::Memory {
            return commit_on(tx, batch).await;
        }
        // Nobody else can have committed since the transaction began. So the writer's own connection
        // sees the same rows, without a trip to the other's thread.
        let loaded = WorkingSet::load(&mut self.connection, std::iter::once(batch)).await;
        commit_loaded(tx, loaded, batch).await
    }

    /// Waits until what was committed is on disk: for a transaction of which was known only after it
    /// had begun that it must be.
    fn sync(&self) -> Result<()> {
        // Nobody locks this file, so that closing it takes no lock of SQLite's away.
        let synced = File::options().write(true).open(&self.log).and_then(|log| log.sync_data());
        synced.map_err(|source| {
            let error = Error::new(ErrorKind::OutcomeUnknown, "the disk did not say that it has the commit");
            error.with("file", self.log.display()).with_source(source)
        })
    }

    /// Answers the commits of the line, beyond the first `judged`, whose verdict is certain from
    /// what is committed already: a conflict is a conflict at once, however long the connection is
    /// held. Returns how many of the line are judged now.
    async fn answer_early(&self, line: &mut VecDeque<Request>, judged: usize) -> usize {
        if line.len() == judged {
            return judged;
        }
        let batches: Vec<Batch> = line.iter().skip(judged).filter_map(Request::batch).cloned().collect();
        let load = move |conn: &mut Connection| {
            let loaded = WorkingSet::load(conn, batches.iter()).now_or_never();
            loaded.expect("statements on a connection of rusqlite's run at once")
        };
        // A reader that fails says nothing; the transaction that judges for good will.
        let Ok(mut set) = self.readers.ask(load).await else { return judged };
        for request in line.split_off(judged) {
            match request {
                Request::Commit(asked) => match certain(&mut set, &asked.what) {
                    Some(verdict) => asked.answer(verdict),
                    None => line.push_back(Request::Commit(asked)),
                },
                request => line.push_back(request),
            }
        }
        line.len()
    }
}

/// The verdict that a batch gets whatever the waiting transactions do.
fn certain(set: &mut WorkingSet, batch: &Batch) -> Option<Result<Committed>> {
    match judge::judge(set.partition(batch.at()), batch) {
        Verdict::Applied(committed) => Some(Ok(committed)),
        Verdict::Fails(conflict) => Some(Err(conflict.into())),
        Verdict::Holds => None,
    }
}

/// Fails everything in the line: nothing of it was written.
fn refuse(line: &mut VecDeque<Request>) {
    let error =
        || Error::new(ErrorKind::Unavailable, "a transaction holds the database for longer than it may");
    for request in line.drain(..) {
        match request {
            Request::Commit(asked) => asked.answer(Err(error())),
            Request::Lease(asked) => asked.answer(Err(error())),
            Request::Sweep(asked) => asked.answer(Err(error())),
            Request::Connect(asked) => asked.answer(Err(error())),
        }
    }
}

impl Request {
    fn batch(&self) -> Option<&Batch> {
        match self {
            Self::Commit(asked) => Some(&asked.what),
            Self::Lease(_) | Self::Sweep(_) | Self::Connect(_) => None,
        }
    }
}
