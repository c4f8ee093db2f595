use std::io::IsTerminal;

use evenkeel::core::{Error, ErrorKind, Result};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::settings::{LogFormat, Settings};

/// Where what is said of the server's work goes; what is under way to others is sent when it is
/// [closed](Self::close).
pub(crate) struct Logs {
    #[cfg(feature = "otlp")]
    spans: Option<crate::spans::Spans>,
}

/// Writes logs to standard error and sends spans to a collector, as the settings say.
///
/// # Errors
/// `Config` or `InvalidInput` where a setting is none; `Unexpected` where logs go elsewhere already.
pub(crate) fn install(settings: &Settings) -> Result<Logs> {
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match settings.log_format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let registry = tracing_subscriber::registry().with(lines.with_filter(settings.log_targets()?));

    #[cfg(feature = "otlp")]
    let spans = settings.otlp_endpoint.as_deref().map(crate::spans::Spans::to).transpose()?;
    #[cfg(feature = "otlp")]
    let targets = settings.log_targets()?;
    #[cfg(feature = "otlp")]
    let registry = registry.with(spans.as_ref().map(|spans| spans.layer().with_filter(targets)));

    registry.try_init().map_err(|source| {
        Error::new(ErrorKind::Unexpected, "logs are written elsewhere already").with_source(source)
    })?;
    Ok(Logs {
        #[cfg(feature = "otlp")]
        spans,
    })
}

impl Logs {
    /// Sends what is not sent yet, if that can be done in a few seconds.
    #[cfg_attr(not(feature = "otlp"), expect(clippy::unused_async, reason = "there is nothing to send"))]
    pub(crate) async fn close(self) {
        #[cfg(feature = "otlp")]
        if let Some(spans) = self.spans {
            spans.close().await;
        }
    }
}
