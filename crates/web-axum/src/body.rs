use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;

/// A body that was read in part or in whole: the bytes at hand, then the rest, trailers included.
///
/// The services inside an [`IdempotencyLayer`](crate::IdempotencyLayer) see their requests with
/// this body, and its callers the responses.
pub struct Body<B> {
    head: Bytes,
    trailers: Option<HeaderMap>,
    rest: Option<Pin<Box<B>>>,
}

impl<B> Body<B> {
    pub(crate) fn whole(whole: Whole) -> Self {
        Self { head: whole.bytes, trailers: whole.trailers, rest: None }
    }

    pub(crate) fn untouched(body: B) -> Self {
        Self { head: Bytes::new(), trailers: None, rest: Some(Box::pin(body)) }
    }
}

impl<B> From<Bytes> for Body<B> {
    fn from(bytes: Bytes) -> Self {
        Self { head: bytes, trailers: None, rest: None }
    }
}

impl<B: http_body::Body<Data = Bytes>> http_body::Body for Body<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if !self.head.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.head)))));
        }
        if let Some(rest) = &mut self.rest {
            return rest.as_mut().poll_frame(cx);
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty()
            && self.trailers.is_none()
            && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let head = u64::try_from(self.head.len()).unwrap_or(u64::MAX);
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), |rest| rest.size_hint());
        let mut sum = SizeHint::new();
        sum.set_lower(rest.lower().saturating_add(head));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(head)) {
            sum.set_upper(upper);
        }
        sum
    }
}

impl<B> fmt::Debug for Body<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("head", &self.head.len())
            .field("rest", &self.rest.is_some())
            .finish_non_exhaustive()
    }
}

/// Everything that a body had.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

/// What reading up to a cap came to.
#[derive(Debug)]
pub(crate) enum Read<B> {
    Whole(Whole),
    TooLarge(Body<B>),
}

/// Reads a body of at most `cap` bytes. Of a larger one little more than that is read, and nothing
/// is lost.
pub(crate) async fn read<B: http_body::Body<Data = Bytes>>(body: B, cap: usize) -> Result<Read<B>, B::Error> {
    if body.is_end_stream() {
        return Ok(Read::Whole(Whole::default()));
    }
    let exceeds = |bytes: u64| usize::try_from(bytes).map_or(true, |bytes| bytes > cap);
    if exceeds(body.size_hint().lower()) {
        return Ok(Read::TooLarge(Body::untouched(body)));
    }
    let mut body = Box::pin(body);
    let mut read = Gathered::default();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                read.add(data);
                if read.len() > cap {
                    let head = read.into_bytes();
                    return Ok(Read::TooLarge(Body { head, trailers: None, rest: Some(body) }));
                }
            }
            Err(frame) => {
                let trailers = frame.into_trailers().ok();
                return Ok(Read::Whole(Whole { bytes: read.into_bytes(), trailers }));
            }
        }
    }
    Ok(Read::Whole(Whole { bytes: read.into_bytes(), trailers: None }))
}

/// Chunks put together; the usual single chunk is not copied.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    more: BytesMut,
}

impl Gathered {
    fn add(&mut self, data: Bytes) {
        if self.first.is_empty() && self.more.is_empty() {
            self.first = data;
        } else {
            if self.more.is_empty() {
                self.more.extend_from_slice(&std::mem::take(&mut self.first));
            }
            self.more.extend_from_slice(&data);
        }
    }

    fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }

    fn into_bytes(self) -> Bytes {
        if self.more.is_empty() { self.first } else { self.more.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http::HeaderValue;
    use http_body::Body as _;
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn chunks(chunks: &[&'static str]) -> impl http_body::Body<Data = Bytes, Error = Infallible> + use<> {
        let mut trailers = HeaderMap::new();
        trailers.insert("checksum", HeaderValue::from_static("7"));
        let frames: Vec<_> = chunks
            .iter()
            .map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes()))))
            .chain([Ok(Frame::trailers(trailers))])
            .collect();
        StreamBody::new(stream::iter(frames))
    }

    #[tokio::test]
    async fn a_body_read_whole_keeps_its_bytes_and_trailers() {
        let Ok(Read::Whole(whole)) = read(chunks(&["ab", "", "cd"]), 4).await else { panic!("fits") };
        assert_eq!(whole.bytes, "abcd");

        let again = Body::<Full<Bytes>>::whole(whole).collect().await.unwrap();
        assert_eq!(again.trailers().unwrap()["checksum"], "7");
        assert_eq!(again.to_bytes(), "abcd");
    }

    #[tokio::test]
    async fn a_larger_body_loses_nothing() {
        let Ok(Read::TooLarge(body)) = read(chunks(&["ab", "cd", "ef"]), 3).await else {
            panic!("too large")
        };
        assert!(!body.is_end_stream());
        let again = body.collect().await.unwrap();
        assert_eq!(again.trailers().unwrap()["checksum"], "7");
        assert_eq!(again.to_bytes(), "abcdef");
    }

    #[tokio::test]
    async fn a_body_that_announces_too_much_is_not_read() {
        let Ok(Read::TooLarge(body)) = read(Full::from("abcdef"), 3).await else { panic!("too large") };
        assert_eq!(body.size_hint().exact(), Some(6));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abcdef");
    }

    #[tokio::test]
    async fn an_empty_body_is_at_its_end() {
        let Ok(Read::Whole(whole)) = read(Full::<Bytes>::default(), 0).await else { panic!("fits") };
        let body = Body::<Full<Bytes>>::whole(whole);
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
    }
}
