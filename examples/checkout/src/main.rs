//! A checkout that carries on after any crash: stock, payment and shipment as the steps of a durable
//! run, on one SQLite file or any other store. The README beside it tells the story with curl.

mod checkout; // the steps
mod http; // the routes
mod payments; // another service
mod trouble; // what can be made to go wrong
mod warehouse; // stock and shipments

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use evenkeel::choreograph::Choreographer;
use evenkeel::core::BoxError;
use tokio::net::TcpListener;

use crate::checkout::Shop;
use crate::payments::Payments;
use crate::trouble::{Act, Point, Trouble};
use crate::warehouse::Warehouse;

/// A checkout that carries on after any crash.
#[derive(Debug, Parser)]
struct Options {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1:3001")]
    listen: SocketAddr,
    /// Where everything is kept: sqlite://..., pg://..., dynamo://..., redis://... or memory:.
    #[arg(long, env = "EVENKEEL_STORE", default_value = "sqlite://checkout.db")]
    store: String,
    /// Where the example `payments` listens.
    #[arg(long, default_value = "http://127.0.0.1:3000")]
    payments: String,
    /// For how long a run is safe from other workers after its worker died, in milliseconds.
    #[arg(long, default_value_t = 5_000)]
    lease_ms: u64,
    /// What is to fail before it does anything.
    #[arg(long, value_enum, value_delimiter = ',')]
    fail: Vec<Act>,
    /// Where this process is to kill itself with SIGKILL, as before:charge or inside:charge.
    #[arg(long)]
    die_at: Option<Point>,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    let store = evenkeel::open(&options.store).await?;
    let warehouse = Warehouse::open(store.clone()).await?;
    let shop = Shop {
        warehouse: warehouse.clone(),
        payments: Payments::at(options.payments),
        trouble: Trouble { fail: options.fail, die_at: options.die_at },
    };
    let choreographer = Choreographer::new(store).lease(Duration::from_millis(options.lease_ms));
    choreographer.register_tx(checkout::definition(shop)?)?;
    let worker = tokio::spawn(choreographer.worker().run(interrupted()));

    let listener = TcpListener::bind(options.listen).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}, orders are kept in {}\n", options.store);
    println!("{}", things_to_try(address));

    axum::serve(listener, http::router(choreographer, warehouse))
        .with_graceful_shutdown(interrupted())
        .await?;
    worker.await?;
    Ok(())
}

/// Completes at Ctrl-C, or at once where the process cannot listen for it.
async fn interrupted() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        eprintln!("cannot listen for Ctrl-C: {error}");
    }
}

fn things_to_try(address: SocketAddr) -> String {
    let order = r#"{"customer":"ada","item":"anvil","quantity":2,"cents":1200}"#;
    format!(
        "place an order; the same again is the same order\n  \
         curl -i http://{address}/orders/order-17 \\\n       \
         -H 'Content-Type: application/json' -d '{order}'\n\
         what became of it\n  \
         curl http://{address}/orders/order-17/outcome\n\
         what is there, and what was shipped\n  \
         curl http://{address}/stock http://{address}/reservations http://{address}/shipments"
    )
}
