use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::skew::Skew;
use evenkeel_core::{Clock, Error, ErrorKind, Result, SystemClock};
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, TlsCertificates};

use crate::RedisStore;
use crate::commit::Wait;
use crate::server::{Access, parse_address};
use crate::servers::Servers;

/// How to open a [`RedisStore`].
///
/// | setting | default |
/// |---|---|
/// | [`partitions`](Self::partitions) | as many as it has; a new one has 1 on one server, 16 on a cluster |
/// | [`prefix`](Self::prefix) | `evenkeel`: what every key begins with, after its brace |
/// | [`wait_replicas`](Self::wait_replicas), [`wait_aof`](Self::wait_aof) | no waiting beyond the server's answer |
/// | [`root_certificate`](Self::root_certificate) | the public authorities' |
/// | [`connect_timeout`](Self::connect_timeout) | 2 s |
/// | [`timeout`](Self::timeout) | 10 s for an answer |
/// | [`max_skew`](Self::max_skew) | 30 s |
#[derive(Clone, Debug)]
pub struct RedisConfig {
    access: Access,
    /// Some of a cluster's servers; none where there is one server.
    seeds: Vec<ConnectionAddr>,
    root_certificate: Option<Vec<u8>>,
    clock_is: ClockIs,
    pub(crate) partitions: Option<u32>,
    pub(crate) prefix: String,
    pub(crate) wait: Option<Wait>,
    pub(crate) max_skew: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClockIs {
    Compared,
    Unchecked,
}

impl RedisConfig {
    /// The settings for a URL:
    /// - `redis://[user:password@]host[:port][/database]`, or `rediss://` over TLS: one server;
    /// - `redis+cluster://[user:password@]host:port,host:port`, or `rediss+cluster://` over TLS: a
    ///   cluster, known by some of its servers.
    ///
    /// # Errors
    /// `Config` where the URL is not one of these.
    pub fn new(url: &str) -> Result<Self> {
        let (template, seeds) = match url.split_once("+cluster://") {
            Some((scheme, rest)) => parse_cluster(scheme, rest)?,
            None => (parse_server(url)?, Vec::new()),
        };
        let access =
            Access { template, connect_timeout: Duration::from_secs(2), timeout: Duration::from_secs(10) };
        Ok(Self {
            access,
            seeds,
            root_certificate: None,
            clock_is: ClockIs::Compared,
            partitions: None,
            prefix: "evenkeel".to_owned(),
            wait: None,
            max_skew: Duration::from_secs(30),
            clock: SystemClock::shared(),
        })
    }

    /// How many partitions a namespace has, which is fixed when the store is created: what a cluster can
    /// spread over its servers. One server works on one thing at a time, and gains nothing from several;
    /// a store that is to move to a cluster one day is created with as many as that shall have.
    #[must_use]
    pub const fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// What every key begins with, after its brace; stores with different prefixes share a server.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Lets every commit wait until `count` replicas have it in memory (`WAIT`). One that fewer have
    /// after `timeout` is `OutcomeUnknown`.
    #[must_use]
    pub const fn wait_replicas(mut self, count: u32, timeout: Duration) -> Self {
        self.wait = Some(Wait::Replicas { count, timeout });
        self
    }

    /// Lets every commit wait until the server and `replicas` replicas have it on disk (`WAITAOF`).
    /// One that fewer have after `timeout` is `OutcomeUnknown`. Needs Redis 7.2 or Valkey, with
    /// `appendonly yes`.
    #[must_use]
    pub const fn wait_aof(mut self, replicas: u32, timeout: Duration) -> Self {
        self.wait = Some(Wait::Disk { replicas, timeout });
        self
    }

    /// Trusts servers whose certificate comes from this authority (PEM), and no others. Without it,
    /// those of the public authorities.
    #[must_use]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// How long making a connection may take before it is `Unavailable`.
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.access.connect_timeout = timeout;
        self
    }

