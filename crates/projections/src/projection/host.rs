use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Error, ErrorKind, Partition, Result, Timestamp, Transactional};
use futures_util::FutureExt;
use tokio::sync::{Notify, watch};

use super::apply::panic_text;
use super::drive::Stop;
use super::partition::{PartitionRun, Reached};
use super::share::{Held, Node};
use super::{Projection, may_pass};
use crate::Projector;
use crate::projector::Effects;

/// The waits after an error of the store, and where others were faster: the first ones, which
/// double, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const FIRST_OUTRUN: Duration = Duration::from_millis(2);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What runs one partition whenever this node holds it.
pub(super) struct Host<P, S> {
    pub(super) projection: Projection<P, S>,
    pub(super) node: Arc<Node<P, S>>,
    pub(super) at: Partition,
    pub(super) wake: Arc<Notify>,
    pub(super) closing: watch::Receiver<bool>,
}

/// Why a partition is let go.
#[derive(Debug)]
enum End {
    Shed,
    Lost,
    Closing,
}

/// When there is something to do again.
enum Next {
    Now,
    /// When something was appended, and at the next poll.
    Later,
    After(Duration),
}

impl<P: Projector<S::Conn>, S: Transactional + Clone> Host<P, S> {
    pub(super) async fn run(self) {
        let mut closing = self.closing.clone();
        let shared = &self.node.shared;
        while !*self.closing.borrow() {
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

    /// Works on the partition for as long as it is held: on the active version, on the one that is
    /// being built, and on what is to be compacted side by side, so that none waits for another.
    async fn hold(&self, mut held: Held) {
        let mut closing = self.closing.clone();
        let end = tokio::select! {
            () = Box::pin(self.serve()) => End::Shed,
            never = Box::pin(self.build()) => match never {},
            never = Box::pin(self.compact()) => match never {},
            () = self.keep(&mut held) => End::Lost,
            _ = closing.wait_for(|closing| *closing) => End::Closing,
        };
        tracing::debug!(projection = self.projection.name(), at = %self.at, ?end, "a partition is let go");
        if let End::Shed = end {
            held.is_shed();
        }
        self.node.give_back(held).await;
    }

    /// Extends the lease until it is lost.
    async fn keep(&self, held: &mut Held) {
        let shared = &self.node.shared;
        loop {
            shared.clock().sleep(shared.settings.lease / 3).await;
            match self.node.extend(held).await {
                Ok(()) => {}
                Err(error) if may_pass(&error) && shared.now() < held.until => {
                    tracing::warn!(%error, at = %held.at, "a lease could not be extended yet");
                }
                Err(_) => return,
            }
        }
    }

    /// Runs the active version until this node has more than its share.
    async fn serve(&self) {
        let shared = &self.node.shared;
        let mut version = Hosted::new(self, Effects::Live);
        while !self.node.sheds() {
            match version.advance().await {
                Next::Now => tokio::task::yield_now().await,
                Next::After(wait) => shared.clock().sleep(wait).await,
                Next::Later => tokio::select! {
                    () = self.wake.notified() => {}
                    () = shared.clock().sleep(shared.settings.poll) => {}
                },
            }
        }
    }

    /// Builds a version where one is wanted, and sees to it that it becomes the active one.
    async fn build(&self) -> Infallible {
        let shared = &self.node.shared;
        let mut version = Hosted::new(self, Effects::Silent);
        let (mut look, mut looked_at) = (None, Timestamp::MIN);
        let mut moves = shared.moves.subscribe();
        loop {
            let next = version.advance().await;
            let is_time = shared.now().since(looked_at) >= shared.settings.poll;
            if is_time && self.at == shared.operations.home() {
                looked_at = shared.now();
                look = self.look(look).await.unwrap_or_else(|error| {
                    tracing::debug!(%error, projection = shared.name(), "a new version is looked at later");
                    None
                });
            }
            match next {
                Next::Now => tokio::task::yield_now().await,
                Next::After(wait) => shared.clock().sleep(wait).await,
                // What it follows is the active version, not the log.
                Next::Later if version.run.is_some() => tokio::select! {
                    _ = moves.changed() => {}
                    () = shared.clock().sleep(shared.settings.poll) => {}
                },
                Next::Later => shared.clock().sleep(shared.settings.poll).await,
            }
        }
    }

    /// Makes the version that is being built the active one where it has come to where that was at
    /// the last look; otherwise looks again.
    async fn look(&self, last: Option<Look>) -> Result<Option<Look>> {
        let control = self.node.control().await?;
        let Some(version) = control.building.filter(|_| !control.paused) else { return Ok(None) };
        if let Some(last) = last.filter(|last| last.version == version) {
            let built = self.projection.positions(version).await?;
            if built.iter().zip(&last.active).all(|(built, active)| built >= active) {
                self.node.forget_control().await;
                self.projection.activate(version).await?;
                return Ok(None);
            }
        }
        Ok(Some(Look { version, active: self.projection.positions(control.active).await? }))
    }
}

/// Where the active version was in each partition while another was being built.
struct Look {
    version: u32,
    active: Vec<u64>,
}

/// A version on a host; which one is said by what is to run.
struct Hosted<'a, P: Projector<S::Conn>, S: Transactional> {
    host: &'a Host<P, S>,
    effects: Effects,
    run: Option<PartitionRun<P, S>>,
    failures: u32,
}

impl<'a, P: Projector<S::Conn>, S: Transactional + Clone> Hosted<'a, P, S> {
    fn new(host: &'a Host<P, S>, effects: Effects) -> Self {
        Self { host, effects, run: None, failures: 0 }
    }

