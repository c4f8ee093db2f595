use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use evenkeel::axum::Problem;
use evenkeel::axum::access::{Scope, Scopes};
use evenkeel::core::{Error, ErrorKind, Result};
use http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Uri, request};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// What tokens begin with, so that whoever finds one knows what it is.
const MARK: &str = "evk_";

/// What is open to everybody: whether the server is up, and how it is used.
const OPEN: [&str; 5] = ["/", "/health", "/ready", "/openapi.json", "/docs"];

/// A caller, and what it may do: `NAME:SCOPE+SCOPE:SHA256`.
///
/// The token itself is kept by the caller alone. Here is its SHA-256, which is enough: a token is 32
/// random bytes, so that there is no list of likely ones that a slow hash would protect it from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Token {
    name: String,
    scopes: Scopes,
    sha256: [u8; 32],
}

/// Who calls, among the extensions of a request that came with a token.
#[derive(Clone, Debug)]
struct Caller(Arc<str>);

impl Token {
    /// A new token, and the text that its caller shows.
    ///
    /// # Errors
    /// `InvalidInput` where the name or the scopes, with `+` or `,` between, are none.
    pub(crate) fn generate(name: &str, scopes: &str) -> Result<(Self, String)> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).expect("the operating system has random bytes");
        let secret = format!("{MARK}{}", BASE64URL_NOPAD.encode(&bytes));
        Ok((Self { name: name_of(name)?, scopes: scopes_of(scopes)?, sha256: hash(&secret) }, secret))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its name and scopes, for people.
    pub(crate) fn shown(&self) -> String {
        format!("{}:{}", self.name, shown(self.scopes))
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let [name, scopes, sha256] = text.split(':').collect::<Vec<_>>()[..] else {
            return Err(invalid("a token is NAME:SCOPE+SCOPE:SHA256, as `evenkeel keys token` prints it"));
        };
        let bytes = HEXLOWER_PERMISSIVE.decode(sha256.as_bytes()).ok();
        let sha256 = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
            invalid("a token's hash is a SHA-256 in 64 hexadecimal digits, not the token itself")
                .with("token", name)
        })?;
        Ok(Self { name: name_of(name)?, scopes: scopes_of(scopes)?, sha256 })
    }
}

impl TryFrom<String> for Token {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.to_string()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.shown(), HEXLOWER.encode(&self.sha256))
    }
}

/// Lets requests pass whose caller is known, with its [`Scopes`] among their extensions.
///
/// - With tokens, a request has one, but for what is open to everybody.
/// - Without tokens the server is on loopback and for whoever is on the machine. Web pages in a browser
///   there are not: a request that names another host, or comes from another one's page, is refused.
pub(crate) async fn authenticate(
    State(tokens): State<Arc<[Token]>>,
    mut request: Request,
    next: Next,
) -> Response {
    if tokens.is_empty() {
        return match stranger(request.headers(), request.uri()) {
            None => next.run(request).await,
            Some(host) => Problem::forbidden(format!(
                "a server without tokens is for this machine, and this is for or from {host:?}: \
                 set a token, or call it as localhost"
            ))
            .into_response(),
        };
    }
    if OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let Some(token) = presented(request.headers()).and_then(|secret| find(&tokens, secret)) else {
        return unauthenticated();
    };
    request.extensions_mut().insert(token.scopes);
    request.extensions_mut().insert(Caller(token.name.as_str().into()));
    next.run(request).await
}

/// Whose idempotency keys those of a request are: the caller's own, or everybody's without tokens.
pub(crate) fn scope_of_keys(request: &request::Parts) -> Result<evenkeel::idempotency::Scope, Problem> {
    use evenkeel::idempotency::Scope;
    let caller = request.extensions.get::<Caller>();
    Ok(caller.map_or(Scope::Global, |Caller(name)| Scope::Principal((**name).to_owned())))
}

fn unauthenticated() -> Response {
    let problem = Problem::unauthenticated("send `Authorization: Bearer` with one of the server's tokens");
    let mut response = problem.into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"evenkeel\""));
    response
}

