use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;

/// Finds the addresses of a host.
#[async_trait]
pub trait Resolve: Debug + Send + Sync + 'static {
    /// The addresses of `host`, a name and never an address, in the order in which to try them.
    ///
    /// # Errors
    /// Where the name is not known or could not be looked up.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// Asks the operating system, as every other program on the machine does.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        // The port is asked for by the function's form only.
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address: SocketAddr| address.ip()).collect())
    }
}
