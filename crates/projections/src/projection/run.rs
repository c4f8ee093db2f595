use std::collections::HashMap;
use std::sync::Arc;

use evenkeel_core::{Partition, Result, Signal, Signals, StoreExt, Transactional};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};

use super::Projection;
use super::host::Host;
use super::share::Node;
use crate::Projector;

impl<P: Projector<S::Conn>, S: Transactional + Clone> Projection<P, S> {
    /// Applies events as they are appended, until `shutdown` completes. Builds a
    /// [new version](crate::Operations::start_rebuild) beside the active one where that was asked for.
    ///
    /// Any number of nodes share the partitions among them. Those of a node that dies are taken
    /// over when its lease runs out.
    ///
    /// Dropping the future stops at once; nothing is lost.
    ///
    /// # Errors
    /// `Config` where its settings do not go together, `InvalidInput` for its name. Errors of the
    /// store and panics are logged and waited out, and where a handler fails for good the partition
    /// stands still until it is [resumed](crate::Operations::resume).
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
            };
            work.spawn(host.run());
        }
        tokio::select! {
            () = shutdown => {}
            () = listen(signals, &wakes) => {}
            () = report_again(&node) => {}
            Some(ended) = work.join_next() => pass_on(ended),
        }
        closing.send_replace(true);
        while let Some(ended) = work.join_next().await {
            pass_on(ended);
        }
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

/// Panics where a task has, which no partition is to be lost by unnoticed.
fn pass_on(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}
