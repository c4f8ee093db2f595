use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use evenkeel::core::layer::Trace;
use evenkeel::core::{AnyStore, Clock, Error, ErrorKind, Result, StoreExt, SystemClock};
use evenkeel::flare::net::{AddressPolicy, Sender};
use evenkeel::flare::{Flare, Worker};
use evenkeel::idempotency::Idempotency;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::settings::Settings;
use crate::{http, listener, metrics};

/// A server that has its store and its address, and works once it is [run](Self::run).
pub(crate) struct Server {
    settings: Settings,
    clock: Arc<dyn Clock>,
    listener: TcpListener,
    address: SocketAddr,
    app: Router,
    worker: Worker,
    idempotency: Idempotency<AnyStore>,
    metrics: PrometheusHandle,
    stopping: watch::Sender<bool>,
}

impl Server {
    /// # Errors
    /// Those of the store; `Config` where the address cannot be listened on.
    pub(crate) async fn start(settings: Settings, metrics: PrometheusHandle) -> Result<Self> {
        let clock = SystemClock::shared();
        let store = evenkeel::open(&settings.store).await?.layer(Trace::default()).any();
        let flare = Flare::new(store.clone()).vault(settings.vault()?);
        let idempotency = Idempotency::new(store);

        let policy = AddressPolicy { allow: settings.allow_target.clone() };
        let sender = Sender::builder().policy(policy).build()?;
        let worker = flare.worker(sender.clone());
        let worker = worker.concurrency(settings.concurrency).lease(settings.lease.0);

        let unheard = |source| {
            Error::new(ErrorKind::Config, "the address cannot be listened on")
                .with("setting", "listen")
                .with("value", settings.listen)
                .with_source(source)
        };
        let listener = TcpListener::bind(settings.listen).await.map_err(unheard)?;
        let address = listener.local_addr().map_err(unheard)?;
        let stopping = watch::Sender::new(false);
        let app = http::app(
            &settings,
            flare,
            sender,
            idempotency.clone(),
            metrics.clone(),
            Arc::clone(&clock),
            stopped(&stopping),
        );
        Ok(Self { settings, clock, listener, address, app, worker, idempotency, metrics, stopping })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers and delivers until `stop` completes, and then ends what is under way, at most for the
    /// grace that the settings give.
    ///
    /// Dropping the future stops deliveries at once; they are made again by whoever leases them next.
    ///
    /// # Errors
    /// `Unexpected` where a part of it broke down, so that it had to end unasked.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) -> Result<()> {
        let stopped = || stopped(&self.stopping);
        let mut upkeep = JoinSet::new();
        upkeep.spawn(metrics::sum_up(self.metrics, Arc::clone(&self.clock)));
        let mut work = JoinSet::new();
        work.spawn(listener::listen(self.listener, self.app, Arc::clone(&self.clock), stopped()));
        work.spawn(self.worker.run(stopped()));
        work.spawn(self.idempotency.maintenance().run(stopped()));

        let ended = tokio::select! {
            () = stop => Ok(()),
            // None of them ends by itself.
            broken = work.join_next() => Err(broken.and_then(Result::err)),
        };
        tracing::info!("stopping");
        self.stopping.send_replace(true);
        let grace = self.settings.shutdown_grace;
        let drained = async { while work.join_next().await.is_some() {} };
        if self.clock.timeout_at(self.clock.now() + grace.0, drained).await.is_none() {
            tracing::warn!("not everything that was under way ended within {grace}: it is cut off");
        }
        ended.map_err(|panicked| {
            let error = Error::new(ErrorKind::Unexpected, "a part of the server broke down");
            match panicked {
                Some(panicked) => error.with_source(panicked),
                None => error,
            }
        })
    }
}

/// Completes when the server is asked to end.
fn stopped(stopping: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + use<> {
    let mut stopping = stopping.subscribe();
    async move {
        // The sender is gone only where nobody waits any more.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}
