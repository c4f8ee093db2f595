//! The service as a program.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use evenkeel::core::BoxError;
use tokio::net::TcpListener;

/// A payment service whose charges happen once.
#[derive(Debug, Parser)]
struct Options {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Where everything is kept: sqlite://..., pg://..., dynamo://..., redis://... or memory:.
    #[arg(long, env = "EVENKEEL_STORE", default_value = "sqlite://payments.db")]
    store: String,
    /// How long a charge is safe from a retry after its server died, in milliseconds.
    #[arg(long, default_value_t = 5_000)]
    lease_ms: u64,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    let lease = Duration::from_millis(options.lease_ms);
    let (router, maintenance) = example_payments::open(&options.store, lease, interrupted()).await?;

    let listener = TcpListener::bind(options.listen).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}, charges are kept in {}\n", options.store);
    println!("{}", things_to_try(address));

    axum::serve(listener, router).with_graceful_shutdown(interrupted()).await?;
    maintenance.await?;
    Ok(())
}

/// Completes at Ctrl-C, or at once where the process cannot listen for it.
async fn interrupted() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        eprintln!("cannot listen for Ctrl-C: {error}");
    }
}

fn things_to_try(address: SocketAddr) -> String {
    let charge = |key: &str, path: &str, body: &str| {
        format!(
            "  curl -i http://{address}{path} -H 'Idempotency-Key: \"{key}\"' \\\n       \
             -H 'Content-Type: application/json' -d '{body}'"
        )
    };
    let (ada, more) = (r#"{"customer":"ada","cents":1200}"#, r#"{"customer":"ada","cents":9900}"#);
    [
        "charge, and then the same again: one charge, and the answer is replayed".to_owned(),
        charge("order-17", "/charges", ada),
        "the same key for something else: 422".to_owned(),
        charge("order-17", "/charges", more),
        "a slow one: send it twice at once (409), or kill -9 this process meanwhile,\n\
         start it again and retry: one charge"
            .to_owned(),
        charge("order-18", "/charges?pause_ms=8000", ada),
        "what was charged".to_owned(),
        format!("  curl http://{address}/charges"),
    ]
    .join("\n")
}
