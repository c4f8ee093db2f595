use evenkeel_core::{AnyStore, Error, ErrorKind, Result};

/// The opened store, or that its feature is off.
macro_rules! store {
    ($feature:literal, $opened:expr) => {{
        #[cfg(feature = $feature)]
        let store = Ok($opened.into());
        #[cfg(not(feature = $feature))]
        let store = Err(Error::new(
            ErrorKind::Unsupported,
            concat!("built without this store: add the feature \"", $feature, "\" to the crate evenkeel"),
        ));
        store
    }};
}

/// Opens the store at a URL; its scheme is the store's one word.
///
/// | URL | feature | example |
/// |---|---|---|
/// | `memory:` | `memory` | `memory:` |
/// | `sqlite:` | `sqlite` | `sqlite://evenkeel.db` |
/// | `pg:`, `postgres:`, `postgresql:` | `pg` | `pg://user:secret@host/database` |
/// | `dynamo:` | `dynamo` | `dynamo://table?region=eu-central-1` |
/// | `redis:`, `rediss:`, `redis+cluster:`, `rediss+cluster:` | `redis` | `redis://host:6379` |
///
/// Each store's own module says what else its URL may hold.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let error = evenkeel::open("mysql://localhost").await.unwrap_err();
/// assert!(error.to_string().contains("no store is called"), "{error}");
/// # }
/// ```
///
/// # Errors
/// `InvalidInput` for a scheme that no store has, `Unsupported` where the store's feature is off, and
/// those of the store's own `open`.
pub async fn open(url: &str) -> Result<AnyStore> {
    let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
    match scheme {
        "memory" => store!("memory", evenkeel_core::MemoryStore::new()),
        "sqlite" => store!("sqlite", crate::sqlite::SqliteStore::open(url).await?),
        "pg" | "postgres" | "postgresql" => store!("pg", crate::pg::PgStore::open(url).await?),
        "dynamo" => store!("dynamo", crate::dynamo::DynamoStore::open(url).await?),
        "redis" | "rediss" | "redis+cluster" | "rediss+cluster" => {
            store!("redis", crate::redis::RedisStore::open(url).await?)
        }
        _ => Err(Error::new(ErrorKind::InvalidInput, "no store is called so")
            .with("scheme", scheme)
            .with("stores", "memory, sqlite, pg, dynamo, redis")),
    }
}
