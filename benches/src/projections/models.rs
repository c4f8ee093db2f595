use std::collections::HashMap;

use evenkeel::core::{BoxError, Draft, Key};
use evenkeel::projections::{Context, Event, Projector, Recorded};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, SqliteConnection};

/// What happens to accounts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Deposited {
    pub(crate) cents: i64,
}
impl Event for Deposited {}

/// Only counts.
#[derive(Clone)]
pub(crate) struct Count;

impl<C: Send + 'static> Projector<C> for Count {
    type State = u64;

    async fn apply(&self, _: &Recorded, context: &mut Context<'_, C, u64>) -> Result<(), BoxError> {
        *context.state += 1;
        Ok(())
    }
}

/// The balance of each account, as a record or a row.
#[derive(Clone)]
pub(crate) struct Balances;

impl Projector<Draft> for Balances {
    type State = ();

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        let by = cents(event)?;
        let key = Key::new("bench.balance", "all", &event.stream);
        let draft = context.conn().await?;
        let before: i64 = match draft.get(&key).await? {
            Some(cents) => std::str::from_utf8(&cents)?.parse()?,
            None => 0,
        };
        draft.put(key, (before + by).to_string());
        Ok(())
    }
}

/// Each run begins with an empty one.
pub(crate) const TABLE: [&str; 2] = [
    "DROP TABLE IF EXISTS balance",
    "CREATE TABLE balance (account TEXT PRIMARY KEY, cents BIGINT NOT NULL)",
];

pub(crate) const ADD_ON_PG: &str = "INSERT INTO balance SELECT * FROM unnest($1::text[], $2::bigint[]) \
    ON CONFLICT (account) DO UPDATE SET cents = balance.cents + excluded.cents";

pub(crate) const ADD_ON_SQLITE: &str = "INSERT INTO balance SELECT key, value FROM json_each($1) WHERE true \
    ON CONFLICT (account) DO UPDATE SET cents = balance.cents + excluded.cents";

/// Makes the methods of a projector that adds sums up with one statement a batch.
macro_rules! sql_balances {
    ($conn:ty, $add:expr) => {
        impl Projector<$conn> for Balances {
            type State = ();

            async fn init(
                &self,
                _: u32,
                tx: &mut evenkeel::core::Tx<$conn>,
            ) -> std::result::Result<(), BoxError> {
                let conn = tx.conn().await?;
                for statement in TABLE {
                    sqlx::query(statement).execute(&mut *conn).await?;
                }
                Ok(())
            }

            async fn apply(
                &self,
                event: &Recorded,
                context: &mut Context<'_, $conn, ()>,
            ) -> Result<(), BoxError> {
                self.apply_batch(std::slice::from_ref(event), context).await
            }

            async fn apply_batch(
                &self,
                events: &[Recorded],
                context: &mut Context<'_, $conn, ()>,
            ) -> Result<(), BoxError> {
                let sums = sums(events)?;
                $add(sums, &mut *context.conn().await?).await
            }
        }
    };
}
sql_balances!(PgConnection, add_on_pg);
sql_balances!(SqliteConnection, add_on_sqlite);

pub(crate) async fn add_on_pg(sums: HashMap<String, i64>, conn: &mut PgConnection) -> Result<(), BoxError> {
    let (accounts, cents): (Vec<String>, Vec<i64>) = sums.into_iter().unzip();
    sqlx::query(ADD_ON_PG).bind(accounts).bind(cents).execute(conn).await?;
    Ok(())
}

pub(crate) async fn add_on_sqlite(
    sums: HashMap<String, i64>,
    conn: &mut SqliteConnection,
) -> Result<(), BoxError> {
    sqlx::query(ADD_ON_SQLITE).bind(serde_json::to_string(&sums)?).execute(conn).await?;
    Ok(())
}

fn sums(events: &[Recorded]) -> Result<HashMap<String, i64>, BoxError> {
    let mut sums = HashMap::new();
    for event in events {
        *sums.entry(event.stream.clone()).or_default() += cents(event)?;
    }
    Ok(sums)
}

fn cents(event: &Recorded) -> Result<i64, BoxError> {
    Ok(event.decode::<Deposited>()?.map_or(0, |deposited| deposited.cents))
}
