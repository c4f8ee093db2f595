use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::batch::{check_limit, check_name};
use crate::{Key, Result, Timestamp};

/// What a push does where the job exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Merge {
    /// Leaves its due time and payload as they are.
    Keep,
    /// Takes the earlier due time and the new payload.
    Sooner,
}

/// Proof of a lease; each lease of a job has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub Uuid);

impl Token {
    /// A token that no other lease has.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::new_v4())
    }
}

/// A job as it stands in its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// When it may be leased, or might have been had nobody leased it.
    pub due: Timestamp,
    /// What it is about.
    pub payload: Bytes,
    /// How often it was leased since it was created; starts at 0.
    pub attempt: u32,
    /// Who holds it. Kept past its end, until the job is leased again, retried or acknowledged:
    /// the clock alone ends no lease.
    pub lease: Option<Hold>,
    /// What was pushed while it was leased; takes effect when the lease ends.
    pub pending: Option<Pending>,
}

/// A lease as it stands on a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The holder's token.
    pub token: Token,
    /// From this instant on another may lease the job.
    pub until: Timestamp,
}

/// The pushes that arrived during a lease, folded into one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The due time of a job created by them.
    pub due: Timestamp,
    /// The payload of a job created by them, and the new payload where `sooner` is set.
    pub payload: Bytes,
    /// The earliest due time of those with [`Merge::Sooner`], which change a job that is still
    /// there.
    pub sooner: Option<Timestamp>,
}

impl Job {
    /// A job that nobody leased yet.
    #[must_use]
    pub fn new(due: Timestamp, payload: Bytes) -> Self {
        Self { due, payload, attempt: 0, lease: None, pending: None }
    }

    /// When it can next be leased: at its due time, or when its lease runs out.
    #[must_use]
    pub fn ready_at(&self) -> Timestamp {
        self.lease.map_or(self.due, |hold| hold.until)
    }

    /// Whether `token` is the current lease's.
    #[must_use]
    pub fn is_held_by(&self, token: Token) -> bool {
        self.lease.is_some_and(|hold| hold.token == token)
    }

    /// Applies a push to the job; one that is leased keeps it for the lease's end.
    pub fn push(&mut self, due: Timestamp, payload: Bytes, merge: Merge) {
        if self.lease.is_some() {
            Pending::add(&mut self.pending, due, payload, merge);
        } else if merge == Merge::Sooner {
            self.due = self.due.min(due);
            self.payload = payload;
        }
    }

    /// What is left after an acknowledgement: nothing, or the job that was pushed meanwhile.
    #[must_use]
    pub fn acked(self) -> Option<Self> {
        self.pending.map(|pending| Self::new(pending.due, pending.payload))
    }

    /// Ends the lease and sets a new due time.
    pub fn retry(&mut self, due: Timestamp) {
        self.due = due;
        self.end_lease();
    }

    /// Hands the job to a new holder, ending whatever lease there was.
    pub fn lease(&mut self, hold: Hold) {
        self.end_lease();
        self.attempt = self.attempt.saturating_add(1);
        self.lease = Some(hold);
    }

    fn end_lease(&mut self) {
        self.lease = None;
        if let Some(Pending { payload, sooner: Some(sooner), .. }) = self.pending.take() {
            self.due = self.due.min(sooner);
            self.payload = payload;
        }
    }
}

impl Pending {
    fn add(pending: &mut Option<Self>, due: Timestamp, payload: Bytes, merge: Merge) {
        let sooner = (merge == Merge::Sooner).then_some(due);
        match pending {
            None => *pending = Some(Self { due, payload, sooner }),
            Some(_) if merge == Merge::Keep => {}
            Some(pending) => {
                pending.due = pending.due.min(due);
                pending.payload = payload;
                pending.sooner = Some(pending.sooner.map_or(due, |sooner| sooner.min(due)));
            }
        }
    }
}

/// A request for due jobs of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The queue's name, 1 to 512 bytes.
    pub queue: String,
    /// At most this many; at least 1.
    pub max: usize,
    /// How long nobody else may lease them.
    pub hold_for: std::time::Duration,
    /// The instant at which "due" is judged.
    pub now: Timestamp,
}

impl Lease {
    /// Checks the names and the limit.
    ///
    /// # Errors
    /// `InvalidInput` naming what is wrong.
    pub fn check(&self) -> Result<()> {
        check_name("queue", &self.queue, Key::MAX_PART)?;
        check_limit(self.max)
    }
}

/// The answer to a [`Lease`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leased {
    /// The jobs, roughly earliest first.
    pub jobs: Vec<LeasedJob>,
    /// When the next of the others can be leased; advisory.
    pub next_due: Option<Timestamp>,
}

/// A job that the caller holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedJob {
    /// Its id within the queue.
    pub id: String,
    /// What it is about.
    pub payload: Bytes,
    /// When it was due.
    pub due: Timestamp,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// What acknowledges, retries or extends it.
    pub token: Token,
    /// No work may be begun from this instant on.
    pub until: Timestamp,
}

/// A look at jobs without leasing them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Jobs {
    /// The jobs with these ids, where they exist.
    ByIds {
        /// The queue's name.
        queue: String,
        /// The ids.
        ids: Vec<String>,
    },
    /// A page of the queue in id order.
    Page {
        /// The queue's name.
        queue: String,
        /// Ids strictly beyond this one.
        after: Option<String>,
        /// At most this many; at least 1.
        limit: usize,
    },
}

impl Jobs {
    /// Checks the names and the limit.
    ///
    /// # Errors
    /// `InvalidInput` naming what is wrong.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::ByIds { queue, ids } => {
                check_name("queue", queue, Key::MAX_PART)?;
                ids.iter().try_for_each(|id| check_name("id", id, Key::MAX_PART))
            }
            Self::Page { queue, limit, .. } => {
                check_name("queue", queue, Key::MAX_PART)?;
                check_limit(*limit)
            }
        }
    }
}

/// The answer to [`Jobs`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobPage {
    /// Ids and jobs; in id order for a page, in the order asked for by ids.
    pub jobs: Vec<(String, Job)>,
    /// Where to go on; `None` at the end.
    pub cursor: Option<String>,
}
