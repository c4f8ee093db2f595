//! What is charged, and where it is kept: with SQL where the store is a SQL database, in evenkeel's own
//! records elsewhere.

mod portable; // records of any store
mod sql; // a table of SQLite or PostgreSQL

use evenkeel::core::BoxError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use self::portable::Records;
pub(crate) use self::sql::{PgTable, SqliteTable};

/// What a client asks for.
#[derive(Debug, Deserialize)]
pub(crate) struct Order {
    pub(crate) customer: String,
    pub(crate) cents: i64,
}

/// What was charged.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Charge {
    id: String,
    customer: String,
    cents: i64,
}

impl Charge {
    pub(crate) fn new(order: Order) -> Self {
        Self { id: Uuid::new_v4().to_string(), customer: order.customer, cents: order.cents }
    }
}

/// Where charges are kept.
pub(crate) trait Ledger: Clone + Send + Sync + 'static {
    /// What a charge is booked with: the connection of the transaction that stores the answer.
    type Conn: Send + 'static;

    /// Books a charge in whatever transaction `conn` is in.
    fn book(conn: &mut Self::Conn, charge: &Charge) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// All charges, by their ids.
    fn all(&self) -> impl Future<Output = Result<Vec<Charge>, BoxError>> + Send;
}
