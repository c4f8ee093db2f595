use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use evenkeel_core::{Error, ErrorKind};
use evenkeel_projections::{self as projections, Operations, PartitionStatus, Status};
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use serde::Serialize;
use utoipa::ToSchema;

use super::Service;
use crate::Problem;
use crate::page::{CursorQuery, Time};
use crate::request::{NoQuery, Path, Query};

/// How many projections are looked at side by side.
const SIDE_BY_SIDE: usize = 8;

/// A part of a list, in the order of the names.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Projections {
    projections: Vec<Listed>,
    /// Where to go on; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A projection, or what is known of one that cannot be read.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Listed {
    Readable(Projection),
    Unreadable(Unreadable),
}

/// A projection that is not as it was written, or whose log ends before its position.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Unreadable {
    name: String,
    /// What is wrong.
    error: String,
}

/// How a projection is doing.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Projection {
    name: String,
    /// The version that readers read.
    version: u32,
    paused: bool,
    /// How many events are beyond its positions.
    lag: u64,
    partitions: Vec<Progress>,
    /// The version that is to take its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    building: Option<Building>,
}

/// How a version that is being built is doing.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Building {
    version: u32,
    /// How many events are beyond its positions.
    lag: u64,
    partitions: Vec<Progress>,
}

/// How a version is doing in a partition.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Progress {
    partition: u32,
    /// The last position that is applied or passed over.
    position: u64,
    /// The last position there is.
    head: u64,
    /// How many events are beyond the position.
    lag: u64,
    /// For how long the oldest of them has been waiting.
    behind_seconds: f64,
    /// For how long the position has stood still; not there where it never moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    still_seconds: Option<f64>,
    /// Where it stopped, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<Failure>,
}

/// An event that could not be applied.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Failure {
    /// Its position in its partition's log.
    position: u64,
    stream: String,
    /// Its version there.
    version: u64,
    kind: String,
    /// What the handler said last.
    error: String,
    /// How often it was applied alone.
    attempts: u32,
    failed_at: Time,
}

/// Lists the projections that have run
#[utoipa::path(get, path = "/projections", tag = "projections", params(CursorQuery),
    responses((status = 200, body = Projections)))]
pub(crate) async fn list_projections(
    State(service): State<Service>,
    Query(CursorQuery { limit, cursor }): Query<CursorQuery>,
) -> Result<Answer<Projections>, Problem> {
    let (store, now, limit) = (service.events.store(), service.clock.now(), limit.get());
    let names = Operations::list(store, now, cursor.as_deref(), limit).await?;
    let next_cursor = (names.len() == limit).then(|| names.last().cloned()).flatten();
    let shown = iter(names).map(|name| service.listed(name)).buffered(SIDE_BY_SIDE);
    Ok(Answer(Projections { projections: shown.try_collect().await?, next_cursor }))
}

/// Shows a projection
#[utoipa::path(get, path = "/projections/{name}", tag = "projections", params(("name" = String, Path)),
    responses((status = 200, body = Listed)))]
pub(crate) async fn show_projection(
    State(service): State<Service>,
    Path(name): Path<String>,
    _: NoQuery,
) -> Result<Answer<Listed>, Problem> {
    Ok(Answer(service.listed(name).await?))
}

impl Service {
    /// A projection as it stands, or what is wrong with it.
    async fn listed(&self, name: String) -> Result<Listed, Error> {
        match self.projection(name.clone()).await {
            Ok(projection) => Ok(Listed::Readable(projection)),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                Ok(Listed::Unreadable(Unreadable { name, error: error.to_string() }))
            }
            Err(error) => Err(error),
        }
    }

    /// A projection as it stands.
    pub(super) async fn projection(&self, name: String) -> Result<Projection, Error> {
        let operations = self.operations(&name);
        let status = operations.status().await?;
        let building = match status.building {
            Some(version) => Some(operations.status_of(version).await?),
            None => None,
        };
        Ok(Projection {
            name,
            version: status.active,
            paused: status.paused,
            lag: status.lag(),
            partitions: progress(&status),
            building: building.map(|status| Building {
                version: status.version,
                lag: status.lag(),
                partitions: progress(&status),
            }),
        })
    }
}

/// To the millisecond, which is as much as a reader wants of it.
fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1_000.0
}

fn progress(status: &Status) -> Vec<Progress> {
    status.partitions.iter().map(Progress::from).collect()
}

impl From<&PartitionStatus> for Progress {
    fn from(status: &PartitionStatus) -> Self {
        Self {
            partition: status.at.index(),
            position: status.position,
            head: status.head,
            lag: status.lag(),
            behind_seconds: seconds(status.behind),
            still_seconds: status.still.map(seconds),
            stopped: status.failed.as_ref().map(Failure::from),
        }
    }
}

impl From<&projections::Failure> for Failure {
    fn from(failure: &projections::Failure) -> Self {
        let projections::Failure { position, stream, version, kind, error, attempts, failed_at } =
            failure.clone();
        Self { position, stream, version, kind, error, attempts, failed_at: Time(failed_at) }
    }
}
