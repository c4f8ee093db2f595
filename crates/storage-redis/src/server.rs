//! One server, and the connection to it, which is made when it is needed.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use evenkeel_core::{Error, ErrorKind, Result};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, Pipeline, ProtocolVersion, PushInfo,
    PushKind, RedisError, Value,
};
use tokio::sync::Mutex;

use crate::error::parse_redis_error;
use crate::script;

/// How long a connection may be silent before the server is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How to reach servers.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// User, password, database, TLS: the same for all servers of a store.
    pub(crate) template: ConnectionInfo,
    /// How long making a connection may take.
    pub(crate) connect_timeout: Duration,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
}

/// A host and port.
pub(crate) type Address = (String, u16);

/// A server of the store.
#[derive(Debug)]
pub(crate) struct Server {
    client: Client,
    access: Access,
    live: RwLock<Option<Live>>,
    connecting: Mutex<()>,
    /// How many attempts to connect have ended: who waited for one that failed shares its failure.
    attempts: AtomicU64,
}

/// A connection, and whether it is to be used no more.
#[derive(Clone, Debug)]
struct Live {
    connection: MultiplexedConnection,
    is_closed: Arc<AtomicBool>,
}

/// Why a command has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was not sent.
    NotSent(Error),
    /// It was sent, as far as is known.
    Lost(RedisError),
}

impl Server {
    pub(crate) fn new(access: Access, address: ConnectionAddr) -> Result<Self> {
        let redis = access.template.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        // Small writes go at once, and a server that vanished is noticed while nothing is sent.
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        let info = access.template.clone().set_addr(address).set_redis_settings(redis).set_tcp_settings(tcp);
        let client = Client::open(info).map_err(not_connected)?;
        Ok(Self {
            client,
            access,
            live: RwLock::default(),
            connecting: Mutex::default(),
            attempts: AtomicU64::new(0),
        })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> &ConnectionAddr {
        self.client.get_connection_info().addr()
    }

    /// The server at a host and port, as one of the same store names it.
    pub(crate) fn neighbour(&self, (host, port): Address) -> ConnectionAddr {
        match self.address() {
            ConnectionAddr::TcpTls { insecure, tls_params, host: own, .. } => ConnectionAddr::TcpTls {
                host: known(host, own),
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            ConnectionAddr::Tcp(own, _) => ConnectionAddr::Tcp(known(host, own), port),
            _ => ConnectionAddr::Tcp(host, port),
        }
    }

    /// Sends a command and waits for its answer, which may be an error.
    pub(crate) async fn send(&self, cmd: &Cmd) -> Result<Value, Failure> {
        let mut live = self.connection().await.map_err(Failure::NotSent)?;
        let answer = live.connection.send_packed_command(cmd).await;
        answer.map_err(|error| live.lost(error))
    }

    /// Sends commands together and waits for their answers.
    pub(crate) async fn send_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        let mut live = self.connection().await.map_err(Failure::NotSent)?;
        let answers = live.connection.send_packed_commands(commands, 0, commands.len()).await;
        answers.map_err(|error| live.lost(error))
    }

    /// A connection of its own that hands on what the server pushes.
    pub(crate) async fn listen(
        &self,
        push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection> {
        let push = move |info| {
            push(info);
            Ok::<(), redis::aio::SendError>(())
        };
        let config = self.connection_config().set_push_sender(push);
        let connected = self.client.get_multiplexed_async_connection_with_config(&config).await;
        connected.map_err(not_connected)
    }

    /// Makes sure that the server has the scripts.
    pub(crate) async fn load_scripts(&self) -> Result<()> {
        load_scripts(&mut self.connection().await?.connection).await
    }

    /// Whether it leads, and is no replica.
    pub(crate) async fn check_role(&self) -> Result<()> {
        check_role(&mut self.connection().await?.connection).await
    }

    /// Lets the next command make a new connection: the server is not what it was.
    pub(crate) fn disconnect(&self) {
        if let Some(live) = self.live() {
            live.close();
        }
    }

    async fn connection(&self) -> Result<Live> {
        if let Some(live) = self.live() {
            return Ok(live);
        }
        let attempts = self.attempts.load(Ordering::Acquire);
        let _connecting = self.connecting.lock().await;
        if let Some(live) = self.live() {
            return Ok(live);
        }
        if attempts != self.attempts.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Unavailable, "the server cannot be reached")
                .with("server", self.address()));
        }
        let connected = self.connect().await;
        self.attempts.fetch_add(1, Ordering::AcqRel);
        let live = connected?;
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(live.clone());
        Ok(live)
    }

    fn live(&self) -> Option<Live> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.as_ref().filter(|live| !live.is_closed.load(Ordering::Acquire)).cloned()
    }

    async fn connect(&self) -> Result<Live> {
        let is_closed = Arc::new(AtomicBool::new(false));
        let closes = Arc::clone(&is_closed);
        // So a connection that the server has closed is known before the next command is sent.
        let push = move |info: PushInfo| {
            if info.kind == PushKind::Disconnection {
                closes.store(true, Ordering::Release);
            }
            Ok::<(), redis::aio::SendError>(())
        };
        let config = self.connection_config().set_push_sender(push);
        let connected = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection =
            connected.map_err(|error| not_connected(error).with("server", self.address()))?;
        check_role(&mut connection).await?;
        load_scripts(&mut connection).await?;
        Ok(Live { connection, is_closed })
    }

    fn connection_config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.access.connect_timeout))
            .set_response_timeout(Some(self.access.timeout))
    }
}

impl Live {
    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// A connection that failed once is not used again.
    fn lost(&self, error: RedisError) -> Failure {
        self.close();
        Failure::Lost(error)
    }
}

/// A replica may answer with what was so a while ago. A server that does not say is taken at its word.
async fn check_role(connection: &mut MultiplexedConnection) -> Result<()> {
    match connection.send_packed_command(&redis::cmd("ROLE")).await {
        Ok(Value::Array(role))
            if role.first().is_some_and(|role| *role != Value::BulkString(b"master".into())) =>
        {
            Err(Error::new(ErrorKind::Unavailable, "the server is a replica"))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(not_connected(error)),
    }
}

async fn load_scripts(connection: &mut MultiplexedConnection) -> Result<()> {
    let mut commands = Pipeline::new();
    for script in script::ALL {
        commands.cmd("SCRIPT").arg("LOAD").arg(script.code());
    }
    let loaded: redis::RedisResult<()> = commands.exec_async(connection).await;
    loaded.map_err(|error| parse_redis_error(error, ErrorKind::Unavailable, "loading scripts"))
}

fn not_connected(error: RedisError) -> Error {
    parse_redis_error(error, ErrorKind::Unavailable, "connecting")
}

/// A server that does not know its own host leaves it out.
fn known(host: String, own: &str) -> String {
    if host.is_empty() || host == "?" { own.to_owned() } else { host }
}

/// Reads `host:port`; the host may be an IPv6 address without brackets.
pub(crate) fn parse_address(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_host = !host.contains(':') || host.parse::<IpAddr>().is_ok();
    is_host.then_some(())?;
    Some((host.to_owned(), port.parse().ok()?))
}
