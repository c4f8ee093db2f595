use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

/// Polls a future in place; dropped before it is done, it is carried on in a task of its own.
///
/// A caller that goes away therefore undoes nothing, and one that stays pays for no task.
pub(crate) struct CarriedOn<T: Send + 'static> {
    future: Option<BoxFuture<'static, T>>,
}

impl<T: Send + 'static> CarriedOn<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self { future: Some(Box::pin(future)) }
    }
}

impl<T: Send + 'static> Future for CarriedOn<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Taken out while it is polled, so that one that panics is not polled again.
        let mut future = self.future.take().expect("a future is not polled after it is done");
        let poll = future.as_mut().poll(cx);
        if poll.is_pending() {
            self.future = Some(future);
        }
        poll
    }
}

impl<T: Send + 'static> Drop for CarriedOn<T> {
    fn drop(&mut self) {
        let Some(future) = self.future.take() else { return };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { drop(future.await) })),
            Err(_) => tracing::warn!("the runtime is gone: an operation in progress is left to its lease"),
        }
    }
}

impl<T: Send + 'static> fmt::Debug for CarriedOn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CarriedOn").field("done", &self.future.is_none()).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_dropped_midway_is_carried_on() {
        let (go, wait) = oneshot::channel();
        let (done, finished) = oneshot::channel();
        let mut carried = CarriedOn::new(async move {
            let _ = done.send(wait.await);
        });
        assert!((&mut carried).now_or_never().is_none());
        drop(carried);
        go.send(7).unwrap();
        assert_eq!(finished.await.unwrap(), Ok(7));
    }

    #[tokio::test]
    async fn what_is_done_is_not_carried_on() {
        let mut carried = CarriedOn::new(async { 7 });
        assert_eq!((&mut carried).await, 7);
        assert!(carried.future.is_none());
    }
}
