use axum::Json as Answer;
use axum::extract::State;
use evenkeel_flare::{
    self as flare, Action, AttemptFilter, Counts, DeliveryState, NoticeKind, Outcome, Page, Status, Waiting,
};
use serde::{Deserialize, Serialize};
use utoipa::openapi::Schema;
use utoipa::{IntoParams, ToSchema};

use super::subscription::status;
use super::{Service, document_url};
use crate::Problem;
use crate::page::{CursorQuery, Limit, Time, words};
use crate::request::{NoQuery, Path, Query};

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deliveries {
    deliveries: Vec<Delivery>,
    /// Where to go on; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A delivery that waits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WaitingDelivery)]
pub(crate) struct Delivery {
    /// The document.
    url: String,
    #[schema(schema_with = delivery_state)]
    state: DeliveryState,
    /// When it is made or tried again; not there where it was tried for the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<Time>,
    /// How often it was begun.
    attempt: u32,
}

/// A part of a list, the latest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Attempts {
    attempts: Vec<Attempt>,
    /// Where to go on; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// One try at telling a subscriber of a document.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Attempt {
    /// The `webhook-id`.
    message: String,
    /// The document.
    url: String,
    /// Which revision of it.
    revision: i64,
    #[schema(schema_with = action)]
    action: Action,
    /// When it ended.
    at: Time,
    /// How long it took, in microseconds.
    took_us: u64,
    /// Which try of its series it was, from 1.
    tries: u32,
    #[schema(schema_with = outcome)]
    outcome: Outcome,
    /// The status answered, where there was an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Why there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
    /// The first 16 KiB of the answer's body.
    #[serde(skip_serializing_if = "String::is_empty")]
    response: String,
}

/// Why an attempt had no answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Failure {
    /// `dns`, `refused_address`, `connect`, `tls`, `timed_out` or `protocol`; `message` where there was none
    /// to send.
    kind: String,
    /// In words.
    message: String,
}

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToldList {
    told: Vec<Told>,
    /// Where to go on; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// What a subscriber was told of a document, and how telling it goes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Told {
    /// The document.
    url: String,
    /// What was told last; not there where nothing was, as far as is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Last>,
    /// The revision of the last attempt of which nobody knows whether it was heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    begun: Option<i64>,
    /// The tries that failed since the last that did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    failing: Option<Failing>,
    /// Whether what was told last is to be told once more.
    again: bool,
}

/// What a subscriber was told last.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Last {
    revision: i64,
    #[schema(schema_with = action)]
    action: Action,
    /// When its answer came.
    at: Time,
    /// What it answered.
    status: u16,
}

/// A series of tries that failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Failing {
    /// When the first began.
    since: Time,
    /// When the last ended.
    at: Time,
    /// How many there were.
    tries: u32,
}

/// How a subscription fares.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    #[schema(schema_with = status)]
    status: Status,
    /// When the first of the failures was that no success followed; not there where it fares well.
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_since: Option<Time>,
    deliveries: DeliveryCounts,
}

/// How many deliveries stand how, counted up to 10,000 in all.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeliveryCounts {
    /// Not begun yet.
    pending: usize,
    /// Being made right now.
    under_way: usize,
    /// To be tried again.
    retrying: usize,
    /// Tried for the last time.
    exhausted: usize,
    /// Whether there are more than were counted.
    is_capped: bool,
}

/// A part of a list, the latest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Notices {
    notices: Vec<Notice>,
    /// Where to go on; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Something that an operator wants to know.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Notice {
    /// The subscription.
    subscription: String,
    /// What happened.
    #[schema(schema_with = notice_kind)]
    kind: NoticeKind,
    at: Time,
    /// In words.
    message: String,
}

/// Which deliveries are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeliveryQuery {
    /// Only those that stand so.
    #[param(schema_with = delivery_state)]
    state: Option<DeliveryState>,
    /// How many are answered at most; there may be fewer, even none, with more to come.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 100, default = 30)]
    limit: Limit,
    /// Where to go on: the `nextCursor` of the part before.
    cursor: Option<String>,
}

/// Which attempts are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AttemptQuery {
    /// Only with this outcome.
    #[param(schema_with = outcome)]
    outcome: Option<Outcome>,
    /// Only at this document.
    url: Option<String>,
    /// How many are answered at most; there may be fewer, even none, with more to come.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 100, default = 30)]
    limit: Limit,
    /// Where to go on: the `nextCursor` of the part before.
    cursor: Option<String>,
}

/// Which documents are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ToldQuery {
    /// Only this document; not beside a cursor.
    url: Option<String>,
    /// How many are answered at most; there may be fewer, even none, with more to come.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 100, default = 30)]
    limit: Limit,
    /// Where to go on: the `nextCursor` of the part before.
    cursor: Option<String>,
}

/// Lists the deliveries that wait for a subscription
#[utoipa::path(get, path = "/subscriptions/{id}/deliveries", tag = "inspection",
    params(("id" = String, Path), DeliveryQuery), responses((status = 200, body = Deliveries)))]
pub(crate) async fn list_deliveries(
    State(service): State<Service>,
    Path(id): Path<String>,
    Query(DeliveryQuery { state, limit, cursor }): Query<DeliveryQuery>,
) -> Result<Answer<Deliveries>, Problem> {
    let Page { items, cursor: next_cursor, .. } =
        service.flare.deliveries(&id, state, cursor, limit.get()).await?;
    let deliveries = items.into_iter().map(Delivery::from).collect();
    Ok(Answer(Deliveries { deliveries, next_cursor }))
}

/// Lists a subscription's attempts
#[utoipa::path(get, path = "/subscriptions/{id}/attempts", tag = "inspection",
    params(("id" = String, Path), AttemptQuery), responses((status = 200, body = Attempts)))]
