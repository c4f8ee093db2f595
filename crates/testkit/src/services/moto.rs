use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::error::{Error, Result};
use super::program::User;
use super::server::{Recipe, Server, connect};

/// Names the program to take instead of [`INSTALLED`].
const PROGRAM: &str = "EVENKEEL_TEST_MOTO_BIN";

/// Where `scripts/install-services` puts it, from the root of the workspace.
const INSTALLED: &str = "target/moto/bin/moto_server";

/// The emulator of AWS services that `moto` is; stopped and removed when dropped.
#[derive(Debug)]
pub struct Moto {
    server: Server,
}

impl Moto {
    /// A server without tables.
    ///
    /// # Errors
    /// What is missing, or why it did not come up.
    pub fn start() -> Result<Self, Error> {
        let recipe = Recipe {
            program: find()?,
            user: User::Same,
            folder: User::Same.folder("evenkeel-moto-")?,
            arguments: Box::new(|_, port| {
                Ok(["-H", "127.0.0.1", "-p", &port.to_string()].map(Into::into).to_vec())
            }),
            is_ready: |running| connect(running.port).is_ok(),
            stop: Signal::TERM,
        };
        Ok(Self { server: Server::start(recipe)? })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port())
    }
}

fn find() -> Result<PathBuf> {
    let program = match std::env::var_os(PROGRAM) {
        Some(named) => PathBuf::from(named),
        None => workspace().join(INSTALLED),
    };
    if program.is_file() {
        return Ok(program);
    }
    Err(Error::new(format!(
        "{} not found: scripts/install-services brings it, or set {PROGRAM} to a moto_server (PyPI: moto[server])",
        program.display()
    )))
}

/// The root of the workspace that this crate was built in.
fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}
