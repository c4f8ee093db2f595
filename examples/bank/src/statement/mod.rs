//! Statements: a line for each event of an account. With SQL where the store is a SQL database, in
//! evenkeel's own records elsewhere.

mod portable; // records of any store
mod sql; // a table of SQLite or PostgreSQL

use evenkeel::core::{BoxError, Tx};
use evenkeel::flare::{DocumentUrl, Flare};
use evenkeel::projections::{Context, Projector, Recorded};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub(crate) use self::portable::Records;
pub(crate) use self::sql::{PgTable, SqliteTable};
use crate::account::AccountEvent;

pub(crate) const NAME: &str = "statements";

/// Where the balances of accounts are published.
pub(crate) const BALANCES: &str = "https://bank.example/accounts/{account}";

/// A line of an account's statement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    #[serde(skip)]
    pub(crate) account: String,
    /// From 1, as the events of the account.
    pub(crate) number: i64,
    pub(crate) what: String,
    pub(crate) cents: i64,
    /// What is there after it.
    pub(crate) balance: i64,
}

/// Where lines are kept, in a place for each version of the read model.
pub(crate) trait Lines: Clone + Send + Sync + 'static {
    /// What they are written with: the connection of the transaction that moves the position.
    type Conn: Send + 'static;

    fn create(
        &self,
        conn: &mut Self::Conn,
        version: u32,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    fn drop(&self, conn: &mut Self::Conn, version: u32) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Adds lines; fails where there are lines of these numbers.
    fn add(
        &self,
        conn: &mut Self::Conn,
        version: u32,
        lines: &[Line],
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// The lines of an account.
    fn of(&self, version: u32, account: &str) -> impl Future<Output = Result<Vec<Line>, BoxError>> + Send;
}

/// Writes statements, and publishes the balance of an account in the commit that writes its lines.
pub(crate) struct WritesStatements<L> {
    pub(crate) flare: Flare,
    pub(crate) lines: L,
}

impl<L: Lines> Projector<L::Conn> for WritesStatements<L> {
    /// The balance of the account.
    type State = i64;

    async fn init(&self, version: u32, tx: &mut Tx<L::Conn>) -> Result<(), BoxError> {
        self.lines.create(tx.conn().await?, version).await
    }

    async fn discard(&self, version: u32, tx: &mut Tx<L::Conn>) -> Result<(), BoxError> {
        self.lines.drop(tx.conn().await?, version).await
    }

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, L::Conn, i64>) -> Result<(), BoxError> {
        self.apply_batch(std::slice::from_ref(event), context).await
    }

    async fn apply_batch(
        &self,
        events: &[Recorded],
        context: &mut Context<'_, L::Conn, i64>,
    ) -> Result<(), BoxError> {
        let mut lines = Vec::new();
        for recorded in events {
            let Some(event) = recorded.decode::<AccountEvent>()? else { continue };
            *context.state += event.cents();
            lines.push(Line {
                account: account_of(recorded)?.to_owned(),
                number: i64::try_from(recorded.version)?,
                what: recorded.kind.clone(),
                cents: event.cents(),
                balance: *context.state,
            });
        }
        let Some(last) = lines.last().cloned() else { return Ok(()) };
        let version = context.version();
        self.lines.add(context.conn().await?, version, &lines).await?;
        if let Some(batch) = context.effects() {
            let url = DocumentUrl::parse(&BALANCES.replace("{account}", &last.account))?;
            let balance = json!({ "account": last.account, "balance": last.balance, "version": last.number });
            self.flare.publish_in(batch, &url, balance.to_string().into()).await?;
        }
        Ok(())
    }
}

fn account_of(event: &Recorded) -> Result<&str, BoxError> {
    Ok(event.stream.strip_prefix("account-").ok_or("an account's stream is named after it")?)
}
