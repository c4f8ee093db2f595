use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;

use super::error::{Error, Result};
use super::program::{self, User};
use super::server::{Recipe, Running, Server, tail};

/// Names the folder of the programs to take instead of the newest on the machine.
const PROGRAMS: &str = "EVENKEEL_TEST_PG_BIN";

/// Where Debian keeps the versions beside each other.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Brings the server on Debian.
const PACKAGE: &str = "postgresql";

/// Settings for servers whose data nobody will miss.
const CARELESS: &[&str] = &["fsync=off", "synchronous_commit=off", "full_page_writes=off"];

/// A PostgreSQL server of the newest version on the machine, or of the one in
/// `EVENKEEL_TEST_PG_BIN`; stopped and removed when dropped.
///
/// Where the tests run as root, which PostgreSQL refuses to, it runs as an unprivileged user.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
}

impl Postgres {
    /// Whether the programs are there.
    ///
    /// # Errors
    /// What is not found, and what brings it.
    pub fn available() -> Result<(), String> {
        programs().map(drop).map_err(String::from)
    }

    /// A server as it is meant to run: what it acknowledged, it kept.
    ///
    /// # Errors
    /// What is missing, or why it did not come up.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(&[])
    }

    /// A server that does not wait for its disk, for tests that do not kill it.
    ///
    /// # Errors
    /// What is missing, or why it did not come up.
    pub fn start_careless() -> Result<Self, Error> {
        Self::start_with(CARELESS)
    }

    /// A server with these settings, such as `log_statement=all`.
    ///
    /// # Errors
    /// What is missing, or why it did not come up.
    pub fn start_with(settings: &[&str]) -> Result<Self, Error> {
        let programs = programs()?;
        let user = User::not_root()?;
        let folder = user.folder("evenkeel-postgres-")?;
        initialize(&programs, user, folder.path())?;
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let recipe = Recipe {
            program: programs.join("postgres"),
            user,
            folder,
            arguments: Box::new(move |folder, port| Ok(arguments(folder, port, &settings))),
            is_ready,
            stop: Signal::INT,
        };
        Ok(Self { server: Server::start(recipe)? })
    }

    /// Its database `postgres`, for its superuser.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port())
    }

    /// The loopback port it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.server.port()
    }

    /// What it logged since it was last started.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Ends all its processes at once, as a power failure would.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// Ends its connections and shuts it down.
    pub fn stop(&self) {
        self.server.stop();
    }

    /// Starts it again, on its port and with its data; one that runs is stopped first.
    ///
    /// # Errors
    /// Why it did not come up.
    pub fn restart(&self) -> Result<(), Error> {
        self.server.restart()
    }
}

/// The folder of `postgres` and `initdb`.
fn programs() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(PROGRAMS) {
        let named = PathBuf::from(named);
        return match ["postgres", "initdb"].iter().find(|program| !named.join(program).is_file()) {
            None => Ok(named),
            Some(program) => {
                Err(Error::new(format!("{PROGRAMS} is {}: no {program} there", named.display())))
            }
        };
    }
    if let Some(newest) = newest(Path::new(DEBIAN)) {
        return Ok(newest);
    }
    // A link on the path leads to where its companions are.
    let postgres = program::find("postgres", PACKAGE)?.canonicalize().map_err(Error::io("postgres"))?;
    let folder = postgres.parent().map(Path::to_path_buf).unwrap_or_default();
    if folder.join("initdb").is_file() {
        return Ok(folder);
    }
    Err(program::not_found("initdb", PACKAGE))
}

/// The programs of the newest version whose server is installed.
fn newest(versions: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(versions).ok()?;
    let folders = versions.filter_map(|version| {
        let version = version.ok()?;
        let number: u32 = version.file_name().to_str()?.parse().ok()?;
        let programs = version.path().join("bin");
        programs.join("initdb").is_file().then_some((number, programs))
    });
    Some(folders.max()?.1)
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn initialize(programs: &Path, user: User, folder: &Path) -> Result<()> {
    let initdb = programs.join("initdb");
    let arguments =
        ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "-D"];
    let mut arguments: Vec<_> = arguments.into_iter().map(OsString::from).collect();
    arguments.push(data(folder).into());
    let log = folder.join("initdb.log");
    let status = File::create(&log)
        .and_then(|out| {
            let err = out.try_clone()?;
            let mut command = user.command(&initdb, &arguments);
            command.current_dir(folder).stdin(Stdio::null()).stdout(out).stderr(err).status()
        })
        .map_err(Error::io(initdb.display()))?;
    if status.success() {
        return Ok(());
    }
    let log = fs::read_to_string(&log).unwrap_or_default();
    Err(Error::new(format!("{} ended with {status}:\n{}", initdb.display(), tail(&log))))
}

fn arguments(folder: &Path, port: u16, settings: &[String]) -> Vec<OsString> {
    let own = [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        format!("unix_socket_directories={}", folder.display()),
        "max_connections=500".to_owned(),
        // Else a killed server leaves its shared memory behind.
        "dynamic_shared_memory_type=mmap".to_owned(),
    ];
    let settings = own.iter().chain(settings).flat_map(|setting| ["-c".into(), setting.into()]);
    [OsString::from("-D"), data(folder).into()].into_iter().chain(settings).collect()
}

/// PostgreSQL listens before it answers; when it does, it says so in its `postmaster.pid`, which one
/// that was killed leaves behind.
fn is_ready(running: &Running<'_>) -> bool {
    let status = fs::read_to_string(data(running.folder).join("postmaster.pid")).unwrap_or_default();
    says_ready(&status, running.pid.as_raw_nonzero().get())
}

fn says_ready(status: &str, pid: i32) -> bool {
    let mut lines = status.lines();
    lines.next() == Some(pid.to_string().as_str()) && lines.next_back().map(str::trim_end) == Some("ready")
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_newest_version_is_the_highest_number_with_a_server() {
        let folder = TempDir::new().unwrap();
        assert_eq!(newest(folder.path()), None);
        for version in ["9", "15", "14", "16"] {
            fs::create_dir_all(folder.path().join(version).join("bin")).unwrap();
        }
        for version in ["9", "15", "14"] {
            fs::write(folder.path().join(version).join("bin/initdb"), "").unwrap();
        }
        assert_eq!(newest(folder.path()), Some(folder.path().join("15/bin")));
    }

    #[test]
    fn a_server_is_ready_when_it_says_so_itself() {
        let status =
            |pid, status| format!("{pid}\n/data\n1700000000\n5432\n/socket\n127.0.0.1\n17 4\n{status}\n");
        assert!(says_ready(&status(17, "ready   "), 17));
        assert!(!says_ready(&status(17, "starting"), 17));
        assert!(!says_ready(&status(16, "ready   "), 17), "left behind by one that was killed");
        assert!(!says_ready("", 17));
    }
}
