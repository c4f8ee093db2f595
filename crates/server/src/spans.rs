use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use evenkeel::core::{Error, ErrorKind, Result};
use evenkeel::flare::net::{AddressPolicy, Outgoing, Sender, Transport, target};
use http::{Request, Response};
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use tokio::runtime::Handle;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

/// Where a collector takes spans, below its address.
const PATH: &str = "/v1/traces";

/// How long the last spans may take to be sent.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// Spans on their way to an OpenTelemetry collector.
#[derive(Debug)]
pub(crate) struct Spans {
    provider: SdkTracerProvider,
}

impl Spans {
    /// To the collector at this address.
    ///
    /// # Errors
    /// `InvalidInput` where the address is none.
    pub(crate) fn to(collector: &str) -> Result<Self> {
        let endpoint = format!("{}{PATH}", collector.trim_end_matches('/'));
        target(&endpoint)?;
        // Whom an operator names may be anywhere.
        let everywhere = ["0.0.0.0/0", "::/0"].map(|all| all.parse().expect("all addresses are a network"));
        let policy = AddressPolicy { allow: everywhere.into() };
        let client = Client { sender: Sender::builder().policy(policy).build()?, runtime: Handle::current() };
        let exporter = SpanExporter::builder().with_http().with_endpoint(endpoint).with_http_client(client);
        let exporter = exporter.build().map_err(|source| {
            Error::new(ErrorKind::Config, "spans cannot be sent")
                .with("setting", "otlp-endpoint")
                .with("value", collector)
                .with_source(source)
        })?;
        let resource = Resource::builder().with_service_name("evenkeel").build();
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Self { provider })
    }

    pub(crate) fn layer<S>(&self) -> OpenTelemetryLayer<S, Tracer>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer("evenkeel"))
    }

    pub(crate) async fn close(self) {
        // It waits for a thread, which waits for this runtime.
        let closed = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(CLOSE_WITHIN));
        if let Ok(Err(error)) = closed.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the last spans were not sent");
        }
    }
}

/// Sends as webhooks are sent, so that the program has one way of doing it.
#[derive(Debug)]
struct Client {
    sender: Sender,
    /// The exporter has a thread of its own, and no runtime there.
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let outgoing = Outgoing { method: head.method, uri: head.uri, headers: head.headers, body };
        let sender = self.sender.clone();
        let reply = self.runtime.spawn(async move { sender.send(outgoing).await }).await??;
        Ok(Response::builder().status(reply.status).body(reply.body)?)
    }
}
