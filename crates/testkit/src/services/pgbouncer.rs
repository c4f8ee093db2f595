use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::error::{Error, Result};
use super::postgres::Postgres;
use super::program::{self, User};
use super::server::{Recipe, Server, connect};

/// The first version that can keep prepared statements, and has a setting for it.
const PREPARES_STATEMENTS: (u32, u32) = (1, 21);

/// A PgBouncer in front of a PostgreSQL server: it pools transactions and keeps no prepared
/// statements. Stopped and removed when dropped.
#[derive(Debug)]
pub struct PgBouncer {
    server: Server,
}

impl PgBouncer {
    /// Whether the program is there, and PostgreSQL's to go behind it.
    ///
    /// # Errors
    /// What is not found, and what brings it.
    pub fn available() -> Result<(), String> {
        find().map_err(String::from)?;
        Postgres::available()
    }

    /// A proxy of this server, which may be killed and started again behind it.
    ///
    /// # Errors
    /// What is missing, or why it did not come up.
    pub fn start(postgres: &Postgres) -> Result<Self, Error> {
        let program = find()?;
        let user = User::not_root()?;
        let folder = user.folder("evenkeel-pgbouncer-")?;
        let version =
            Command::new(&program).arg("--version").output().map_err(Error::io(program.display()))?;
        let version = version_in(&String::from_utf8_lossy(&version.stdout));
        let behind = postgres.port();
        let recipe = Recipe {
            program,
            user,
            folder,
            arguments: Box::new(move |folder, port| configure(user, folder, port, behind, version)),
            is_ready: |running| connect(running.port).is_ok(),
            stop: Signal::TERM,
        };
        Ok(Self { server: Server::start(recipe)? })
    }

    /// The database `postgres` behind it, for its superuser.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.server.port())
    }

    /// Ends it, and with it every connection it holds.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// Ends it.
    pub fn stop(&self) {
        self.server.stop();
    }

    /// Starts it again on its port; one that runs is stopped first.
    ///
    /// # Errors
    /// Why it did not come up.
    pub fn restart(&self) -> Result<(), Error> {
        self.server.restart()
    }
}

fn find() -> Result<PathBuf> {
    program::find("pgbouncer", "pgbouncer")
}

/// Writes the configuration, and says where it is.
fn configure(
    user: User,
    folder: &Path,
    port: u16,
    behind: u16,
    version: Option<(u32, u32)>,
) -> io::Result<Vec<OsString>> {
    let users = folder.join("users.txt");
    user.write(&users, "\"postgres\" \"\"\n")?;
    let knows_of_them = version.is_some_and(|version| version >= PREPARES_STATEMENTS);
    let prepared = if knows_of_them { "max_prepared_statements = 0" } else { "" };
    let configuration = folder.join("pgbouncer.ini");
    let text = format!(
        "[databases]
         * = host=127.0.0.1 port={behind}
         [pgbouncer]
         listen_addr = 127.0.0.1
         listen_port = {port}
         unix_socket_dir =
         auth_type = trust
         auth_file = {users}
         pool_mode = transaction
         max_client_conn = 1000
         ignore_startup_parameters = extra_float_digits
         {prepared}
        ",
        users = users.display(),
    );
    user.write(&configuration, &text)?;
    Ok(vec![configuration.into()])
}

/// Of `PgBouncer 1.18.0`, the first two numbers.
fn version_in(answer: &str) -> Option<(u32, u32)> {
    let mut numbers = answer.split_whitespace().nth(1)?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_first_line() {
        assert_eq!(version_in("PgBouncer 1.18.0\nlibevent 2.1.12-stable\n"), Some((1, 18)));
        assert_eq!(version_in(""), None);
    }
}
