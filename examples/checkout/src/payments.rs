use bytes::Bytes;
use evenkeel::core::BoxError;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::checkout::Order;
use crate::trouble::Refused;

/// What the other service says that it charged.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Charge {
    pub(crate) id: String,
}

/// The example `payments`, which does once what it is asked with one key.
#[derive(Debug)]
pub(crate) struct Payments {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
}

impl Payments {
    pub(crate) fn at(url: String) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), url }
    }

    pub(crate) async fn charge(&self, key: &str, order: &Order) -> Result<Charge, BoxError> {
        Ok(serde_json::from_slice(&self.ask("charges", key, order).await?)?)
    }

    pub(crate) async fn refund(&self, key: &str, order: &Order) -> Result<(), BoxError> {
        self.ask("refunds", key, order).await.map(drop)
    }

    async fn ask(&self, what: &str, key: &str, order: &Order) -> Result<Bytes, BoxError> {
        let body = json!({ "customer": order.customer, "cents": order.cents }).to_string();
        let request = Request::post(format!("{}/{what}", self.url))
            .header("idempotency-key", format!("\"{key}\""))
            .header("content-type", "application/json")
            .body(Full::from(body))?;
        let response = self.client.request(request).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        if status.is_success() {
            return Ok(answer);
        }
        let message = format!("payments answered {status}: {}", String::from_utf8_lossy(&answer).trim());
        // A conflict is an attempt of ours that is still under way, or has died there.
        if status.is_client_error() && status != StatusCode::CONFLICT {
            return Err(Refused(message).into());
        }
        Err(message.into())
    }
}
