use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::client::Client;

/// How long anything may take before it counts as hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program in a folder of its own, with nothing of the tests' environment that is meant for it.
pub(crate) struct Program {
    pub(crate) folder: TempDir,
    command: Command,
}

/// The program while it prints; killed when dropped.
pub(crate) struct Printing {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    _folder: TempDir,
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) client: Client,
    pub(crate) folder: TempDir,
}

impl Program {
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("EVENKEEL_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).current_dir(&folder).kill_on_drop(true);
        Self { folder, command }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Writes a file into its folder.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    /// Writes its logs into this file of its folder.
    pub(crate) fn logging_to(mut self, name: &str) -> Self {
        self.command.stderr(std::fs::File::create(self.folder.path().join(name)).unwrap());
        self
    }

    /// Runs it to its end.
    pub(crate) async fn run(mut self) -> Output {
        timeout(PATIENCE, self.command.output()).await.expect("the program ends").unwrap()
    }

    /// What it prints where it ends well.
    pub(crate) async fn printed(self) -> String {
        let Output { status, stdout, stderr } = self.run().await;
        let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert!(status.success(), "{status}: {stdout}{stderr}");
        stdout
    }

    /// What it complains of, and that it ends with 1.
    pub(crate) async fn complaint(self) -> String {
        let Output { status, stdout, stderr } = self.run().await;
        assert_eq!(status.code(), Some(1), "{}", String::from_utf8_lossy(&stdout));
        String::from_utf8(stderr).unwrap()
    }

    /// Starts it, to see what it prints.
    pub(crate) fn printing(mut self) -> Printing {
        let mut process = self.command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Printing { process, lines, _folder: self.folder }
    }

    /// Runs it until it says where it listens.
    pub(crate) async fn serve(mut self) -> Server {
        let mut process = self.command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = timeout(PATIENCE, lines.next_line()).await.expect("the server starts").unwrap();
        let first = first.expect("the server says where it listens");
        let address = first.strip_prefix("evenkeel listens on http://").expect(&first);
        let address = address.split(',').next().unwrap().to_owned();
        // The pipe must stay open for the rest of what it prints.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Server { process, client: Client::new(&address), folder: self.folder }
    }
}

impl Printing {
    pub(crate) async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("it prints a line").unwrap();
        line.expect("it goes on")
    }

    /// Interrupts it, and waits for its end.
    pub(crate) async fn interrupted(mut self) -> ExitStatus {
        signal(&self.process, Signal::INT);
        self.ended().await
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.process.wait()).await.expect("the program ends").unwrap()
    }
}

fn signal(process: &Child, signal: Signal) {
    let pid = i32::try_from(process.id().expect("it runs")).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

impl Server {
    /// On a free port, with everything in its folder.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Program::new(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat()).serve().await
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self::signal(&self.process, signal);
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    /// What a file of its folder holds.
    pub(crate) fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.process.wait()).await.expect("the server ends").unwrap()
    }
}
