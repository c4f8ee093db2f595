//! Leasing: candidates from the index, each claimed by a conditional update.

use aws_sdk_dynamodb::types::{ReturnValue, ReturnValuesOnConditionCheckFailure};
use evenkeel_core::{ErrorKind, Hold, Job, Lease, Leased, LeasedJob, Partition, Result, Timestamp, Token};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::apart::{self, Payloads};
use crate::client::{Dynamo, Forwards, Of, Query, send};
use crate::keys::{self, ItemKey, READY};
use crate::rows::{self, Item, StoredJob, binary_id, number};
use crate::write::{Action, Guard, OneFailed, Outcome, Resent, Tries, Write};

const LEASING: &str = "leasing jobs";

/// How often new candidates are looked for, where others took those found.
const LOOKS: usize = 4;

/// How many jobs are claimed at the same time.
const ABREAST: usize = 16;

/// How often a job is claimed anew, where somebody pushed to it in between.
const CLAIMS: usize = 8;

/// A job as the index shows it.
#[derive(Debug)]
struct Candidate {
    key: ItemKey,
    ready_at: Timestamp,
}

pub(crate) async fn lease(dynamo: &Dynamo, at: &Partition, want: &Lease) -> Result<Leased> {
    let until = want.now + want.hold_for;
    let mut jobs: Vec<LeasedJob> = Vec::new();
    let mut next_due = None;
    for _ in 0..LOOKS {
        let missing = want.max - jobs.len();
        let (due, later) = candidates(dynamo, at, want, missing).await?;
        let is_taken = |candidate: &&Candidate| jobs.iter().any(|job| job.id == candidate.key.sk);
        let mut due: Vec<Candidate> = due.into_iter().filter(|candidate| !is_taken(&candidate)).collect();
        next_due = later;
        if due.is_empty() {
            break;
        }
        // Others lease the same queue at the same moment: whoever begins elsewhere meets fewer.
        fastrand::shuffle(&mut due);
        let mut lost = 0;
        while !due.is_empty() && jobs.len() < want.max {
            let some = due.len().min(want.max - jobs.len()).min(ABREAST);
            let claims = due.drain(..some).map(|candidate| claim(dynamo, at, candidate, want.now, until));
            let mut failed = None;
            for claimed in join_all(claims).await {
                match claimed {
                    Ok(Some(job)) => jobs.push(job),
                    Ok(None) => lost += 1,
                    // That a job may be leased counts more than that another is not.
                    Err(error) if error.kind() == ErrorKind::OutcomeUnknown => failed = Some(error),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            match failed {
                Some(error) if jobs.is_empty() => return Err(error),
                // What is leased is not to wait until its lease runs out.
                Some(_) => return Ok(in_order(jobs, next_due)),
                None => {}
            }
        }
        let left = due.iter().map(|candidate| candidate.ready_at).min();
        next_due = left.or(next_due);
        if jobs.len() == want.max || lost == 0 {
            break;
        }
    }
    Ok(in_order(jobs, next_due))
}

fn in_order(mut jobs: Vec<LeasedJob>, next_due: Option<Timestamp>) -> Leased {
    jobs.sort_by(|a, b| (a.due, &a.id).cmp(&(b.due, &b.id)));
    Leased { jobs, next_due }
}

/// The jobs of a queue that are due, as the index shows them, and when the next of the others is.
async fn candidates(
    dynamo: &Dynamo,
    at: &Partition,
    want: &Lease,
    missing: usize,
) -> Result<(Vec<Candidate>, Option<Timestamp>)> {
    let query = Query {
        of: Of::DueIndex,
        condition: "queue = :queue",
        values: vec![(":queue", keys::text(keys::queue(at, &want.queue)))],
        forwards: Forwards::Yes,
        // Twice as many as wanted, so that others can be avoided, and still among the earliest.
        limit: missing.saturating_mul(2).saturating_add(8),
    };
    let found = dynamo.query(&query, LEASING).await?;
    let candidate = |item: &Item| {
        let ready_at = Timestamp::from_micros(rows::needed(item, READY)?);
        Ok(Candidate { key: ItemKey::of(item)?, ready_at })
    };
    let mut due: Vec<Candidate> = found.items.iter().map(candidate).collect::<Result<_>>()?;
    let beyond = due.last().filter(|_| found.more).map(|last| last.ready_at);
    let later = due.split_off(due.partition_point(|candidate| candidate.ready_at <= want.now));
    Ok((due, later.first().map(|candidate| candidate.ready_at).or(beyond)))
}

/// Leases a job, unless another was first or it is not due after all.
async fn claim(
    dynamo: &Dynamo,
    at: &Partition,
    candidate: Candidate,
    now: Timestamp,
    until: Timestamp,
) -> Result<Option<LeasedJob>> {
    let hold = Hold { token: Token::fresh(), until };
    for _ in 0..CLAIMS {
        let stored = match take(dynamo, &candidate.key, now, hold).await? {
            Taken::Leased(job) => return Ok(Some(leased(candidate.key.sk, job, hold))),
            Taken::Not => return Ok(None),
            Taken::Known(stored) => stored,
        };
        // What was pushed during the lease before becomes part of the job.
        let mut job = stored.job.clone();
        job.lease(hold);
        let after = stored.becoming(&candidate.key, job, Uuid::new_v4());
        let mut payloads = Payloads::default();
        payloads.note(at, &candidate.key, &stored, Some(&after), now);
        let (update, values) = rows::job_update(&candidate.key, &stored, &after);
        let write = Write {
            key: candidate.key.clone(),
            action: Action::Update(update.into(), values),
            guard: Some(Guard::new("ver = :ver", [(":ver", binary_id(stored.revision))])),
            resent: Resent::Recognised(after.revision),
        };
        if let Outcome::Written = dynamo.write(vec![write]).await? {
            payloads.clean_up(dynamo).await;
            return Ok(Some(leased(candidate.key.sk, after.job, hold)));
        }
    }
    Ok(None)
}

fn leased(id: String, job: Job, hold: Hold) -> LeasedJob {
    let Job { due, payload, attempt, .. } = job;
    LeasedJob { id, payload, due, attempt, token: hold.token, until: hold.until }
}

/// What came of an attempt to lease a job.
enum Taken {
    Leased(Job),
    /// It is due, but something was pushed to it during the lease before, or its payload has an
    /// item of its own.
    Known(StoredJob),
    /// It is gone, or not due.
    Not,
}

/// Leases a job to which nothing was pushed and whose payload is in its item, without knowing it before.
async fn take(dynamo: &Dynamo, key: &ItemKey, now: Timestamp, hold: Hold) -> Result<Taken> {
    let values = [
        (":one", number(1)),
        (":tok", binary_id(hold.token.0)),
        (":til", number(hold.until.as_micros())),
        (":now", number(now.as_micros())),
        (":new", binary_id(Uuid::new_v4())),
    ];
    let values: Item = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut tries = Tries::begin(dynamo.clock.now());
    loop {
        let request = dynamo
            .client
            .update_item()
            .table_name(&dynamo.table)
            .set_key(Some(key.attributes()))
            .update_expression("SET att = att + :one, tok = :tok, til = :til, ready = :til, ver = :new")
            .condition_expression(
                "ready <= :now AND attribute_not_exists(pdue) AND attribute_not_exists(vref)",
            )
            .set_expression_attribute_values(Some(values.clone()))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let failure = match send!(dynamo, update_item, request).await {
            Ok(answer) => return Ok(Taken::Leased(rows::job(&answer.attributes.unwrap_or_default())?.job)),
            Err(error) => OneFailed::from(error),
        };
        match failure {
            OneFailed::Guard(item) => {
                let Some(item) = apart::fetch(dynamo, key, item, LEASING).await? else {
                    return Ok(Taken::Not);
                };
                let stored = rows::job(&item)?;
                // An answer that was lost may have said so already.
                return Ok(if stored.job.is_held_by(hold.token) {
                    Taken::Leased(stored.job)
                } else if stored.job.ready_at() <= now {
                    Taken::Known(stored)
                } else {
                    Taken::Not
                });
            }
            OneFailed::Otherwise(what, error) => tries.failed(what, error, dynamo.clock.now())?,
        }
        dynamo.pause(tries.made).await;
    }
}
