use axum::Json as Answer;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use evenkeel_core::{
    self as core, Batch, JobPage, Jobs as Want, Merge, Partition, Store, StoreExt, Timestamp,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Service;
use crate::Problem;
use crate::page::{Limit, Time};
use crate::request::{Json, NoQuery, Query};

/// The queues whose names are known.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Queues {
    queues: Vec<Queue>,
    /// How many partitions the store has; each has its own queues.
    partitions: u32,
}

/// A queue whose name is known.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Queue {
    /// May have a part in braces.
    name: &'static str,
    about: &'static str,
}

const KNOWN: [(&str, &str); 7] = [
    ("flare.tasks", "what one commit cannot hold: publications to many, back-fills, replays, clearing up"),
    ("flare.pumps", "the subscriptions that have deliveries"),
    ("flare.deliver/{subscription}", "the deliveries of one subscription"),
    ("flare.exhausted/{subscription}", "those of its deliveries that were tried for the last time"),
    (
        "choreograph.runs",
        "the runs that have something to do, now or at a time; those that are over, until they are forgotten",
    ),
    ("choreograph.tasks", "what has to be done for a run in another partition"),
    ("projections.run/{projection}", "who runs a projection: a job in each partition, held by a node"),
];

/// Which jobs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobsQuery {
    /// The queue's name.
    queue: String,
    /// Which partition, from 0.
    #[serde(default)]
    partition: u32,
    /// How many are answered at most.
    #[serde(default)]
    #[param(value_type = Option<usize>, minimum = 1, maximum = 100, default = 30)]
    limit: Limit,
    /// Where to go on: the `nextCursor` of the part before.
    cursor: Option<String>,
}

/// Which job.
#[derive(Debug, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobName {
    /// The queue's name.
    queue: String,
    /// Which partition, from 0.
    #[serde(default)]
    partition: u32,
    /// The job's id within the queue.
    id: String,
}

/// A part of a queue, in the order of the ids.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Jobs {
    jobs: Vec<Job>,
    /// Where to go on; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A job as it stands in its queue.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Job {
    id: String,
    /// When it may be worked on; not there where that is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<Time>,
    /// How often it was begun.
    attempt: u32,
    /// Until when somebody works on it, perhaps in the past where nobody has begun it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    leased_until: Option<Time>,
    /// What it is about, where that is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    /// What it is about, in base64, where that is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

/// Lists the queues whose names are known
///
/// A store cannot list its queues: who knows another's name can look into that one, too.
#[utoipa::path(get, path = "/operations/queues", tag = "operations", responses((status = 200, body = Queues)))]
pub(crate) async fn list_queues(State(service): State<Service>, _: NoQuery) -> Answer<Queues> {
    let queues = KNOWN.map(|(name, about)| Queue { name, about }).into();
    Answer(Queues { queues, partitions: service.store.info().partitions })
}

/// Lists the jobs of a queue
#[utoipa::path(get, path = "/operations/jobs", tag = "operations", params(JobsQuery),
    responses((status = 200, body = Jobs)))]
pub(crate) async fn list_jobs(
    State(service): State<Service>,
    Query(JobsQuery { queue, partition, limit, cursor }): Query<JobsQuery>,
) -> Result<Answer<Jobs>, Problem> {
    let at = service.partition(partition)?;
    let want = Want::Page { queue, after: cursor, limit: limit.get() };
    want.check()?;
    let JobPage { jobs, cursor: next_cursor } = service.store.jobs(&at, want).await?;
    Ok(Answer(Jobs { jobs: jobs.into_iter().map(Job::from).collect(), next_cursor }))
}

/// Shows a job
#[utoipa::path(get, path = "/operations/job", tag = "operations", params(JobName),
    responses((status = 200, body = Job)))]
pub(crate) async fn show_job(
    State(service): State<Service>,
    Query(name): Query<JobName>,
) -> Result<Answer<Job>, Problem> {
    let at = service.partition(name.partition)?;
    let job = service.job(&at, &name).await?;
    Ok(Answer((name.id, job).into()))
}

/// Lets a job fall due now
///
/// One that somebody works on falls due when that ends, unless it is finished then. One that is
/// finished between the look at it and this is made once more.
#[utoipa::path(post, path = "/operations/jobs/retry", tag = "operations", request_body = JobName,
    responses((status = 202)))]
pub(crate) async fn retry_job(
    State(service): State<Service>,
    _: NoQuery,
    Json(name): Json<JobName>,
) -> Result<StatusCode, Problem> {
    let at = service.partition(name.partition)?;
    let job = service.job(&at, &name).await?;
    let now = service.clock.now();
    let mut batch = Batch::new(at, now);
    batch.push(&name.queue, &name.id, now, job.payload, Merge::Sooner);
    service.store.commit(batch).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Cancels a job
///
/// Whoever works on it can record nothing any more. A job of flare's is a duty to tell somebody:
/// cancelled, it is not fulfilled.
#[utoipa::path(post, path = "/operations/jobs/cancel", tag = "operations", request_body = JobName,
    responses((status = 204)))]
pub(crate) async fn cancel_job(
    State(service): State<Service>,
    _: NoQuery,
    Json(name): Json<JobName>,
) -> Result<StatusCode, Problem> {
    let at = service.partition(name.partition)?;
    service.job(&at, &name).await?;
    let mut batch = Batch::new(at, service.clock.now());
    batch.cancel(&name.queue, &name.id);
    service.store.commit(batch).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Service {
    fn partition(&self, index: u32) -> Result<Partition, Problem> {
        let partitions = self.store.partitions();
        let count = partitions.len();
        let found = partitions.into_iter().find(|partition| partition.index() == index);
        found.ok_or_else(|| {
            Problem::bad_request(format!(
                "there is no such partition (partition: {index}, partitions: {count})"
            ))
        })
    }

    async fn job(&self, at: &Partition, name: &JobName) -> Result<core::Job, Problem> {
        let want = Want::ByIds { queue: name.queue.clone(), ids: vec![name.id.clone()] };
        want.check()?;
        let found = self.store.jobs(at, want).await?.jobs.into_iter().next();
        found.map(|(_, job)| job).ok_or_else(|| {
            let (queue, id) = (name.queue.escape_debug(), name.id.escape_debug());
            Problem::not_found(format!("there is no such job (queue: {queue}, partition: {at}, id: {id})"))
        })
    }
}

impl From<(String, core::Job)> for Job {
    fn from((id, job): (String, core::Job)) -> Self {
        let core::Job { due, payload, attempt, lease, .. } = job;
        let (payload, payload_base64) = match std::str::from_utf8(&payload) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(&payload))),
        };
        let due = (due != Timestamp::MAX).then_some(Time(due));
        Self { id, due, attempt, leased_until: lease.map(|hold| Time(hold.until)), payload, payload_base64 }
    }
}
