use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use evenkeel::axum::Problem;
use evenkeel::choreograph::{Choreographer, Run, Started};
use evenkeel::core::{AnyStore, BoxError, Error, ErrorKind};
use evenkeel::projections::{CommandError, Operations, Repository};
use serde::{Deserialize, Serialize};

use crate::account::{Account, Command, Refused};
use crate::statement::{Line, Lines};
use crate::totals::{Totals, totals};
use crate::transfer::{self, Transfer};

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Service<L> {
    pub(crate) accounts: Repository<Account>,
    pub(crate) choreographer: Choreographer,
    pub(crate) lines: L,
    pub(crate) statements: Operations,
    pub(crate) totals: Operations,
    pub(crate) store: AnyStore,
}

/// Who opens an account, and with how much.
#[derive(Debug, Deserialize)]
struct Opening {
    owner: String,
    cents: i64,
}

#[derive(Debug, Serialize)]
struct Balance {
    owner: String,
    cents: i64,
}

type Answer<T> = Result<Json<T>, Problem>;

pub(crate) fn router<L: Lines>(service: Service<L>) -> Router {
    Router::new()
        .route("/accounts/{id}", post(open::<L>).get(balance::<L>))
        .route("/accounts/{id}/statement", get(statement::<L>))
        .route("/totals", get(show_totals::<L>))
        .route("/transfers/{id}", post(transfer::<L>).get(inspect::<L>))
        .route("/transfers/{id}/outcome", get(outcome::<L>))
        .with_state(service)
}

async fn open<L: Lines>(
    State(service): State<Service<L>>,
    Path(id): Path<String>,
    Json(Opening { owner, cents }): Json<Opening>,
) -> Answer<Balance> {
    match service.accounts.execute(&id, &Command::Open { owner, cents }).await {
        Ok(executed) => shown(executed.aggregate.state),
        Err(CommandError::Refused(refused)) => Err(refusal(&refused)),
        Err(CommandError::Store(error)) => Err(error.into()),
    }
}

/// As the account itself has it: by its events, up to the last.
async fn balance<L: Lines>(State(service): State<Service<L>>, Path(id): Path<String>) -> Answer<Balance> {
    shown(service.accounts.load(&id).await?.state)
}

/// As the read model has it: in a moment.
async fn statement<L: Lines>(State(service): State<Service<L>>, Path(id): Path<String>) -> Answer<Vec<Line>> {
    let Some(version) = active(&service.statements).await? else { return Ok(Json(Vec::new())) };
    Ok(Json(service.lines.of(version, &id).await.map_err(internal)?))
}

async fn show_totals<L: Lines>(State(service): State<Service<L>>) -> Answer<Totals> {
    let Some(version) = active(&service.totals).await? else { return Ok(Json(Totals::default())) };
    Ok(Json(totals(&service.store, version).await.map_err(internal)?))
}

/// Starts the run of a transfer, which goes on whether or not anybody waits for it.
async fn transfer<L: Lines>(
    State(service): State<Service<L>>,
    Path(id): Path<String>,
    Json(transfer): Json<Transfer>,
) -> Result<(StatusCode, Json<Run>), Problem> {
    let status = match service.choreographer.start(transfer::NAME, &id, &transfer).await? {
        Started::New => StatusCode::CREATED,
        Started::Existing => StatusCode::OK,
    };
    Ok((status, inspect(State(service), Path(id)).await?))
}

async fn inspect<L: Lines>(State(service): State<Service<L>>, Path(id): Path<String>) -> Answer<Run> {
    let run = service.choreographer.inspect(&id).await?;
    run.map(Json).ok_or_else(|| Problem::not_found(format!("there is no such transfer (id: {id:?})")))
}

/// Waits until the transfer is through.
async fn outcome<L: Lines>(State(service): State<Service<L>>, Path(id): Path<String>) -> Answer<Run> {
    Ok(Json(service.choreographer.outcome(&id).await?))
}

fn shown(account: Account) -> Answer<Balance> {
    let Account { owner, cents, .. } = account;
    let owner = owner.ok_or_else(|| refusal(&Refused::NotOpen))?;
    Ok(Json(Balance { owner, cents }))
}

/// The version that is read; none where it has not been begun.
async fn active(operations: &Operations) -> Result<Option<u32>, Error> {
    match operations.status().await {
        Ok(status) => Ok(Some(status.active)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn refusal(refused: &Refused) -> Problem {
    match refused {
        Refused::NotOpen => Problem::not_found(refused.to_string()),
        _ => Problem::bad_request(refused.to_string()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "so that it can be handed to `map_err`")]
fn internal(error: BoxError) -> Problem {
    eprintln!("{error}");
    Problem::not_known("something went wrong here; try again")
}
