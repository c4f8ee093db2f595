//! Leasing, within the writer's transaction.

use evenkeel_core::{Hold, Job, Lease, Leased, LeasedJob, Partition, Result, Timestamp, Token};
use sqlx::{AssertSqlSafe, SqliteConnection};

use crate::error::SqlxResult;
use crate::read::names;
use crate::rows::{self, JOB, column, sql_limit};
use crate::working_set::{JobRow, write_jobs};

pub(crate) async fn lease(conn: &mut SqliteConnection, at: &Partition, want: &Lease) -> Result<Leased> {
    let until = want.now + want.hold_for;
    let mut jobs = due(conn, at, want).await?;
    for (_, job) in &mut jobs {
        job.lease(Hold { token: Token::fresh(), until });
    }
    let at = at.to_string();
    let written: Vec<JobRow<'_>> =
        jobs.iter().map(|(id, job)| JobRow { at: at.clone(), queue: &want.queue, id, job }).collect();
    write_jobs(conn, &written).await?;
    let next_due = next_due(conn, &at, want, &jobs).await?;
    Ok(Leased { jobs: jobs.into_iter().filter_map(leased).collect(), next_due })
}

fn leased((id, job): (String, Job)) -> Option<LeasedJob> {
    let Hold { token, until } = job.lease?;
    Some(LeasedJob { id, payload: job.payload, due: job.due, attempt: job.attempt, token, until })
}

async fn due(conn: &mut SqliteConnection, at: &Partition, want: &Lease) -> Result<Vec<(String, Job)>> {
    let sql = format!(
        "SELECT j.id, {JOB} FROM evenkeel_job j WHERE part = ?1 AND queue = ?2 AND ready_at <= ?3 \
         ORDER BY ready_at, id LIMIT ?4"
    );
    let found = sqlx::query(AssertSqlSafe(sql))
        .bind(at.to_string())
        .bind(want.queue.as_str())
        .bind(want.now.as_micros())
        .bind(sql_limit(want.max))
        .fetch_all(conn)
        .await
        .or_store_error("leasing jobs")?;
    found.iter().map(|row| Ok((column(row, 0)?, rows::job(row, 1)?))).collect()
}

async fn next_due(
    conn: &mut SqliteConnection,
    at: &str,
    want: &Lease,
    taken: &[(String, Job)],
) -> Result<Option<Timestamp>> {
    let next: Option<i64> = sqlx::query_scalar(
        "SELECT ready_at FROM evenkeel_job WHERE part = ?1 AND queue = ?2 \
         AND id NOT IN (SELECT value FROM json_each(?3)) ORDER BY ready_at LIMIT 1",
    )
    .bind(at)
    .bind(want.queue.as_str())
    .bind(names(taken.iter().map(|(id, _)| id)))
    .fetch_optional(conn)
    .await
    .or_store_error("leasing jobs")?;
    Ok(next.map(Timestamp::from_micros))
}
