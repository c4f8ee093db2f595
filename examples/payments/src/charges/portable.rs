use evenkeel::core::{AnyStore, BoxError, Clock, Draft, Key, Scan, StoreExt, SystemClock};

use super::{Charge, Ledger};

const SPACE: &str = "payments.charge";
const GROUP: &str = "all";
const PAGE: usize = 100;

/// A record for each charge, in whatever store it is.
#[derive(Clone)]
pub(crate) struct Records(pub(crate) AnyStore);

impl Ledger for Records {
    type Conn = Draft;

    async fn book(draft: &mut Draft, charge: &Charge) -> Result<(), BoxError> {
        draft.put(Key::new(SPACE, GROUP, &charge.id), serde_json::to_vec(charge)?);
        Ok(())
    }

    async fn all(&self) -> Result<Vec<Charge>, BoxError> {
        let mut charges: Vec<Charge> = Vec::new();
        loop {
            let mut scan = Scan::new(SPACE, GROUP, PAGE, SystemClock.now());
            if let Some(last) = charges.last() {
                scan = scan.after(&last.id);
            }
            let page = self.0.scan_merged(scan).await?;
            if page.is_empty() {
                return Ok(charges);
            }
            for found in page {
                charges.push(serde_json::from_slice(&found.record.value)?);
            }
        }
    }
}
