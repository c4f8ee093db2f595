use bytes::Bytes;
use evenkeel_core::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::Recorded;

/// Events of one stream (or, in a stream projection, of a partition), in order.
#[derive(Debug)]
pub(super) struct Unit {
    /// Whose they are: the place among the entries.
    pub(super) slot: usize,
    pub(super) events: Vec<Recorded>,
}

/// The chunk without the event that failed, and that event alone, in order; a unit in halves where
/// the event is not known.
pub(super) fn apart(mut chunk: Vec<Unit>, unit: usize, at: Option<usize>) -> Vec<Vec<Unit>> {
    let mut after = chunk.split_off(unit + 1);
    let Unit { slot, mut events } = chunk.pop().expect("a unit that failed is one of the chunk's");
    let place = at.unwrap_or(events.len() / 2).min(events.len() - 1);
    let mut from = events.split_off(place);
    if at.is_some() || from.len() == 1 {
        let rest = from.split_off(1);
        if !rest.is_empty() {
            after.insert(0, Unit { slot, events: rest });
        }
    }
    let mut parts = vec![chunk];
    parts.extend([events, from].map(|events| vec![Unit { slot, events }]));
    parts.push(after);
    for part in &mut parts {
        part.retain(|unit| !unit.events.is_empty());
    }
    parts.retain(|part| !part.is_empty());
    parts
}

pub(super) fn count(chunk: &[Unit]) -> usize {
    chunk.iter().map(|unit| unit.events.len()).sum()
}

pub(super) fn json(value: &impl Serialize) -> Result<Bytes> {
    let json = serde_json::to_vec(value).map_err(|source| {
        Error::new(ErrorKind::InvalidInput, "the state does not turn into JSON").with_source(source)
    })?;
    Ok(json.into())
}
