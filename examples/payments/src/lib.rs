//! A payment service whose charges happen once: evenkeel's idempotency in front of an axum handler,
//! on one SQLite file or any other store. The README beside it tells the story with curl.

mod charges; // what is charged, and where it is kept
mod http; // the routes

use std::time::Duration;

use axum::Router;
use evenkeel::core::{BoxError, Transactional};
use evenkeel::idempotency::Idempotency;
use evenkeel::pg::PgStore;
use evenkeel::sqlite::SqliteStore;
use tokio::task::JoinHandle;

use crate::charges::{Ledger, PgTable, Records, SqliteTable};

/// The routes of a service that keeps everything in the store at `url`, and its maintenance, which
/// works until `shutdown` completes. A charge is safe from a retry for `lease` after its server died.
///
/// # Errors
/// Those of opening the store.
pub async fn open(
    url: &str,
    lease: Duration,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(Router, JoinHandle<()>), BoxError> {
    Ok(match url.split_once(':').map_or("", |(scheme, _)| scheme) {
        "sqlite" => on(SqliteStore::open(url).await?, SqliteTable::open(url).await?, lease, shutdown),
        // sqlx knows the database by its long name.
        "pg" => {
            let table = PgTable::open(&url.replacen("pg:", "postgres:", 1)).await?;
            on(PgStore::open(url).await?, table, lease, shutdown)
        }
        _ => {
            let store = evenkeel::open(url).await?;
            on(store.clone(), Records(store), lease, shutdown)
        }
    })
}

fn on<S, L>(
    store: S,
    ledger: L,
    lease: Duration,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> (Router, JoinHandle<()>)
where
    S: Transactional<Conn = L::Conn> + Clone,
    L: Ledger,
{
    let idempotency = Idempotency::new(store).lease(lease);
    let maintenance = tokio::spawn(idempotency.maintenance().run(shutdown));
    (http::router(idempotency, ledger), maintenance)
}
