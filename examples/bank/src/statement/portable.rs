use evenkeel::core::{AnyStore, BoxError, Clock, Draft, Key, Scan, StoreExt, SystemClock};

use super::{Line, Lines};

const SPACE: &str = "bank.line";
const PAGE: usize = 100;

/// A record for each line, in whatever store it is.
#[derive(Clone)]
pub(crate) struct Records(pub(crate) AnyStore);

impl Lines for Records {
    type Conn = Draft;

    async fn create(&self, _: &mut Draft, _: u32) -> Result<(), BoxError> {
        Ok(())
    }

    async fn drop(&self, _: &mut Draft, _: u32) -> Result<(), BoxError> {
        // Records of a version that nobody reads are in nobody's way.
        Ok(())
    }

    async fn add(&self, draft: &mut Draft, version: u32, lines: &[Line]) -> Result<(), BoxError> {
        for line in lines {
            let key = Key::new(SPACE, group(version, &line.account), id(line.number));
            if draft.get(&key).await?.is_some() {
                return Err(format!("line {} of {} is there already", line.number, line.account).into());
            }
            draft.put(key, serde_json::to_vec(line)?);
        }
        Ok(())
    }

    async fn of(&self, version: u32, account: &str) -> Result<Vec<Line>, BoxError> {
        let mut lines: Vec<Line> = Vec::new();
        loop {
            let mut scan = Scan::new(SPACE, group(version, account), PAGE, SystemClock.now());
            if let Some(last) = lines.last() {
                scan = scan.after(id(last.number));
            }
            let page = self.0.scan_merged(scan).await?;
            if page.is_empty() {
                return Ok(lines);
            }
            for found in page {
                lines.push(serde_json::from_slice(&found.record.value)?);
            }
        }
    }
}

fn group(version: u32, account: &str) -> String {
    format!("{version}/{account}")
}

/// In the order of the numbers.
fn id(number: i64) -> String {
    format!("{number:020}")
}
