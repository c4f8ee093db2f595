use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use evenkeel::axum::{IdempotencyLayer, value};
use evenkeel::core::{MemoryStore, Store, StoreExt, Transactional};
use evenkeel::idempotency::{Idempotency, Operation, Scope};
use evenkeel::sqlite::SqliteStore;
use tempfile::TempDir;
use tower::{Layer, ServiceExt, service_fn};
use uuid::Uuid;

use crate::measure::{alone, beside, latencies, median, percentile, rate};
use crate::plain_sql::{PlainSql, insert_effect};
use crate::report::{Report, Row};
use crate::{Result, StoreName};

const CALLERS: [usize; 3] = [1, 16, 64];

/// The request and the answer of every call; the answer is what a small JSON API returns.
const PAYLOAD: &str = r#"{"customer":"ada","cents":1200}"#;
const ANSWER: &str =
    r#"{"id":"0192f0c1-22c4-7bb0-9ad4-4f3b1d0e6a11","customer":"ada","cents":1200,"state":"charged"}"#;

pub(crate) async fn run(stores: &[StoreName], seconds: Duration, report: &mut Report) -> Result<()> {
    // First, so that latencies are those of a process that has just started.
    if stores.contains(&StoreName::Memory) {
        layer_latency(seconds, report).await?;
    }
    for callers in CALLERS {
        if stores.contains(&StoreName::Memory) {
            memory(callers, seconds, report).await?;
        }
        if stores.contains(&StoreName::Sqlite) {
            sqlite(callers, seconds, report).await?;
        }
    }
    Ok(())
}

fn row(case: &'static str, store: &'static str, callers: usize, value: f64, limit: Option<f64>) -> Row {
    let ratio = limit.map(|limit| value / limit);
    Row { suite: "idempotency", case, store, callers, unit: "calls/s", value, limit, ratio }
}

async fn memory(callers: usize, seconds: Duration, report: &mut Report) -> Result<()> {
    let fresh = alone(|| async { fresh_rate(MemoryStore::new(), callers, seconds).await }).await?;
    report.add(row("fresh, door 1", "memory", callers, fresh, None));
    let replays = alone(|| async { replay_rate(MemoryStore::new(), callers, seconds).await }).await?;
    report.add(row("replay", "memory", callers, replays, None));
    Ok(())
}

async fn sqlite(callers: usize, seconds: Duration, report: &mut Report) -> Result<()> {
    let cell = || async { fresh_rate(store_in(&TempDir::new()?).await?, callers, seconds).await };
    let limit = || async {
        let folder = TempDir::new()?;
        let plain = plain_in(&folder).await?;
        rate(callers, seconds, move |_| {
            let plain = plain.clone();
            async move { plain.fresh(&fresh_key(), &[7; 32], ANSWER.as_bytes()).await }
        })
        .await
    };
    let (fresh, by_hand) = beside(cell, limit).await?;
    report.add(row("fresh, door 1", "sqlite", callers, fresh, Some(by_hand)));

    let cell = || async { fresh_with_row_rate(callers, seconds).await };
    let limit = || async {
        let folder = TempDir::new()?;
        let plain = plain_in(&folder).await?;
        rate(callers, seconds, move |_| {
            let plain = plain.clone();
            async move { plain.fresh_with_row(&fresh_key(), &[7; 32], ANSWER.as_bytes()).await }
        })
        .await
    };
    let (fresh, by_hand) = beside(cell, limit).await?;
    report.add(row("fresh with a row, door 2", "sqlite", callers, fresh, Some(by_hand)));

    let cell = || async { replay_rate(store_in(&TempDir::new()?).await?, callers, seconds).await };
    let limit = || async {
        let folder = TempDir::new()?;
        let plain = plain_in(&folder).await?;
        plain.fresh("finished", &[7; 32], ANSWER.as_bytes()).await?;
        rate(callers, seconds, move |_| {
            let plain = plain.clone();
            async move { plain.replay("finished").await }
        })
        .await
    };
    let (replays, by_hand) = beside(cell, limit).await?;
    report.add(row("replay", "sqlite", callers, replays, Some(by_hand)));
    Ok(())
}

fn fresh_key() -> String {
    Uuid::new_v4().to_string()
}

