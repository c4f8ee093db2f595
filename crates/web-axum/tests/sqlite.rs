//! The layer on an SQLite file, with handlers that write rows through the live connection.

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::routing::post;
use evenkeel_idempotency::{Idempotency, OnRunning, Scope};
use evenkeel_storage_sqlite::SqliteStore;
use evenkeel_web_axum::{IdempotencyLayer, Tx, value};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;
use tower::ServiceExt;

struct World {
    app: Router,
    url: String,
    _folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite://{}", folder.path().join("payments.db").display());
        let store = SqliteStore::open(&url).await.unwrap();
        let mut db = SqliteConnection::connect(&url).await.unwrap();
        sqlx::query("CREATE TABLE charges (status INTEGER)").execute(&mut db).await.unwrap();
        let layer = IdempotencyLayer::new(Idempotency::new(store), value(Scope::Global))
            .on_running(OnRunning::Wait(std::time::Duration::from_secs(30)));
        let app = Router::new().route("/{status}", post(charge).layer(layer));
        Self { app, url, _folder: folder }
    }

    /// Asks for an answer with this status; says which came, and whether it was a replay.
    async fn ask(&self, key: &str, status: u16) -> (u16, bool) {
        let request = Request::post(format!("/{status}")).header("idempotency-key", key).body(Body::empty());
        let response = self.app.clone().oneshot(request.unwrap()).await.unwrap();
        let seen = (response.status().as_u16(), response.headers().contains_key("idempotent-replayed"));
        response.into_body().collect().await.unwrap();
        seen
    }

    /// Counts the rows as another program would.
    async fn charges(&self) -> i64 {
        let mut db = SqliteConnection::connect(&self.url).await.unwrap();
        sqlx::query_scalar("SELECT count(*) FROM charges").fetch_one(&mut db).await.unwrap()
    }
}

/// Writes a row, then answers as it is told; a status that is none makes it panic.
async fn charge(Path(status): Path<u16>, Tx(mut tx): Tx<SqliteConnection>) -> StatusCode {
    let db = tx.conn().await.unwrap();
    sqlx::query("INSERT INTO charges VALUES (?)").bind(status).execute(db).await.unwrap();
    StatusCode::from_u16(status).expect("a status")
}

#[tokio::test]
async fn the_row_and_the_answer_are_one_commit() {
    let world = World::new().await;
    assert_eq!(world.ask("k", 201).await, (201, false));
    assert_eq!(world.ask("k", 201).await, (201, true));
    assert_eq!(world.charges().await, 1);
}

#[tokio::test]
async fn a_final_refusal_is_stored_and_its_row_rolls_back() {
    let world = World::new().await;
    assert_eq!(world.ask("k", 422).await, (422, false));
    assert_eq!(world.ask("k", 422).await, (422, true));
    assert_eq!(world.charges().await, 0);
}

#[tokio::test]
async fn an_answer_that_is_not_final_rolls_its_row_back_and_may_run_again() {
    let world = World::new().await;
    for status in [500, 429, 1000] {
        for _ in 0..2 {
            let (_, replayed) = world.ask("k", status).await;
            assert!(!replayed, "{status}");
        }
    }
    assert_eq!(world.charges().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_simultaneous_duplicates_make_one_row_a_key() {
    let world = World::new().await;
    let keys = ["a", "b", "c", "d"];
    let all = (0..40).map(|i| world.ask(keys[i % keys.len()], 201));
    let seen = futures_util::future::join_all(all).await;
    assert_eq!(seen.iter().filter(|seen| **seen == (201, false)).count(), keys.len());
    assert_eq!(seen.iter().filter(|seen| **seen == (201, true)).count(), 40 - keys.len());
    assert_eq!(world.charges().await, 4);
}
