//! Sending statements to the server, each on a connection of the pool.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::skew::Skew;
use evenkeel_core::{Clock, Result};
use sqlx::postgres::PgRow;

use crate::connections::Connections;
use crate::error::{SqlxResult, is_transient};
use crate::rows;
use crate::statement::{Protocol, Schema, Statement};

/// The connections for commits, leases and reads, and how to use them.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) connections: Arc<Connections>,
    pub(crate) protocol: Protocol,
    pub(crate) schema: Schema,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) skew: Skew,
    pub(crate) statement_timeout: Duration,
}

/// How long after its own timeout the server's word is waited for.
const GRACE: Duration = Duration::from_secs(5);

/// How often a statement is sent again that met another transaction, and how much later at most.
const ATTEMPTS: u32 = 5;
const MAX_DELAY: Duration = Duration::from_millis(50);

impl Database {
    pub(crate) fn statement(&self, sql: &'static str) -> Statement {
        Statement::new(self.protocol, self.schema.sql(sql))
    }

    /// Runs a statement that writes nothing.
    pub(crate) async fn query(&self, statement: Statement, doing: &'static str) -> Result<Vec<PgRow>> {
        self.run(statement, doing).await?.or_store_error(doing)
    }

    /// Runs a statement that commits by itself. One that met another transaction, which took back
    /// all it did, is made and sent again.
    pub(crate) async fn write(
        &self,
        statement: impl Fn() -> Statement + Send + Sync,
        doing: &'static str,
    ) -> Result<Vec<PgRow>> {
        for _ in 1..ATTEMPTS {
            match self.run(statement(), doing).await? {
                Err(error) if is_transient(&error) => {
                    tracing::debug!(%error, doing, "sending a statement again");
                    self.clock.sleep(MAX_DELAY.mul_f64(fastrand::f64())).await;
                }
                answer => return answer.or_commit_error(doing),
            }
        }
        self.run(statement(), doing).await?.or_commit_error(doing)
    }

    /// The server's answer.
    ///
    /// # Errors
    /// Where no connection could be had, so that nothing was sent.
    async fn run(&self, statement: Statement, doing: &'static str) -> Result<sqlx::Result<Vec<PgRow>>> {
        let mut connection = self.connections.lend().await.or_store_error(doing)?;
        let answer = self.in_time(statement.fetch(&mut connection)).await;
        if !matches!(&answer, Err(error) if error.as_database_error().is_none()) {
            connection.give_back();
        }
        Ok(answer)
    }

    /// The server's answer, waited for somewhat longer than the server lets a statement run: for when
    /// it, or the network, says nothing any more.
    pub(crate) async fn in_time<T>(&self, answer: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        let deadline = self.clock.now() + self.statement_timeout + GRACE;
        let late = || Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
        self.clock.timeout_at(deadline, answer).await.unwrap_or_else(late)
    }

    /// Refuses to go on while the clocks are too far apart, and once a minute has them compared.
    pub(crate) fn check_clock(self: &Arc<Self>) -> Result<()> {
        if self.skew.is_due() {
            let database = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = database.compare_clocks().await {
                    tracing::warn!(%error, "comparing this machine's clock with the server's failed");
                }
            });
        }
        self.skew.check()
    }

    /// Asks the server what time it is.
    pub(crate) async fn compare_clocks(&self) -> Result<()> {
        let asked = self.clock.now();
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now";
        for row in self.query(self.statement(sql), "comparing clocks").await? {
            self.skew.observe(asked, rows::time(&row, "now")?);
        }
        Ok(())
    }
}
