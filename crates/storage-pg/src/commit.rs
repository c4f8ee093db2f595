//! Folds of batches as calls of `commit_v1`, and its answers as verdicts.

use std::sync::Arc;

use async_trait::async_trait;
use evenkeel_core::fold::CommitFold;
use evenkeel_core::{Appended, Batch, Committed, Conflict, Error, ErrorKind, Found, Op, Partition, Result};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::call::Call;
use crate::database::Database;
use crate::error::SqlxResult;
use crate::rows::{self, column};
use crate::signals::Announcer;

/// Commits folds, each in one round trip, and announces what they did.
#[derive(Clone, Debug)]
pub(crate) struct Committer {
    pub(crate) database: Arc<Database>,
    pub(crate) announcer: Arc<Announcer>,
}

#[async_trait]
impl CommitFold for Committer {
    async fn commit_fold(&self, at: &Partition, batches: &[Batch]) -> Result<Vec<Result<Committed>>> {
        let call = Call::new(&self.database.schema, at, batches.iter());
        let answer = self.database.write(|| call.statement(&self.database, None), COMMITTING).await?;
        // By now it is committed, and no member may run again.
        let verdicts = verdicts(batches, &answer).map_err(|error| {
            Error::new(ErrorKind::OutcomeUnknown, "the server's answer to a commit cannot be read")
                .with_source(error)
        })?;
        let committed = batches.iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_ok());
        self.announcer.announce(committed.map(|(batch, _)| batch));
        Ok(verdicts)
    }
}

const COMMITTING: &str = "committing";

/// Judges and writes a batch on a connection that is in a transaction, and leaves the commit to the
/// caller. Nothing is written where the answer is an error.
pub(crate) async fn apply_on(
    conn: &mut PgConnection,
    database: &Database,
    store: Option<Uuid>,
    batch: &Batch,
) -> Result<Committed> {
    let call = Call::new(&database.schema, batch.at(), std::iter::once(batch));
    let statement = call.statement(database, store);
    let answer = database.in_time(statement.fetch(conn)).await.or_store_error(COMMITTING)?;
    let mut verdicts = verdicts(std::slice::from_ref(batch), &answer)?;
    verdicts.pop().ok_or_else(|| unexpected("without a verdict"))?
}

/// What the rows of the answer say about one batch.
#[derive(Default)]
struct Answer {
    /// In which round; a later one replaces what earlier ones said.
    round: i32,
    was_applied: bool,
    appended: Vec<Appended>,
    failing: Option<Conflict>,
}

fn verdicts(batches: &[Batch], rows: &[PgRow]) -> Result<Vec<Result<Committed>>> {
    let mut answers: Vec<Answer> = Vec::new();
    answers.resize_with(batches.len(), Answer::default);
    for row in rows {
        // Both count from 1.
        let batch = place(row, "batch")?;
        let (Some(answer), Some(batch)) = (answers.get_mut(batch), batches.get(batch)) else {
            return Err(unexpected("about a batch that was not asked for"));
        };
        let round = column(row, "round")?;
        if round > answer.round {
            *answer = Answer { round, ..Answer::default() };
        }
        let verdict = column(row, "verdict")?;
        if verdict == "holds" {
            continue;
        }
        let op = place(row, "op")?;
        let Some(what) = batch.ops().get(op) else {
            return Err(unexpected("about an operation that was not asked for"));
        };
        match verdict {
            "appended" => answer.appended.extend(appended(what, row)?),
            "applied" => {
                answer.was_applied = true;
                answer.appended.extend(appended(what, row)?);
            }
            _ if answer.failing.as_ref().is_none_or(|first| op < first.op) => {
                answer.failing = Some(Conflict { op, found: found(what, row)? });
            }
            _ => {}
        }
    }
    let verdict = |(batch, answer): (&Batch, Answer)| match answer.failing {
        Some(conflict) if !answer.was_applied => Err(conflict.into()),
        _ => Ok(Committed { version: batch.version(), appended: answer.appended }),
    };
    Ok(batches.iter().zip(answers).map(verdict).collect())
}

/// The place in a slice that a number, which counts from 1, is about.
fn place(row: &PgRow, name: &'static str) -> Result<usize> {
    let number = usize::try_from(column::<i32>(row, name)?).unwrap_or(0);
    number.checked_sub(1).ok_or_else(|| rows::damaged(name))
}

/// Where the events of an operation stand; `None` for one that is no append.
fn appended(op: &Op, row: &PgRow) -> Result<Option<Appended>> {
    let Op::Append { stream, events, .. } = op else { return Ok(None) };
    Ok(Some(Appended {
        stream: stream.clone(),
        version: rows::count(row, "stream_version")?,
        position: rows::count(row, "position")?,
        count: events.len() as u64,
    }))
}

/// What stood where the operation's expectation failed.
fn found(op: &Op, row: &PgRow) -> Result<Found> {
    match op {
        Op::Put { key, .. } | Op::Delete { key, .. } | Op::Check { key, .. } => {
            Ok(Found::Record { key: key.clone(), record: rows::record(row)? })
        }
        Op::Append { stream, .. } => {
            Ok(Found::Stream { stream: stream.clone(), version: rows::count(row, "stream_version")? })
        }
        Op::Ack { queue, id, .. } | Op::Retry { queue, id, .. } | Op::Extend { queue, id, .. } => {
            let exists = column::<Option<i64>>(row, "due")?.is_some();
            let job = exists.then(|| rows::job(row, "value", "version")).transpose()?;
            Ok(Found::Job { queue: queue.clone(), id: id.clone(), job })
        }
        Op::PushLeased { queue, id, .. } => {
            let job = rows::job(row, "value", "version")?;
            Ok(Found::Occupied { queue: queue.clone(), id: id.clone(), job })
        }
        Op::Trim { .. } | Op::Push { .. } | Op::Cancel { .. } => {
            Err(unexpected("about an operation that expects nothing"))
        }
    }
}

fn unexpected(what: &'static str) -> Error {
    Error::new(ErrorKind::Unexpected, "the server answered a commit strangely").with("answer", what)
}
