use evenkeel::core::{AnyStore, BoxError, Clock, Draft, Key, Scan, StoreExt, SystemClock};
use evenkeel::projections::{Context, Projector, Recorded};
use serde::{Deserialize, Serialize};

use crate::account::AccountEvent;

pub(crate) const NAME: &str = "totals";

const SPACE: &str = "bank.totals";

/// What all accounts come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    accounts: u64,
    events: u64,
    cents: i64,
}

/// Keeps the totals of each partition in a record, on any store.
#[derive(Debug)]
pub(crate) struct KeepsTotals;

impl Projector<Draft> for KeepsTotals {
    type State = Totals;

    async fn apply(
        &self,
        event: &Recorded,
        context: &mut Context<'_, Draft, Totals>,
    ) -> Result<(), BoxError> {
        let Some(event) = event.decode::<AccountEvent>()? else { return Ok(()) };
        context.state.accounts += u64::from(matches!(event, AccountEvent::Opened { .. }));
        context.state.events += 1;
        context.state.cents += event.cents();
        let totals = serde_json::to_vec(context.state)?;
        let key = Key::new(SPACE, group(context.version()), context.partition().index().to_string());
        context.conn().await?.put(key, totals);
        Ok(())
    }
}

/// The totals over all partitions, in a version of the read model.
pub(crate) async fn totals(store: &AnyStore, version: u32) -> Result<Totals, BoxError> {
    // There are no more partitions than this in one listing.
    let scan = Scan::new(SPACE, group(version), store.partitions().len(), SystemClock.now());
    let mut sum = Totals::default();
    for found in store.scan_merged(scan).await? {
        let Totals { accounts, events, cents } = serde_json::from_slice(&found.record.value)?;
        sum.accounts += accounts;
        sum.events += events;
        sum.cents += cents;
    }
    Ok(sum)
}

fn group(version: u32) -> String {
    version.to_string()
}
