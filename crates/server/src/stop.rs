use evenkeel::core::{Error, ErrorKind, Result};

/// What asks the program to end: SIGINT (Ctrl-C) and SIGTERM.
#[cfg(unix)]
pub(crate) fn requested() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let listen = |kind| {
        signal(kind).map_err(|source| {
            Error::new(ErrorKind::Unexpected, "the process cannot listen for signals").with_source(source)
        })
    };
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// What asks the program to end: Ctrl-C.
#[cfg(not(unix))]
pub(crate) fn requested() -> Result<impl Future<Output = ()>> {
    Ok(async {
        if let Err(source) = tokio::signal::ctrl_c().await {
            let error = Error::new(ErrorKind::Unexpected, "the process cannot listen for Ctrl-C");
            tracing::error!("{:?}", error.with_source(source));
            std::future::pending().await
        }
    })
}
