use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::Result;

/// How often a cell and its limit are run, in turn.
const ROUNDS: usize = 3;

/// Runs a cell and its limit in turn; the median of each.
pub(crate) async fn beside<A, B>(
    mut cell: impl FnMut() -> A,
    mut limit: impl FnMut() -> B,
) -> Result<(f64, f64)>
where
    A: Future<Output = Result<f64>>,
    B: Future<Output = Result<f64>>,
{
    let (mut cells, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        cells.push(cell().await?);
        limits.push(limit().await?);
    }
    Ok((median(cells), median(limits)))
}

/// Runs a cell that has no limit; the median.
pub(crate) async fn alone<A: Future<Output = Result<f64>>>(mut cell: impl FnMut() -> A) -> Result<f64> {
    let mut cells = Vec::new();
    for _ in 0..ROUNDS {
        cells.push(cell().await?);
    }
    Ok(median(cells))
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Calls per second of `callers` tasks that call one after the other for `duration`.
pub(crate) async fn rate<F, A>(callers: usize, duration: Duration, call: F) -> Result<f64>
where
    F: Fn(u64) -> A + Send + Sync + 'static,
    A: Future<Output = Result<()>> + Send,
{
    let call = Arc::new(call);
    let calls = Arc::new(AtomicU64::new(0));
    let began = now();
    let tasks: Vec<JoinHandle<Result<()>>> = (0..callers)
        .map(|_| {
            let (call, calls) = (Arc::clone(&call), Arc::clone(&calls));
            tokio::spawn(async move {
                while now().duration_since(began) < duration {
                    call(calls.fetch_add(1, Ordering::Relaxed)).await?;
                }
                Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of calls is far below 2^53")]
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

/// The value below which `percent` of the sorted values lie.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}
