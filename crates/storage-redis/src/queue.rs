//! Leasing.

use evenkeel_core::{Job, Lease, Leased, LeasedJob, Result, Token};

use crate::keys::Tag;
use crate::read::{MAX_BYTES, MAX_ROWS};
use crate::rows;
use crate::script::{self, Arguments};
use crate::servers::{Effect, Request, Servers};

pub(crate) async fn lease(servers: &Servers, tag: &Tag, want: &Lease) -> Result<Leased> {
    let [jobs, ready, _] = tag.queue(&want.queue);
    let mut arguments = Arguments::default();
    arguments.push(rows::time(want.now)).push(rows::time(want.now + want.hold_for));
    // The script completes them with a number for each job.
    arguments.push(&Token::fresh().0.as_bytes()[..12]);
    arguments.display(want.max.min(MAX_ROWS)).display(MAX_BYTES);
    let cmd = script::LEASE.call(&[jobs, ready], &arguments);
    let answer = servers.ask(&Request::new(tag.slot(), Effect::Writes, "leasing jobs", cmd)).await?;
    let mut answer = rows::array(answer)?.into_iter();
    let next_due = answer.next().ok_or_else(|| rows::damaged("answer"))?;
    let next_due = rows::optional_bytes(next_due)?.map(rows::timestamp).transpose()?;
    let mut jobs = Vec::with_capacity(answer.len() / 2);
    while let (Some(id), Some(job)) = (answer.next(), answer.next()) {
        jobs.push(leased(rows::text(id)?, rows::job(rows::bytes(job)?)?)?);
    }
    Ok(Leased { jobs, next_due })
}

fn leased(id: String, job: Job) -> Result<LeasedJob> {
    let hold = job.lease.ok_or_else(|| rows::damaged("job"))?;
    let Job { payload, due, attempt, .. } = job;
    Ok(LeasedJob { id, payload, due, attempt, token: hold.token, until: hold.until })
}
