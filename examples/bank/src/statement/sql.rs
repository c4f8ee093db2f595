use evenkeel::core::BoxError;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, SqliteConnection, SqlitePool};

use super::{Line, Lines};

/// A statement of SQL in which `{table}` is that of a version.
fn sql(text: &str, version: u32) -> AssertSqlSafe<String> {
    AssertSqlSafe(text.replace("{table}", &format!("statements_{version}")))
}

const CREATE: &str = "CREATE TABLE {table} (account TEXT NOT NULL, number BIGINT NOT NULL, what TEXT NOT NULL, \
                      cents BIGINT NOT NULL, balance BIGINT NOT NULL, PRIMARY KEY (account, number))";
const DROP: &str = "DROP TABLE IF EXISTS {table}";
const ADD: &str = "INSERT INTO {table} (account, number, what, cents, balance) VALUES ($1, $2, $3, $4, $5)";
const OF: &str = "SELECT number, what, cents, balance FROM {table} WHERE account = $1 ORDER BY number";

/// Lines in a table of their own. The SQL is the same in both databases; sqlx's types are not.
macro_rules! table {
    ($(#[$doc:meta])* $table:ident, $pool:ty, $connection:ty) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub(crate) struct $table($pool);

        impl $table {
            /// Opens the connections that read.
            pub(crate) async fn open(url: &str) -> sqlx::Result<Self> {
                Ok(Self(<$pool>::connect(url).await?))
            }
        }

        impl Lines for $table {
            type Conn = $connection;

            async fn create(&self, conn: &mut $connection, version: u32) -> Result<(), BoxError> {
                sqlx::query(sql(CREATE, version)).execute(conn).await?;
                Ok(())
            }

            async fn drop(&self, conn: &mut $connection, version: u32) -> Result<(), BoxError> {
                sqlx::query(sql(DROP, version)).execute(conn).await?;
                Ok(())
            }

            async fn add(&self, conn: &mut $connection, version: u32, lines: &[Line]) -> Result<(), BoxError> {
                for line in lines {
                    let Line { account, number, what, cents, balance } = line;
                    let insert = sqlx::query(sql(ADD, version)).bind(account).bind(number).bind(what);
                    insert.bind(cents).bind(balance).execute(&mut *conn).await?;
                }
                Ok(())
            }

            async fn of(&self, version: u32, account: &str) -> Result<Vec<Line>, BoxError> {
                let query = sqlx::query_as(sql(OF, version)).bind(account);
                let rows: Vec<(i64, String, i64, i64)> = query.fetch_all(&self.0).await?;
                let line = |(number, what, cents, balance)| {
                    Line { account: account.to_owned(), number, what, cents, balance }
                };
                Ok(rows.into_iter().map(line).collect())
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
