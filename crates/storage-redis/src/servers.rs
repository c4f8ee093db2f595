//! The servers of a store, and which of them serves which partition.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use evenkeel_core::{Error, ErrorKind, Result};
use redis::cluster_routing::Slot;
use redis::{Cmd, ConnectionAddr, Pipeline, RedisError, ServerError, ServerErrorKind, Value};
use tokio::sync::Mutex;

use crate::error::parse_redis_error;
use crate::rows;
use crate::server::{Access, Address, Failure, Server, parse_address};

/// How often one command follows a partition to another server, or waits for a script.
const MAX_HOPS: usize = 5;

/// All servers of a store.
#[derive(Debug)]
pub(crate) struct Servers {
    access: Access,
    topology: Topology,
}

#[derive(Debug)]
enum Topology {
    Single(Arc<Server>),
    Cluster(Cluster),
}

#[derive(Debug)]
struct Cluster {
    /// Whom to ask where nobody is known any more.
    seeds: Vec<Arc<Server>>,
    known: RwLock<Known>,
    looking: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    servers: Vec<Arc<Server>>,
    by_slot: HashMap<Slot, Arc<Server>>,
}

/// What a lost answer may mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Writes,
}

/// A command about one partition.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) slot: Slot,
    pub(crate) cmd: Cmd,
    /// A command to follow on the same connection.
    pub(crate) then: Option<Cmd>,
    pub(crate) effect: Effect,
    pub(crate) doing: &'static str,
}

impl Request {
    pub(crate) const fn new(slot: Slot, effect: Effect, doing: &'static str, cmd: Cmd) -> Self {
        Self { slot, cmd, then: None, effect, doing }
    }
}

/// Why a server is not opened alone.
pub(crate) const OF_A_CLUSTER: &str =
    "the server belongs to a cluster: open it with a \"redis+cluster:\" url";

impl Servers {
    /// One server.
    pub(crate) fn single(access: Access) -> Result<Self> {
        let address = access.template.addr().clone();
        let server = Arc::new(Server::new(access.clone(), address)?);
        Ok(Self { access, topology: Topology::Single(server) })
    }

    /// A cluster that is known by some of its servers.
    pub(crate) async fn cluster(access: Access, seeds: Vec<ConnectionAddr>) -> Result<Self> {
        let seeds = seeds.into_iter().map(|seed| Server::new(access.clone(), seed).map(Arc::new));
        let seeds = seeds.collect::<Result<_>>()?;
        let cluster = Cluster { seeds, known: RwLock::default(), looking: Mutex::default() };
        let servers = Self { access, topology: Topology::Cluster(cluster) };
        servers.look_around().await?;
        Ok(servers)
    }

