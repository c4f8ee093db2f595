use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, SharedHttpClient};
use aws_smithy_http_client::tls;
use evenkeel_core::skew::Skew;
use evenkeel_core::{Clock, Error, ErrorKind, Result, SystemClock};

use crate::client::Dynamo;
use crate::decorate::{Decorate, Undecorated};
use crate::table::TableOptions;
use crate::{DynamoStore, table};

/// How to open a [`DynamoStore`].
///
/// | setting | default |
/// |---|---|
/// | [`partitions`](Self::partitions) | 16; fixed when the store is created |
/// | [`client`](Self::client) | one with the account's usual configuration and credentials |
/// | [`timeout`](Self::timeout) | 10 s for one attempt at a request |
/// | [`decorate`](Self::decorate) | requests stay as they are |
/// | [`expiry`](Self::expiry) | `Native`: DynamoDB reclaims expired records |
/// | [`max_skew`](Self::max_skew) | 30 s between the caller's clock and DynamoDB's |
#[derive(Clone, Debug)]
pub struct DynamoConfig {
    table: String,
    region: Option<String>,
    endpoint: Option<String>,
    client: Option<Client>,
    timeout: Duration,
    decorate: Arc<dyn Decorate>,
    clock: Arc<dyn Clock>,
    clock_check: ClockCheck,
    pub(crate) partitions: u32,
    pub(crate) expiry: Expiry,
    pub(crate) max_skew: Duration,
}

/// Who reclaims records that have expired. They read as absent either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// DynamoDB, by the table's time to live: free of charge, within some days. Where that is off,
    /// expired records stay stored until it is switched on for the attribute `ttl`; opening warns of it,
    /// and refuses a table whose time to live goes by another attribute.
    Native,
    /// [`sweep`](evenkeel_core::Store::sweep), which reads the whole table to find them: for
    /// emulators and small tables.
    Swept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClockCheck {
    Checked,
    Unchecked,
}

