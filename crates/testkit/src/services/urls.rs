use std::fmt;
use std::str::FromStr;

/// A shared server of a test run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// PostgreSQL.
    Pg,
    /// PgBouncer in front of PostgreSQL, pooling transactions.
    PgBouncer,
    /// A single Redis.
    Redis,
    /// A Redis cluster.
    RedisCluster,
    /// DynamoDB, or an emulator of it.
    Dynamo,
    /// The emulator of DynamoDB that `moto` is.
    Moto,
}

impl Service {
    /// All of them; what another one needs comes before it.
    pub const ALL: [Self; 6] =
        [Self::Pg, Self::PgBouncer, Self::Redis, Self::RedisCluster, Self::Dynamo, Self::Moto];

    /// What it is called on command lines, and by the fixtures that use it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pg => "pg",
            Self::PgBouncer => "pgbouncer",
            Self::Redis => "redis",
            Self::RedisCluster => "redis-cluster",
            Self::Dynamo => "dynamo",
            Self::Moto => "moto",
        }
    }

    /// The environment variable that says where it is.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Pg => "EVENKEEL_TEST_PG_URL",
            Self::PgBouncer => "EVENKEEL_TEST_PGBOUNCER_URL",
            Self::Redis => "EVENKEEL_TEST_REDIS_URL",
            Self::RedisCluster => "EVENKEEL_TEST_REDIS_CLUSTER_URLS",
            Self::Dynamo => "EVENKEEL_TEST_DYNAMO_ENDPOINT",
            Self::Moto => "EVENKEEL_TEST_MOTO_ENDPOINT",
        }
    }

    /// Where it is.
    ///
    /// # Errors
    /// The environment does not say, in words for [`Fixture::available`](crate::Fixture::available).
    pub fn url(self) -> Result<String, String> {
        named_by(self.variable(), std::env::var(self.variable()).ok())
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Service {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|service| service.name() == name).ok_or_else(|| {
            format!("no service is called {name:?}; there are {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

/// The shared PostgreSQL server.
///
/// # Errors
/// The environment does not name one.
pub fn pg_url() -> Result<String, String> {
    Service::Pg.url()
}

/// The shared PgBouncer, which pools transactions in front of the shared PostgreSQL server.
///
/// # Errors
/// The environment does not name one.
pub fn pgbouncer_url() -> Result<String, String> {
    Service::PgBouncer.url()
}

/// The shared single Redis.
///
/// # Errors
/// The environment does not name one.
pub fn redis_url() -> Result<String, String> {
    Service::Redis.url()
}

/// The nodes of the shared Redis cluster, with commas between.
///
/// # Errors
/// The environment does not name any.
pub fn redis_cluster_urls() -> Result<String, String> {
    Service::RedisCluster.url()
}

/// The shared emulator of DynamoDB, or `aws` for the real one.
///
/// # Errors
/// The environment does not name one.
pub fn dynamo_endpoint() -> Result<String, String> {
    Service::Dynamo.url()
}

/// The shared second emulator of DynamoDB.
///
/// # Errors
/// The environment does not name one.
pub fn moto_endpoint() -> Result<String, String> {
    Service::Moto.url()
}

fn named_by(variable: &str, value: Option<String>) -> Result<String, String> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| format!("{variable} is not set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_names_no_server() {
        let missing = Err("X_URL is not set".to_owned());
        assert_eq!(named_by("X_URL", None), missing);
        assert_eq!(named_by("X_URL", Some(String::new())), missing);
        assert_eq!(named_by("X_URL", Some("x://there".into())), Ok("x://there".into()));
    }

    #[test]
    fn a_service_goes_by_its_name() {
        for service in Service::ALL {
            assert_eq!(service.name().parse(), Ok(service));
        }
        let unknown = "mongo".parse::<Service>().unwrap_err();
        assert!(unknown.contains("\"mongo\"") && unknown.contains("pg, pgbouncer"), "{unknown}");
    }
}