fn operation(key: impl Into<String>) -> Operation {
    Operation::new(Scope::Global, "[POST]/charges", key).payload(PAYLOAD)
}

/// Claim and finish through door 1, with a handler that takes no time.
async fn fresh_rate(store: impl Store + Clone, callers: usize, seconds: Duration) -> Result<f64> {
    let idempotency = Idempotency::new(store.any());
    rate(callers, seconds, move |_| {
        let idempotency = idempotency.clone();
        async move { call_once(&idempotency, fresh_key()).await }
    })
    .await
}

async fn replay_rate(store: impl Store + Clone, callers: usize, seconds: Duration) -> Result<f64> {
    let idempotency = Idempotency::new(store.any());
    call_once(&idempotency, "finished".to_owned()).await?;
    rate(callers, seconds, move |_| {
        let idempotency = idempotency.clone();
        async move { call_once(&idempotency, "finished".to_owned()).await }
    })
    .await
}

async fn call_once(idempotency: &Idempotency, key: String) -> Result<()> {
    let answer = || async { Ok::<_, Infallible>(ANSWER.to_owned()) };
    idempotency.run(operation(key), answer).await.map_err(|error| error.to_string())?;
    Ok(())
}

/// Claim, a row of the user's, and finish with it, through door 2.
async fn fresh_with_row_rate(callers: usize, seconds: Duration) -> Result<f64> {
    let folder = TempDir::new()?;
    let store = store_in(&folder).await?;
    let mut tx = store.begin(store.partition_of("setup"), evenkeel::core::Timestamp::EPOCH).await?;
    sqlx::query("CREATE TABLE effect (key TEXT PRIMARY KEY, note TEXT NOT NULL)")
        .execute(tx.conn().await?)
        .await?;
    store.finish(tx).await?;
    let idempotency = Idempotency::new(store);
    rate(callers, seconds, move |_| {
        let idempotency = idempotency.clone();
        async move {
            let key = fresh_key();
            let done = idempotency.run_tx(operation(key.as_str()), async |mut tx| {
                let conn = tx.conn().await.map_err(|error| error.to_string())?;
                insert_effect(conn, &key).await.map_err(|error| error.to_string())?;
                Ok::<_, String>(ANSWER.to_owned())
            });
            done.await.map_err(|error| error.to_string())?;
            Ok(())
        }
    })
    .await
}

/// What the HTTP layer on the memory store adds to an in-process call.
async fn layer_latency(seconds: Duration, report: &mut Report) -> Result<()> {
    let bare = service_fn(handle);
    let layer = IdempotencyLayer::new(Idempotency::new(MemoryStore::new()), value(Scope::Global));
    let guarded = layer.layer(service_fn(handle));
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let with = tokio::spawn(latencies(seconds, {
            let guarded = guarded.clone();
            move |_| {
                let call = guarded.clone().oneshot(request());
                async move {
                    let response = call.await?;
                    assert!(response.status().is_success());
                    Ok(())
                }
            }
        }));
        let with = with.await??;
        let without = tokio::spawn(latencies(seconds, move |_| {
            let call = bare.oneshot(request());
            async move {
                assert!(call.await?.status().is_success());
                Ok(())
            }
        }));
        let without = without.await??;
        p50.push(percentile(&with, 50) - percentile(&without, 50));
        p99.push(percentile(&with, 99) - percentile(&without, 99));
    }
    for (case, values) in [("layer adds, p50", p50), ("layer adds, p99", p99)] {
        let added = Row { unit: "us", ..row(case, "memory", 1, median(values), None) };
        report.add(added);
    }
    Ok(())
}

async fn handle<B>(_: Request<B>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Body::from(ANSWER)))
}

fn request() -> Request<Body> {
    Request::post("/charges")
        .header("idempotency-key", format!("\"{}\"", fresh_key()))
        .header("content-type", "application/json")
        .body(Body::from(PAYLOAD))
        .expect("the request is well formed")
}

async fn store_in(folder: &TempDir) -> Result<SqliteStore> {
    Ok(SqliteStore::open(&format!("sqlite://{}", folder.path().join("store.db").display())).await?)
}

async fn plain_in(folder: &TempDir) -> Result<PlainSql> {
    PlainSql::open(&folder.path().join("plain.db")).await
}
