//! Runs that ended long ago.

use evenkeel_core::{Batch, ErrorKind, Expect, Key, Partition, Result, Scan, Store, Token};

use super::choreographer::Engine;
use super::journal::Journal;
use super::places;
use super::records::encode;

/// How many records of a run, and of its history, are forgotten at a time.
const PAGE: usize = 40;

impl Engine {
    /// Forgets a run that is leased and over, page by page, itself and its input last, at once with
    /// its job; where it is not time yet, puts the job back until it is.
    pub(super) async fn forget(&self, at: &Partition, run: &str, token: Token, kept: Journal) -> Result<()> {
        let Journal { mut record, mut version, .. } = kept;
        let key = places::key(run, places::RECORD);
        let ended_at = record.finished_at.unwrap_or(record.started_at);
        let due = ended_at + self.settings.retention;
        if due > self.now() {
            let mut batch = Batch::new(at.clone(), self.now());
            batch.retry(places::RUNS, run, token, due);
            return self.store.commit(batch).await.map(drop);
        }
        loop {
            let (history, no_more_history) = self.parts(at, places::HISTORY, run).await?;
            let (parts, no_more_parts) = self.parts(at, places::RUN, run).await?;
            let last = no_more_history && no_more_parts;
            let now = self.now();
            let mut batch = Batch::new(at.clone(), now);
            if last {
                batch.ack(places::RUNS, run, token);
            } else {
                batch.extend(places::RUNS, run, token, now + self.settings.lease);
            }
            for part in history.into_iter().chain(parts) {
                batch.delete(part, Expect::Any);
            }
            if last {
                batch
                    .delete(key.clone(), Expect::Version(version))
                    .delete(places::key(run, places::INPUT), Expect::Any);
                let entry = places::entry(run, record.started_at);
                places::INDEX.leave(&mut batch, record.state.as_str(), &entry);
            } else {
                // Whoever retries it from here on would begin what has finished again.
                record.forgotten = true;
                batch.put(key.clone(), encode(&record), Expect::Version(version));
            }
            let next = batch.version();
            match self.store.commit(batch).await {
                Ok(_) if last => return Ok(()),
                Ok(_) => version = next,
                // Somebody retries it.
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    let mut batch = Batch::new(at.clone(), now);
                    batch.retry(places::RUNS, run, token, now);
                    return self.store.commit(batch).await.map(drop);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A page of what is kept of a run in `space` besides itself and its input, and whether that is
    /// all.
    async fn parts(&self, at: &Partition, space: &'static str, run: &str) -> Result<(Vec<Key>, bool)> {
        let mut scan = Scan::new(space, run, PAGE, self.now());
        loop {
            let page = self.store.scan(at, scan.clone()).await?;
            let ids = page.records.into_iter().map(|(id, _)| id);
            let ids = ids.filter(|id| space != places::RUN || (id != places::RECORD && id != places::INPUT));
            let keys: Vec<_> = ids.map(|id| Key::new(space, run, id)).collect();
            match page.cursor {
                Some(cursor) if keys.is_empty() => scan = scan.after(cursor),
                cursor => return Ok((keys, cursor.is_none())),
            }
        }
    }
}
