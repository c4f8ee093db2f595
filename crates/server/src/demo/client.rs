use std::net::SocketAddr;

use evenkeel::core::{Error, ErrorKind, Result};
use evenkeel::flare::net::{AddressPolicy, Outgoing, Sender, Transport, target};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;

use super::failed;

/// Calls a server of the demonstration.
#[derive(Clone, Debug)]
pub(super) struct Client {
    server: SocketAddr,
    sender: Sender,
}

impl Client {
    pub(super) fn of(server: SocketAddr) -> Result<Self> {
        let policy = AddressPolicy { allow: vec![server.ip().into()] };
        Ok(Self { server, sender: Sender::builder().policy(policy).build()? })
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// # Errors
    /// `Unexpected` where the server cannot be reached or refuses.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let outgoing = Outgoing {
            method: method.clone(),
            uri: target(&format!("http://{}{path}", self.server))?,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]),
            body: body.map(|body| body.to_string()).unwrap_or_default().into(),
        };
        let reply =
            self.sender.send(outgoing).await.map_err(|source| failed("the server is not there", source))?;
        if !(200..300).contains(&reply.status) {
            return Err(Error::new(ErrorKind::Unexpected, "the server refuses")
                .with("request", format_args!("{method} {path}"))
                .with("status", reply.status)
                .with("answer", String::from_utf8_lossy(&reply.body)));
        }
        Ok(serde_json::from_slice(&reply.body).unwrap_or_default())
    }
}
