use std::time::Duration;

use evenkeel_core::{Appended, Partition, Result, Transactional};

use super::{Moves, Projection};
use crate::Projector;

/// The waits between looks at a position that is moved in another process: the first, and the
/// longest.
const LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// For how long a look tells which version is the active one.
const FRESH: Duration = LOOKS.0;

impl<P: Projector<S::Conn>, S: Transactional + Clone> Projection<P, S> {
    /// Waits until what was appended is in the active version of the read model: so one reads
    /// one's own writes.
    ///
    /// Waits for ever where nobody runs the projection; dropping the future ends the wait.
    ///
    /// # Errors
    /// As [`wait_until`](Self::wait_until).
    pub async fn wait_for(&self, appended: &Appended) -> Result<()> {
        let at = self.shared.events.partition_of(&appended.stream);
        self.wait_until(&at, appended.position + appended.count - 1).await
    }

    /// Waits until the active version has come to a position of a partition.
    ///
    /// # Errors
    /// Those of the store; `Unexpected` where the projection has stopped before the position.
    pub async fn wait_until(&self, at: &Partition, position: u64) -> Result<()> {
        let mut moves = self.shared.moves.subscribe();
        let mut wait = LOOKS.0;
        loop {
            let looked_at = self.shared.now();
            let version = self.shared.operations.control().await?.active;
            let stored = self.shared.operations.stored_position(at, version).await?;
            if stored.position >= position {
                return Ok(());
            }
            if let Some(failure) = stored.failed {
                return Err(self.stopped(at, &failure));
            }
            let place = (at.clone(), version);
            let is_there = |moves: &Moves| moves.get(&place).is_some_and(|moved| *moved >= position);
            tokio::select! {
                _ = moves.wait_for(is_there) => {
                    if self.shared.now().since(looked_at) <= FRESH {
                        return Ok(());
                    }
                }
                () = self.shared.clock().sleep(wait) => wait = (wait * 2).min(LOOKS.1),
            }
        }
    }
}
