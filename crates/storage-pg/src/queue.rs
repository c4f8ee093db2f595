use evenkeel_core::{Lease, Leased, LeasedJob, Partition, Result, Token};
use sqlx::postgres::PgRow;

use crate::database::Database;
use crate::rows::{self, column, sql_limit};

/// Takes due jobs, in one round trip.
pub(crate) async fn lease(database: &Database, at: &Partition, want: &Lease) -> Result<Leased> {
    let until = want.now + want.hold_for;
    let statement = || {
        database
            .statement("SELECT * FROM evenkeel.lease_v1($1, $2, $3, $4, $5)")
            .bind(at.to_string())
            .bind(want.queue.as_str())
            .bind(sql_limit(want.max))
            .bind(want.now.as_micros())
            .bind(until.as_micros())
    };
    let found = database.write(statement, "leasing jobs").await?;
    let next_due = match found.last() {
        Some(row) => rows::optional_time(row, "next_due")?,
        None => None,
    };
    let leased = |row: &PgRow| {
        let Some(token) = column(row, "token")? else { return Ok(None) };
        Ok(Some(LeasedJob {
            id: column(row, "id")?,
            payload: rows::bytes(row, "payload")?,
            due: rows::time(row, "due")?,
            attempt: rows::attempt(row)?,
            token: Token(token),
            until,
        }))
    };
    let jobs = found.iter().filter_map(|row| leased(row).transpose()).collect::<Result<_>>()?;
    Ok(Leased { jobs, next_due })
}
