//! DynamoDB's emulator in this process, over HTTP.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::OnceLock;

use dynoxide::Database;
use dynoxide::server::serve_on;
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};

/// Where the one is that the tests of this process share.
pub(crate) fn url() -> String {
    static SHARED: OnceLock<Emulator> = OnceLock::new();
    SHARED.get_or_init(Emulator::start).url()
}

/// An emulator that can be stopped and started again with what it has stored.
pub(crate) struct Emulator {
    database: Database,
    address: SocketAddr,
    /// `None` while it is stopped.
    runtime: Option<Runtime>,
}

impl Emulator {
    pub(crate) fn start() -> Self {
        // Below the ports that connections are given: nobody takes it while the emulator is stopped.
        let is_free = |address: &SocketAddr| TcpListener::bind(address).is_ok();
        let address =
            std::iter::repeat_with(|| SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(10_000..30_000))));
        let address = address.take(1000).find(is_free).expect("one of a thousand ports is free");
        let mut emulator = Self { database: Database::memory().unwrap(), address, runtime: None };
        emulator.go_on();
        emulator
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn go_on(&mut self) {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _within = runtime.enter();
            let socket = TcpSocket::new_v4().unwrap();
            // The connections from before may linger.
            socket.set_reuseaddr(true).unwrap();
            socket.bind(self.address).unwrap();
            socket.listen(1024).unwrap()
        };
        runtime.spawn(serve_on(listener, self.database.clone()));
        self.runtime = Some(runtime);
    }

    pub(crate) fn stop(&mut self) {
        self.runtime.take().expect("it runs").shutdown_background();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
