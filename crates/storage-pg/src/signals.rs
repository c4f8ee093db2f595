//! Hints from one process to the others, by LISTEN and NOTIFY.
//!
//! A NOTIFY makes its transaction take a lock that all notifying transactions of the server share,
//! until it is committed. So hints are not part of a commit: they follow it, many in one statement, and
//! keep no commit waiting for a disk that writes them: a hint is no use after a crash.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_core::{Batch, Clock, Namespace, Partition, Result, Signal, SignalHub, Signals};
use sqlx::postgres::{PgListener, PgPool};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::database::Database;

/// For how long hints are gathered after some were sent.
const PAUSE: Duration = Duration::from_millis(10);

/// The most hints in one statement; beyond, the others are told that they missed some.
const MAX_HINTS: usize = 1_000;

/// How long to wait before listening again, at first and at most.
const MIN_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(10);

/// How often a quiet connection is asked whether it is still there.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// Tells this process and the others what was committed.
#[derive(Debug)]
pub(crate) struct Announcer {
    hub: SignalHub,
    outbox: Arc<Outbox>,
    /// Where to listen; `None` where that is not possible.
    listening: Option<PgPool>,
    listener: Mutex<Option<AbortHandle>>,
    runtime: Handle,
}

/// Hints on their way to other processes.
#[derive(Debug)]
struct Outbox {
    database: Arc<Database>,
    /// Tells one's own hints from those of others.
    sender: String,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    hints: HashSet<String>,
    /// Whether a task is sending; there is one only while there is something to send.
    is_sending: bool,
}

impl Announcer {
    /// Announces through `database`, and listens on a connection of `listening`. Needs a runtime.
    pub(crate) fn new(database: Arc<Database>, listening: Option<PgPool>) -> Self {
        let sender = Uuid::new_v4().simple().to_string();
        let outbox = Arc::new(Outbox { database, sender, waiting: Mutex::default() });
        let (hub, listener) = (SignalHub::default(), Mutex::default());
        Self { hub, outbox, listening, listener, runtime: Handle::current() }
    }

    /// Announces what committed batches did.
    pub(crate) fn announce<'a>(&self, batches: impl Iterator<Item = &'a Batch>) {
        let signals: HashSet<String> = batches
            .flat_map(Signal::of)
            .map(|signal| {
                let hint = self.outbox.spell(&signal);
                self.hub.publish(signal);
                hint
            })
            .collect();
        if !signals.is_empty() && self.outbox.add(signals) {
            let outbox = Arc::clone(&self.outbox);
            self.runtime.spawn(async move { outbox.send_all().await });
        }
    }

    /// The hints from now on. The first who asks has the others listened to.
    pub(crate) fn subscribe(&self) -> Signals {
        let signals = self.hub.subscribe();
        if let Some(pool) = &self.listening {
            let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
            listener.get_or_insert_with(|| {
                let (pool, hub, outbox) = (pool.clone(), self.hub.clone(), &self.outbox);
                let (sender, clock) = (outbox.sender.clone(), Arc::clone(&outbox.database.clock));
                let channel = outbox.channel();
                let listen = async move { listen(&pool, &channel, &sender, &hub, &*clock).await };
                self.runtime.spawn(listen).abort_handle()
            });
        }
        signals
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get_mut().unwrap_or_else(PoisonError::into_inner) {
            listener.abort();
        }
    }
}

impl Outbox {
    fn channel(&self) -> String {
        format!("evenkeel_{}", self.database.schema.name())
    }

    /// A hint as it travels.
    fn spell(&self, signal: &Signal) -> String {
        let sender = &self.sender;
        match signal {
            Signal::Queue { at, queue } => format!("{sender}\tqueue\t{at}\t{queue}"),
            Signal::Log { at } => format!("{sender}\tlog\t{at}"),
            Signal::Missed => format!("{sender}\tmissed"),
        }
    }

    /// Adds to what is to be sent; whether a task has to be started for it.
    fn add(&self, hints: HashSet<String>) -> bool {
        let mut waiting = self.waiting();
        waiting.hints.extend(hints);
        if waiting.hints.len() > MAX_HINTS {
            waiting.hints = HashSet::from([self.spell(&Signal::Missed)]);
        }
        !std::mem::replace(&mut waiting.is_sending, true)
    }

