//! Projections in several processes that are killed, beside transactions that stay open.

use std::process::ExitCode;

use evenkeel_core::{AnyStore, Result, StoreExt};
use evenkeel_storage_redis::RedisConfig;
use evenkeel_testkit::Suite;
use evenkeel_testkit::projections::{self, Cast, Records};
use evenkeel_testkit::services::Redis;

/// With records, as on any store.
struct Portable;

impl Cast for Portable {
    type Store = AnyStore;
    type Notes = Records;

    async fn open(url: &str) -> Result<AnyStore> {
        Ok(RedisConfig::new(url)?.partitions(4).open().await?.any())
    }
}

fn main() -> ExitCode {
    if let Some(played) = projections::play_projections::<Portable>() {
        return played;
    }
    let mut suite = Suite::default();
    suite.own("redis", Redis::available(), "every_event_is_applied_once_whoever_is_killed", || async {
        let redis = Redis::start(&[]).unwrap();
        projections::every_event_is_applied_once_whoever_is_killed::<Portable>(&redis.url()).await;
    });
    suite.run()
}
