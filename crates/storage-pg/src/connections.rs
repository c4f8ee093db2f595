//! Connections, used again without asking the server in between.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_core::{Clock, Timestamp};
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPool;
use sqlx::{PgConnection, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A pool, and the connections that were just used.
///
/// A pool of sqlx's has the server answer once more after each use, which costs the server as much as
/// many a statement. So who is next takes the connection from here; once a second it goes through
/// the pool, which looks after its health and its age.
pub(crate) struct Connections {
    pool: PgPool,
    /// As many as the pool makes connections, so that nobody waits there for one that rests here.
    free: Arc<Semaphore>,
    /// The one used last is at the back: its server process has the warmest caches.
    at_hand: Mutex<VecDeque<Warm>>,
    acquire_timeout: Duration,
    clock: Arc<dyn Clock>,
}

struct Warm {
    connection: PoolConnection<Postgres>,
    /// When it came from the pool.
    since: Timestamp,
}

/// For how long a connection stays out of the pool.
const OUT_OF_POOL: Duration = Duration::from_secs(1);

impl Connections {
    /// Those of a pool of at most `most`.
    pub(crate) fn new(
        pool: PgPool,
        most: u32,
        acquire_timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS)));
        Arc::new(Self { pool, free, at_hand: Mutex::default(), acquire_timeout, clock })
    }

    /// A connection that nobody else uses. Dropping the future takes none.
    pub(crate) async fn lend(self: &Arc<Self>) -> sqlx::Result<Lent> {
        let deadline = self.clock.now() + self.acquire_timeout;
        let free = self.clock.timeout_at(deadline, Arc::clone(&self.free).acquire_owned()).await;
        let permit = free.ok_or(sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let at_hand = self.at_hand().pop_back();
        let warm = match at_hand.filter(|warm| !warm.is_due(self.clock.now())) {
            Some(warm) => warm,
            None => Warm { connection: self.pool.acquire().await?, since: self.clock.now() },
        };
        Ok(Lent { warm: Some(warm), home: Arc::clone(self), _permit: permit })
    }

    fn take_back(&self, warm: Warm) {
        let now = self.clock.now();
        let mut at_hand = self.at_hand();
        at_hand.push_back(warm);
        // What is dropped goes back to the pool.
        at_hand.retain(|warm| !warm.is_due(now));
    }

    fn at_hand(&self) -> MutexGuard<'_, VecDeque<Warm>> {
        self.at_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Warm {
    fn is_due(&self, now: Timestamp) -> bool {
        now.since(self.since) >= OUT_OF_POOL
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        for warm in self.at_hand().drain(..) {
            // Closed at once: there may be no runtime any more to bring it back to the pool.
            drop(warm.connection.detach());
        }
    }
}

impl Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// A connection that is in use. Dropped, it is closed: where the server is lost, and where the caller
/// went away meanwhile. The pool would wait for what is due.
pub(crate) struct Lent {
    warm: Option<Warm>,
    home: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
}

impl Lent {
    /// Gives back a connection whose server has answered all it was asked, outside of a transaction.
    pub(crate) fn give_back(mut self) {
        if let Some(warm) = self.warm.take() {
            self.home.take_back(warm);
        }
    }

    /// Gives the connection to the pool, which sends what is queued on it and waits for what is due.
    pub(crate) fn give_to_pool(mut self) {
        drop(self.warm.take());
    }
}

const IN_USE: &str = "a connection is there until it is given back";

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.warm.as_ref().expect(IN_USE).connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.warm.as_mut().expect(IN_USE).connection
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(warm) = &mut self.warm {
            warm.connection.close_on_drop();
        }
    }
}
