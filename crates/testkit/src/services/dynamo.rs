use std::net::{Ipv4Addr, TcpListener};

use dynoxide::Database;
use dynoxide::server::serve_on;
use tokio::runtime::{Builder, Runtime};

use super::error::{Error, Result};

/// An emulator of DynamoDB within this process, over HTTP; it and its tables go when it is dropped.
#[derive(Debug)]
pub struct Dynamo {
    port: u16,
    /// `None` only in `drop`.
    runtime: Option<Runtime>,
}

impl Dynamo {
    /// An emulator without tables.
    ///
    /// # Errors
    /// Why it did not come up.
    pub fn start() -> Result<Self, Error> {
        let database = Database::memory().map_err(|error| Error::new(error.to_string()))?;
        let runtime =
            Builder::new_multi_thread().enable_all().build().map_err(Error::io("dynamo's runtime"))?;
        let (port, listener) = listen(&runtime).map_err(Error::io("dynamo's port"))?;
        runtime.spawn(serve_on(listener, database));
        Ok(Self { port, runtime: Some(runtime) })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Dynamo {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Clients that keep their connections open do not hold it up.
            runtime.shutdown_background();
        }
    }
}

fn listen(runtime: &Runtime) -> std::io::Result<(u16, tokio::net::TcpListener)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let _within = runtime.enter();
    Ok((port, tokio::net::TcpListener::from_std(listener)?))
}