/// What stands after `Bearer`, a word of which case does not matter.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

/// The token with this secret; how long it takes does not tell how much of it was right, nor whose.
fn find<'a>(tokens: &'a [Token], secret: &str) -> Option<&'a Token> {
    let sha256 = hash(secret);
    tokens.iter().fold(
        None,
        |found, token| {
            if bool::from(token.sha256.ct_eq(&sha256)) { Some(token) } else { found }
        },
    )
}

/// The host that a request is for, or whose page it comes from, where that is not this machine.
fn stranger(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let host = headers.get(HOST).map(text).or_else(|| uri.authority().map(ToString::to_string));
    let origin = headers.get(ORIGIN).map(text);
    let origin = origin.map(|origin| origin.rsplit("://").next().unwrap_or_default().to_owned());
    host.into_iter().chain(origin).find(|host| !is_this_machine(host))
}

fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn hash(secret: &str) -> [u8; 32] {
    digest(&SHA256, secret.as_bytes()).as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

fn name_of(name: &str) -> Result<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(name.to_owned());
    }
    Err(invalid("a token's name is 1 to 64 letters, digits, -, _ and .").with("name", name.escape_debug()))
}

fn scopes_of(names: &str) -> Result<Scopes> {
    let scope = |name: &str| {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == name).ok_or_else(|| {
            invalid("there is no such scope")
                .with("scope", name.escape_debug())
                .with("there are", shown(Scopes::all()))
        })
    };
    names.split(['+', ',']).map(str::trim).map(scope).collect()
}

fn shown(scopes: Scopes) -> String {
    let names: Vec<_> =
        Scope::ALL.into_iter().filter(|scope| scopes.has(*scope)).map(Scope::as_str).collect();
    names.join("+")
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_secret_only() {
        let (one, secret) = Token::generate("one", "read").unwrap();
        let (other, other_secret) = Token::generate("other", "publish,admin").unwrap();
        let tokens = [one, other];
        assert_eq!(find(&tokens, &secret).map(Token::name), Some("one"));
        assert_eq!(find(&tokens, &other_secret).map(Token::name), Some("other"));
        let hash = HEXLOWER.encode(&tokens[0].sha256);
        for wrong in ["", MARK, &secret[1..], &secret.to_uppercase(), &hash] {
            assert_eq!(find(&tokens, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_is_read_as_it_is_written() {
        let (token, secret) = Token::generate("ci-1", "admin,publish").unwrap();
        let text = token.to_string();
        assert!(text.starts_with("ci-1:publish+admin:"), "{text}");
        assert!(!text.contains(&secret));
        assert_eq!(text.parse::<Token>().unwrap(), token);
    }

    #[test]
    fn what_is_no_token_is_refused_with_the_part_that_is_wrong() {
        let hash = "0".repeat(64);
        for (text, reason) in [
            ("ci".to_owned(), "NAME:SCOPE"),
            (format!("ci:read:{hash}:more"), "NAME:SCOPE"),
            (format!(":read:{hash}"), "name"),
            (format!("c i:read:{hash}"), "c i"),
            (format!("ci:write:{hash}"), "write"),
            (format!("ci::{hash}"), "scope"),
            ("ci:read:evk_abc".to_owned(), "not the token itself"),
        ] {
            let error = text.parse::<Token>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn only_a_bearer_token_is_presented() {
        for (header, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("Basic abc", None),
            ("Bearer", None),
            ("abc", None),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(header))]);
            assert_eq!(presented(&headers), expected, "{header}");
        }
    }

    #[test]
    fn this_machine_goes_by_loopback_names_only() {
        for here in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080"] {
            assert!(is_this_machine(here), "{here}");
        }
        for there in
            ["", "null", "evil.example", "localhost.evil.example:80", "192.168.0.1", "[::]:8080", "0.0.0.0"]
        {
            assert!(!is_this_machine(there), "{there}");
        }
    }
}
