//! Versions of a read model, beside what the suite says of every store: built where handlers fail, hang and give up.

mod kit;

use std::sync::Mutex;
use std::time::Duration;

use evenkeel_core::{
    Batch, BoxError, Draft, ErrorKind, Jobs, MemoryStore, Merge, Result, Store, StoreExt, Tx,
};
use evenkeel_projections::{Context, Projection, Projector, Recorded};
use kit::{Bank, Mode, Sums};

/// Pushes a job for each event, and makes its tables.
#[derive(Clone, Default)]
struct Mailer;

impl Projector<Draft> for Mailer {
    type State = ();

    async fn init(&self, version: u32, tx: &mut Tx<Draft>) -> Result<(), BoxError> {
        let draft = tx.conn().await?;
        kit::add(draft, "tables", &format!("mails_v{version}"), 1).await
    }

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        let (id, due) = (event.position.to_string(), event.recorded_at);
        if let Some(batch) = context.effects() {
            batch.push("mails", id, due, "hello", Merge::Keep);
        }
        Ok(())
    }

    async fn discard(&self, version: u32, tx: &mut Tx<Draft>) -> Result<(), BoxError> {
        let draft = tx.conn().await?;
        kit::add(draft, "tables", &format!("mails_v{version}"), -1).await
    }
}

#[tokio::test]
async fn what_a_version_needs_is_made_once_and_removed_when_it_is_discarded() {
    let (bank, projection) = mailed().await;
    let tables = async || (bank.row("tables", "mails_v1").await, bank.row("tables", "mails_v2").await);
    projection.rebuild().await.unwrap();
    projection.catch_up().await.unwrap();
    projection.catch_up().await.unwrap();
    assert_eq!(tables().await, (Some(1), Some(1)));
    projection.discard(1).await.unwrap();
    assert_eq!(tables().await, (Some(0), Some(1)));
}

/// A mailer that has done its work, and whose mails are sent.
async fn mailed() -> (Bank, Projection<Mailer, MemoryStore>) {
    let bank = Bank::new();
    let projection = Projection::stream(bank.events.clone(), "mailer", Mailer);
    bank.deposit("a", &[1, 2, 3, 4, 5]).await;
    projection.catch_up().await.unwrap();
    assert_eq!(mails(&bank).await, ["1", "2", "3", "4", "5"]);
    send_all(&bank).await;
    (bank, projection)
}

async fn mails(bank: &Bank) -> Vec<String> {
    let page = Jobs::Page { queue: "mails".into(), after: None, limit: 100 };
    let jobs = bank.store.jobs(&bank.at(), page).await.unwrap().jobs;
    jobs.into_iter().map(|(id, _)| id).collect()
}

async fn send_all(bank: &Bank) {
    let mut batch = Batch::new(bank.at(), bank.now());
    for id in mails(bank).await {
        batch.cancel("mails", id);
    }
    bank.store.commit(batch).await.unwrap();
}

#[tokio::test]
async fn effects_are_not_repeated_where_a_version_is_reset_before_it_has_caught_up() {
    let (bank, projection) = mailed().await;
    projection.operations().reset().await.unwrap();
    // It takes over, and comes no further.
    let stops = Projection::stream(bank.events.clone(), "mailer", StopsAt { position: 2, version: 2 });
    stops.catch_up().await.unwrap_err();
    projection.operations().reset().await.unwrap();
    projection.catch_up().await.unwrap();
    assert_eq!(mails(&bank).await, [""; 0]);
}

/// Fails at a position, in one version.
#[derive(Clone)]
struct StopsAt {
    position: u64,
    version: u32,
}

impl Projector<Draft> for StopsAt {
    type State = ();

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        if event.position >= self.position && context.version() == self.version {
            return Err("no further".into());
        }
        let (model, stream) = (format!("stops-{}", context.version()), event.stream.clone());
        kit::add(context.conn().await?, &model, &stream, 1).await
    }
}

/// Never comes to an end in a version, but where it is told to.
#[derive(Clone)]
struct Hangs {
    version: u32,
    works_at: Option<evenkeel_core::Partition>,
}

impl Projector<Draft> for Hangs {
    type State = ();

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        if context.version() == self.version && self.works_at.as_ref() != Some(context.partition()) {
            std::future::pending::<()>().await;
        }
        let stream = event.stream.clone();
        kit::add(context.conn().await?, "hangs", &stream, 1).await
    }
}