    /// Applies a window.
    async fn advance(&mut self) -> Next {
        let advanced = AssertUnwindSafe(self.try_advance()).catch_unwind().await;
        let error = match advanced {
            Ok(Ok(next)) => {
                self.failures = 0;
                return next;
            }
            Ok(Err(error)) => error,
            Err(panic) => Error::new(ErrorKind::Unexpected, "a panic").with("panic", panic_text(&*panic)),
        };
        self.run = None;
        self.host.node.forget_control().await;
        let first = if error.kind() == ErrorKind::Conflict {
            FIRST_OUTRUN
        } else {
            let (at, projection) = (&self.host.at, self.host.projection.name());
            tracing::warn!(%error, %at, projection, effects = ?self.effects, "a pass over the log failed");
            FIRST_WAIT
        };
        let wait = first * (1 << self.failures);
        self.failures = (self.failures + 1).min(10);
        Next::After(wait.min(LONGEST_WAIT))
    }

    async fn try_advance(&mut self) -> Result<Next> {
        let Host { projection, node, at, .. } = self.host;
        let (shared, control) = (&node.shared, node.control().await?);
        let version = match self.effects {
            Effects::Live => Some(control.active),
            Effects::Silent => control.building,
        };
        let Some(version) = version.filter(|_| !control.paused) else {
            self.run = None;
            return Ok(Next::Later);
        };
        let until = match self.effects {
            Effects::Live => u64::MAX,
            Effects::Silent => shared.operations.stored_position(at, control.active).await?.position,
        };
        let run = match &mut self.run {
            Some(run) if run.version == version => run,
            run => {
                projection.initialise(version).await?;
                run.insert(PartitionRun::open(shared, at.clone(), version, self.effects).await?)
            }
        };
        if run.has_stopped() {
            // Until somebody clears the mark, or moves the position past the event.
            let stored = shared.operations.stored_position(at, version).await?;
            if stored.failed.is_some() {
                return Ok(Next::Later);
            }
            self.run = None;
            return Ok(Next::Now);
        }
        match run.window(until).await {
            Ok(Reached::More) => Ok(Next::Now),
            Ok(Reached::End) | Err(Stop::Failed(_)) => Ok(Next::Later),
            Err(Stop::Store(error)) => Err(error),
        }
    }
}
