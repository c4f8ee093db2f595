//! Values of the contract as bytes, and back. The scripts in `lua/` know the same forms.

use bytes::{Buf, Bytes};
use evenkeel_core::{
    Error, ErrorKind, Event, Hold, Job, NewEvent, Pending, Record, Result, Timestamp, Token, Version,
};
use redis::Value;
use uuid::Uuid;

/// The largest whole number below which a Lua number skips none.
const LARGEST_EXACT: u64 = 1 << 53;

/// A count or place as the scripts take it: nothing stored comes near the bound.
pub(crate) fn exact(count: u64) -> u64 {
    count.min(LARGEST_EXACT)
}

/// A point in time as 8 bytes that order like it.
pub(crate) const fn time(at: Timestamp) -> [u8; 8] {
    (at.as_micros().cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

pub(crate) fn timestamp(bytes: Vec<u8>) -> Result<Timestamp> {
    Reader::of(bytes, "time").time()
}

/// A record: version, expiry or not, value.
pub(crate) fn write_record(to: &mut Vec<u8>, version: Version, expires_at: Option<Timestamp>, value: &[u8]) {
    to.extend_from_slice(version.0.as_bytes());
    match expires_at {
        Some(at) => {
            to.push(1);
            to.extend_from_slice(&time(at));
        }
        None => to.push(0),
    }
    to.extend_from_slice(value);
}

pub(crate) fn record(bytes: Vec<u8>) -> Result<Record> {
    let mut rest = Reader::of(bytes, "record");
    let version = Version(rest.uuid()?);
    let expires_at = match rest.byte()? {
        0 => None,
        1 => Some(rest.time()?),
        _ => return Err(rest.damaged()),
    };
    Ok(Record { value: rest.into_bytes(), version, expires_at })
}

/// An event: batch, time, id, kind, media type, metadata, payload.
pub(crate) fn write_event(to: &mut Vec<u8>, batch: Uuid, recorded_at: Timestamp, event: &NewEvent) {
    to.extend_from_slice(batch.as_bytes());
    to.extend_from_slice(&time(recorded_at));
    to.extend_from_slice(event.id.as_bytes());
    let metadata = match event.metadata.is_empty() {
        true => Vec::new(),
        false => serde_json::to_vec(&event.metadata).expect("scalars are JSON"),
    };
    for part in [event.kind.as_bytes(), event.content_type.as_bytes(), &metadata] {
        let length = u32::try_from(part.len()).expect("the limits of a batch are far below 4 GiB");
        to.extend_from_slice(&length.to_be_bytes());
        to.extend_from_slice(part);
    }
    to.extend_from_slice(&event.payload);
}

/// An event, of its position, stream and version as the scripts return them, and its bytes.
pub(crate) fn event(position: &Value, stream: Value, version: &Value, bytes: Value) -> Result<Event> {
    let mut rest = Reader::of(self::bytes(bytes)?, "event");
    let (batch, recorded_at, id) = (rest.uuid()?, rest.time()?, rest.uuid()?);
    let (kind, content_type) = (rest.text()?, rest.text()?);
    let metadata = rest.part()?;
    let metadata = match metadata.is_empty() {
        true => Default::default(),
        false => serde_json::from_slice(&metadata).map_err(|source| damaged("event").with_source(source))?,
    };
    Ok(Event {
        id,
        stream: text(stream)?,
        version: number(version)?,
        position: number(position)?,
        kind,
        payload: rest.into_bytes(),
        content_type,
        metadata,
        recorded_at,
        batch,
    })
}

/// A new job as `lua/job.lua` describes it: one that is leased from its birth is at its first attempt.
pub(crate) fn write_job(to: &mut Vec<u8>, due: Timestamp, lease: Option<Hold>, payload: &[u8]) {
    to.extend_from_slice(&time(due));
    to.extend_from_slice(&u32::from(lease.is_some()).to_be_bytes());
    to.push(u8::from(lease.is_some()));
    if let Some(hold) = lease {
        to.extend_from_slice(hold.token.0.as_bytes());
        to.extend_from_slice(&time(hold.until));
    }
    to.extend_from_slice(payload);
}

pub(crate) fn job(bytes: Vec<u8>) -> Result<Job> {
    let mut rest = Reader::of(bytes, "job");
    let (due, attempt, flags) = (rest.time()?, rest.u32()?, rest.byte()?);
    let lease = match flags & 1 {
        0 => None,
        _ => Some(Hold { token: Token(rest.uuid()?), until: rest.time()? }),
    };
    let pending = match flags & 2 {
        0 => None,
        _ => Some((rest.time()?, rest.part()?)),
    };
    let sooner = match flags & 4 {
        0 => None,
        _ => Some(rest.time()?),
    };
    let pending = pending.map(|(due, payload)| Pending { due, payload, sooner });
    Ok(Job { due, payload: rest.into_bytes(), attempt, lease, pending })
}

/// What a script returned as an array.
pub(crate) fn array(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(damaged("answer")),
    }
}

/// What a script returned as bytes.
pub(crate) fn bytes(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err(damaged("answer")),
    }
}

