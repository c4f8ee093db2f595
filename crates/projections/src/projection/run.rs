use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{ErrorKind, Partition, Result, Signal, Signals, StoreExt, Timestamp, Transactional};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::drive::Stop;
use super::partition::PartitionRun;
use super::share::{Held, Node};
use super::{Projection, Shared, may_pass};
use crate::Projector;
use crate::control::Control;
use crate::projector::Effects;

/// The longest wait after an error of the store.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

impl<P: Projector<S::Conn>, S: Transactional + Clone> Projection<P, S> {
    /// Applies events as they are appended, until `shutdown` completes. Builds a
    /// [new version](Self::start_rebuild) beside the active one where that was asked for.
    ///
    /// Any number of nodes share the partitions among them. Those of a node that dies are taken
    /// over when its lease runs out.
    ///
    /// Dropping the future stops at once; nothing is lost.
    ///
    /// # Errors
    /// `Config` where its settings do not go together. Errors of the store are logged and waited
    /// out, and where a handler fails for good the partition stands still until it is
    /// [resumed](crate::Operations::resume).
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        self.check()?;
        let partitions = self.shared.store().partitions();
        // Subscribed before the first look, so that nothing falls between.
        let signals = self.shared.store().signals();
        let wakes: HashMap<Partition, Arc<Notify>> =
            partitions.iter().map(|at| (at.clone(), Arc::default())).collect();
        let closing = watch::Sender::new(false);
        let node = Arc::new(Node::new(&self.shared));
        // Before partitions are taken, since without it there is no share to take.
        report(&node).await;
        let mut work = JoinSet::new();
        for (at, wake) in wakes.clone() {
            let host = Host {
                projection: self.clone(),
                node: Arc::clone(&node),
                at,
                wake,
                closing: closing.subscribe(),
                control: None,
                active: None,
            };
            work.spawn(host.run());
        }
        let background = async {
            tokio::join!(listen(signals, &wakes), report_again(&node));
        };
        tokio::select! {
            () = shutdown => {}
            () = background => {}
        }
        closing.send_replace(true);
        while work.join_next().await.is_some() {}
        if let Err(error) = node.leave().await {
            tracing::debug!(%error, "a node left without saying so; it is missed when its record expires");
        }
        Ok(())
    }
}

/// Passes the store's hints on to the partitions they concern.
async fn listen(mut signals: Signals, wakes: &HashMap<Partition, Arc<Notify>>) {
    loop {
        match signals.next().await {
            Signal::Log { at } => wakes.get(&at).into_iter().for_each(|wake| wake.notify_one()),
            Signal::Queue { .. } => {}
            Signal::Missed => wakes.values().for_each(|wake| wake.notify_one()),
        }
    }
}

async fn report_again<P: Projector<S::Conn>, S: Transactional + Clone>(node: &Node<P, S>) {
    loop {
        node.shared.clock().sleep(node.shared.settings.lease / 3).await;
        report(node).await;
    }
}

async fn report<P: Projector<S::Conn>, S: Transactional + Clone>(node: &Node<P, S>) {
    if let Err(error) = node.report().await {
        tracing::warn!(%error, projection = node.shared.name(), "a node could not say that it is there");
    }
}

/// What runs one partition whenever this node holds it.
struct Host<P: Projector<S::Conn>, S: Transactional> {
    projection: Projection<P, S>,
    node: Arc<Node<P, S>>,
    at: Partition,
    wake: Arc<Notify>,
    closing: watch::Receiver<bool>,
    /// What is to run, and when that was read.
    control: Option<(Control, Timestamp)>,
    active: Option<PartitionRun<P, S>>,
}