    pub(crate) const fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster(_))
    }

    /// Each server that keeps partitions.
    pub(crate) fn masters(&self) -> Vec<Arc<Server>> {
        match &self.topology {
            Topology::Single(server) => vec![Arc::clone(server)],
            Topology::Cluster(cluster) => cluster.known().servers.clone(),
        }
    }

    /// The server that keeps a slot, as far as is known.
    pub(crate) fn of_slot(&self, slot: Slot) -> Result<Arc<Server>> {
        match &self.topology {
            Topology::Single(server) => Ok(Arc::clone(server)),
            Topology::Cluster(cluster) => {
                cluster.known().by_slot.get(&slot).map(Arc::clone).ok_or_else(|| {
                    Error::new(ErrorKind::Unavailable, "no server of the cluster keeps the partition")
                })
            }
        }
    }

    /// The server that keeps a slot. Where none is known, the cluster is asked once more.
    pub(crate) async fn keeper(&self, slot: Slot) -> Result<Arc<Server>> {
        if let Ok(server) = self.of_slot(slot) {
            return Ok(server);
        }
        self.look_around().await?;
        self.of_slot(slot)
    }

    /// Lets go of servers that became replicas: one that is asked on an open connection answers with
    /// what was so a while ago.
    pub(crate) async fn leave_replicas(&self) {
        for server in self.masters() {
            if let Err(error) = server.check_role().await {
                tracing::debug!(%error, server = %server.address(), "the server does not lead");
                server.disconnect();
            }
        }
    }

    /// Sends a command to the server that keeps its partition; the answer is no error.
    ///
    /// It is sent again only where it was certainly not run: to another server, or once a script is
    /// loaded.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Value> {
        let mut asking: Option<Arc<Server>> = None;
        let mut last = None;
        for _ in 0..MAX_HOPS {
            let (answer, server) = match asking.take() {
                Some(server) => (send_asking(&server, request).await, server),
                None => {
                    let server = self.keeper(request.slot).await?;
                    (send(&server, request).await, server)
                }
            };
            let error = match answer {
                Ok(Value::ServerError(error)) => error,
                Ok(value) => return Ok(value),
                Err(Failure::NotSent(error)) => {
                    if !self.has_moved(request.slot, &server).await {
                        return Err(error);
                    }
                    last = Some(error);
                    continue;
                }
                Err(Failure::Lost(error)) => return Err(request.failed(error)),
            };
            match error.kind() {
                Some(ServerErrorKind::NoScript) => server.load_scripts().await?,
                Some(ServerErrorKind::Moved) => self.learn(request.slot, &server, &error)?,
                Some(ServerErrorKind::Ask) => asking = Some(self.named_by(&server, &error)?),
                Some(ServerErrorKind::ReadOnly) => {
                    // Its name may lead to the new master by now.
                    server.disconnect();
                    return Err(request.failed(error.into()));
                }
                _ => return Err(request.failed(error.into())),
            }
            last = Some(request.failed(error.into()));
        }
        Err(last.expect("a command is sent at least once"))
    }

    /// Whether another server keeps the slot than the one that cannot be reached.
    async fn has_moved(&self, slot: Slot, unreachable: &Arc<Server>) -> bool {
        if matches!(self.topology, Topology::Single(_)) {
            return false;
        }
        if let Err(error) = self.look_around().await {
            tracing::debug!(%error, "no server of the cluster says who keeps what");
            return false;
        }
        self.of_slot(slot).is_ok_and(|server| !Arc::ptr_eq(&server, unreachable))
    }

    fn learn(&self, slot: Slot, by: &Server, error: &ServerError) -> Result<()> {
        let server = self.named_by(by, error)?;
        if let Topology::Cluster(cluster) = &self.topology {
            cluster.known_mut().by_slot.insert(slot, server);
        }
        Ok(())
    }

    /// The server that a redirection names.
    fn named_by(&self, by: &Server, error: &ServerError) -> Result<Arc<Server>> {
        let Topology::Cluster(cluster) = &self.topology else {
            return Err(Error::new(ErrorKind::Config, OF_A_CLUSTER));
        };
        let address = error.details().and_then(|details| details.split(' ').nth(1)).and_then(parse_address);
        let address = address.ok_or_else(|| {
            Error::new(ErrorKind::Unexpected, "the cluster sends to a server that it does not name")
        })?;
        cluster.known_mut().at(&self.access, by.neighbour(address))
    }

    /// Asks the servers of a cluster, one after the other, who keeps what.
    pub(crate) async fn look_around(&self) -> Result<()> {
        let Topology::Cluster(cluster) = &self.topology else { return Ok(()) };
        // Who comes while another looks takes what that one finds.
        let Ok(_looking) = cluster.looking.try_lock() else {
            let _looked = cluster.looking.lock().await;
            return Ok(());
        };
        let mut last = Error::new(ErrorKind::Config, "a cluster has at least one server");
        for server in cluster.servers() {
            match slots(&server).await {
                Ok(slots) => {
                    *cluster.known_mut() = cluster.arrange(&self.access, &server, slots)?;
                    return Ok(());
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Request {
    fn failed(&self, error: RedisError) -> Error {
        let lost = match self.effect {
            Effect::Reads => ErrorKind::Unavailable,
            Effect::Writes => ErrorKind::OutcomeUnknown,
        };
        parse_redis_error(error, lost, self.doing)
    }
}

impl Cluster {
    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who keeps what, with the connections that there are already. Servers that keep nothing any
    /// more are forgotten.
    fn arrange(&self, access: &Access, by: &Server, slots: Slots) -> Result<Known> {
        let mut known = Known { servers: self.servers(), by_slot: HashMap::new() };
        let mut keepers: Vec<Arc<Server>> = Vec::new();
        for (range, address) in slots {
            let keeper = known.at(access, by.neighbour(address))?;
            known.by_slot.extend(range.filter_map(Slot::new).map(|slot| (slot, Arc::clone(&keeper))));
            if !keepers.iter().any(|known| Arc::ptr_eq(known, &keeper)) {
                keepers.push(keeper);
            }
        }
        known.servers = keepers;
        Ok(known)
    }

    /// Those known to serve first.
    fn servers(&self) -> Vec<Arc<Server>> {
        self.known().servers.iter().chain(&self.seeds).map(Arc::clone).collect()
    }
}

impl Known {
    fn at(&mut self, access: &Access, address: ConnectionAddr) -> Result<Arc<Server>> {
        if let Some(server) = self.servers.iter().find(|server| *server.address() == address) {
            return Ok(Arc::clone(server));
        }
        let server = Arc::new(Server::new(access.clone(), address)?);
        self.servers.push(Arc::clone(&server));
        Ok(server)
    }
}

async fn send(server: &Server, request: &Request) -> Result<Value, Failure> {
    match &request.then {
        None => server.send(&request.cmd).await,
        Some(then) => send_together(server, [&request.cmd, then]).await.map(both),
    }
}

/// Sends to a server that is about to take the slot over.
async fn send_asking(server: &Server, request: &Request) -> Result<Value, Failure> {
    let asking = redis::cmd("ASKING");
    match &request.then {
        None => send_together(server, [&asking, &request.cmd]).await.map(|[_, answer]| answer),
        Some(then) => send_together(server, [&asking, &request.cmd, then])
            .await
            .map(|[_, answer, after]| both([answer, after])),
    }
}

async fn send_together<const N: usize>(server: &Server, commands: [&Cmd; N]) -> Result<[Value; N], Failure> {
    let mut pipeline = Pipeline::with_capacity(N);
    for cmd in commands {
        pipeline.add_command(cmd.clone());
    }
    let answers = server.send_all(&pipeline).await?;
    answers
        .try_into()
        .map_err(|_| Failure::Lost(RedisError::from((redis::ErrorKind::Parse, "an answer is missing"))))
}

/// The answers to a command and the one that followed; the first one's error is all there is.
fn both([answer, after]: [Value; 2]) -> Value {
    match answer {
        error @ Value::ServerError(_) => error,
        answer => Value::Array(vec![answer, after]),
    }
}

type Slots = Vec<(std::ops::RangeInclusive<u16>, Address)>;

/// Who keeps what, as a server has it.
async fn slots(server: &Server) -> Result<Slots> {
    let doing = "looking around in the cluster";
    let answer = match server.send(redis::cmd("CLUSTER").arg("SLOTS")).await {
        Ok(Value::ServerError(error)) => {
            return Err(parse_redis_error(error.into(), ErrorKind::Unavailable, doing));
        }
        Ok(answer) => answer,
        Err(Failure::NotSent(error)) => return Err(error),
        Err(Failure::Lost(error)) => return Err(parse_redis_error(error, ErrorKind::Unavailable, doing)),
    };
    let slots: Slots = rows::array(answer)?.into_iter().map(keeper).collect::<Result<_>>()?;
    if slots.is_empty() {
        return Err(Error::new(ErrorKind::Unavailable, "the cluster keeps no slots yet"));
    }
    Ok(slots)
}

/// First and last slot, then its servers, the master first: host, port, and more.
fn keeper(range: Value) -> Result<(std::ops::RangeInclusive<u16>, Address)> {
    let mut range = rows::array(range)?.into_iter();
    let mut next = || range.next().ok_or_else(|| rows::damaged("slots"));
    let slot = |value| u16::try_from(rows::number(&value)?).map_err(|_| rows::damaged("slots"));
    let (first, last, master) = (slot(next()?)?, slot(next()?)?, rows::array(next()?)?);
    let mut master = master.into_iter();
    let mut next = || master.next().ok_or_else(|| rows::damaged("slots"));
    let host = match next()? {
        Value::Nil => String::new(),
        host => rows::text(host)?,
    };
    Ok((first..=last, (host, slot(next()?)?)))
}
