use std::convert::Infallible;
use std::hint::black_box;

use evenkeel::choreograph::{Definition, StepContext, StepKey};

use crate::Result;

/// The steps' names, as many as the longest definition has.
const NAMES: [&str; 20] = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// What each step does.
#[expect(clippy::unused_async, reason = "a step is asynchronous even if it waits for nothing")]
pub(crate) async fn trivial(input: u64) -> Result<u64, Infallible> {
    Ok(black_box(input) + 1)
}

/// So many trivial steps, 1 to 20.
pub(crate) fn definition(steps: usize) -> Result<Definition<u64>> {
    let job = |ctx: StepContext<u64>| async move { trivial(*ctx.input()).await };
    let [first, others @ ..] = NAMES.map(StepKey::<u64>::new);
    let mut builder = Definition::builder("trivial").step(first, job);
    for key in &others[..steps - 1] {
        builder = builder.step(*key, job);
    }
    Ok(builder.build()?)
}

/// The same without evenkeel.
pub(crate) async fn plain(steps: usize, input: u64) -> Result<u64, Infallible> {
    let mut sum = 0;
    for _ in 0..black_box(steps) {
        sum += black_box(trivial(input).await?);
    }
    Ok(sum)
}
