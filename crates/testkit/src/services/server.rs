use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use evenkeel_core::{Clock, SystemClock};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::error::{Error, Result};
use super::port::Port;
use super::process;
use super::program::User;

/// How long a server may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(10);

/// How many ports are tried where strangers take them in between.
const PORTS: u32 = 5;

/// How much of its log a server that did not come up is quoted with.
const LOG_LINES: usize = 20;

/// The arguments of a server that keeps its files in this folder and listens on this port.
type Arguments = Box<dyn Fn(&Path, u16) -> io::Result<Vec<OsString>> + Send + Sync>;

/// How one kind of server is started and told that it is ready.
pub(super) struct Recipe {
    pub(super) program: PathBuf,
    pub(super) user: User,
    /// Where it keeps its files, and its log.
    pub(super) folder: TempDir,
    pub(super) arguments: Arguments,
    pub(super) is_ready: fn(&Running<'_>) -> bool,
    /// Ends it in good order, without waiting for its clients.
    pub(super) stop: Signal,
}

/// A server that has been started.
pub(super) struct Running<'a> {
    pub(super) folder: &'a Path,
    pub(super) pid: Pid,
    pub(super) port: u16,
}

/// A connection to the server on this loopback port.
pub(super) fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A server process on a loopback port of its own; stopped, and its folder removed, when dropped.
pub(super) struct Server {
    recipe: Recipe,
    port: Port,
    child: Mutex<Option<Child>>,
}

impl Server {
    pub(super) fn start(recipe: Recipe) -> Result<Self> {
        let mut attempts = PORTS;
        loop {
            attempts -= 1;
            let port = Port::claim().map_err(Error::io("no free port"))?;
            match spawn(&recipe, port.number()) {
                Ok(child) => return Ok(Self { recipe, port, child: Mutex::new(Some(child)) }),
                Err(Failure::PortTaken(_)) if attempts > 0 => {}
                Err(failure) => return Err(failure.into_error()),
            }
        }
    }

    pub(super) const fn port(&self) -> u16 {
        self.port.number()
    }

    /// What it wrote since it was last started.
    pub(super) fn log(&self) -> String {
        log(self.recipe.folder.path())
    }

    /// Ends the server and the processes it started as a power failure would.
    pub(super) fn kill(&self) {
        let Some(mut child) = self.child().take() else { return };
        let pid = Pid::from_child(&child);
        // Stopped, it starts no more processes while they are counted.
        let _ = kill_process(pid, Signal::STOP);
        let children = process::children(pid);
        let _ = child.kill();
        let _ = child.wait();
        for &child in &children {
            let _ = kill_process(child, Signal::KILL);
        }
        wait_until(|| children.iter().all(|child| process::has_ended(*child)));
    }

    /// Ends the server in good order; kills it where that takes too long.
    pub(super) fn stop(&self) {
        let ended = self.child().as_mut().is_none_or(|child| {
            let _ = kill_process(Pid::from_child(child), self.recipe.stop);
            wait_until(|| matches!(child.try_wait(), Ok(Some(_))))
        });
        if ended {
            *self.child() = None;
        } else {
            self.kill();
        }
    }

    /// Starts the server again where it was, with the files it left; one that runs is stopped first.
    pub(super) fn restart(&self) -> Result<()> {
        self.stop();
        *self.child() = Some(spawn(&self.recipe, self.port()).map_err(Failure::into_error)?);
        Ok(())
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("program", &self.recipe.program)
            .field("port", &self.port())
            .finish_non_exhaustive()
    }
}

/// Why a server did not come up.
enum Failure {
    PortTaken(Error),
    Other(Error),
}

impl Failure {
    fn into_error(self) -> Error {
        match self {
            Self::PortTaken(error) | Self::Other(error) => error,
        }
    }
}

