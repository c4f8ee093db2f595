//! Random histories on the store and on a reference model side by side.

mod reference;
mod script;

use std::fmt::Debug;

use evenkeel_core::{Batch, Jobs, Key, Lease, Namespace, Read, Result, Scan, Store, Timestamp};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use uuid::Uuid;

use self::reference::Reference;
use self::script::{Step, history};
use super::{Case, cases};
use crate::tested::Tested;

pub(super) const CASES: &[Case] = cases![random_batches_match_the_reference];

async fn random_batches_match_the_reference(store: Tested) -> Result<()> {
    let config = Config { cases: store.histories, failure_persistence: None, ..Config::default() };
    let runtime = Handle::current();
    let outcome = TestRunner::new(config).run(&history(), |history| {
        block_in_place(|| runtime.block_on(play(&store, &history))).map_err(TestCaseError::fail)
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    Ok(())
}

/// Plays a history in a clean namespace.
async fn play(store: &Tested, history: &[Step]) -> Result<(), String> {
    let namespace = Namespace::new(format!("history-{}", Uuid::new_v4())).map_err(in_words)?;
    let mut players =
        Players { store: store.elsewhere(namespace), reference: Reference::default(), sent: Vec::new() };
    for (place, step) in history.iter().enumerate() {
        players.play(step).await.map_err(|what| format!("step {place}: {what}"))?;
        players.compare().await.map_err(|what| format!("after step {place}: {what}"))?;
    }
    Ok(())
}

struct Players {
    store: Tested,
    reference: Reference,
    /// The batches sent since the last sweep, which forgets what a batch is recognised by.
    sent: Vec<Batch>,
}

impl Players {
    async fn play(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Advance(by) => self.store.advance(*by),
            Step::Commit(ops) => {
                let mut batch = Batch::new(self.store.at.clone(), self.store.now());
                for op in ops {
                    batch.op(op.resolve(&self.reference, &self.store));
                }
                self.commit(batch).await?;
            }
            Step::Resend(which) => {
                if !self.sent.is_empty() {
                    let batch = self.sent.remove(which % self.sent.len());
                    self.commit(batch).await?;
                }
            }
            Step::Lease { queue, max, hold_for } => {
                let want = Lease {
                    queue: script::queue(*queue),
                    max: *max,
                    hold_for: *hold_for,
                    now: self.store.now(),
                };
                let leased = self.store.store.lease(&self.store.at, want.clone()).await.map_err(in_words)?;
                self.reference.lease(&want, &leased)?;
            }
            Step::Sweep => {
                let now = self.store.now();
                let swept = self.store.store.sweep(&self.store.at, now, 10_000).await.map_err(in_words)?;
                let most = self.reference.sweep(now - self.store.store.info().max_skew);
                if swept > most {
                    return Err(format!("{swept} swept, where {most} may go"));
                }
                self.sent.clear();
            }
        }
        Ok(())
    }

    async fn commit(&mut self, batch: Batch) -> Result<(), String> {
        let found = self.store.send(&batch).await;
        let expected = self.reference.commit(&batch);
        let found = found.map_err(|error| Box::new((error.kind(), error.into_conflict().ok())));
        same("verdict", &found, &expected).map_err(|what| format!("{what}\nof {batch:?}"))?;
        self.sent.push(batch);
        Ok(())
    }

    /// Compares all that can be read at this instant.
    async fn compare(&self) -> Result<(), String> {
        let now = self.store.now();
        self.compare_records(now).await?;
        self.compare_log().await?;
        for queue in script::queues() {
            let page = Jobs::Page { queue: queue.clone(), after: None, limit: 1000 };
            let found = self.store.store.jobs(&self.store.at, page).await.map_err(in_words)?.jobs;
            same("jobs", &found, &self.reference.jobs(&queue))?;
        }
        Ok(())
    }

    async fn compare_records(&self, now: Timestamp) -> Result<(), String> {
        let keys: Vec<Key> = script::keys().collect();
        let found = self.store.store.get(&self.store.at, now, &keys).await.map_err(in_words)?;
        let expected: Vec<_> = keys.iter().map(|key| self.reference.live(key, now)).collect();
        same("records", &found, &expected)?;
        for group in script::groups() {
            let scan = Scan::new("model", group.clone(), 1000, now);
            let found = self.store.scan_to_end(scan).await.map_err(in_words)?;
            same("group", &found, &self.reference.group(&group, now))?;
        }
        Ok(())
    }

    async fn compare_log(&self) -> Result<(), String> {
        let head = self.store.read(Read::partition(0, 1)).await.map_err(in_words)?.head;
        same("head", &head, &self.reference.head())?;
        let found = self.store.log_after(0).await.map_err(in_words)?;
        same("log", &found, &self.reference.log(|_| true))?;
        for stream in script::streams() {
            let expected = self.reference.log(|event| event.stream == stream);
            let version = self.store.stream_version(&stream).await.map_err(in_words)?;
            same("stream version", &version, &self.reference.stream_version(&stream))?;
            let found = self.store.stream_to_end(&stream).await.map_err(in_words)?;
            same("stream", &found, &expected)?;
        }
        Ok(())
    }
}

fn same<T: PartialEq + Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what} differs\n   found: {found:?}\nexpected: {expected:?}"))
}

#[expect(clippy::needless_pass_by_value, reason = "this is what map_err hands over")]
fn in_words(error: evenkeel_core::Error) -> String {
    format!("{error:?}")
}
