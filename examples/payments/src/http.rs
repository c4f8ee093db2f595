use std::fmt::Display;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use evenkeel::axum::{IdempotencyLayer, Tx, value};
use evenkeel::core::{self, SystemClock, Transactional};
use evenkeel::idempotency::{Idempotency, Scope};
use serde::Deserialize;

use crate::charges::{Charge, Ledger, Order};

pub(crate) fn router<S, L>(idempotency: Idempotency<S>, ledger: L) -> Router
where
    S: Transactional<Conn = L::Conn> + Clone,
    L: Ledger,
{
    // One client in this example; a real service takes the scope from who is logged in.
    let once = IdempotencyLayer::new(idempotency, value(Scope::Global));
    Router::new()
        .route("/charges", post(charge::<L>).layer(once.clone()).merge(get(list::<L>)))
        .route("/refunds", post(refund::<L>).layer(once))
        .with_state(ledger)
}

/// For trying out what happens in the middle.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pause {
    /// How long to wait between booking the charge and answering.
    pause_ms: u64,
}

type Booked = Result<(StatusCode, Json<Charge>), (StatusCode, String)>;

async fn charge<L: Ledger>(
    Query(pause): Query<Pause>,
    Tx(tx): Tx<L::Conn>,
    Json(order): Json<Order>,
) -> Booked {
    book::<L>(tx, Charge::new(positive(order)?), &pause).await
}

/// A refund is a charge of less than nothing.
async fn refund<L: Ledger>(
    Query(pause): Query<Pause>,
    Tx(tx): Tx<L::Conn>,
    Json(order): Json<Order>,
) -> Booked {
    let Order { customer, cents } = positive(order)?;
    book::<L>(tx, Charge::new(Order { customer, cents: -cents }), &pause).await
}

fn positive(order: Order) -> Result<Order, (StatusCode, String)> {
    if order.cents <= 0 {
        return Err((StatusCode::UNPROCESSABLE_ENTITY, "cents must be positive\n".into()));
    }
    Ok(order)
}

/// Books a charge. What it writes and the stored answer are one commit: both, or neither.
async fn book<L: Ledger>(mut tx: core::Tx<L::Conn>, charge: Charge, pause: &Pause) -> Booked {
    L::book(tx.conn().await.map_err(internal)?, &charge).await.map_err(internal)?;
    if pause.pause_ms > 0 {
        // The worst moment to die: the charge is written, and not yet committed. A real handler does
        // what takes long before it takes the connection, since SQLite has one writer.
        SystemClock::shared().sleep(Duration::from_millis(pause.pause_ms)).await;
    }
    Ok((StatusCode::CREATED, Json(charge)))
}

async fn list<L: Ledger>(State(ledger): State<L>) -> Result<Json<Vec<Charge>>, (StatusCode, String)> {
    ledger.all().await.map(Json).map_err(internal)
}

fn internal(error: impl Display) -> (StatusCode, String) {
    eprintln!("{error}");
    (StatusCode::INTERNAL_SERVER_ERROR, "something went wrong here; try again\n".into())
}
