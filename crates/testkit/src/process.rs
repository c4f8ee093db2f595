use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

/// Names the part that a process of a test's own plays.
const PART: &str = "EVENKEEL_TEST_PART";

/// The program of the test once more, as another process that plays a part. Killed when dropped.
///
/// # Example
/// ```no_run
/// use evenkeel_testkit::Process;
///
/// // The first thing in `main`:
/// if let Some(number) = Process::part::<u32>() {
///     println!("hello from {number}");
///     return;
/// }
/// let mut other = Process::spawn(&7);
/// assert_eq!(other.hear(), "hello from 7");
/// ```
#[derive(Debug)]
pub struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// A process that finds this `part`.
    ///
    /// # Panics
    /// Where the machine cannot start one.
    #[must_use]
    pub fn spawn(part: &impl Serialize) -> Self {
        let part = serde_json::to_string(part).expect("a part turns into JSON");
        let program = std::env::current_exe().expect("a test knows its program");
        let mut command = Command::new(program);
        command.env(PART, part).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a test may start processes");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, input, output }
    }

    /// The part that this process is to play; `None` where it is the test itself.
    ///
    /// # Panics
    /// Where the part is another test's.
    #[must_use]
    pub fn part<T: DeserializeOwned>() -> Option<T> {
        let part = std::env::var(PART).ok()?;
        Some(serde_json::from_str(&part).expect("the part is that of this test"))
    }

    /// The lines that this process is [told](Self::tell). They end when nobody can tell any more, and
    /// so should the process: a test that dies leaves nothing behind.
    #[must_use]
    pub fn told() -> mpsc::UnboundedReceiver<String> {
        let (sender, receiver) = mpsc::unbounded_channel();
        // Not one of the runtime's, which would wait for it at its end.
        std::thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        receiver
    }

    /// Tells it a line.
    ///
    /// # Panics
    /// Where it has ended.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the process reads what it is told");
    }

    /// Waits for the next line that it prints.
    ///
    /// # Panics
    /// Where it has ended.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a process prints text");
        assert!(line.ends_with('\n'), "the process ended and said {line:?}");
        line.trim_end().to_owned()
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    ///
    /// # Panics
    /// Where the machine refuses it.
    pub fn kill(&mut self) {
        self.child.kill().expect("a process may be killed by who started it");
        self.child.wait().expect("a process that was killed ends");
    }

    /// Stops it where it stands.
    ///
    /// # Panics
    /// Where it has ended.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after a pause.
    ///
    /// # Panics
    /// Where it has ended.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("an id of a process fits");
        kill_process(Pid::from_raw(id).expect("it is not zero"), signal).expect("it has not ended");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
