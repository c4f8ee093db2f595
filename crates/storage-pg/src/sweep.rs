use evenkeel_core::{Partition, Result, Timestamp};

use crate::database::Database;
use crate::rows::{self, sql_limit};

/// Removes expired records and the contents of trimmed events, at most `limit`, in one round trip.
pub(crate) async fn sweep(
    database: &Database,
    at: &Partition,
    expired_before: Timestamp,
    limit: usize,
) -> Result<usize> {
    let statement = || {
        database
            .statement("SELECT evenkeel.sweep_v1($1, $2, $3) AS swept")
            .bind(at.to_string())
            .bind(expired_before.as_micros())
            .bind(sql_limit(limit))
    };
    let swept = match database.write(statement, "sweeping").await?.first() {
        Some(row) => rows::count(row, "swept")?,
        None => 0,
    };
    Ok(usize::try_from(swept).unwrap_or(usize::MAX))
}
