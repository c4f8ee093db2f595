use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use rustix::process::Signal;

use super::error::{Error, Result};
use super::program::{self, User};
use super::server::{Recipe, Running, Server, connect};

/// A single Redis; stopped and removed when dropped.
#[derive(Debug)]
pub struct Redis {
    server: Server,
}

impl Redis {
    /// Whether the program is there.
    ///
    /// # Errors
    /// What is not found, and what brings it.
    pub fn available() -> Result<(), String> {
        find().map(drop).map_err(String::from)
    }

    /// A server that keeps nothing on disk unless these arguments ask for it, such as
    /// `["--appendonly", "yes", "--appendfsync", "always"]`.
    ///
    /// # Errors
    /// What is missing, or why it did not come up.
    pub fn start(arguments: &[&str]) -> Result<Self, Error> {
        let own = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let arguments: Vec<OsString> = own.iter().chain(arguments).map(OsString::from).collect();
        let recipe = Recipe {
            program: find()?,
            user: User::Same,
            folder: User::Same.folder("evenkeel-redis-")?,
            arguments: Box::new(move |_, port| {
                let port = ["--port".into(), port.to_string().into()];
                Ok(port.into_iter().chain(arguments.clone()).collect())
            }),
            is_ready,
            stop: Signal::TERM,
        };
        Ok(Self { server: Server::start(recipe)? })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// The loopback port it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.server.port()
    }

    /// Ends it at once, as a power failure would.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// Shuts it down.
    pub fn stop(&self) {
        self.server.stop();
    }

    /// Starts it again, on its port and with what it kept; one that runs is stopped first.
    ///
    /// # Errors
    /// Why it did not come up.
    pub fn restart(&self) -> Result<(), Error> {
        self.server.restart()
    }

    /// What it answers to a command without spaces in its arguments.
    pub(super) fn ask(&self, command: &str) -> Result<String> {
        ask(self.port(), command).map_err(Error::io(format!("{}: {command}", self.url())))
    }
}

fn find() -> Result<PathBuf> {
    program::find("redis-server", "redis-server")
}

/// Redis listens before it has read what it kept.
fn is_ready(running: &Running<'_>) -> bool {
    ask(running.port, "PING").is_ok_and(|answer| answer == "PONG")
}

fn ask(port: u16, command: &str) -> io::Result<String> {
    let mut connection = BufReader::new(connect(port)?);
    connection.get_mut().write_all(format!("{command}\r\n").as_bytes())?;
    answer(connection)
}

/// A simple or a bulk string; an error is one.
fn answer(mut from: impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end();
    if let Some(error) = line.strip_prefix('-') {
        return Err(io::Error::other(error.to_owned()));
    }
    if let Some(simple) = line.strip_prefix('+') {
        return Ok(simple.to_owned());
    }
    let length = line.strip_prefix('$').and_then(|length| length.parse().ok());
    let length: u64 = length.ok_or_else(|| io::Error::other(format!("unexpected answer {line:?}")))?;
    let mut bulk = String::new();
    from.take(length).read_to_string(&mut bulk)?;
    Ok(bulk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_simple_bulk_or_errors() {
        let answer = |bytes: &str| answer(bytes.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(answer("+PONG\r\n"), Ok("PONG".into()));
        assert_eq!(answer("$6\r\na:1\r\nb\r\n"), Ok("a:1\r\nb".into()));
        assert_eq!(answer("-LOADING the dataset\r\n"), Err("LOADING the dataset".into()));
        assert_eq!(answer(""), Err("unexpected answer \"\"".into()));
    }
}
