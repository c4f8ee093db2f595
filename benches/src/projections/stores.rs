use evenkeel::core::{AnyStore, MemoryStore, StoreExt};
use evenkeel::pg::PgStore;
use evenkeel::sqlite::SqliteStore;
use tempfile::TempDir;

use crate::Result;
use crate::server::{Empty, Server, sqlite_url};

/// A store with nothing in it, as itself where its own connection is measured.
pub(crate) enum Native {
    Memory(MemoryStore),
    Sqlite {
        store: SqliteStore,
        /// Goes with it.
        _folder: TempDir,
    },
    Pg(PgStore),
    Other(Empty),
}

impl Native {
    pub(crate) async fn open(server: &Server) -> Result<Self> {
        Ok(match server {
            Server::Memory => Self::Memory(MemoryStore::new()),
            Server::Sqlite => {
                let folder = TempDir::new()?;
                Self::Sqlite { store: SqliteStore::open(&sqlite_url(&folder)).await?, _folder: folder }
            }
            Server::Pg { postgres, pgbench } => {
                pgbench.clear().await?;
                Self::Pg(PgStore::open(&postgres.url()).await?)
            }
            Server::Redis { .. } | Server::Dynamo => Self::Other(server.empty().await?),
        })
    }

    pub(crate) fn any(&self) -> AnyStore {
        match self {
            Self::Memory(store) => store.clone().any(),
            Self::Sqlite { store, .. } => store.clone().any(),
            Self::Pg(store) => store.clone().any(),
            Self::Other(empty) => empty.store.clone(),
        }
    }
}
