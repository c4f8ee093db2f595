//! A bank whose accounts are events: transfers are durable runs, statements and totals read models that
//! are right after any crash, and balances published to whoever subscribed, on one SQLite file or any
//! other store. The README beside it tells the story with curl.

mod account; // what decides by its own history
mod bank; // all of it, on a store
mod http; // the routes
mod statement; // a read model in SQL
mod totals; // a read model on any store
mod transfer; // the steps

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use evenkeel::core::BoxError;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::bank::{Bank, closed};

/// A bank whose accounts are events.
#[derive(Debug, Parser)]
struct Options {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1:3002")]
    listen: SocketAddr,
    /// Where everything is kept: sqlite://..., pg://..., dynamo://..., redis://... or memory:.
    #[arg(long, env = "EVENKEEL_STORE", default_value = "sqlite://bank.db")]
    store: String,
    /// After how long others take over what a process was doing that died, in milliseconds.
    #[arg(long, default_value_t = 5_000)]
    lease_ms: u64,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    let closing = watch::Sender::new(false);
    let Bank { router, mut work } =
        bank::open(&options.store, Duration::from_millis(options.lease_ms), &closing).await?;

    let listener = TcpListener::bind(options.listen).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}, accounts are kept in {}\n", options.store);
    println!("{}", things_to_try(address));

    let until = closed(&closing);
    work.spawn(async move {
        axum::serve(listener, router).with_graceful_shutdown(until).await.expect("it serves for ever");
    });
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        // None of them ends by itself.
        broken = work.join_next() => return Err(format!("a part of the bank broke down: {broken:?}").into()),
    }
    closing.send_replace(true);
    work.join_all().await;
    Ok(())
}

fn things_to_try(address: SocketAddr) -> String {
    format!(
        "open two accounts\n  \
         curl http://{address}/accounts/ada -H 'Content-Type: application/json' -d '{{\"owner\":\"Ada\",\"cents\":5000}}'\n  \
         curl http://{address}/accounts/bob -H 'Content-Type: application/json' -d '{{\"owner\":\"Bob\",\"cents\":0}}'\n\
         move money, and see what became of it\n  \
         curl http://{address}/transfers/t1 -H 'Content-Type: application/json' \\\n       \
         -d '{{\"from\":\"ada\",\"to\":\"bob\",\"cents\":1200}}'\n  \
         curl http://{address}/transfers/t1/outcome\n\
         what it left\n  \
         curl http://{address}/accounts/bob http://{address}/accounts/bob/statement http://{address}/totals\n\
         how the read models are doing; every route is explained at http://{address}/docs\n  \
         curl http://{address}/projections"
    )
}
