//! Projections in several processes that are killed, beside transactions that stay open.

#[allow(dead_code, reason = "the story has a server of its own")]
mod fixture;
#[path = "fixture/notes.rs"]
mod notes;

use std::process::ExitCode;

use evenkeel_core::Result;
use evenkeel_storage_pg::{PgConfig, PgStore};
use evenkeel_testkit::Suite;
use evenkeel_testkit::projections::{self, Cast};
use evenkeel_testkit::services::Postgres;

use crate::fixture::Pg;

impl Cast for Pg {
    type Store = PgStore;
    type Notes = Self;

    async fn open(url: &str) -> Result<PgStore> {
        PgConfig::new(url)?.partitions(4).connections(4).transactions(4).open().await
    }
}

fn main() -> ExitCode {
    if let Some(played) = projections::play_projections::<Pg>() {
        return played;
    }
    let mut suite = Suite::default();
    suite.own("pg", Postgres::available(), "every_event_is_applied_once_whoever_is_killed", || async {
        let postgres = Postgres::start_careless().unwrap();
        projections::every_event_is_applied_once_whoever_is_killed::<Pg>(&postgres.url()).await;
    });
    suite.run()
}
