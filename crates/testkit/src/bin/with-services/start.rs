use std::any::Any;

use evenkeel_core::{Clock, SystemClock};
use evenkeel_testkit::services::{
    Dynamo, Error, Moto, PgBouncer, Postgres, Redis, RedisCluster, Required, Service,
};

/// The servers that run, and where they are. Dropped, it stops those it started.
#[derive(Debug)]
pub(crate) struct Started {
    variables: Vec<(&'static str, String)>,
    // Before `postgres`, as a proxy ends before what it is in front of.
    others: Vec<Box<dyn Any + Send>>,
    postgres: Option<Postgres>,
}

impl Started {
    /// Starts what is wanted and not named by the environment, and tells about each.
    pub(crate) fn new(wanted: &[Service]) -> Result<Self, String> {
        let mut started = Self { variables: Vec::new(), others: Vec::new(), postgres: None };
        let needs_pg = wanted.contains(&Service::PgBouncer);
        let mut missing = Vec::new();
        for service in Service::ALL {
            if !(wanted.contains(&service) || service == Service::Pg && needs_pg) {
                continue;
            }
            if let Ok(url) = service.url() {
                eprintln!("with-services: {service}: {url}, as {} says", service.variable());
                continue;
            }
            let began = SystemClock.now();
            match started.start(service) {
                Ok(url) => {
                    let took = SystemClock.now().since(began);
                    eprintln!("with-services: {service}: {url}, started in {took:.1?}");
                    started.variables.push((service.variable(), url));
                }
                Err(error) => {
                    eprintln!("with-services: {service}: not started: {error}");
                    missing.push(service);
                }
            }
        }
        let required = Required::by_environment();
        missing.retain(|service| required.includes(service.name()));
        if missing.is_empty() {
            return Ok(started);
        }
        let missing: Vec<_> = missing.into_iter().map(Service::name).collect();
        Err(format!("required, and not started: {}", missing.join(", ")))
    }

    /// The environment variables that name what was started.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.variables.iter().map(|(name, url)| (*name, url.as_str()))
    }

    /// Starts one, and says where it is.
    fn start(&mut self, service: Service) -> Result<String, Error> {
        match service {
            Service::Pg => {
                let postgres = Postgres::start_careless()?;
                let url = postgres.url();
                self.postgres = Some(postgres);
                Ok(url)
            }
            Service::PgBouncer => match &self.postgres {
                Some(postgres) => {
                    let pgbouncer = PgBouncer::start(postgres)?;
                    Ok(self.keep(pgbouncer.url(), pgbouncer))
                }
                None => Err(Error::new(format!(
                    "it goes in front of a server started here; name one in {}",
                    service.variable()
                ))),
            },
            Service::Redis => {
                let redis = Redis::start(&[])?;
                Ok(self.keep(redis.url(), redis))
            }
            Service::RedisCluster => {
                let cluster = RedisCluster::start(&[])?;
                Ok(self.keep(cluster.url(), cluster))
            }
            Service::Dynamo => {
                let dynamo = Dynamo::start()?;
                Ok(self.keep(dynamo.url(), dynamo))
            }
            Service::Moto => {
                let moto = Moto::start()?;
                Ok(self.keep(moto.url(), moto))
            }
        }
    }

    fn keep(&mut self, url: String, server: impl Any + Send) -> String {
        self.others.push(Box::new(server));
        url
    }
}