    /// What is to be sent; with nothing, sending has ended.
    fn take(&self) -> Vec<String> {
        let mut waiting = self.waiting();
        waiting.is_sending = !waiting.hints.is_empty();
        waiting.hints.drain().collect()
    }

    async fn send_all(&self) {
        loop {
            let hints = self.take();
            if hints.is_empty() {
                return;
            }
            if let Err(error) = self.send(&hints).await {
                tracing::debug!(%error, "hints were lost");
            }
            self.database.clock.sleep(PAUSE).await;
        }
    }

    async fn send(&self, hints: &[String]) -> Result<()> {
        let channel = self.channel();
        let statement = || {
            self.database
                .statement(
                    "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, hint) FROM unnest($2) AS hint",
                )
                .bind(channel.as_str())
                .bind(hints)
        };
        self.database.write(statement, "sending hints").await.map(drop)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes what other processes announce, for ever; a lost connection is made again.
async fn listen(pool: &PgPool, channel: &str, sender: &str, hub: &SignalHub, clock: &dyn Clock) {
    let mut delay = MIN_DELAY;
    loop {
        match listen_once(pool, channel, sender, hub, clock).await {
            Ok(()) => delay = MIN_DELAY,
            Err(error) => {
                tracing::warn!(%error, ?delay, "listening for signals failed; they come late until it works");
                delay = MAX_DELAY.min(delay * 2);
            }
        }
        clock.sleep(delay.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}

/// Listens until the connection is lost, or fails where there never was one.
async fn listen_once(
    pool: &PgPool,
    channel: &str,
    sender: &str,
    hub: &SignalHub,
    clock: &dyn Clock,
) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    // Whatever was announced before was not heard.
    hub.publish(Signal::Missed);
    loop {
        let quiet_until = clock.now() + CHECK_EVERY;
        match clock.timeout_at(quiet_until, listener.try_recv()).await {
            Some(Ok(Some(notification))) => {
                if let Some(signal) = parse(notification.payload(), sender) {
                    hub.publish(signal);
                }
            }
            Some(lost) => {
                tracing::debug!(?lost, "the connection that listens for signals was lost");
                return Ok(());
            }
            None => {
                sqlx::raw_sql("SELECT 1").execute(&mut listener).await?;
            }
        }
    }
}

/// The hint of another process; `None` for one's own, and for what a later release may send.
fn parse(hint: &str, own: &str) -> Option<Signal> {
    let mut parts = hint.splitn(4, '\t');
    if parts.next() == Some(own) {
        return None;
    }
    match (parts.next()?, parts.next(), parts.next()) {
        ("queue", Some(at), Some(queue)) => {
            Some(Signal::Queue { at: parse_partition(at)?, queue: queue.to_owned() })
        }
        ("log", Some(at), None) => Some(Signal::Log { at: parse_partition(at)? }),
        ("missed", None, None) => Some(Signal::Missed),
        _ => None,
    }
}

fn parse_partition(at: &str) -> Option<Partition> {
    let (namespace, index) = at.rsplit_once('/')?;
    Some(Partition::new(Namespace::new(namespace).ok()?, index.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_understood_by_others_and_not_heard_by_oneself() {
        let at = Partition::new(Namespace::new("tenant-a").unwrap(), 3);
        let queue = Signal::Queue { at: at.clone(), queue: "with\ttab".into() };
        for (hint, signal) in [
            ("me\tqueue\ttenant-a/3\twith\ttab", Some(queue)),
            ("me\tlog\ttenant-a/3", Some(Signal::Log { at })),
            ("me\tmissed", Some(Signal::Missed)),
            ("me\tsomething new", None),
            ("me\tlog\tno partition", None),
            ("", None),
        ] {
            assert_eq!(parse(hint, "another"), signal, "{hint:?}");
            assert_eq!(parse(hint, "me"), None, "{hint:?}");
        }
    }
}
