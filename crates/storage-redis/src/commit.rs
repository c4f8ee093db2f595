//! A fold of commits as one call of a script.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evenkeel_core::fold::CommitFold;
use evenkeel_core::{
    Appended, Batch, Committed, Conflict, Error, ErrorKind, Expect, ExpectStream, Found, Merge, Op,
    Partition, Result, SignalHub,
};
use redis::{Cmd, Value};
use uuid::Uuid;

use crate::error::SOON;
use crate::keys::{Keys, Place, Tag};
use crate::rows;
use crate::script::{self, Arguments};
use crate::servers::{Effect, Request, Servers};
use crate::signals::hint;
use crate::writes::Write;

/// What a commit waits for beyond the answer of the server that keeps the partition.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// So many replicas have it.
    Replicas { count: u32, timeout: Duration },
    /// The server and so many replicas have it on disk.
    Disk { replicas: u32, timeout: Duration },
}

/// What commits.
#[derive(Debug)]
pub(crate) struct Committer {
    /// `WAIT` holds up its connection, so commits that wait have connections of their own.
    pub(crate) servers: Arc<Servers>,
    pub(crate) prefix: Arc<str>,
    /// Who publishes, so that one's own hints are known.
    pub(crate) sender: Uuid,
    pub(crate) wait: Option<Wait>,
    pub(crate) signals: SignalHub,
}

#[async_trait]
impl CommitFold for Committer {
    async fn commit_fold(&self, at: &Partition, batches: &[Batch]) -> Result<Vec<Result<Committed>>> {
        self.commit(at, batches, &[]).await
    }
}

impl Committer {
    /// Commits batches, the last of them with the user's writes.
    pub(crate) async fn commit(
        &self,
        at: &Partition,
        batches: &[Batch],
        writes: &[Write],
    ) -> Result<Vec<Result<Committed>>> {
        let tag = Tag::new(&self.prefix, at);
        let cmd = encode(&tag, self.sender, batches, writes);
        let request = Request {
            then: self.wait.map(Wait::command),
            ..Request::new(tag.slot(), Effect::Writes, "committing", cmd)
        };
        let answer = self.servers.ask(&request).await?;
        let (verdicts, is_safe) = self.verdicts(answer).map_err(unreadable)?;
        let decoded = batches.iter().zip(verdicts).map(|(batch, verdict)| {
            let decoded = decode(batch, verdict);
            if decoded.is_ok() {
                self.signals.committed(batch);
            }
            // A refusal too may rest on what a fail-over takes back.
            is_safe.as_ref().map_err(Error::repeated)?;
            decoded
        });
        Ok(decoded.collect())
    }

    /// The verdicts of an answer, and whether as many have what they say as were waited for.
    fn verdicts(&self, answer: Value) -> Result<(Vec<Value>, Result<()>)> {
        let Some(wait) = self.wait else { return Ok((rows::array(answer)?, Ok(()))) };
        let [answer, waited] =
            <[Value; 2]>::try_from(rows::array(answer)?).map_err(|_| rows::damaged("answer"))?;
        Ok((rows::array(answer)?, wait.check(waited)))
    }
}

/// The script has run, whatever it says.
fn unreadable(error: Error) -> Error {
    Error::new(ErrorKind::OutcomeUnknown, "the server's answer to a commit is no verdict").with_source(error)
}

impl Wait {
    pub(crate) const fn timeout(self) -> Duration {
        match self {
            Self::Replicas { timeout, .. } | Self::Disk { timeout, .. } => timeout,
        }
    }

    fn command(self) -> Cmd {
        // 0 would wait for ever.
        let millis = u64::try_from(self.timeout().as_millis()).unwrap_or(u64::MAX).max(1);
        match self {
            Self::Replicas { count, .. } => redis::cmd("WAIT").arg(count).arg(millis).take(),
            Self::Disk { replicas, .. } => redis::cmd("WAITAOF").arg(1).arg(replicas).arg(millis).take(),
        }
    }

    /// Whether as many have the commit as were asked for.
    fn check(self, answer: Value) -> Result<()> {
        let reached = match (self, answer) {
            (Self::Replicas { count, .. }, Value::Int(have)) => have >= i64::from(count),
            (Self::Disk { replicas, .. }, Value::Array(have)) => match have[..] {
                [Value::Int(server), Value::Int(have)] => server >= 1 && have >= i64::from(replicas),
                _ => false,
            },
            _ => false,
        };
        if reached {
            return Ok(());
        }
        Err(Error::new(ErrorKind::OutcomeUnknown, "fewer have the commit in time than were asked for")
            .with("wanted", format_args!("{self:?}")))
    }
}

