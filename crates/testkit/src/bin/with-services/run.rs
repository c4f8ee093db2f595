use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::signal::unix::{self, SignalKind};

/// The signals that end this program, from the moment it listens.
pub(crate) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
        })
    }

    /// The next one. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
        }
    }
}

/// Runs the command to its end, also when a signal arrives: to be terminated is passed on; an
/// interrupt comes from a terminal, which gives it to the command too.
pub(crate) async fn to_end(
    command: &[String],
    variables: impl Iterator<Item = (&'static str, &str)>,
    signals: &mut Signals,
) -> io::Result<ExitCode> {
    let mut child = Command::new(&command[0]).args(&command[1..]).envs(variables).spawn()?;
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    loop {
        tokio::select! {
            status = child.wait() => return Ok(code(status?)),
            signal = signals.next() => {
                if let (Signal::TERM, Some(pid)) = (signal, pid) {
                    kill_process(pid, signal)?;
                }
            }
        }
    }
}

/// The exit code of something that a signal ended, as shells give it.
pub(crate) fn ended_by(signal: Signal) -> ExitCode {
    code(ExitStatus::from_raw(signal.as_raw()))
}

fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_and_signals_are_passed_on() {
        assert_eq!(code(ExitStatus::from_raw(3 << 8)), ExitCode::from(3));
        assert_eq!(ended_by(Signal::TERM), ExitCode::from(143));
    }
}
