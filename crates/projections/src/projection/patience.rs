use std::time::Duration;

use evenkeel_core::{Clock, Error, ErrorKind, Result};

use super::may_pass;

/// How often others may be faster.
const CONFLICTS: u32 = 100;

/// How often the store may fail, with a wait that doubles in between.
const TROUBLES: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How often something is begun anew that got nowhere.
#[derive(Debug, Default)]
pub(super) struct Patience {
    conflicts: u32,
    troubles: u32,
}

impl Patience {
    /// Returns when the same is to be begun anew.
    ///
    /// # Errors
    /// The error, where that is no use, or has been tried often enough.
    pub(super) async fn another(&mut self, clock: &dyn Clock, error: Error) -> Result<()> {
        let (tried, most) = match error.kind() {
            ErrorKind::Conflict => (&mut self.conflicts, CONFLICTS),
            _ => (&mut self.troubles, TROUBLES),
        };
        if !may_pass(&error) || *tried == most {
            return Err(error);
        }
        *tried += 1;
        tracing::debug!(%error, tried, "it is begun anew");
        if error.kind() == ErrorKind::Conflict {
            // Whoever was faster is done already.
            tokio::task::yield_now().await;
        } else {
            clock.sleep((FIRST_WAIT * (1 << *tried)).min(LONGEST_WAIT)).await;
        }
        Ok(())
    }
}
