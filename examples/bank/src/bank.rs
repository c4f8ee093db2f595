use std::time::Duration;

use axum::Router;
use evenkeel::axum::{flare, openapi, projections};
use evenkeel::choreograph::Choreographer;
use evenkeel::core::{BoxError, ErrorKind, StoreExt, Transactional};
use evenkeel::flare::net::Sender;
use evenkeel::flare::{Change, Flare, NewResource, Template};
use evenkeel::pg::PgStore;
use evenkeel::projections::{EventStore, Operations, Projection, Repository};
use evenkeel::sqlite::SqliteStore;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::http::{self, Service};
use crate::statement::{self, Lines, PgTable, Records, SqliteTable, WritesStatements};
use crate::totals::{self, KeepsTotals};
use crate::transfer;

/// The routes of a bank, and what works behind them.
pub(crate) struct Bank {
    pub(crate) router: Router,
    pub(crate) work: JoinSet<()>,
}

/// A bank that keeps everything in the store at `url`, and works until `closing` says so. What a
/// process was doing that died is taken over after `lease`.
///
/// # Errors
/// Those of opening the store.
pub(crate) async fn open(
    url: &str,
    lease: Duration,
    closing: &watch::Sender<bool>,
) -> Result<Bank, BoxError> {
    match url.split_once(':').map_or("", |(scheme, _)| scheme) {
        "sqlite" => on(SqliteStore::open(url).await?, SqliteTable::open(url).await?, lease, closing).await,
        // sqlx knows the database by its long name.
        "pg" => {
            let table = PgTable::open(&url.replacen("pg:", "postgres:", 1)).await?;
            on(PgStore::open(url).await?, table, lease, closing).await
        }
        _ => {
            let store = evenkeel::open(url).await?;
            on(store.clone(), Records(store), lease, closing).await
        }
    }
}

async fn on<S, L>(
    store: S,
    lines: L,
    lease: Duration,
    closing: &watch::Sender<bool>,
) -> Result<Bank, BoxError>
where
    S: Transactional<Conn = L::Conn> + Clone,
    L: Lines,
{
    let any = store.clone().any();
    let flare = Flare::new(any.clone());
    let endpoint = Template::parse(statement::BALANCES)?;
    match flare.create_resource(NewResource { endpoint, change: Change::new("version", "")? }).await {
        // Another process was faster, or this one was here before.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
        Ok(_) | Err(_) => {}
    }

    let accounts = Repository::new(EventStore::new(any.clone())).snapshots(50, 1);
    let writes = WritesStatements { flare: flare.clone(), lines: lines.clone() };
    let statements = Projection::keyed(EventStore::new(store), statement::NAME, writes).lease(lease);
    let totals = Projection::stream(EventStore::new(any.clone()), totals::NAME, KeepsTotals).lease(lease);
    let choreographer = Choreographer::new(any.clone()).lease(lease);
    choreographer.register(transfer::definition(&accounts)?)?;
    let sender = Sender::builder().build()?;

    let mut work = JoinSet::new();
    work.spawn(choreographer.worker().run(closed(closing)));
    work.spawn(flare.worker(sender).lease(lease).run(closed(closing)));
    let (writing, until) = (statements.clone(), closed(closing));
    work.spawn(async move { writing.run(until).await.expect("its settings go together") });
    let (keeping, until) = (totals.clone(), closed(closing));
    work.spawn(async move { keeping.run(until).await.expect("its settings go together") });

    let operate = projections::Api::new(any.clone()).projection(&statements).projection(&totals);
    let service = Service {
        accounts,
        choreographer,
        lines,
        statements: Operations::new(any.clone(), statement::NAME),
        totals: Operations::new(any.clone(), totals::NAME),
        store: any,
    };
    let router = http::router(service)
        .merge(operate.until(closed(closing)).router())
        .merge(flare::router(flare))
        .merge(openapi::router());
    Ok(Bank { router, work })
}

/// Completes when the bank closes.
pub(crate) fn closed(closing: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + use<> {
    let mut closing = closing.subscribe();
    async move {
        // The sender is gone only where nobody waits any more.
        let _ = closing.wait_for(|closing| *closing).await;
    }
}
