use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::Result;

/// How often a cell and its limit are run, in turn.
pub(crate) const ROUNDS: usize = 3;

/// How hard a cell is worked, and for how long each time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) callers: usize,
    pub(crate) duration: Duration,
}

/// One call of one caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) caller: usize,
    /// Its number among all callers' calls.
    pub(crate) nth: u64,
}

/// Runs a cell and its limit in turn; the median of each, as far as there is a limit.
pub(crate) async fn beside<A, B>(
    mut cell: impl FnMut() -> A,
    mut limit: impl FnMut() -> B,
) -> Result<(f64, Option<f64>)>
where
    A: Future<Output = Result<f64>>,
    B: Future<Output = Result<Option<f64>>>,
{
    let (mut cells, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        cells.push(cell().await?);
        limits.extend(limit().await?);
    }
    let limit = (!limits.is_empty()).then(|| median(limits));
    Ok((median(cells), limit))
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Calls per second of tasks that each call again as soon as they are answered.
pub(crate) async fn rate<F, A>(load: Load, call: F) -> Result<f64>
where
    F: Fn(Turn) -> A + Send + Sync + 'static,
    A: Future<Output = Result<()>> + Send,
{
    let call = Arc::new(call);
    let calls = Arc::new(AtomicU64::new(0));
    let began = now();
    let tasks: Vec<JoinHandle<Result<()>>> = (0..load.callers)
        .map(|caller| {
            let (call, calls) = (Arc::clone(&call), Arc::clone(&calls));
            tokio::spawn(async move {
                while now().duration_since(began) < load.duration {
                    let nth = calls.fetch_add(1, Ordering::Relaxed);
                    call(Turn { caller, nth }).await?;
                }
                Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let calls = calls.load(Ordering::Relaxed) as f64;
    Ok(calls / began.elapsed().as_secs_f64())
}

/// The latencies of one caller's calls, in microseconds, sorted.
pub(crate) async fn latencies<A>(duration: Duration, mut call: impl FnMut(u64) -> A) -> Result<Vec<f64>>
where
    A: Future<Output = Result<()>>,
{
    let began = now();
    let mut latencies = Vec::new();
    for n in 0.. {
        let before = now();
        if before.duration_since(began) >= duration {
            break;
        }
        call(n).await?;
        latencies.push(before.elapsed().as_secs_f64() * 1e6);
    }
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

/// How many calls are timed together where one is too short.
const TOGETHER: usize = 100;

/// Nanoseconds that a call takes, one after the other: the median over batches, in which it hardly
/// shows what else the machine does.
pub(crate) async fn nanoseconds<A: Future>(duration: Duration, mut call: impl FnMut() -> A) -> f64 {
    let began = now();
    let mut batches = Vec::new();
    while now().duration_since(began) < duration {
        let before = now();
        for _ in 0..TOGETHER {
            black_box(call().await);
        }
        batches.push(before.elapsed().as_secs_f64() * 1e9 / TOGETHER as f64);
    }
    median(batches)
}

/// The value below which `percent` of the sorted values lie.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The memory that this process has from the machine.
pub(crate) fn resident_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("the kernel says no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
