//! Hints from other processes, over sharded pub/sub: each partition has a channel, in its slot.
//!
//! A commit publishes from within its script. Who listens subscribes on connections of its own, and
//! again whenever one is lost; what was published in between is summed up as [`Signal::Missed`].

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_core::{Batch, Clock, ErrorKind, Namespace, Partition, Result, Signal, SignalHub};
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisError, Value};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::error::parse_redis_error;
use crate::keys::Tag;
use crate::servers::Servers;

/// How long to wait after a first failure, and after many.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// Writes what a batch's commit publishes; nothing where there is nothing to say.
pub(crate) fn hint(batch: &Batch, to: &mut Vec<u8>) {
    for signal in Signal::of(batch) {
        match signal {
            Signal::Queue { queue, .. } => {
                to.push(b'q');
                to.extend_from_slice(queue.as_bytes());
                to.push(0);
            }
            Signal::Log { .. } => to.extend_from_slice(b"l\0"),
            Signal::Missed => {}
        }
    }
}

/// Reads what was published: the sender, then hints.
fn signals(at: &Partition, sender: Uuid, message: &[u8]) -> Vec<Signal> {
    let Some((from, hints)) = message.split_at_checked(16) else { return vec![Signal::Missed] };
    if from == sender.as_bytes() {
        // Its own hints it has already.
        return Vec::new();
    }
    let signal = |hint: &[u8]| match hint.split_first() {
        Some((b'q', queue)) => {
            Some(Signal::Queue { at: at.clone(), queue: String::from_utf8_lossy(queue).into_owned() })
        }
        Some((b'l', _)) => Some(Signal::Log { at: at.clone() }),
        // A newer evenkeel may hint at more.
        Some(_) => Some(Signal::Missed),
        None => None,
    };
    hints.split(|byte| *byte == 0).filter_map(signal).collect()
}

/// Subscribes to the channels of the namespaces that somebody listens to; ends when dropped.
pub(crate) struct Listening {
    wanted: watch::Sender<BTreeSet<Namespace>>,
    runtime: Handle,
    listener: Arc<Listener>,
    task: Mutex<Option<AbortHandle>>,
}