fn encode(tag: &Tag, sender: Uuid, batches: &[Batch], writes: &[Write]) -> Cmd {
    let mut keys = Keys::new(tag);
    let mut arguments = Arguments::default();
    keys.number(Place::Expiries);
    arguments.display(tag.name_begins()).push(tag.channel()).push(sender.as_bytes());
    arguments.display(batches.len());
    for (place, batch) in batches.iter().enumerate() {
        arguments.push(batch.id().as_bytes()).push(rows::time(batch.now()));
        arguments.write(|bytes| hint(batch, bytes));
        let writes = if place + 1 == batches.len() { writes } else { &[] };
        let length = batch.ops().iter().map(op_length).sum::<usize>()
            + writes.iter().map(Write::length).sum::<usize>();
        arguments.display(length);
        let begins = arguments.len();
        batch.ops().iter().for_each(|op| encode_op(batch, op, &mut keys, &mut arguments));
        writes.iter().for_each(|write| write.encode(&mut keys, &mut arguments));
        debug_assert_eq!(arguments.len() - begins, length);
    }
    if Write::may_miss_a_key(writes) {
        keys.number(Place::Nothing);
    }
    let script = if writes.is_empty() { &script::COMMIT } else { &script::COMMIT_WITH };
    script.call(&keys.into_names(), &arguments)
}

/// How many arguments an operation takes, as `lua/ops.lua` lists them.
fn op_length(op: &Op) -> usize {
    match op {
        Op::Cancel { .. } => 3,
        Op::Delete { .. } | Op::Check { .. } | Op::Trim { .. } | Op::Ack { .. } => 4,
        Op::Put { .. } | Op::Retry { .. } | Op::Extend { .. } => 5,
        Op::Push { .. } | Op::PushLeased { .. } => 6,
        Op::Append { events, .. } => 6 + events.len(),
    }
}

fn encode_op<'a>(batch: &Batch, op: &'a Op, keys: &mut Keys<'a>, to: &mut Arguments) {
    match op {
        Op::Put { key, value, expect, expires_at } => {
            to.push("put").display(keys.number(Place::group_of(key))).push(&key.id);
            to.push(expected(expect));
            to.write(|bytes| rows::write_record(bytes, batch.version(), *expires_at, value));
        }
        Op::Delete { key, expect } => {
            to.push("delete").display(keys.number(Place::group_of(key))).push(&key.id).push(expected(expect));
        }
        Op::Check { key, expect } => {
            to.push("check").display(keys.number(Place::group_of(key))).push(&key.id).push(expected(expect));
        }
        Op::Append { stream, expect, events } => {
            to.push("append").display(keys.number(Place::Log)).push(stream);
            to.display(keys.number(Place::Stream(stream)));
            match expect {
                ExpectStream::Any => to.push("any"),
                ExpectStream::Exists => to.push("exists"),
                ExpectStream::NoStream => to.push("0"),
                ExpectStream::Version(version) => to.display(rows::exact(*version)),
            };
            to.display(events.len());
            for event in events {
                to.write(|bytes| rows::write_event(bytes, batch.id(), batch.now(), event));
            }
        }
        Op::Trim { stream, through } => {
            to.push("trim").display(keys.number(Place::Log)).push(stream).display(rows::exact(*through));
        }
        Op::Push { queue, id, due, payload, merge } => {
            to.push("push").display(keys.number(Place::Queue(queue))).push(id);
            to.push(match merge {
                Merge::Keep => "keep",
                Merge::Sooner => "sooner",
            });
            to.write(|bytes| rows::write_job(bytes, *due, None, payload)).display(due.as_micros());
        }
        Op::PushLeased { queue, id, due, payload, hold } => {
            to.push("push_leased").display(keys.number(Place::Queue(queue))).push(id);
            to.push(hold.token.0.as_bytes());
            to.write(|bytes| rows::write_job(bytes, *due, Some(*hold), payload));
            to.display(hold.until.as_micros());
        }
        Op::Ack { queue, id, token } => {
            to.push("ack").display(keys.number(Place::Queue(queue))).push(id).push(token.0.as_bytes());
        }
        Op::Retry { queue, id, token, due } => {
            to.push("retry").display(keys.number(Place::Queue(queue))).push(id).push(token.0.as_bytes());
            to.push(rows::time(*due));
        }
        Op::Extend { queue, id, token, until } => {
            to.push("extend").display(keys.number(Place::Queue(queue))).push(id).push(token.0.as_bytes());
            to.push(rows::time(*until));
        }
        Op::Cancel { queue, id } => {
            to.push("cancel").display(keys.number(Place::Queue(queue))).push(id);
        }
    }
}

