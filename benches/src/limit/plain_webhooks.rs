//! What a careful team would write by hand to tell one subscriber: a row that is safe on disk before the
//! publisher has its answer, and one that says who sends it before it is sent.

use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::put;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, PgPool, SqliteConnection};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};

use crate::Result;
use crate::wire::Wire;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS plain_webhook \
    (document TEXT PRIMARY KEY, content TEXT NOT NULL, taken_by TEXT)";
const PUBLISH: &str = "INSERT INTO plain_webhook (document, content) VALUES ($1, $2)";
const TAKE: &str = "UPDATE plain_webhook SET taken_by = 'this process' WHERE document = $1";

/// Where the rows are.
#[derive(Clone)]
pub(crate) enum Rows {
    Sqlite(Arc<Mutex<SqliteConnection>>),
    Pg(PgPool),
}

impl Rows {
    pub(crate) async fn sqlite(url: &str) -> Result<Self> {
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let mut conn = SqliteConnection::connect_with(&options).await?;
        sqlx::query(TABLE).execute(&mut conn).await?;
        Ok(Self::Sqlite(Arc::new(Mutex::new(conn))))
    }

    pub(crate) async fn pg(url: &str) -> Result<Self> {
        let pool = PgPoolOptions::new().test_before_acquire(false).connect(url).await?;
        sqlx::query(TABLE).execute(&pool).await?;
        Ok(Self::Pg(pool))
    }

    async fn write(&self, sql: &'static str, parameters: &[&str]) -> Result<()> {
        match self {
            Self::Sqlite(conn) => {
                let query = parameters.iter().fold(sqlx::query(sql), |query, given| query.bind(*given));
                query.execute(&mut *conn.lock().await).await?;
            }
            Self::Pg(pool) => {
                let query = parameters.iter().fold(sqlx::query(sql), |query, given| query.bind(*given));
                query.execute(pool).await?;
            }
        }
        Ok(())
    }
}

/// Answers like flare's own API, and sends what is published on to `sink`.
pub(crate) async fn router(rows: Rows, sink: &str) -> Result<Router> {
    let sink = Wire::new(TcpStream::connect(sink).await?)?;
    let (published, documents) = mpsc::unbounded_channel();
    tokio::spawn(tell(rows.clone(), documents, sink));
    Ok(Router::new().route("/documents/{*document}", put(publish)).with_state((rows, published)))
}

async fn publish(
    State((rows, published)): State<(Rows, mpsc::UnboundedSender<(String, String)>)>,
    Path(document): Path<String>,
    content: String,
) -> StatusCode {
    match rows.write(PUBLISH, &[&document, &content]).await {
        Ok(()) => {
            let _ = published.send((document, content));
            StatusCode::ACCEPTED
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn tell(
    rows: Rows,
    mut documents: mpsc::UnboundedReceiver<(String, String)>,
    mut sink: Wire,
) -> Result<()> {
    while let Some((document, content)) = documents.recv().await {
        rows.write(TAKE, &[&document]).await?;
        let order = document.rsplit('/').next().unwrap_or_default();
        let request = format!(
            "POST /0/{order} HTTP/1.1\r\nhost: sink\r\ncontent-length: {}\r\n\r\n{content}",
            content.len()
        );
        sink.write(request.as_bytes()).await?;
        sink.line().await?;
    }
    Ok(())
}
