//! `redis-benchmark` with the least commands that do the same work, one after the other, without
//! pipelining.
//!
//! It sends one command over and over. Where a piece of work takes several, each is measured alone,
//! and the piece takes as long as its commands together.

use std::process::Output;

use tokio::process::Command;

use crate::Result;
use crate::measure::Load;
use crate::work::{ANSWER, STREAMS, VALUE, Work};

/// Stands for a number below the range, another each time.
const RANDOM: &str = "__rand_int__";

/// The key of what is there already.
const FINISHED: &str = "finished";

/// Keys are as good as always fresh.
const FRESH: u64 = 2_000_000_000;

/// How many times a command is sent to learn how fast it is.
const TRIAL: f64 = 5_000.0;

/// The program, and the server it is let loose on.
pub(crate) struct RedisBenchmark {
    port: u16,
}

/// A command, and the range of its random numbers.
struct Sent {
    words: Vec<String>,
    range: u64,
}

impl RedisBenchmark {
    pub(crate) const fn of(port: u16) -> Self {
        Self { port }
    }

    /// Empties the server.
    pub(crate) async fn clear(&self) -> Result<()> {
        self.once(command(["FLUSHALL"])).await?;
        self.once(command(["SET", FINISHED, ANSWER])).await
    }

    /// Pieces of work per second, by as many clients as there are callers.
    pub(crate) async fn rate(&self, work: Work, load: Load) -> Result<f64> {
        self.clear().await?;
        let commands = commands(work);
        let seconds = load.duration.as_secs_f64() / commands.len() as f64;
        let mut takes = 0.0;
        for command in &commands {
            let guess = self.send(command, load.callers, TRIAL).await?;
            takes += 1.0 / self.send(command, load.callers, (guess * seconds).ceil()).await?;
        }
        Ok(1.0 / takes)
    }

    async fn once(&self, command: Sent) -> Result<()> {
        self.send(&command, 1, 1.0).await.map(drop)
    }

    /// Commands per second.
    async fn send(&self, command: &Sent, clients: usize, times: f64) -> Result<f64> {
        let output = Command::new("redis-benchmark")
            .args(["--csv", "-h", "127.0.0.1", "-P", "1"])
            .args(["-p", &self.port.to_string(), "-c", &clients.to_string()])
            .args(["-n", &times.to_string(), "-r", &command.range.to_string()])
            .args(&command.words)
            .output()
            .await
            .map_err(|error| format!("redis-benchmark: {error} (Debian: apt-get install redis-tools)"))?;
        commands_per_second(&output)
    }
}

fn command<'a>(words: impl IntoIterator<Item = &'a str>) -> Sent {
    Sent { words: words.into_iter().map(str::to_owned).collect(), range: FRESH }
}

fn commands(work: Work) -> Vec<Sent> {
    let fresh = |prefix: &str| format!("{prefix}:{RANDOM}");
    let claim = |value| command(["SET", &fresh("key"), value, "NX"]);
    // Always in the place of the same: nothing is quicker.
    let finish = |value| command(["SET", FINISHED, value, "XX"]);
    match work {
        Work::Put => vec![command(["SET", &fresh("key"), VALUE])],
        Work::ClaimAndFinish => vec![claim(VALUE), finish(VALUE)],
        Work::Append(events) => {
            let stream = fresh("stream");
            let append = ["RPUSH", &stream].into_iter().chain(std::iter::repeat_n(VALUE, events));
            vec![Sent { range: STREAMS, ..command(append) }]
        }
        Work::PushLeaseAck => vec![
            command(["LPUSH", "queue", VALUE]),
            command(["LMOVE", "queue", "leased", "RIGHT", "LEFT"]),
            command(["LREM", "leased", "1", VALUE]),
        ],
        Work::Fresh => vec![claim(ANSWER), finish(ANSWER)],
        Work::FreshWithRow => vec![claim(ANSWER), command(["SET", &fresh("effect"), "done"]), finish(ANSWER)],
        Work::Replay => vec![command(["GET", FINISHED])],
    }
}

/// Of the last line that it prints: the command, which may hold commas of its own, the rate, and six
/// latencies, each in quotation marks.
fn commands_per_second(output: &Output) -> Result<f64> {
    let printed = String::from_utf8_lossy(&output.stdout);
    let rate = || printed.lines().last()?.rsplit(',').nth(6)?.trim_matches('"').parse().ok();
    match rate().filter(|_| output.status.success()) {
        Some(rate) => Ok(rate),
        None => Err(format!("redis-benchmark: {}{printed}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