/// What a record is expected to be: its version, or a word shorter than one.
fn expected(expect: &Expect) -> &[u8] {
    match expect {
        Expect::Any => b"",
        Expect::Absent => b"absent",
        Expect::Present => b"present",
        Expect::Version(version) => version.0.as_bytes(),
    }
}

/// Reads a verdict of `lua/commit.lua`.
fn decode(batch: &Batch, verdict: Value) -> Result<Committed> {
    let verdict = match verdict {
        Value::Int(1) => return Ok(Committed { version: batch.version(), appended: Vec::new() }),
        verdict => rows::array(verdict).map_err(unreadable)?,
    };
    let (code, rest) = verdict.split_first().ok_or_else(|| unreadable(rows::damaged("answer")))?;
    match (rows::number(code).map_err(unreadable)?, rest) {
        (1, places) => {
            let appended = places.chunks(3).map(|place| appended(batch, place)).collect::<Result<_>>();
            Ok(Committed { version: batch.version(), appended: appended.map_err(unreadable)? })
        }
        (2, [op, found @ ..]) => Err(refused(batch, op, found.first().cloned().unwrap_or_default())?),
        (3, [message]) => Err(unwritten(message)),
        (4, [message]) => Err(failed(
            ErrorKind::OutcomeUnknown,
            "the script failed while it wrote: something else writes the store's keys",
            message,
        )),
        _ => Err(unreadable(rows::damaged("answer"))),
    }
}

fn unwritten(message: &Value) -> Error {
    if rows::text(message.clone()).is_ok_and(|says| says.contains("non local key")) {
        return failed(ErrorKind::Unavailable, "the partition is moving to another server", message)
            .with_retry(SOON);
    }
    failed(ErrorKind::Unexpected, "the script failed before it wrote anything", message)
}

fn failed(kind: ErrorKind, what: &'static str, message: &Value) -> Error {
    let message = rows::text(message.clone()).unwrap_or_default();
    Error::new(kind, what).with_source(message)
}

/// Where an append's events went: operation, version, position.
fn appended(batch: &Batch, place: &[Value]) -> Result<Appended> {
    let [op, version, position] = place else { return Err(rows::damaged("answer")) };
    let (version, position) = (rows::number(version)?, rows::number(position)?);
    match batch.ops().get(number_of(op)?) {
        Some(Op::Append { stream, events, .. }) => {
            let count = u64::try_from(events.len()).expect("a usize fits a u64");
            Ok(Appended { stream: stream.clone(), version, position, count })
        }
        _ => Err(rows::damaged("answer")),
    }
}

/// The error of a batch whose expectation does not hold.
fn refused(batch: &Batch, op: &Value, found: Value) -> Result<Error> {
    let op = number_of(op)?;
    let found = match batch.ops().get(op) {
        Some(Op::Put { key, .. } | Op::Delete { key, .. } | Op::Check { key, .. }) => {
            let record = rows::optional_bytes(found)?.map(rows::record).transpose()?;
            Found::Record { key: key.clone(), record }
        }
        Some(Op::Append { stream, .. }) => {
            Found::Stream { stream: stream.clone(), version: rows::number(&found)? }
        }
        Some(Op::Ack { queue, id, .. } | Op::Retry { queue, id, .. } | Op::Extend { queue, id, .. }) => {
            let job = rows::optional_bytes(found)?.map(rows::job).transpose()?;
            Found::Job { queue: queue.clone(), id: id.clone(), job }
        }
        Some(Op::PushLeased { queue, id, .. }) => {
            Found::Occupied { queue: queue.clone(), id: id.clone(), job: rows::job(rows::bytes(found)?)? }
        }
        Some(Op::Trim { .. } | Op::Push { .. } | Op::Cancel { .. }) => return Err(rows::damaged("answer")),
        None => return Write::refused(found),
    };
    Ok(Conflict { op, found }.into())
}

fn number_of(op: &Value) -> Result<usize> {
    usize::try_from(rows::number(op)?).map_err(|_| rows::damaged("answer"))
}
