mod story;
mod world;

use std::sync::Arc;

use evenkeel_core::Result;

use self::story::Story;
use super::bench::Bench;
use crate::fixture::Fixture;
use crate::harness::{on_one_thread, open};

/// Random definitions on processes that die, over a store that loses answers: once for each of the
/// fixture's seeds.
pub(super) async fn every_run_ends_as_it_must<F: Fixture>(fixture: Arc<F>, partitions: u32) -> Result<()> {
    on_one_thread(move || async move {
        let mut died = 0;
        for seed in 0..fixture.seeds() {
            died += Story::new(seed, Bench::new(open(&*fixture, partitions).await?)).play().await;
        }
        assert!(died >= fixture.seeds(), "the processes died {died} times only");
        Ok(())
    })
    .await
}
