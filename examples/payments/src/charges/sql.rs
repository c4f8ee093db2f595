use evenkeel::core::BoxError;
use sqlx::{PgConnection, PgPool, SqliteConnection, SqlitePool};

use super::{Charge, Ledger};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS charges (\
                          id TEXT PRIMARY KEY, customer TEXT NOT NULL, cents BIGINT NOT NULL)";
const BOOK: &str = "INSERT INTO charges (id, customer, cents) VALUES ($1, $2, $3)";
const ALL: &str = "SELECT id, customer, cents FROM charges ORDER BY id";

/// A ledger in a table of its own. The SQL is the same in both databases; sqlx's types are not.
macro_rules! table {
    ($(#[$doc:meta])* $table:ident, $pool:ty, $connection:ty) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub(crate) struct $table($pool);

        impl $table {
            /// Opens the connections that read, and makes the table where it does not exist.
            pub(crate) async fn open(url: &str) -> sqlx::Result<Self> {
                let pool = <$pool>::connect(url).await?;
                sqlx::query(CREATE).execute(&pool).await?;
                Ok(Self(pool))
            }
        }

        impl Ledger for $table {
            type Conn = $connection;

            async fn book(conn: &mut $connection, charge: &Charge) -> Result<(), BoxError> {
                let Charge { id, customer, cents } = charge;
                sqlx::query(BOOK).bind(id).bind(customer).bind(cents).execute(conn).await?;
                Ok(())
            }

            async fn all(&self) -> Result<Vec<Charge>, BoxError> {
                let found: Vec<(String, String, i64)> = sqlx::query_as(ALL).fetch_all(&self.0).await?;
                Ok(found.into_iter().map(|(id, customer, cents)| Charge { id, customer, cents }).collect())
            }
        }
    };
}

table!(
    /// A table in the SQLite file.
    SqliteTable,
    SqlitePool,
    SqliteConnection
);
table!(
    /// A table in the PostgreSQL database.
    PgTable,
    PgPool,
    PgConnection
);
