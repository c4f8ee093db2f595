//! What tests of projections are about: accounts with money, and a projector that adds it up.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evenkeel_core::{BoxError, Draft, Key, Result, Transactional};
use evenkeel_projections::{Context, Event, EventStore, Projection, Projector, Recorded};
use serde::{Deserialize, Serialize};

/// What happens to an account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AccountEvent {
    /// It is somebody's.
    Opened {
        /// Whose.
        owner: String,
    },
    /// It has more.
    Deposited {
        /// How much more.
        cents: i64,
    },
    /// It has less.
    Withdrawn {
        /// How much less.
        cents: i64,
    },
}
impl Event for AccountEvent {}

/// A deposit of each amount.
#[must_use]
pub fn deposits(cents: &[i64]) -> Vec<AccountEvent> {
    cents.iter().map(|cents| AccountEvent::Deposited { cents: *cents }).collect()
}

/// The cents that an event moves.
///
/// # Errors
/// Where it is an account's and cannot be read.
pub fn cents(event: &Recorded) -> Result<i64> {
    Ok(match event.decode::<AccountEvent>()? {
        Some(AccountEvent::Deposited { cents }) => cents,
        Some(AccountEvent::Withdrawn { cents }) => -cents,
        Some(AccountEvent::Opened { .. }) | None => 0,
    })
}

/// The record of the read model `model` that is about `id`.
#[must_use]
pub fn row(model: &str, id: &str) -> Key {
    Key::new("test.model", model, id)
}

/// Adds a number to a record of the read model `model`.
///
/// # Errors
/// Those of the store, and where the record is no number.
pub async fn add(draft: &mut Draft, model: &str, id: &str, by: i64) -> Result<(), BoxError> {
    let key = row(model, id);
    let sum: i64 = match draft.get(&key).await? {
        Some(sum) => std::str::from_utf8(&sum)?.parse()?,
        None => 0,
    };
    draft.put(key, (sum + by).to_string());
    Ok(())
}

/// Keeps the sum of each account, and fails for amounts that are poison: with a panic for 666, else with
/// an error.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    poison: Arc<Mutex<HashSet<i64>>>,
    seen: Arc<Mutex<Vec<u64>>>,
    text: Arc<Mutex<Option<String>>>,
}

impl Sums {
    /// One that fails for an amount.
    #[must_use]
    pub fn poisoned_by(cents: i64) -> Self {
        let sums = Self::default();
        held(&sums.poison).insert(cents);
        sums
    }

    /// Fails no more.
    pub fn heal(&self) {
        held(&self.poison).clear();
    }

    /// Says this when it fails, instead of what it usually does.
    pub fn says(&self, text: String) {
        *held(&self.text) = Some(text);
    }

    /// The positions of all events that a handler saw, in this order.
    #[must_use]
    pub fn seen(&self) -> Vec<u64> {
        held(&self.seen).clone()
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many events were applied, and what they came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Total {
    events: u64,
    cents: i64,
}

impl Projector<Draft> for Sums {
    type State = Total;

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, Total>) -> Result<(), BoxError> {
        held(&self.seen).push(event.position);
        let cents = cents(event)?;
        if held(&self.poison).contains(&cents) {
            assert!(cents != 666, "the amount of {cents} is beyond words");
            let text = held(&self.text).clone();
            return Err(text.unwrap_or_else(|| format!("{cents} cents are poison")).into());
        }
        context.state.events += 1;
        context.state.cents += cents;
        let total = context.state.cents;
        let (stream, version) = (event.stream.clone(), context.version());
        let model = format!("sums-{version}");
        let draft = context.conn().await?;
        add(draft, &model, &stream, cents).await?;
        add(draft, &format!("{model}-count"), &stream, 1).await?;
        draft.put(row(&format!("{model}-total"), &stream), total.to_string());
        Ok(())
    }
}

/// Which kind of projection a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All events of a partition in their order.
    Stream,
    /// Each stream by itself.
    Keyed,
}

impl Mode {
    /// Both kinds.
    pub const BOTH: [Self; 2] = [Self::Stream, Self::Keyed];

    /// A projection of this kind, called `sums`.
    pub fn on<P, S>(self, events: EventStore<S>, projector: P) -> Projection<P, S>
    where
        P: Projector<S::Conn>,
        S: Transactional + Clone,
    {
        match self {
            Self::Stream => Projection::stream(events, "sums", projector),
            Self::Keyed => Projection::keyed(events, "sums", projector),
        }
    }

    /// A projection of this kind that adds up.
    pub fn of<S>(self, events: &EventStore<S>, sums: &Sums) -> Projection<Sums, S>
    where
        S: Transactional<Conn = Draft> + Clone,
    {
        self.on(events.clone(), sums.clone())
    }
}
