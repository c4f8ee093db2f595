//! Versions of resources, which need no more than the store.

use evenkeel_core::{Clock, Expect, Key, ManualClock, Result, Scan, Store, StoreExt, Transactional, Tx};
use evenkeel_projections::ResourceVersions;
use futures_util::future::BoxFuture;

/// A promise of resource versions.
pub(super) struct Case<S> {
    pub(super) name: &'static str,
    pub(super) run: fn(S) -> BoxFuture<'static, Result<()>>,
}

/// Lists the cases of one of the modules below.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        pub(super) fn cases<S: evenkeel_core::Transactional + Clone>() -> Vec<super::Case<S>> {
            vec![$(super::Case { name: stringify!($case), run: |store| Box::pin($case(store)) }),+]
        }
    };
}

mod checkpoints;
mod reset;
mod updates;

/// Every promise of resource versions, to be kept by a store of `S`.
pub(super) fn cases<S: Transactional + Clone>() -> Vec<Case<S>> {
    [updates::cases(), checkpoints::cases(), reset::cases()].into_iter().flatten().collect()
}

/// How many do something at once.
const AT_ONCE: usize = 12;

const RESOURCE: &str = "account-7";

/// A handler in a process of its own: it shares nothing with others but the store.
fn handler<S: Transactional + Clone>(store: &S, name: &str) -> ResourceVersions<S> {
    ResourceVersions::new(store.clone(), name).clock(ManualClock::default().shared())
}

fn balances<S: Transactional + Clone>(store: &S) -> ResourceVersions<S> {
    handler(store, "balances")
}

fn effect(id: &str) -> Key {
    Key::new("test", "effects", id)
}

/// Writes an effect with the transaction, over the live connection's head.
async fn take_effect<C: Send + 'static>(tx: &mut Tx<C>, id: &str) -> Result<()> {
    tx.conn().await?;
    tx.batch().put(effect(id), "", Expect::Absent);
    Ok(())
}

/// The effects in the resource's partition.
async fn effects<S: Store>(store: &S) -> Result<Vec<String>> {
    let scan = Scan::new("test", "effects", 100, ManualClock::default().now());
    let page = store.scan(&store.partition_of(RESOURCE), scan).await?;
    Ok(page.records.into_iter().map(|(id, _)| id).collect())
}