impl DynamoConfig {
    /// The settings for a URL: `dynamo://table`, with the region and credentials that the
    /// environment gives, or `dynamo://table?region=eu-central-1&endpoint=http://127.0.0.1:8000`.
    ///
    /// At an endpoint on this machine, made-up credentials serve where the environment has none.
    ///
    /// # Errors
    /// `Config` where the URL is not one of DynamoDB's.
    pub fn new(url: &str) -> Result<Self> {
        let config_error =
            |message| Error::new(ErrorKind::Config, message).with("url", format_args!("{url:?}"));
        let rest = url
            .strip_prefix("dynamo://")
            .ok_or_else(|| config_error("a dynamo url begins with \"dynamo://\""))?;
        let (table, query) = rest.split_once('?').unwrap_or((rest, ""));
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !(3..=255).contains(&table.len()) || !table.bytes().all(allowed) {
            return Err(config_error("a table's name is 3 to 255 letters, digits, '-', '_' or '.'"));
        }
        let mut config = Self {
            table: table.to_owned(),
            region: None,
            endpoint: None,
            client: None,
            timeout: Duration::from_secs(10),
            decorate: Arc::new(Undecorated),
            clock: SystemClock::shared(),
            clock_check: ClockCheck::Checked,
            partitions: 16,
            expiry: Expiry::Native,
            max_skew: Duration::from_secs(30),
        };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("region", region)) if !region.is_empty() => config.region = Some(region.to_owned()),
                Some(("endpoint", endpoint)) if !endpoint.is_empty() => {
                    config.endpoint = Some(endpoint.to_owned());
                }
                _ => return Err(config_error("a dynamo url has the parameters region and endpoint")),
            }
        }
        Ok(config)
    }

    /// How many partitions a namespace has: the unit of consistency, and what the order of a log
    /// costs in throughput.
    #[must_use]
    pub const fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Makes requests with a client of the user's, whose region, endpoint and credentials count
    /// instead of the URL's. Its retries do not: the store has its own.
    #[must_use]
    pub fn client(mut self, client: Client) -> Self {
        self.client = Some(client);
        self
    }

    /// How long one attempt at a request may take before it counts as lost. Nine minutes after it was
    /// first sent, a write whose answer is lost is not sent again, whatever this is: DynamoDB knows it
    /// for ten, and its outcome stays unknown.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Adds to every request before it is sent.
    #[must_use]
    pub fn decorate(mut self, decorate: impl Decorate) -> Self {
        self.decorate = Arc::new(decorate);
        self
    }

    /// Who reclaims records that have expired. [`create_table`](Self::create_table) sets the table
    /// up for it.
    #[must_use]
    pub const fn expiry(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// How far the caller's clock may be from DynamoDB's, and how long expired records stay at least.
    #[must_use]
    pub const fn max_skew(mut self, max_skew: Duration) -> Self {
        self.max_skew = max_skew;
        self
    }

    /// The clock that is compared with DynamoDB's, and times the store's own waiting.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Does not compare the clocks, for tests that live in a time of their own. DynamoDB cannot
    /// reclaim by such a time: [`Expiry::Swept`] is the consequence.
    #[must_use]
    pub const fn unchecked_clock(mut self) -> Self {
        self.clock_check = ClockCheck::Unchecked;
        self.expiry = Expiry::Swept;
        self
    }

    /// Creates the table, and waits until it can be used; a table that exists already is as good.
    ///
    /// # Errors
    /// `Config` where the table exists and is no store's, or may not be created.
    pub async fn create_table(&self, options: &TableOptions) -> Result<()> {
        table::create(&self.dynamo().await, options, self.expiry).await
    }

    /// Deletes the table with everything in it, and waits until it is gone; one that does not exist
    /// is gone already.
    ///
    /// # Errors
    /// `Config` where the table may not be deleted.
    pub async fn delete_table(&self) -> Result<()> {
        table::delete(&self.dynamo().await).await
    }

    /// Opens the store, whose table [`create_table`](Self::create_table) has created.
    ///
    /// # Errors
    /// `Config` where the table does not exist, was made a store with another number of partitions,
    /// a newer evenkeel keeps it, its time to live goes by another attribute than [`Expiry::Native`]
    /// needs, or the clocks are too far apart; `Unavailable` where DynamoDB
    /// cannot be reached.
    pub async fn open(self) -> Result<DynamoStore> {
        DynamoStore::connect(&self).await
    }

    /// What all requests have in common.
    pub(crate) async fn dynamo(&self) -> Dynamo {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.make_client().await,
        };
        let skew = match self.clock_check {
            ClockCheck::Checked => Skew::at_most(self.max_skew, Arc::clone(&self.clock)),
            ClockCheck::Unchecked => Skew::unchecked(Arc::clone(&self.clock)),
        };
        Dynamo {
            client,
            table: self.table.clone(),
            decorate: Arc::clone(&self.decorate),
            clock: Arc::clone(&self.clock),
            skew: Arc::new(skew),
            timeout: self.timeout,
        }
    }

    async fn make_client(&self) -> Client {
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client());
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = &self.endpoint {
            loader = loader.endpoint_url(endpoint);
            let has_credentials = ["AWS_ACCESS_KEY_ID", "AWS_PROFILE"].map(std::env::var_os);
            if is_here(endpoint) && has_credentials.iter().all(Option::is_none) {
                loader = loader.credentials_provider(Credentials::new("here", "here", None, None, "made up"));
                if self.region.is_none() {
                    loader = loader.region(Region::from_static("us-east-1"));
                }
            }
        }
        Client::new(&loader.load().await)
    }
}

fn http_client() -> SharedHttpClient {
    let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    aws_smithy_http_client::Builder::new().tls_provider(ring).build_https()
}

/// Whether an endpoint is on this machine.
fn is_here(endpoint: &str) -> bool {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    ["127.", "localhost", "[::1]"].iter().any(|here| host.starts_with(here))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_the_table_and_perhaps_where_it_is() {
        let config = DynamoConfig::new("dynamo://shop").unwrap();
        assert_eq!((config.table.as_str(), config.region, config.endpoint), ("shop", None, None));
        let config =
            DynamoConfig::new("dynamo://shop?region=eu-central-1&endpoint=http://127.0.0.1:1").unwrap();
        assert_eq!(config.region.as_deref(), Some("eu-central-1"));
        assert_eq!(config.endpoint.as_deref(), Some("http://127.0.0.1:1"));
    }

    #[test]
    fn a_url_that_is_none_is_refused() {
        for url in ["", "shop", "dynamo://", "dynamo://ab", "dynamo://a b c", "dynamo://shop?colour=red"] {
            let error = DynamoConfig::new(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(error.to_string().contains("url"), "{error}");
        }
    }

    #[test]
    fn an_endpoint_on_this_machine_is_recognised() {
        for here in ["http://127.0.0.1:8000", "http://localhost:8000", "https://[::1]:8000", "localhost"] {
            assert!(is_here(here), "{here}");
        }
        assert!(!is_here("https://dynamodb.eu-central-1.amazonaws.com"));
    }
}
