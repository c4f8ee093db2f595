use std::convert::Infallible;
use std::time::Duration;

use evenkeel::core::{
    Batch, Clock, Draft, Expect, Key, Lease, Merge, NewEvent, Partition, Store, StoreExt, SystemClock,
    Timestamp, Transactional,
};
use evenkeel::idempotency::{Idempotency, Operation, Scope};
use sqlx::{PgConnection, SqliteConnection};
use uuid::Uuid;

use crate::Result;
use crate::measure::{self, Load, Turn};
use crate::work::{ANSWER, KIND, STREAMS, VALUE, Work, finished};

/// The payload of an idempotent call.
pub(crate) const PAYLOAD: &str = r#"{"customer":"ada","cents":1200}"#;

/// How often a second evenkeel does the work on an empty store.
pub(crate) async fn rate<S>(store: S, work: Work, load: Load) -> Result<f64>
where
    S: Transactional<Conn: Effects> + Clone,
{
    match work {
        Work::Put => measure::rate(load, move |_| put(store.clone())).await,
        Work::ClaimAndFinish => measure::rate(load, move |_| claim_and_finish(store.clone())).await,
        Work::Append(events) => measure::rate(load, move |turn| append(store.clone(), turn, events)).await,
        Work::PushLeaseAck => measure::rate(load, move |turn| push_lease_ack(store.clone(), turn)).await,
        Work::Fresh => {
            let idempotency = Idempotency::new(store);
            measure::rate(load, move |_| call(idempotency.clone(), fresh_key())).await
        }
        Work::FreshWithRow => {
            let idempotency = Idempotency::new(store);
            measure::rate(load, move |_| call_with_row(idempotency.clone(), fresh_key())).await
        }
        Work::Replay => {
            let idempotency = Idempotency::new(store);
            for caller in 0..load.callers {
                call(idempotency.clone(), finished(caller)).await?;
            }
            measure::rate(load, move |turn| call(idempotency.clone(), finished(turn.caller))).await
        }
    }
}

async fn put(store: impl Store) -> Result<()> {
    let id = fresh_key();
    let mut batch = batch(store.partition_of(&id));
    batch.put(record(id), VALUE, Expect::Any);
    store.commit(batch).await?;
    Ok(())
}

async fn claim_and_finish(store: impl Store) -> Result<()> {
    let id = fresh_key();
    let at = store.partition_of(&id);
    let mut claim = batch(at.clone());
    claim.put(record(id.clone()), VALUE, Expect::Absent);
    let claimed = store.commit(claim).await?;
    let mut finish = batch(at);
    finish.put(record(id), VALUE, Expect::Version(claimed.version));
    store.commit(finish).await?;
    Ok(())
}

async fn append(store: impl Store, turn: Turn, events: usize) -> Result<()> {
    let stream = format!("order-{}", turn.nth % STREAMS);
    let mut batch = batch(store.partition_of(&stream));
    let now = batch.now();
    batch.append_any(stream, (0..events).map(|_| NewEvent::new(KIND, VALUE, now)));
    store.commit(batch).await?;
    Ok(())
}

async fn push_lease_ack(store: impl Store, turn: Turn) -> Result<()> {
    let queue = format!("mail-{}", turn.caller);
    let at = store.partition_of(&queue);
    let mut push = batch(at.clone());
    let now = push.now();
    push.push(queue.as_str(), fresh_key(), now, VALUE, Merge::Keep);
    store.commit(push).await?;
    let want = Lease { queue: queue.clone(), max: 1, hold_for: Duration::from_secs(30), now };
    let job = store.lease(&at, want).await?.jobs.pop().ok_or("a job that was pushed can be leased")?;
    let mut ack = batch(at);
    ack.ack(queue, job.id, job.token);
    store.commit(ack).await?;
    Ok(())
}

fn now() -> Timestamp {
    SystemClock.now()
}

fn batch(at: Partition) -> Batch {
    Batch::new(at, now())
}

fn record(id: String) -> Key {
    Key::new("bench.order", "placed", id)
}

pub(crate) fn fresh_key() -> String {
    Uuid::new_v4().to_string()
}

fn operation(key: String) -> Operation {
    Operation::new(Scope::Global, "[POST]/charges", key).payload(PAYLOAD)
}

async fn call<S: Store + Clone>(idempotency: Idempotency<S>, key: String) -> Result<()> {
    let answer = || async { Ok::<_, Infallible>(ANSWER.to_owned()) };
    idempotency.run(operation(key), answer).await.map_err(|error| error.to_string())?;
    Ok(())
}

async fn call_with_row<S>(idempotency: Idempotency<S>, key: String) -> Result<()>
where
    S: Transactional<Conn: Effects> + Clone,
{
    let row = key.clone();
    let done = idempotency.run_tx(operation(key), async |mut tx| {
        let conn = tx.conn().await.map_err(|error| error.to_string())?;
        conn.effect(&row).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(ANSWER.to_owned())
    });
    done.await.map_err(|error| error.to_string())?;
    Ok(())
}

/// A connection on which a row of the user's can be written.
pub(crate) trait Effects {
    fn effect(&mut self, key: &str) -> impl Future<Output = Result<()>> + Send;
}

impl Effects for SqliteConnection {
    async fn effect(&mut self, key: &str) -> Result<()> {
        sqlx::query("INSERT INTO effect (key, note) VALUES (?, 'done')").bind(key).execute(self).await?;
        Ok(())
    }
}

impl Effects for PgConnection {
    async fn effect(&mut self, key: &str) -> Result<()> {
        sqlx::query("INSERT INTO plain.effect (key, note) VALUES ($1, 'done')")
            .bind(key)
            .execute(self)
            .await?;
        Ok(())
    }
}

/// For stores without SQL: the user's row is a record.
impl Effects for Draft {
    async fn effect(&mut self, key: &str) -> Result<()> {
        self.put(Key::new("bench.effect", "all", key), "done");
        Ok(())
    }
}
