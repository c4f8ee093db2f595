use evenkeel::dynamo::{DynamoConfig, TableOptions};
use evenkeel_testkit::services::{self, Redis};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

/// The stores that the stories are played on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Store {
    Memory,
    Sqlite,
    Pg,
    Dynamo,
    Redis,
}

impl Store {
    pub(crate) const ALL: [Self; 5] = [Self::Memory, Self::Sqlite, Self::Pg, Self::Dynamo, Self::Redis];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Pg => "pg",
            Self::Dynamo => "dynamo",
            Self::Redis => "redis",
        }
    }

    /// Whether it can be had here, or why not.
    pub(crate) fn available(self) -> Result<(), String> {
        match self {
            Self::Memory | Self::Sqlite => Ok(()),
            Self::Pg => services::pg_url().map(drop),
            Self::Dynamo => services::dynamo_endpoint().map(drop),
            Self::Redis => Redis::available(),
        }
    }
}

/// A clean store of one story.
pub(crate) struct Home {
    pub(crate) url: String,
    _folder: TempDir,
    _redis: Option<Redis>,
}

impl Home {
    pub(crate) async fn on(store: Store) -> Self {
        let folder = TempDir::new().unwrap();
        let name = format!("story_{}", Uuid::new_v4().simple());
        let redis = (store == Store::Redis).then(|| Redis::start(&[]).unwrap());
        let url = match (store, &redis) {
            (Store::Pg, _) => pg_database(&name).await,
            (Store::Dynamo, _) => dynamo_table(&name).await,
            (_, Some(redis)) => redis.url(),
            (Store::Sqlite, _) => format!("sqlite://{}", folder.path().join("story.db").display()),
            _ => "memory:".to_owned(),
        };
        Self { url, _folder: folder, _redis: redis }
    }
}

async fn pg_database(name: &str) -> String {
    let server = services::pg_url().unwrap();
    let mut admin = PgConnection::connect(&server).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
    admin.close().await.unwrap();
    let (host, _) = server.rsplit_once('/').unwrap();
    format!("{}/{name}", host.replacen("postgres:", "pg:", 1))
}

async fn dynamo_table(name: &str) -> String {
    let url = match services::dynamo_endpoint().unwrap().as_str() {
        "aws" => format!("dynamo://{name}"),
        endpoint => format!("dynamo://{name}?endpoint={endpoint}"),
    };
    DynamoConfig::new(&url).unwrap().create_table(&TableOptions::default()).await.unwrap();
    url
}