impl<P: Projector<S::Conn>, S: Transactional + Clone> Host<P, S> {
    async fn run(mut self) {
        let mut closing = self.closing.clone();
        while !*self.closing.borrow() {
            let shared = Arc::clone(&self.node.shared);
            let next = match self.node.take(&self.at).await {
                Ok(Ok(held)) => {
                    self.hold(held).await;
                    continue;
                }
                Ok(Err(free_at)) => {
                    free_at.unwrap_or(Timestamp::MAX).min(shared.now() + shared.settings.poll)
                }
                Err(error) => {
                    tracing::warn!(%error, at = %self.at, "a partition could not be taken");
                    shared.now() + shared.settings.poll
                }
            };
            tokio::select! {
                () = shared.clock().sleep_until(next.max(shared.now() + Duration::from_millis(10))) => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        }
    }

    /// Works on the partition for as long as it is held.
    async fn hold(&mut self, mut held: Held) {
        let node = Arc::clone(&self.node);
        let mut closing = self.closing.clone();
        let end = tokio::select! {
            () = self.work() => "done",
            () = keep(&node, &mut held) => "lost",
            _ = closing.wait_for(|closing| *closing) => "closing",
        };
        tracing::debug!(projection = node.shared.name(), at = %self.at, end, "a partition is let go");
        self.active = None;
        node.give_back(held).await;
    }

    /// Works on the partition until this node has more than its share.
    async fn work(&mut self) {
        let shared = Arc::clone(&self.node.shared);
        let mut trouble = 0_u32;
        while !self.node.has_too_much() {
            match self.round(&shared).await {
                Ok(()) => trouble = 0,
                Err(error) => {
                    (self.active, self.control) = (None, None);
                    let is_outrun = error.kind() == ErrorKind::Conflict;
                    if !is_outrun {
                        tracing::warn!(%error, at = %self.at, projection = shared.name(), "a pass over the log failed");
                    }
                    trouble = (trouble + 1).min(10);
                    let wait = Duration::from_millis(if is_outrun { 1 } else { 10 } << trouble);
                    shared.clock().sleep(wait.min(LONGEST_WAIT)).await;
                    continue;
                }
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = shared.clock().sleep(shared.settings.poll) => {}
            }
        }
    }

    async fn round(&mut self, shared: &Arc<Shared<P, S>>) -> Result<()> {
        let control = self.control(shared).await?;
        if control.paused {
            self.active = None;
            return Ok(());
        }
        if let Some(version) = control.building {
            self.projection.build_partition(&self.at, version).await?;
            if self.at == shared.operations.home() {
                self.projection.activate_where_caught_up(version).await?;
            }
        }
        if self.active.is_none() {
            self.projection.initialise(control.active).await?;
            let run = PartitionRun::open(shared, self.at.clone(), control.active, Effects::Live).await?;
            self.active = Some(run);
        }
        let run = self.active.as_mut().expect("it was opened above where it was not");
        if run.has_stopped() {
            // Until somebody clears the mark, or moves the position past the event.
            let stored = shared.operations.stored_position(&self.at, control.active).await?;
            if stored.failed.is_none() {
                self.active = None;
                self.wake.notify_one();
            }
            return Ok(());
        }
        match run.pass(u64::MAX).await {
            Ok(_) | Err(Stop::Failed(_)) => Ok(()),
            Err(Stop::Store(error)) => Err(error),
        }
    }

    /// What is to run, as of the last poll.
    async fn control(&mut self, shared: &Shared<P, S>) -> Result<Control> {
        let now = shared.now();
        if let Some((control, read_at)) = &self.control
            && now.since(*read_at) < shared.settings.poll
        {
            return Ok(control.clone());
        }
        let control = shared.operations.control().await?;
        if self.control.as_ref().is_none_or(|(known, _)| known.active != control.active) {
            self.active = None;
        }
        self.control = Some((control.clone(), now));
        Ok(control)
    }
}

/// Extends a lease until it is lost.
async fn keep<P: Projector<S::Conn>, S: Transactional + Clone>(node: &Node<P, S>, held: &mut Held) {
    let shared = &node.shared;
    loop {
        shared.clock().sleep(shared.settings.lease / 3).await;
        match node.extend(held).await {
            Ok(()) => {}
            Err(error) if may_pass(&error) && shared.now() < held.until => {
                tracing::warn!(%error, at = %held.at, "a lease could not be extended yet");
            }
            Err(_) => return,
        }
    }
}
