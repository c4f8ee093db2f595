use std::collections::HashSet;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    AGE, CONNECTION, CONTENT_LENGTH, DATE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SERVER, SET_COOKIE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, response};

use crate::headers::REPLAYED;
use crate::settings::Cookies;

/// How answers are kept: a head as in HTTP/1 (a line with the format's version and the status, a
/// line for each header), an empty line, and the body's bytes. Header values have no line breaks,
/// so nothing needs escaping, and an answer in text is stored as text.
const VERSION: &[u8] = b"1 ";

/// The form in which an answer is kept; what belongs to the connection or the moment is left out.
pub(crate) fn encode(parts: &response::Parts, body: &[u8], cookies: Cookies) -> Bytes {
    let mut stored = BytesMut::with_capacity(256 + body.len());
    stored.put_slice(VERSION);
    stored.put_slice(parts.status.as_str().as_bytes());
    stored.put_u8(b'\n');
    let named_by_connection = connection_options(&parts.headers);
    for (name, value) in &parts.headers {
        let cookie = name == SET_COOKIE && cookies == Cookies::Drop;
        if cookie || is_transient(name) || named_by_connection.contains(name) {
            continue;
        }
        stored.put_slice(name.as_str().as_bytes());
        stored.put_slice(b": ");
        stored.put_slice(value.as_bytes());
        stored.put_u8(b'\n');
    }
    stored.put_u8(b'\n');
    stored.put_slice(body);
    stored.freeze()
}

/// The response that an answer was stored from, marked as a replay; `None` where the bytes are not
/// a stored answer.
pub(crate) fn replay<B: From<Bytes>>(stored: &Bytes) -> Option<Response<B>> {
    let mut lines = Lines { rest: stored.clone() };
    let status = lines.next()?;
    let status = StatusCode::from_bytes(status.strip_prefix(VERSION)?).ok()?;
    let mut headers = HeaderMap::new();
    loop {
        let line = lines.next()?;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = line.slice(colon + 1..);
        let value = value.strip_prefix(b" ").map(|value| line.slice_ref(value))?;
        headers.append(
            HeaderName::from_bytes(&line[..colon]).ok()?,
            HeaderValue::from_maybe_shared(value).ok()?,
        );
    }
    let body = lines.rest;
    let bodiless = status.is_informational() || matches!(status.as_u16(), 204 | 304);
    if !bodiless {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    let mut response = Response::new(B::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Some(response)
}

struct Lines {
    rest: Bytes,
}

impl Lines {
    fn next(&mut self) -> Option<Bytes> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let line = self.rest.split_to(end);
        self.rest = self.rest.slice(1..);
        Some(line)
    }
}

/// Headers of the connection (RFC 9110, 7.6.1), of the moment, and the length, which follows from
/// the body.
fn is_transient(name: &HeaderName) -> bool {
    const OF_THE_CONNECTION: [HeaderName; 7] =
        [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    const OF_THE_MOMENT: [HeaderName; 4] = [AGE, CONTENT_LENGTH, DATE, SERVER];
    OF_THE_CONNECTION.contains(name)
        || OF_THE_MOMENT.contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
        || *name == REPLAYED
}

fn connection_options(headers: &HeaderMap) -> HashSet<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(status: u16, headers: &[(&str, &[u8])]) -> response::Parts {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, HeaderValue::from_bytes(value).unwrap());
        }
        response.body(()).unwrap().into_parts().0
    }

    #[test]
    fn status_headers_and_body_come_back_byte_for_byte() {
        let parts = parts(
            201,
            &[
                ("content-type", b"application/json"),
                ("x-many", b"one"),
                ("x-many", b" two: spaced "),
                ("x-latin", b"caf\xe9\xff"),
                ("x-empty", b""),
            ],
        );
        let body = b"\n\n{\"a\": 1}\n\0\xff";
        let replayed: Response<Bytes> = replay(&encode(&parts, body, Cookies::Drop)).unwrap();
        assert_eq!(replayed.status(), 201);
        assert_eq!(replayed.body(), &body[..]);
        assert_eq!(replayed.headers()["idempotent-replayed"], "true");
        assert_eq!(replayed.headers()["content-length"], body.len().to_string());
        let values =
            |name| replayed.headers().get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
        assert_eq!(values("x-many"), [&b"one"[..], b" two: spaced "]);
        assert_eq!(values("x-latin"), [b"caf\xe9\xff"]);
        assert_eq!(values("x-empty"), [b""]);
        assert_eq!(values("content-type"), [b"application/json"]);
    }

    #[test]
    fn what_belongs_to_the_connection_or_the_moment_is_left_out() {
        let transient: &[(&str, &[u8])] = &[
            ("connection", b"close, X-Hop"),
            ("x-hop", b"1"),
            ("keep-alive", b"timeout=5"),
            ("proxy-connection", b"close"),
            ("proxy-authenticate", b"Basic"),
            ("te", b"trailers"),
            ("trailer", b"x"),
            ("transfer-encoding", b"chunked"),
            ("upgrade", b"h2c"),
            ("date", b"now"),
            ("server", b"s"),
            ("age", b"7"),
            ("content-length", b"999"),
            ("set-cookie", b"session=1"),
        ];
        let stored = encode(&parts(200, transient), b"ab", Cookies::Drop);
        assert_eq!(stored, "1 200\n\nab");
        let replayed: Response<Bytes> = replay(&stored).unwrap();
        assert_eq!(replayed.headers()["content-length"], "2");
    }

    #[test]
    fn cookies_are_replayed_on_request_only() {
        let parts = parts(200, &[("set-cookie", b"a=1"), ("set-cookie", b"b=2")]);
        let replayed: Response<Bytes> = replay(&encode(&parts, b"", Cookies::Replay)).unwrap();
        assert_eq!(replayed.headers().get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn an_answer_that_has_no_body_has_no_length() {
        let replayed: Response<Bytes> = replay(&encode(&parts(204, &[]), b"", Cookies::Drop)).unwrap();
        assert!(!replayed.headers().contains_key("content-length"));
    }

    #[test]
    fn bytes_that_are_no_answer_are_refused() {
        for bad in [
            "",
            "1 200",
            "1 200\n",
            "2 200\n\n",
            "1 abc\n\n",
            "1 200\nno-colon\n\n",
            "1 200\na:b\n\n",
            "1 200\na b: c\n\n",
            "1 200\na: b",
        ] {
            assert!(replay::<Bytes>(&Bytes::from(bad)).is_none(), "{bad:?}");
        }
    }
}
