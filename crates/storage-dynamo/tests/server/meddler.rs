//! An HTTP client that notes requests, and does to chosen ones what networks and DynamoDB do.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{
    BehaviorVersion, Credentials, HttpClient, Region, RuntimeComponents, SharedHttpClient,
};
use aws_sdk_dynamodb::error::ConnectorError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use evenkeel_storage_dynamo::{DynamoConfig, DynamoStore, TableOptions};
use serde_json::Value;
use uuid::Uuid;

use crate::emulator;

/// What is done to a request.
#[derive(Clone, Debug)]
pub(crate) enum Trick {
    /// It is not sent; this is the answer.
    Answer(&'static str),
    /// It is sent, and its answer lost.
    LoseAnswer,
}

/// A request as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Its kind, such as `PutItem`.
    pub(crate) kind: String,
    pub(crate) body: Value,
}

#[derive(Clone, Debug)]
pub(crate) struct Meddler {
    client: SharedHttpClient,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    tricks: Mutex<VecDeque<(&'static str, Trick)>>,
}

impl Meddler {
    pub(crate) fn new() -> Self {
        let client = aws_smithy_http_client::Builder::new().build_http();
        Self { client, shared: Arc::default() }
    }

    /// A store whose requests go through it, in a table of its own.
    pub(crate) async fn new_store(&self) -> DynamoStore {
        let config = self.config(&format!("test-{}", Uuid::new_v4()));
        config.create_table(&TableOptions::new()).await.unwrap();
        self.open(config).await
    }

    /// The store in a table that exists, with requests that go through it.
    pub(crate) async fn open(&self, config: DynamoConfig) -> DynamoStore {
        let store = config.open().await.unwrap();
        self.seen();
        store
    }

    pub(crate) fn config(&self, table: &str) -> DynamoConfig {
        let client = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(emulator::url())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new("here", "here", None, None, "made up"))
            .http_client(self.clone())
            .build();
        DynamoConfig::new(&format!("dynamo://{table}")).unwrap().client(Client::from_conf(client))
    }

    /// Meddles with the next requests of a kind.
    pub(crate) fn meddle(&self, kind: &'static str, tricks: impl IntoIterator<Item = Trick>) {
        self.shared.tricks.lock().unwrap().extend(tricks.into_iter().map(|trick| (kind, trick)));
    }

    /// The requests since this was last asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.shared.seen.lock().unwrap())
    }

    /// Their kinds.
    pub(crate) fn kinds(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.kind).collect()
    }
}

impl Shared {
    fn note(&self, request: &HttpRequest) -> Option<Trick> {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let kind = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body = serde_json::from_slice(request.body().bytes().unwrap_or_default()).unwrap();
        let mut tricks = self.tricks.lock().unwrap();
        let place = tricks.iter().position(|(of, _)| *of == kind);
        self.seen.lock().unwrap().push(Seen { kind, body });
        place.and_then(|place| tricks.remove(place)).map(|(_, trick)| trick)
    }
}

impl HttpClient for Meddler {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let connector = self.client.http_connector(settings, components);
        SharedHttpConnector::new(Meddling { connector, shared: Arc::clone(&self.shared) })
    }
}

#[derive(Debug)]
struct Meddling {
    connector: SharedHttpConnector,
    shared: Arc<Shared>,
}

impl HttpConnector for Meddling {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        match self.shared.note(&request) {
            None => self.connector.call(request),
            Some(Trick::Answer(error)) => {
                let response = HttpResponse::new(400.try_into().unwrap(), SdkBody::from(error));
                HttpConnectorFuture::ready(Ok(response))
            }
            Some(Trick::LoseAnswer) => {
                let connector = self.connector.clone();
                HttpConnectorFuture::new(async move {
                    connector.call(request).await?;
                    Err(ConnectorError::io(io::Error::from(io::ErrorKind::ConnectionReset).into()))
                })
            }
        }
    }
}
