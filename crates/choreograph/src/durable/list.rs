use evenkeel_core::{MergedRecord, Result, Scan, Store, StoreExt, Timestamp};
use serde::Serialize;

use super::choreographer::Choreographer;
use super::places;
use super::records::{IndexEntry, corrupt};
use crate::outcome::RunState;

/// Which runs to list.
#[derive(Clone, Debug)]
pub struct RunFilter {
    state: Option<RunState>,
    definition: Option<String>,
    started: (Timestamp, Timestamp),
    after: Option<String>,
    limit: usize,
}

impl RunFilter {
    /// Those of a state, up to 100.
    #[must_use]
    pub const fn new(state: RunState) -> Self {
        Self::of(Some(state))
    }

    /// Those of all states, up to 100. It costs as much as a list for each state; one that changes
    /// its state meanwhile may be left out.
    #[must_use]
    pub const fn all() -> Self {
        Self::of(None)
    }

    const fn of(state: Option<RunState>) -> Self {
        let started = (Timestamp::EPOCH, Timestamp::MAX);
        Self { state, definition: None, started, after: None, limit: 100 }
    }

    /// Only of this definition.
    #[must_use]
    pub fn definition(self, name: impl Into<String>) -> Self {
        Self { definition: Some(name.into()), ..self }
    }

    /// Only those started at or after `from` and before `to`.
    #[must_use]
    pub fn started(self, from: Timestamp, to: Timestamp) -> Self {
        Self { started: (from, to), ..self }
    }

    /// Goes on after a page.
    #[must_use]
    pub fn after(self, cursor: impl Into<String>) -> Self {
        Self { after: Some(cursor.into()), ..self }
    }

    /// So many at most, at least 1.
    #[must_use]
    pub fn limit(self, limit: usize) -> Self {
        Self { limit: limit.max(1), ..self }
    }
}

/// A page of runs, in the order in which they were started.
///
/// It may hold fewer than its limit, or none, and still have a cursor: a call looks at no more
/// than its limit or 500 runs of a state, whichever is more.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RunPage {
    /// The runs.
    pub runs: Vec<RunSummary>,
    /// Where to go on with [`RunFilter::after`]; `None` at the end.
    pub cursor: Option<String>,
}

/// What a list says of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RunSummary {
    /// Its id.
    pub id: String,
    /// The name of its definition.
    pub definition: String,
    /// Where it stands.
    pub state: RunState,
    /// When it was started.
    pub started_at: Timestamp,
}

/// How many entries of a state are looked at for those of one definition.
const LOOKED_AT: usize = 500;

impl<S: Store + Clone> Choreographer<S> {
    /// The runs of all partitions that pass the filter, a page at a time.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self, filter: RunFilter) -> Result<RunPage> {
        let RunFilter { state, definition, started: (from, to), after, limit } = filter;
        let engine = &self.engine;
        let after = after.or_else(|| (from > Timestamp::EPOCH).then(|| places::instant(from)));
        let until = (to < Timestamp::MAX).then(|| places::instant(to));
        let most = if definition.is_some() { limit.max(LOOKED_AT) } else { limit };
        let mut found = Vec::new();
        // Where a state has more, nothing after its last one is to be passed over.
        let mut seen_to: Option<String> = None;
        for state in state.as_ref().map_or(&RunState::ALL[..], std::slice::from_ref) {
            let (space, group) = (places::INDEX.key(state.as_str(), "").space, state.as_str());
            let scan = Scan::new(space, group, most, engine.now());
            let page =
                engine.store.scan_merged(Scan { after: after.clone(), until: until.clone(), ..scan }).await?;
            if let Some(last) = page.get(most - 1) {
                seen_to = seen_to.take().into_iter().chain([last.id.clone()]).min();
            }
            found.extend(page.into_iter().map(|record| (*state, record)));
        }
        found.sort_by(|(_, a), (_, b)| a.id.cmp(&b.id));
        found.dedup_by(|(_, later), (_, first)| later.id == first.id);
        let mut runs = Vec::new();
        for (state, MergedRecord { id: place, record, .. }) in found {
            if seen_to.as_ref().is_some_and(|seen_to| place > *seen_to) {
                break;
            }
            let unreadable = |source| corrupt(&place, "index").with_source(source);
            let entry: IndexEntry = serde_json::from_slice(&record.value).map_err(unreadable)?;
            let IndexEntry { run: id, definition: name, started_at } = entry;
            if definition.as_ref().is_some_and(|wanted| *wanted != name) {
                continue;
            }
            runs.push(RunSummary { id, definition: name, state, started_at });
            if runs.len() == limit {
                return Ok(RunPage { runs, cursor: Some(place) });
            }
        }
        Ok(RunPage { runs, cursor: seen_to })
    }
}