    /// How long an answer may take before a read is `Unavailable`, and a commit `OutcomeUnknown`.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.access.timeout = timeout;
        self
    }

    /// How far this machine's clock and the server's may be apart, and how long ago a record must
    /// have expired for `sweep` to reclaim it.
    #[must_use]
    pub const fn max_skew(mut self, max_skew: Duration) -> Self {
        self.max_skew = max_skew;
        self
    }

    /// The clock that is compared with the server's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Compares no clocks: for tests that live in a time of their own.
    #[must_use]
    pub const fn unchecked_clock(mut self) -> Self {
        self.clock_is = ClockIs::Unchecked;
        self
    }

    /// Opens the store, and creates it where there is none.
    ///
    /// Needs a tokio runtime, on which its connections stay.
    ///
    /// # Errors
    /// `Config` where the store was created with another number of partitions or written by a newer
    /// evenkeel, the server is older than 7.0, evicts what does not expire, refuses the user, lacks
    /// what was asked for, or its clock is too far from this machine's; `Unavailable` where it cannot
    /// be reached.
    pub async fn open(self) -> Result<RedisStore> {
        RedisStore::connect(self).await
    }

    pub(crate) async fn servers(&self) -> Result<Servers> {
        if matches!(self.access.template.addr(), ConnectionAddr::TcpTls { .. }) {
            provide_cryptography();
        }
        let access = Access { template: self.trusting(self.access.template.addr().clone())?, ..self.access };
        let seeds = self.seeds.iter().map(|seed| Ok(self.trusting(seed.clone())?.addr().clone()));
        match seeds.collect::<Result<Vec<_>>>()? {
            seeds if seeds.is_empty() => Servers::single(access),
            seeds => Servers::cluster(access, seeds).await,
        }
    }

    /// How many partitions a store has that is created.
    pub(crate) fn partitions_at_first(&self) -> u32 {
        self.partitions.unwrap_or(if self.seeds.is_empty() { 1 } else { 16 })
    }

    /// The access to a server whose certificate is from whom it should be.
    fn trusting(&self, address: ConnectionAddr) -> Result<ConnectionInfo> {
        let info = self.access.template.clone().set_addr(address);
        let Some(root_cert) = self.root_certificate.clone() else { return Ok(info) };
        let begin = b"-----BEGIN CERTIFICATE-----";
        if !root_cert.windows(begin.len()).any(|window| window == begin) {
            return Err(Error::new(ErrorKind::Config, "the root certificate is not one in PEM"));
        }
        if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Err(Error::new(ErrorKind::Config, "a root certificate is for \"rediss\" urls"));
        }
        let trusted =
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(root_cert) });
        let trusted = trusted.map_err(|source| {
            Error::new(ErrorKind::Config, "the root certificate is not valid").with_source(source)
        })?;
        Ok(trusted.get_connection_info().clone())
    }

    /// The servers as commits reach them.
    pub(crate) async fn waiting_servers(&self, wait: Wait) -> Result<Servers> {
        self.clone().timeout(self.access.timeout + wait.timeout()).servers().await
    }

    pub(crate) fn skew(&self) -> Skew {
        match self.clock_is {
            ClockIs::Compared => Skew::at_most(self.max_skew, Arc::clone(&self.clock)),
            ClockIs::Unchecked => Skew::unchecked(Arc::clone(&self.clock)),
        }
    }

    /// Checks what can be checked without a server.
    pub(crate) fn check(&self) -> Result<()> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
        if self.prefix.is_empty() || self.prefix.len() > 64 || !self.prefix.bytes().all(allowed) {
            return Err(Error::new(
                ErrorKind::Config,
                "a prefix is 1 to 64 letters, digits, '-', '_', '.' or ':'",
            )
            .with("prefix", format_args!("{:?}", self.prefix)));
        }
        Ok(())
    }
}

/// The redis crate uses what the process has installed, and panics where there is nothing.
fn provide_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have been first; then there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

fn parse_server(url: &str) -> Result<ConnectionInfo> {
    url.into_connection_info().map_err(|source: RedisError| {
        // The URL may hold a password.
        Error::new(ErrorKind::Config, "the url is not one of redis").with_source(source)
    })
}

/// The access to all of a cluster's servers, and where some of them are.
fn parse_cluster(scheme: &str, rest: &str) -> Result<(ConnectionInfo, Vec<ConnectionAddr>)> {
    let (user, hosts) = match rest.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), rest),
    };
    let mut seeds = Vec::new();
    let mut template = None;
    for host in hosts.trim_end_matches('/').split(',') {
        if parse_address(host).is_none() {
            return Err(Error::new(
                ErrorKind::Config,
                "a redis cluster's url is \"redis+cluster://host:port,host:port\"",
            )
            .with("host", format_args!("{host:?}")));
        }
        let server = parse_server(&format!("{scheme}://{user}{host}"))?;
        seeds.push(server.addr().clone());
        template.get_or_insert(server);
    }
    let template = template.expect("splitting text gives at least one part");
    Ok((template, seeds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(url: &str) -> Vec<String> {
        RedisConfig::new(url).unwrap().seeds.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_new_store_has_a_partition_or_as_many_as_a_cluster_can_spread() {
        let at_first = |url| RedisConfig::new(url).unwrap().partitions_at_first();
        assert_eq!((at_first("redis://a"), at_first("redis+cluster://a:1")), (1, 16));
        assert_eq!(RedisConfig::new("redis://a").unwrap().partitions(4).partitions_at_first(), 4);
    }

    #[test]
    fn a_url_names_one_server_or_some_of_a_cluster() {
        assert!(seeds("redis://localhost").is_empty());
        assert!(seeds("rediss://user:secret@db.example:6380/2").is_empty());
        assert_eq!(seeds("redis+cluster://a:1"), ["a:1"]);
        assert_eq!(seeds("rediss+cluster://user:p%40ss@a:1,b:2,127.0.0.1:3/"), ["a:1", "b:2", "127.0.0.1:3"]);
    }

    #[test]
    fn a_url_that_is_none_is_refused_without_its_password() {
        for url in [
            "",
            "postgres://user:secret@x",
            "redis:/user:secret",
            "redis+cluster://",
            "redis+cluster://user:secret@a",
            "redis+cluster://user:secret@a:1,",
            "redis+cluster://user:secret@a:1,b:port",
            "memcached+cluster://user:secret@a:1",
        ] {
            let error = RedisConfig::new(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url:?}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn a_prefix_that_would_break_the_hash_tag_is_refused() {
        for prefix in ["", "a{b", "a}b", "a/b", &"x".repeat(65)] {
            let config = RedisConfig::new("redis://x").unwrap().prefix(prefix);
            assert_eq!(config.check().unwrap_err().kind(), ErrorKind::Config, "{prefix:?}");
        }
    }
}