/// What a script returned as bytes, or as nothing.
pub(crate) fn optional_bytes(value: Value) -> Result<Option<Vec<u8>>> {
    match value {
        Value::Nil => Ok(None),
        value => bytes(value).map(Some),
    }
}

/// What a script returned as text.
pub(crate) fn text(value: Value) -> Result<String> {
    String::from_utf8(bytes(value)?).map_err(|source| damaged("name").with_source(source))
}

/// What a script returned as a count or place.
pub(crate) fn number(value: &Value) -> Result<u64> {
    let number = match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(digits) => str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()),
        _ => None,
    };
    number.ok_or_else(|| damaged("number"))
}

pub(crate) fn damaged(what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, "what is stored has an unexpected form").with("what", what)
}

/// Bytes, read from their beginning.
struct Reader {
    rest: Bytes,
    what: &'static str,
}

impl Reader {
    fn of(bytes: Vec<u8>, what: &'static str) -> Self {
        Self { rest: Bytes::from(bytes), what }
    }

    fn damaged(&self) -> Error {
        damaged(self.what)
    }

    fn take(&mut self, length: usize) -> Result<Bytes> {
        if self.rest.len() < length {
            return Err(self.damaged());
        }
        Ok(self.rest.split_to(length))
    }

    fn byte(&mut self) -> Result<u8> {
        self.rest.try_get_u8().map_err(|_| self.damaged())
    }

    fn u32(&mut self) -> Result<u32> {
        self.rest.try_get_u32().map_err(|_| self.damaged())
    }

    fn uuid(&mut self) -> Result<Uuid> {
        self.rest.try_get_u128().map(Uuid::from_u128).map_err(|_| self.damaged())
    }

    fn time(&mut self) -> Result<Timestamp> {
        let biased = self.rest.try_get_u64().map_err(|_| self.damaged())?;
        Ok(Timestamp::from_micros((biased ^ (1 << 63)).cast_signed()))
    }

    fn part(&mut self) -> Result<Bytes> {
        let length = self.u32()?;
        self.take(usize::try_from(length).expect("a u32 fits a usize"))
    }

    fn text(&mut self) -> Result<String> {
        String::from_utf8(self.part()?.to_vec()).map_err(|source| self.damaged().with_source(source))
    }

    fn into_bytes(self) -> Bytes {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_order_as_bytes() {
        let times = [i64::MIN, -1, 0, 1, 1 << 53, i64::MAX].map(Timestamp::from_micros);
        assert!(times.map(time).is_sorted());
        for at in times {
            assert_eq!(Reader::of(time(at).to_vec(), "time").time().unwrap(), at);
        }
    }

    #[test]
    fn a_record_survives_whole() {
        let version = Version(Uuid::from_u128(7));
        for expires_at in [None, Some(Timestamp::MIN), Some(Timestamp::MAX)] {
            let mut bytes = Vec::new();
            write_record(&mut bytes, version, expires_at, b"\0value");
            let found = record(bytes).unwrap();
            assert_eq!(found, Record { value: Bytes::from_static(b"\0value"), version, expires_at });
        }
    }

    #[test]
    fn what_is_cut_short_is_corrupt() {
        let mut whole = Vec::new();
        write_record(&mut whole, Version(Uuid::nil()), Some(Timestamp::EPOCH), b"");
        for length in 0..whole.len() {
            assert_eq!(record(whole[..length].to_vec()).unwrap_err().kind(), ErrorKind::Corrupt, "{length}");
        }
        assert_eq!(job(vec![0; 12]).unwrap_err().kind(), ErrorKind::Corrupt);
        let cut = event(
            &Value::Int(1),
            Value::BulkString(b"s".to_vec()),
            &Value::Int(1),
            Value::BulkString(vec![0; 44]),
        );
        assert_eq!(cut.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
