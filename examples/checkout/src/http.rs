use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use evenkeel::choreograph::{Choreographer, Run, Started};
use evenkeel::core::{Error, ErrorKind};

use crate::checkout::{self, Order};
use crate::warehouse::{Parcel, Warehouse};

type Answer<T> = Result<Json<T>, (StatusCode, String)>;

pub(crate) fn router(choreographer: Choreographer, warehouse: Warehouse) -> Router {
    let orders = Router::new()
        .route("/orders/{id}", post(place).get(inspect))
        .route("/orders/{id}/outcome", get(outcome))
        .route("/orders/{id}/retry", post(retry))
        .with_state(choreographer);
    Router::new()
        .route("/stock", get(stock))
        .route("/reservations", get(reservations))
        .route("/shipments", get(shipments))
        .with_state(warehouse)
        .merge(orders)
}

/// Starts the run of an order, which goes on whether or not anybody waits for it.
async fn place(
    State(choreographer): State<Choreographer>,
    Path(id): Path<String>,
    Json(order): Json<Order>,
) -> Result<(StatusCode, Json<Run>), (StatusCode, String)> {
    let status = match choreographer.start(checkout::NAME, &id, &order).await.map_err(problem)? {
        Started::New => StatusCode::CREATED,
        Started::Existing => StatusCode::OK,
    };
    let run = inspect(State(choreographer), Path(id)).await?;
    Ok((status, run))
}

async fn inspect(State(choreographer): State<Choreographer>, Path(id): Path<String>) -> Answer<Run> {
    let run = choreographer.inspect(&id).await.map_err(problem)?;
    run.map(Json).ok_or_else(|| (StatusCode::NOT_FOUND, format!("there is no order {id:?}\n")))
}

/// Waits until the order is through.
async fn outcome(State(choreographer): State<Choreographer>, Path(id): Path<String>) -> Answer<Run> {
    choreographer.outcome(&id).await.map(Json).map_err(problem)
}

/// Tries again what failed for good.
async fn retry(State(choreographer): State<Choreographer>, Path(id): Path<String>) -> Answer<Run> {
    choreographer.retry(&id).await.map_err(problem)?;
    inspect(State(choreographer), Path(id)).await
}

async fn stock(State(warehouse): State<Warehouse>) -> Answer<BTreeMap<String, u32>> {
    warehouse.stock().await.map(Json).map_err(internal)
}

async fn reservations(State(warehouse): State<Warehouse>) -> Answer<Vec<Parcel>> {
    warehouse.reservations().await.map(Json).map_err(internal)
}

async fn shipments(State(warehouse): State<Warehouse>) -> Answer<Vec<Parcel>> {
    warehouse.shipments().await.map(Json).map_err(internal)
}

fn problem(error: Error) -> (StatusCode, String) {
    let status = match error.kind() {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::AlreadyExists | ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::InvalidInput | ErrorKind::TooLarge => StatusCode::UNPROCESSABLE_ENTITY,
        _ => return internal(error),
    };
    (status, format!("{error}\n"))
}

fn internal(error: impl std::fmt::Display) -> (StatusCode, String) {
    eprintln!("{error}");
    (StatusCode::INTERNAL_SERVER_ERROR, "something went wrong here; try again\n".into())
}
