use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use evenkeel::axum::{IdempotencyLayer, Tx, value};
use evenkeel::core::SystemClock;
use evenkeel::idempotency::{Idempotency, Scope};
use evenkeel::sqlite::SqliteStore;
use serde::Deserialize;
use sqlx::{SqliteConnection, SqlitePool};

use crate::charges::{self, Charge, Order};

pub(crate) fn router(idempotency: Idempotency<SqliteStore>, charges: SqlitePool) -> Router {
    // One client in this example; a real service takes the scope from who is logged in.
    let once = IdempotencyLayer::new(idempotency, value(Scope::Global));
    Router::new().route("/charges", post(charge).layer(once).merge(get(list))).with_state(charges)
}

/// For trying out what happens in the middle.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pause {
    /// How long to wait between booking the charge and answering.
    pause_ms: u64,
}

/// Books a charge. The row and the stored answer are one commit: both, or neither.
async fn charge(
    Query(pause): Query<Pause>,
    Tx(mut tx): Tx<SqliteConnection>,
    Json(order): Json<Order>,
) -> Result<(StatusCode, Json<Charge>), (StatusCode, String)> {
    if order.cents <= 0 {
        return Err((StatusCode::UNPROCESSABLE_ENTITY, "cents must be positive\n".into()));
    }
    let charge = charges::book(tx.conn().await.map_err(internal)?, order).await.map_err(internal)?;
    if pause.pause_ms > 0 {
        // The worst moment to die: the row is written, and not yet committed. A real handler does
        // what takes long before it takes the connection, since SQLite has one writer.
        SystemClock::shared().sleep(Duration::from_millis(pause.pause_ms)).await;
    }
    Ok((StatusCode::CREATED, Json(charge)))
}

async fn list(State(charges): State<SqlitePool>) -> Result<Json<Vec<Charge>>, (StatusCode, String)> {
    charges::all(&charges).await.map(Json).map_err(internal)
}

fn internal(error: impl std::error::Error) -> (StatusCode, String) {
    eprintln!("{error}");
    (StatusCode::INTERNAL_SERVER_ERROR, "something went wrong here; try again\n".into())
}
