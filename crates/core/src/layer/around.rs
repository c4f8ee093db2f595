use std::fmt::Debug;

use async_trait::async_trait;

use super::Layer;
use crate::batch::{Batch, Committed};
use crate::log::{Read, Slice};
use crate::queue::{JobPage, Jobs, Lease, Leased};
use crate::record::{Key, Record, RecordPage, Scan};
use crate::signal::Signals;
use crate::store::{Store, StoreInfo};
use crate::tx::{Transactional, Tx};
use crate::{AnyStore, Namespace, Partition, Result, Timestamp};

/// What is done around every call of a store, by either door: a layer of one function.
///
/// Its clones are in the handles of all namespaces, so what they are to have in common is shared.
///
/// # Example
/// ```
/// use evenkeel_core::layer::{Around, Call, Method};
/// use evenkeel_core::{Error, ErrorKind, MemoryStore, Result, Store, StoreExt, Timestamp};
///
/// /// A store in which nothing can be looked for.
/// #[derive(Clone, Debug)]
/// struct NoScans;
///
/// impl Around for NoScans {
///     async fn call<T: Send>(&self, call: Call<'_>, made: impl Future<Output = Result<T>> + Send) -> Result<T> {
///         match call.method {
///             Method::Scan => Err(Error::new(ErrorKind::Unsupported, "scans are switched off")),
///             _ => made.await,
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let store = MemoryStore::new().layer(NoScans);
/// let at = store.partition_of("order-17");
/// assert_eq!(store.sweep(&at, Timestamp::EPOCH, 1).await.unwrap(), 0);
/// let scan = evenkeel_core::Scan::new("shop.order", "open", 10, Timestamp::EPOCH);
/// assert_eq!(store.scan(&at, scan).await.unwrap_err().kind(), ErrorKind::Unsupported);
/// # }
/// ```
pub trait Around: Clone + Debug + Send + Sync + 'static {
    /// Answers a call: by awaiting `made`, which makes it, or instead of making it.
    ///
    /// # Behavior
    /// - Nothing is done before `made` is polled.
    /// - What a call holds, such as a transaction, is dropped with `made`.
    /// - `info`, `namespace` and `signals` ask nobody.
    fn call<T: Send>(
        &self,
        call: Call<'_>,
        made: impl Future<Output = Result<T>> + Send,
    ) -> impl Future<Output = Result<T>> + Send;
}

/// A call of a store.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Call<'a> {
    /// What is called.
    pub method: Method,
    /// The store that is called.
    pub store: &'a StoreInfo,
    /// Its partition that the call is about.
    pub at: &'a Partition,
    /// What a `get` asks for; no other call names keys.
    pub keys: &'a [Key],
    /// What a `commit` is to do; that of a `finish` is in its transaction.
    pub batch: Option<&'a Batch>,
}

/// A method of [`Store`] or [`Transactional`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// [`Store::get`].
    Get,
    /// [`Store::scan`].
    Scan,
    /// [`Store::read`].
    Read,
    /// [`Store::jobs`].
    Jobs,
    /// [`Store::lease`].
    Lease,
    /// [`Store::commit`].
    Commit,
    /// [`Store::sweep`].
    Sweep,
    /// [`Transactional::begin`].
    Begin,
    /// [`Transactional::finish`].
    Finish,
    /// [`Transactional::rollback`].
    Rollback,
}

impl Method {
    /// Its name in the contract, such as `commit`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Scan => "scan",
            Self::Read => "read",
            Self::Jobs => "jobs",
            Self::Lease => "lease",
            Self::Commit => "commit",
            Self::Sweep => "sweep",
            Self::Begin => "begin",
            Self::Finish => "finish",
            Self::Rollback => "rollback",
        }
    }
}

impl<S, A: Around> Layer<S> for A {
    type Store = AroundStore<S, A>;

    fn layer(self, store: S) -> AroundStore<S, A> {
        AroundStore { store, around: self }
    }
}

/// A store, and what is done [`Around`] its calls.
#[derive(Clone, Debug)]
pub struct AroundStore<S, A> {
    store: S,
    around: A,
}

impl<S, A> AroundStore<S, A> {
    /// What is done around the calls.
    #[must_use]
    pub const fn around(&self) -> &A {
        &self.around
    }
}

impl<S: Store, A: Around> AroundStore<S, A> {
    fn call<'a>(&'a self, method: Method, at: &'a Partition) -> Call<'a> {
        Call { method, store: self.store.info(), at, keys: &[], batch: None }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: Store, A: Around> Store for AroundStore<S, A> {
    fn info(&self) -> &StoreInfo {
        self.store.info()
    }

    fn namespace(&self, namespace: Namespace) -> Self {
        Self { store: self.store.namespace(namespace), around: self.around.clone() }
    }

    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        let call = Call { keys, ..self.call(Method::Get, at) };
        self.around.call(call, self.store.get(at, now, keys)).await
    }

    async fn scan(&self, at: &Partition, scan: Scan) -> Result<RecordPage> {
        self.around.call(self.call(Method::Scan, at), self.store.scan(at, scan)).await
    }

    async fn read(&self, at: &Partition, read: Read) -> Result<Slice> {
        self.around.call(self.call(Method::Read, at), self.store.read(at, read)).await
    }

    async fn jobs(&self, at: &Partition, want: Jobs) -> Result<JobPage> {
        self.around.call(self.call(Method::Jobs, at), self.store.jobs(at, want)).await
    }

    async fn lease(&self, at: &Partition, want: Lease) -> Result<Leased> {
        self.around.call(self.call(Method::Lease, at), self.store.lease(at, want)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        let sent = batch.clone();
        let call = Call { batch: Some(&sent), ..self.call(Method::Commit, sent.at()) };
        self.around.call(call, self.store.commit(batch)).await
    }

    async fn sweep(&self, at: &Partition, now: Timestamp, limit: usize) -> Result<usize> {
        self.around.call(self.call(Method::Sweep, at), self.store.sweep(at, now, limit)).await
    }

    fn signals(&self) -> Signals {
        self.store.signals()
    }
}

impl<S: Transactional, A: Around> Transactional for AroundStore<S, A> {
    type Conn = S::Conn;

    async fn begin(&self, at: Partition, now: Timestamp) -> Result<Tx<S::Conn>> {
        self.around.call(self.call(Method::Begin, &at), self.store.begin(at.clone(), now)).await
    }

    async fn finish(&self, tx: Tx<S::Conn>) -> Result<Committed> {
        let at = tx.partition().clone();
        self.around.call(self.call(Method::Finish, &at), self.store.finish(tx)).await
    }

    async fn rollback(&self, tx: Tx<S::Conn>) {
        let at = tx.partition().clone();
        let made = async {
            self.store.rollback(tx).await;
            Ok(())
        };
        // Whether it was made or only dropped, the transaction is gone.
        let _ = self.around.call(self.call(Method::Rollback, &at), made).await;
    }
}

impl<S: Store, A: Around> From<AroundStore<S, A>> for AnyStore {
    fn from(store: AroundStore<S, A>) -> Self {
        Self::new(store)
    }
}
