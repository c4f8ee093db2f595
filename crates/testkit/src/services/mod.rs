//! The servers that stores are tested on.
//!
//! - The *shared* servers of a test run: the environment names them, and [`pg_url`] and its siblings
//!   look there. The program `with-services` starts what is not named yet, runs a command, and
//!   stops what it started:
//!   `cargo run -p evenkeel-testkit --features services --bin with-services -- cargo nextest run`.
//! - *Private* servers, for tests that kill or restart them: [`Postgres`], [`PgBouncer`], [`Redis`],
//!   [`RedisCluster`]. They run from the programs on the machine, listen on free loopback ports, keep
//!   their files in temporary folders, and go when they are dropped.
//!
//! Starting, killing and restarting block the thread; under load, do it in
//! `tokio::task::block_in_place`.

#[cfg(feature = "services")]
mod dynamo; // DynamoDB, emulated in this process
mod error; // what kept a server from starting
mod moto; // DynamoDB, emulated by another program
mod pgbouncer; // a pooling proxy
mod port; // where to listen
mod postgres; // PostgreSQL
mod process; // who runs on this machine
mod program; // what is installed on this machine
mod redis; // Redis, alone
mod redis_cluster; // Redis, three of them
mod required; // what must not be missing
mod server; // the life of a server process
mod urls; // the shared servers of a test run

#[cfg(feature = "services")]
pub use dynamo::Dynamo;
pub use error::Error;
pub use moto::Moto;
pub use pgbouncer::PgBouncer;
pub use postgres::Postgres;
pub use redis::Redis;
pub use redis_cluster::RedisCluster;
pub use required::Required;
pub use urls::{
    Service, dynamo_endpoint, moto_endpoint, pg_url, pgbouncer_url, redis_cluster_urls, redis_url,
};