/// What the listening task needs.
pub(crate) struct Listener {
    pub(crate) servers: Arc<Servers>,
    pub(crate) prefix: Arc<str>,
    pub(crate) partitions: u32,
    pub(crate) sender: Uuid,
    pub(crate) signals: SignalHub,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Listening {
    /// Listens to nothing yet. The task will be on the current runtime.
    pub(crate) fn new(listener: Listener) -> Self {
        let runtime = Handle::current();
        Self {
            wanted: watch::Sender::default(),
            runtime,
            listener: Arc::new(listener),
            task: Mutex::default(),
        }
    }

    /// Listens to a namespace from now on.
    pub(crate) fn to(&self, namespace: &Namespace) {
        self.wanted.send_if_modified(|wanted| wanted.insert(namespace.clone()));
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.is_none() {
            let (listener, wanted) = (Arc::clone(&self.listener), self.wanted.subscribe());
            *task = Some(self.runtime.spawn(async move { listener.run(wanted).await }).abort_handle());
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").field("wanted", &*self.wanted.borrow()).finish_non_exhaustive()
    }
}

/// The connections of a listener, by the address of their server, and the channels on each.
struct Lines {
    by_server: HashMap<String, Line>,
    pushed: mpsc::UnboundedSender<(String, PushInfo)>,
}

struct Line {
    connection: MultiplexedConnection,
    channels: HashMap<String, Partition>,
}

impl Listener {
    async fn run(&self, mut wanted: watch::Receiver<BTreeSet<Namespace>>) {
        let (sender, mut pushed) = mpsc::unbounded_channel();
        let mut lines = Lines { by_server: HashMap::new(), pushed: sender };
        let mut pause = BACK_OFF.0;
        loop {
            let namespaces = wanted.borrow_and_update().clone();
            let complete = self.subscribe(&mut lines, &namespaces).await;
            let again = match &complete {
                Ok(()) => {
                    pause = BACK_OFF.0;
                    None
                }
                Err(error) => {
                    tracing::debug!(%error, ?pause, "hints from other processes are missing");
                    let again = self.clock.sleep(pause);
                    pause = (pause * 2).min(BACK_OFF.1);
                    Some(again)
                }
            };
            let again = async move {
                match again {
                    Some(again) => again.await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(again);
            let mut changed = false;
            while !changed {
                tokio::select! {
                    push = pushed.recv() => match push {
                        Some((server, push)) => changed = self.take(&mut lines, &server, &push),
                        None => return,
                    },
                    more = wanted.changed() => match more {
                        Ok(()) => changed = true,
                        Err(_) => return,
                    },
                    () = &mut again => changed = true,
                }
            }
        }
    }

    /// Subscribes to what is missing.
    async fn subscribe(&self, lines: &mut Lines, namespaces: &BTreeSet<Namespace>) -> Result<()> {
        let mut is_new = false;
        for namespace in namespaces {
            for index in 0..self.partitions {
                let at = Partition::new(namespace.clone(), index);
                let tag = Tag::new(&self.prefix, &at);
                if lines.by_server.values().any(|line| line.channels.contains_key(tag.channel())) {
                    continue;
                }
                if let Err(error) = self.subscribe_to(lines, &tag, at).await {
                    self.servers.look_around().await?;
                    return Err(error);
                }
                is_new = true;
            }
        }
        if is_new {
            self.signals.publish(Signal::Missed);
        }
        Ok(())
    }

    async fn subscribe_to(&self, lines: &mut Lines, tag: &Tag, at: Partition) -> Result<()> {
        let server = self.servers.of_slot(tag.slot())?;
        let address = server.address().to_string();
        if !lines.by_server.contains_key(&address) {
            let (pushed, from) = (lines.pushed.clone(), address.clone());
            // Nobody receives what comes once the task has ended.
            let hand_on = move |push| drop(pushed.send((from.clone(), push)));
            let connection = server.listen(hand_on).await?;
            lines.by_server.insert(address.clone(), Line { connection, channels: HashMap::new() });
        }
        let line = lines.by_server.get_mut(&address).expect("the connection was just made");
        let subscribe = redis::cmd("SSUBSCRIBE").arg(tag.channel()).take();
        let refused = |error: RedisError| {
            parse_redis_error(error, ErrorKind::Unavailable, "listening").with("server", &address)
        };
        match line.connection.send_packed_command(&subscribe).await {
            Ok(Value::ServerError(error)) => Err(refused(error.into())),
            Ok(_) => {
                line.channels.insert(tag.channel().to_owned(), at);
                Ok(())
            }
            Err(error) => {
                lines.by_server.remove(&address);
                Err(refused(error))
            }
        }
    }

    /// Publishes what a server pushed; whether there is something to subscribe to again.
    fn take(&self, lines: &mut Lines, server: &str, push: &PushInfo) -> bool {
        match push.kind {
            PushKind::Disconnection => lines.by_server.remove(server).is_some(),
            PushKind::SUnsubscribe => {
                // The channel's slot goes to another server.
                let channel = first(push);
                lines.by_server.get_mut(server).is_some_and(|line| line.channels.remove(&channel).is_some())
            }
            PushKind::SMessage => {
                let at = lines.by_server.get(server).and_then(|line| line.channels.get(&first(push)));
                if let (Some(at), [_, Value::BulkString(message)]) = (at, &push.data[..]) {
                    let signals = signals(at, self.sender, message);
                    signals.into_iter().for_each(|signal| self.signals.publish(signal));
                }
                false
            }
            _ => false,
        }
    }
}

/// The channel of a push.
fn first(push: &PushInfo) -> String {
    match push.data.first() {
        Some(Value::BulkString(channel)) => String::from_utf8_lossy(channel).into_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::{Merge, NewEvent, Timestamp};

    use super::*;

    #[test]
    fn what_a_batch_hints_at_is_understood_by_others_and_ignored_by_oneself() {
        let at = Partition::new(Namespace::default(), 3);
        let now = Timestamp::EPOCH;
        let mut batch = Batch::new(at.clone(), now);
        for (queue, id) in [("b", "1"), ("a", "1"), ("a", "2")] {
            batch.push(queue, id, now, "", Merge::Keep);
        }
        batch.append_any("s", [NewEvent::new("E", "", now)]);
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut message = one.as_bytes().to_vec();
        hint(&batch, &mut message);
        assert_eq!(signals(&at, other, &message), Signal::of(&batch));
        assert_eq!(signals(&at, one, &message), []);
    }
}
