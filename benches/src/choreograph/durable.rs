use evenkeel::choreograph::{Choreographer, RunState};

use super::{Cell, Plan, row, steps};
use crate::measure::{self, Load, beside};
use crate::report::Report;
use crate::server::{Server, StoreName};
use crate::work::Work;
use crate::{Result, calls};

pub(crate) const CASE: &str = "durable";

/// How many steps a run has.
const STEPS: usize = 5;

/// Runs that are started and waited for, beside what as many callers claim and finish in the store.
pub(crate) async fn run(
    store: StoreName,
    server: &Server,
    plan: &Plan<'_>,
    report: &mut Report,
) -> Result<()> {
    for &callers in plan.callers {
        let load = Load { callers, duration: plan.duration };
        let claims = async || Ok(Some(server.rate(Work::ClaimAndFinish, load).await?));
        let (runs, claims) = beside(|| rate(server, load), claims).await?;
        let cell = |what, unit, value, limit| {
            let case = format!("{CASE}, {what}");
            Cell { case, store, callers, unit, value, limit }
        };
        row(report, cell("5 steps a run", "runs/s", runs, None));
        row(report, cell("beside claim + finish", "steps/s", runs * STEPS as f64, claims));
    }
    Ok(())
}

/// Runs a second, from their start to their outcome, on a store with nothing in it.
async fn rate(server: &Server, load: Load) -> Result<f64> {
    let empty = server.empty().await?;
    let choreographer = Choreographer::new(empty.store.clone());
    choreographer.register(steps::definition(STEPS)?)?;
    let worker = tokio::spawn(choreographer.worker().run(std::future::pending()));
    let rate = measure::rate(load, move |_| {
        let choreographer = choreographer.clone();
        async move {
            let run = calls::fresh_key();
            choreographer.start("trivial", &run, &1).await?;
            let outcome = choreographer.outcome(&run).await?;
            assert_eq!(outcome.state, RunState::Completed);
            Ok(())
        }
    });
    let rate = rate.await;
    worker.abort();
    rate
}