pub(crate) async fn list_attempts(
    State(service): State<Service>,
    Path(id): Path<String>,
    Query(AttemptQuery { outcome, url, limit, cursor }): Query<AttemptQuery>,
) -> Result<Answer<Attempts>, Problem> {
    let filter = AttemptFilter { outcome, url: url.map(|url| document_url(&url)).transpose()? };
    let Page { items, cursor: next_cursor, .. } =
        service.flare.attempts(&id, &filter, cursor, limit.get()).await?;
    let attempts = items.into_iter().map(Attempt::from).collect();
    Ok(Answer(Attempts { attempts, next_cursor }))
}

/// Lists what a subscriber was told last
///
/// Document by document, or of one document.
#[utoipa::path(get, path = "/subscriptions/{id}/told", tag = "inspection",
    params(("id" = String, Path), ToldQuery), responses((status = 200, body = ToldList)))]
pub(crate) async fn list_told(
    State(service): State<Service>,
    Path(id): Path<String>,
    Query(ToldQuery { url, limit, cursor }): Query<ToldQuery>,
) -> Result<Answer<ToldList>, Problem> {
    let (told, next_cursor): (Vec<_>, _) = match (url, cursor) {
        (Some(_), Some(_)) => return Err(Problem::bad_request("there is a cursor or a url, not both")),
        (Some(url), None) => {
            let told = service.flare.told_of(&id, &document_url(&url)?).await?;
            (told.into_iter().collect(), None)
        }
        (None, cursor) => {
            let Page { items, cursor, .. } = service.flare.told(&id, cursor, limit.get()).await?;
            (items, cursor)
        }
    };
    Ok(Answer(ToldList { told: told.into_iter().map(Told::from).collect(), next_cursor }))
}

/// Says how a subscription fares
#[utoipa::path(get, path = "/subscriptions/{id}/stats", tag = "inspection",
    params(("id" = String, Path)), responses((status = 200, body = Stats)))]
pub(crate) async fn show_stats(
    State(service): State<Service>,
    Path(id): Path<String>,
    _: NoQuery,
) -> Result<Answer<Stats>, Problem> {
    let status = service.flare.subscription(&id).await?.status;
    let failing_since = service.flare.health(&id).await?.failing_since.map(Time);
    let deliveries = service.flare.counts(&id).await?.into();
    Ok(Answer(Stats { status, failing_since, deliveries }))
}

/// Lists the notices to operators
///
/// Of subscriptions that fail, are exhausted, disabled, recovered, or broken.
#[utoipa::path(get, path = "/notices", tag = "inspection", params(CursorQuery),
    responses((status = 200, body = Notices)))]
pub(crate) async fn list_notices(
    State(service): State<Service>,
    Query(CursorQuery { limit, cursor }): Query<CursorQuery>,
) -> Result<Answer<Notices>, Problem> {
    let Page { items, cursor: next_cursor, .. } = service.flare.notices(cursor, limit.get()).await?;
    Ok(Answer(Notices { notices: items.into_iter().map(Notice::from).collect(), next_cursor }))
}

impl From<Waiting> for Delivery {
    fn from(waiting: Waiting) -> Self {
        let Waiting { url, state, due, attempt, .. } = waiting;
        Self { url, state, due: due.map(Time), attempt }
    }
}

impl From<flare::Attempt> for Attempt {
    fn from(attempt: flare::Attempt) -> Self {
        Self {
            message: attempt.message,
            url: attempt.url,
            revision: attempt.revision.get(),
            action: attempt.action,
            at: Time(attempt.at),
            took_us: attempt.took_us,
            tries: attempt.tries,
            outcome: attempt.outcome,
            status: attempt.status,
            error: attempt.error.map(Failure::from),
            response: attempt.response,
        }
    }
}

impl From<flare::Failure> for Failure {
    fn from(flare::Failure { kind, message, .. }: flare::Failure) -> Self {
        Self { kind, message }
    }
}

impl From<flare::Told> for Told {
    fn from(told: flare::Told) -> Self {
        let last = |flare::Last { revision, action, at, status, .. }| Last {
            revision: revision.get(),
            action,
            at: Time(at),
            status,
        };
        let failing =
            |flare::Failing { since, at, tries, .. }| Failing { since: Time(since), at: Time(at), tries };
        Self {
            url: told.url,
            last: told.last.map(last),
            begun: told.begun.map(flare::Revision::get),
            failing: told.failing.map(failing),
            again: told.again,
        }
    }
}

impl From<Counts> for DeliveryCounts {
    fn from(counts: Counts) -> Self {
        let Counts { pending, under_way, retrying, exhausted, is_capped, .. } = counts;
        Self { pending, under_way, retrying, exhausted, is_capped }
    }
}

impl From<flare::Notice> for Notice {
    fn from(notice: flare::Notice) -> Self {
        let flare::Notice { subscription, kind, at, message, .. } = notice;
        Self { subscription, kind, at: Time(at), message }
    }
}

pub(crate) fn action() -> Schema {
    words(&[Action::Create, Action::Update, Action::Delete])
}

fn delivery_state() -> Schema {
    use DeliveryState::{Exhausted, Pending, Retrying, UnderWay};
    words(&[Pending, UnderWay, Retrying, Exhausted])
}

fn outcome() -> Schema {
    words(&[Outcome::Delivered, Outcome::Discarded, Outcome::Failed, Outcome::Exhausted])
}

pub(super) fn test_outcome() -> Schema {
    words(&[Outcome::Delivered, Outcome::Discarded, Outcome::Failed])
}

fn notice_kind() -> Schema {
    use NoticeKind::{Broken, Disabled, Exhausted, Failing, Recovered};
    words(&[Failing, Exhausted, Disabled, Recovered, Broken])
}
