use serde::{Deserialize, Serialize};
use sqlx::{SqliteConnection, SqlitePool};
use uuid::Uuid;

/// What a client asks for.
#[derive(Debug, Deserialize)]
pub(crate) struct Order {
    pub(crate) customer: String,
    pub(crate) cents: i64,
}

/// What was charged.
#[derive(Debug, Serialize)]
pub(crate) struct Charge {
    id: String,
    customer: String,
    cents: i64,
}

/// Opens the connections that read, and makes the table where it does not exist.
pub(crate) async fn open(url: &str) -> sqlx::Result<SqlitePool> {
    let pool = SqlitePool::connect(url).await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS charges (\
             id TEXT PRIMARY KEY, customer TEXT NOT NULL, cents INTEGER NOT NULL)",
    )
    .execute(&pool)
    .await?;
    Ok(pool)
}

/// Books a charge in whatever transaction `conn` is in.
pub(crate) async fn book(conn: &mut SqliteConnection, order: Order) -> sqlx::Result<Charge> {
    let charge = Charge { id: Uuid::new_v4().to_string(), customer: order.customer, cents: order.cents };
    sqlx::query("INSERT INTO charges (id, customer, cents) VALUES (?, ?, ?)")
        .bind(&charge.id)
        .bind(&charge.customer)
        .bind(charge.cents)
        .execute(conn)
        .await?;
    Ok(charge)
}

/// All charges, in the order in which they were booked.
pub(crate) async fn all(pool: &SqlitePool) -> sqlx::Result<Vec<Charge>> {
    let found: Vec<(String, String, i64)> =
        sqlx::query_as("SELECT id, customer, cents FROM charges ORDER BY rowid").fetch_all(pool).await?;
    Ok(found.into_iter().map(|(id, customer, cents)| Charge { id, customer, cents }).collect())
}
