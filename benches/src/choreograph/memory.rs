use std::hint::black_box;

use evenkeel::choreograph::RunState;
use futures_util::StreamExt;

use super::{Cell, Plan, row, steps};
use crate::Result;
use crate::measure::{ROUNDS, beside, median, nanoseconds, now, resident_mib};
use crate::report::Report;
use crate::server::StoreName;

/// How many steps the runs have that go one beside the other.
const STEPS: usize = 5;

pub(crate) async fn run(plan: &Plan<'_>, report: &mut Report) -> Result<()> {
    for steps in [1, 5, 20] {
        let case = format!("memory, {steps} steps");
        if case.contains(plan.only) {
            one_by_one(&case, steps, plan, report).await?;
        }
    }
    for workers in [1, 2] {
        let case = "memory, run_many";
        if case.contains(plan.only) {
            many(case, workers, plan, report).await?;
        }
    }
    Ok(())
}

/// Runs one after the other, beside a loop over the same closures.
async fn one_by_one(case: &str, steps: usize, plan: &Plan<'_>, report: &mut Report) -> Result<()> {
    let definition = steps::definition(steps)?;
    let outcome = definition.run(1).await;
    assert_eq!(outcome.state(), RunState::Completed);
    let (run, plain) = beside(
        async || Ok(nanoseconds(plan.duration, || definition.run(black_box(1))).await),
        async || Ok(Some(nanoseconds(plan.duration, || steps::plain(steps, black_box(1))).await)),
    )
    .await?;
    let more = (run - plain.unwrap_or_default()) / steps as f64;
    let cell =
        |case, unit, value, limit| Cell { case, store: StoreName::Memory, callers: 1, unit, value, limit };
    row(report, cell(format!("{case}, a run"), "ns", run, plain));
    row(report, cell(format!("{case}, more a step"), "ns", more, None));
    Ok(())
}

/// All inputs at once, and what memory that takes once it is under way.
async fn many(case: &str, workers: usize, plan: &Plan<'_>, report: &mut Report) -> Result<()> {
    let definition = steps::definition(STEPS)?;
    let (mut rates, mut growth) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut outcomes = definition.run_many(0..plan.inputs).workers(workers);
        let (began, mut ended) = (now(), 0);
        let (mut before, mut most) = (None, 0.0);
        while let Some(outcome) = outcomes.next().await {
            assert_eq!(outcome.state(), RunState::Completed);
            ended += 1;
            if ended % (plan.inputs / 100).max(1) == 0 {
                let resident = resident_mib()?;
                before.get_or_insert(resident);
                most = f64::max(most, resident);
            }
        }
        assert_eq!(ended, plan.inputs);
        rates.push(ended as f64 / began.elapsed().as_secs_f64());
        growth.push(most - before.unwrap_or_default());
    }
    let cell = |what, unit, value| {
        let case = format!("{case}, {what}");
        Cell { case, store: StoreName::Memory, callers: workers, unit, value, limit: None }
    };
    row(report, cell("rate", "runs/s", median(rates)));
    row(report, cell("memory more", "MiB", median(growth)));
    Ok(())
}