/// Runs a projection while time passes, until the future is ready; `None` after ten minutes.
async fn beside<P, T>(
    bank: &Bank,
    run: Projection<P, MemoryStore>,
    until: impl Future<Output = T>,
) -> Option<T>
where
    P: Projector<Draft>,
{
    let running = tokio::spawn(async move { run.run(std::future::pending()).await });
    let late = async {
        let began = bank.now();
        while bank.now().since(began) < Duration::from_secs(600) {
            tokio::task::yield_now().await;
        }
    };
    let either = async {
        tokio::select! {
            output = until => Some(output),
            () = late => None,
        }
    };
    let output = kit::with_moving_clock(&bank.clock, either).await;
    running.abort();
    output
}

#[tokio::test]
async fn the_active_version_goes_on_beside_one_whose_handler_fails_or_hangs() {
    let bank = Bank::with_partitions(2);
    for account in 0..10 {
        bank.deposit(&format!("account-{account}"), &[1]).await;
    }
    let fails = Projection::stream(bank.events.clone(), "fails", StopsAt { position: 1, version: 2 });
    let hangs = Projection::stream(bank.events.clone(), "hangs", Hangs { version: 2, works_at: None });
    fails.catch_up().await.unwrap();
    hangs.catch_up().await.unwrap();
    fails.operations().start_rebuild().await.unwrap();
    hangs.operations().start_rebuild().await.unwrap();
    for account in ["account-1", "account-2", "account-3"] {
        let appended = bank.deposit(account, &[1]).await;
        let waited = async {
            hangs.wait_for(&appended).await.unwrap();
            bank.deposit(account, &[1]).await
        };
        let next = beside(&bank, hangs.clone(), waited).await.expect("the active version goes on");
        let waited = fails.wait_for(&next);
        beside(&bank, fails.clone(), waited).await.expect("the active version goes on").unwrap();
    }
    assert_eq!(fails.operations().status().await.unwrap().active, 1);
}

#[tokio::test]
async fn no_version_becomes_active_that_one_partition_lacks() {
    let bank = Bank::with_partitions(4);
    for account in 0..40 {
        bank.deposit(&format!("account-{account}"), &[1]).await;
    }
    let works_at = Some(bank.store.partition_of("hangs"));
    let hangs = Projection::stream(bank.events.clone(), "hangs", Hangs { version: 2, works_at });
    hangs.catch_up().await.unwrap();
    hangs.operations().start_rebuild().await.unwrap();
    let switched = async {
        while hangs.operations().status().await.unwrap().active == 1 {
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(beside(&bank, hangs.clone(), switched).await, None);
}

#[tokio::test]
async fn a_version_that_becomes_active_has_what_the_one_before_had_at_the_last_look() {
    let bank = Bank::with_partitions(4);
    for account in 0..40 {
        bank.deposit(&format!("account-{account}"), &[1]).await;
    }
    let projection = Mode::Stream.of(&bank.events, &Sums::default());
    projection.catch_up().await.unwrap();
    projection.operations().start_rebuild().await.unwrap();
    let switched = async {
        while projection.operations().status().await.unwrap().active == 1 {
            tokio::task::yield_now().await;
        }
        bank.rows("sums-2").await.len()
    };
    assert_eq!(beside(&bank, Mode::Stream.of(&bank.events, &Sums::default()), switched).await, Some(40));
}

/// Gives up the version that is built while it is built; discards it too, where it is to.
struct GivesUp {
    other: Projection<Sums, MemoryStore>,
    discards: bool,
    done: Mutex<bool>,
}

impl Projector<Draft> for GivesUp {
    type State = ();

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        let is_done = context.version() == 1 || std::mem::replace(&mut *self.done.lock().unwrap(), true);
        if !is_done {
            self.other.operations().cancel_rebuild().await?;
            if self.discards {
                self.other.discard(2).await?;
            }
        }
        let (model, stream) = (format!("given-up-{}", context.version()), event.stream.clone());
        kit::add(context.conn().await?, &model, &stream, 1).await
    }
}

#[tokio::test]
async fn a_rebuild_ends_where_its_version_is_given_up_and_writes_nothing_where_it_is_discarded() {
    for (discards, left) in [(false, Some(1)), (true, None)] {
        let bank = Bank::new();
        bank.deposit("a", &[1]).await;
        let other = Mode::Stream.of(&bank.events, &Sums::default());
        other.catch_up().await.unwrap();
        let gives_up = GivesUp { other, discards, done: Mutex::default() };
        let projection = Projection::stream(bank.events.clone(), "sums", gives_up);
        let error = projection.rebuild().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        let status = projection.operations().status_of(2).await.unwrap();
        assert_eq!((status.active, status.building), (1, None));
        assert_eq!(status.progress().0, left.map_or(0, |_| 1));
        assert_eq!(bank.row("given-up-2", "a").await, left);
    }
}