fn spawn(recipe: &Recipe, port: u16) -> std::result::Result<Child, Failure> {
    let folder = recipe.folder.path();
    let name = recipe.program.display();
    let mut child = File::create(log_file(folder))
        .and_then(|out| {
            let err = out.try_clone()?;
            let mut command = recipe.user.command(&recipe.program, &(recipe.arguments)(folder, port)?);
            command.current_dir(folder).stdin(Stdio::null()).stdout(out).stderr(err).spawn()
        })
        .map_err(Error::io(&name))
        .map_err(Failure::Other)?;

    let running = Running { folder, pid: Pid::from_child(&child), port };
    let mut ended = None;
    let is_over = wait_until(|| {
        ended = child.try_wait().ok().flatten();
        ended.is_some() || (recipe.is_ready)(&running)
    });
    if is_over && ended.is_none() {
        return Ok(child);
    }
    let _ = child.kill();
    let _ = child.wait();
    let log = log(folder);
    let what = match ended {
        Some(status) => format!("{name} ended with {status}"),
        None => format!("{name} was not ready on port {port} within {PATIENCE:?}"),
    };
    let error = Error::new(format!("{what}; its log ends:\n{}", tail(&log)));
    let is_taken = log.contains("ddress already in use");
    Err(if is_taken { Failure::PortTaken(error) } else { Failure::Other(error) })
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("server.log")
}

fn log(folder: &Path) -> String {
    let log = fs::read(log_file(folder)).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

/// Asks until the answer is yes; `false` where it is not within [`PATIENCE`].
pub(super) fn wait_until(mut is_so: impl FnMut() -> bool) -> bool {
    let end = SystemClock.now() + PATIENCE;
    while !is_so() {
        if SystemClock.now() >= end {
            return false;
        }
        thread::sleep(PAUSE);
    }
    true
}

/// The last lines of a log, indented.
pub(super) fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
    last.iter().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell script in the place of a server; it is ready when its folder has a file `ready`.
    fn script(text: &'static str) -> Recipe {
        Recipe {
            program: "/bin/sh".into(),
            user: User::Same,
            folder: TempDir::new().unwrap(),
            arguments: Box::new(move |_, port| Ok(vec!["-c".into(), text.into(), port.to_string().into()])),
            is_ready: |running| running.folder.join("ready").exists(),
            stop: Signal::TERM,
        }
    }

    #[test]
    fn a_server_that_ends_at_once_is_quoted() {
        let error = Server::start(script("echo 'the disk is full'; exit 3")).unwrap_err().to_string();
        assert!(error.contains("/bin/sh ended with exit status: 3"), "{error}");
        assert!(error.ends_with("\n    the disk is full\n"), "{error}");
    }

    #[test]
    fn another_port_is_tried_where_one_was_taken_and_not_for_ever() {
        let second_time = "[ -e once ] && touch ready && exec sleep 600; touch once; \
                           echo 'bind: Address already in use'; exit 1";
        Server::start(script(second_time)).unwrap();

        let always = "echo 'bind: Address already in use'; exit 1";
        let error = Server::start(script(always)).unwrap_err().to_string();
        assert!(error.contains("Address already in use"), "{error}");
    }

    #[test]
    fn a_killed_server_takes_its_children_with_it() {
        // Without a program: `touch` could still be a child of its own when its file is there already.
        let server = Server::start(script("sleep 600 & sleep 600 & : > ready; wait")).unwrap();
        let pid = Pid::from_child(server.child().as_ref().unwrap());
        let children = process::children(pid);
        assert_eq!(children.len(), 2);

        server.kill();
        assert!(process::has_ended(pid));
        assert!(children.into_iter().all(process::has_ended));
    }

    #[test]
    fn a_stopped_server_ends_in_its_own_way_and_starts_again() {
        let recipe = script("trap 'touch ended; exit' TERM; touch ready; while :; do sleep 0.01; done");
        let ended = recipe.folder.path().join("ended");
        let server = Server::start(recipe).unwrap();
        server.stop();
        assert!(ended.exists());

        server.restart().unwrap();
        assert!(server.child().is_some());
    }

    #[test]
    fn a_dropped_server_leaves_no_process_and_no_folder() {
        let recipe = script("touch ready; exec sleep 600");
        let folder = recipe.folder.path().to_path_buf();
        let server = Server::start(recipe).unwrap();
        let pid = Pid::from_child(server.child().as_ref().unwrap());
        drop(server);
        assert!(process::has_ended(pid));
        assert!(!folder.exists());
    }

    #[test]
    fn of_a_long_log_the_end_is_quoted() {
        let log: String = (1..=100).map(|line| format!("line {line}\n")).collect();
        let tail = tail(&log);
        assert_eq!(tail.lines().count(), LOG_LINES);
        assert!(tail.ends_with("    line 100\n"), "{tail}");
    }
}
