//! Leasing, within the writer's transaction.

use evenkeel_core::{Hold, Job, Lease, Leased, LeasedJob, Partition, Result, Timestamp, Token};

use crate::rows::{self, JOB, sql_limit};
use crate::sql::Sql;
use crate::working_set::{JobRow, write_jobs};

pub(crate) async fn lease(conn: &mut impl Sql, at: &Partition, want: &Lease) -> Result<Leased> {
    let until = want.now + want.hold_for;
    let at = at.to_string();
    let mut jobs = due(conn, &at, want).await?;
    // What was read beyond the last tells when the next can be leased.
    let beyond = if jobs.len() > want.max { jobs.pop() } else { None };
    let next_due = match beyond {
        Some((_, job)) => Some(job.ready_at()),
        None => next_after(conn, &at, want).await?,
    };
    for (_, job) in &mut jobs {
        job.lease(Hold { token: Token::fresh(), until });
    }
    let written: Vec<JobRow<'_>> =
        jobs.iter().map(|(id, job)| JobRow { at: &at, queue: &want.queue, id, job }).collect();
    write_jobs(conn, &written).await?;
    Ok(Leased { jobs: jobs.into_iter().filter_map(leased).collect(), next_due })
}

fn leased((id, job): (String, Job)) -> Option<LeasedJob> {
    let Hold { token, until } = job.lease?;
    Some(LeasedJob { id, payload: job.payload, due: job.due, attempt: job.attempt, token, until })
}

/// What is due, and one more than asked for.
async fn due(conn: &mut impl Sql, at: &str, want: &Lease) -> Result<Vec<(String, Job)>> {
    let sql = format!(
        "SELECT j.id, {JOB} FROM evenkeel_job j WHERE part = ? AND queue = ? AND ready_at <= ? \
         ORDER BY ready_at, id LIMIT ?"
    );
    let params = [
        at.into(),
        want.queue.as_str().into(),
        want.now.as_micros().into(),
        sql_limit(want.max.saturating_add(1)).into(),
    ];
    let found = conn.query(&sql, &params, "leasing jobs").await?;
    found.iter().map(|row| Ok((row.get(0)?, rows::job(row, 1)?))).collect()
}

/// When the first falls due of those that are not; nothing that is due was left.
async fn next_after(conn: &mut impl Sql, at: &str, want: &Lease) -> Result<Option<Timestamp>> {
    let sql = "SELECT ready_at FROM evenkeel_job WHERE part = ? AND queue = ? AND ready_at > ? \
        ORDER BY ready_at LIMIT 1";
    let params = [at.into(), want.queue.as_str().into(), want.now.as_micros().into()];
    let found = conn.query(sql, &params, "leasing jobs").await?;
    Ok(found.first().map(|row| row.get(0)).transpose()?.map(Timestamp::from_micros))
}
