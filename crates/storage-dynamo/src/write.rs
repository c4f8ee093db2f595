//! Writing items: one alone, or several all or none, each under its guard; and finding out whether
//! that happened where the answer is lost.

use std::borrow::Cow;
use std::time::Duration;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ConditionCheck, Delete, Put, ReturnValuesOnConditionCheckFailure,
    TransactWriteItem, Update,
};
use evenkeel_core::{Error, ErrorKind, Result, Timestamp};
use uuid::Uuid;

use crate::client::{ATTEMPTS, Dynamo, send};
use crate::error::{Doing, Trouble, is_about_size, parse_as, parse_dynamo_error, trouble};
use crate::keys::ItemKey;
use crate::rows::{Item, VERSION, id, item_size, value_size};

/// A write of one item, under a guard.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) key: ItemKey,
    pub(crate) action: Action,
    pub(crate) guard: Option<Guard>,
    pub(crate) resent: Resent,
}

/// What becomes of an item.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// It becomes this one.
    Put(Item),
    /// It changes by an update expression.
    Update(Cow<'static, str>, Vec<(&'static str, AttributeValue)>),
    /// It goes.
    Delete,
    /// Nothing; only the guard counts.
    Check,
}

/// What must be so of an item: a condition expression with its values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Guard {
    condition: &'static str,
    values: Vec<(&'static str, AttributeValue)>,
    /// What a failure shows: the item that stood there, or nothing.
    shows: ReturnValuesOnConditionCheckFailure,
}

/// What happens if a write that is made alone is made a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resent {
    /// Its guard fails, on an item that bears this version: so it is known to have happened.
    Recognised(Uuid),
    /// It may be done twice, or seem to have failed.
    Unclear,
}

/// What came of writing.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All is written.
    Written,
    /// Nothing is written; one answer for each item.
    Cancelled(Vec<Answer>),
}

/// What a cancelled write says of one of its items.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// Nothing against it.
    Fine,
    /// Its guard failed on this item, or on none.
    Failed(Option<Item>),
    /// It was not judged: another request is at it, or there is too much to do.
    Contended,
}

impl Guard {
    pub(crate) fn new(
        condition: &'static str,
        values: impl IntoIterator<Item = (&'static str, AttributeValue)>,
    ) -> Self {
        let shows = ReturnValuesOnConditionCheckFailure::AllOld;
        Self { condition, values: values.into_iter().collect(), shows }
    }

    /// There is no item.
    pub(crate) fn no_item() -> Self {
        Self::new("attribute_not_exists(pk)", [])
    }

    /// There is no item; if there is, it does not matter which.
    pub(crate) fn new_item() -> Self {
        Self { shows: ReturnValuesOnConditionCheckFailure::None, ..Self::no_item() }
    }
}

impl Write {
    /// About how many bytes it counts against the limit of a transaction.
    pub(crate) fn size(&self) -> usize {
        match &self.action {
            Action::Put(item) => item_size(item),
            Action::Update(_, values) => {
                self.key.size() + values.iter().map(|(_, value)| value_size(value)).sum::<usize>()
            }
            Action::Delete | Action::Check => self.key.size(),
        }
    }

    fn values(&self) -> Option<Item> {
        let of_guard = self.guard.iter().flat_map(|guard| &guard.values);
        let of_update = match &self.action {
            Action::Update(_, values) => &values[..],
            Action::Put(_) | Action::Delete | Action::Check => &[],
        };
        let values: Item =
            of_guard.chain(of_update).map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        (!values.is_empty()).then_some(values)
    }

    fn condition(&self) -> Option<String> {
        self.guard.as_ref().map(|guard| guard.condition.to_owned())
    }

    fn shows(&self) -> Option<ReturnValuesOnConditionCheckFailure> {
        self.guard.as_ref().map(|guard| guard.shows.clone())
    }

    /// It as a part of a transaction on `table`.
    pub(crate) fn part(self, table: &str) -> TransactWriteItem {
        const COMPLETE: &str = "the table, the key and the expression are given";
        let (values, condition, shows) = (self.values(), self.condition(), self.shows());
        let part = TransactWriteItem::builder();
        let part = match self.action {
            Action::Put(item) => part.put(
                Put::builder()
                    .table_name(table)
                    .set_item(Some(item))
                    .set_condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .set_return_values_on_condition_check_failure(shows)
                    .build()
                    .expect(COMPLETE),
            ),
            Action::Update(expression, _) => part.update(
                Update::builder()
                    .table_name(table)
                    .set_key(Some(self.key.attributes()))
                    .update_expression(expression.into_owned())
                    .set_condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .set_return_values_on_condition_check_failure(shows)
                    .build()
                    .expect(COMPLETE),
            ),
            Action::Delete => part.delete(
                Delete::builder()
                    .table_name(table)
                    .set_key(Some(self.key.attributes()))
                    .set_condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .set_return_values_on_condition_check_failure(shows)
                    .build()
                    .expect(COMPLETE),
            ),
            Action::Check => part.condition_check(
                ConditionCheck::builder()
                    .table_name(table)
                    .set_key(Some(self.key.attributes()))
                    .set_condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .set_return_values_on_condition_check_failure(shows)
                    .build()
                    .expect(COMPLETE),
            ),
        };
        part.build()
    }
}

impl Dynamo {
    /// Writes all or nothing. One item alone costs half of what it costs in a transaction.
    ///
    /// # Errors
    /// `Unavailable` where nothing was written; `OutcomeUnknown` where that is not known.
    pub(crate) async fn write(&self, writes: Vec<Write>) -> Result<Outcome> {
        match &writes[..] {
            [] => Ok(Outcome::Written),
            // A condition alone is no request of its own.
            [only] if !matches!(only.action, Action::Check) => self.write_one(only).await,
            _ => self.transact(writes.into_iter().map(|write| write.part(&self.table)).collect()).await,
        }
    }

    /// Sends a transaction, the identical one with its token until it is known what came of it.
    pub(crate) async fn transact(&self, items: Vec<TransactWriteItem>) -> Result<Outcome> {
        let mut token = Uuid::new_v4();
        let mut tries = Tries::begin(self.clock.now());
        loop {
            let request = self
                .client
                .transact_write_items()
                .client_request_token(token.to_string())
                .set_transact_items(Some(items.clone()));
            let error = match send!(self, transact_write_items, request).await {
                Ok(_) => return Ok(Outcome::Written),
                Err(error) => error,
            };
            let what = match cancellation(&error).map(read_reasons) {
                Some(Reasons::Answers(answers)) => return Ok(Outcome::Cancelled(answers)),
                Some(Reasons::Trouble(what)) => {
                    // Nothing happened, for certain: this is another try, not the same again.
                    token = Uuid::new_v4();
                    tries.nothing_happened(self.clock.now());
                    what
                }
                None => trouble(&error),
            };
            tries.failed(what, parse_as(what, error, Doing::Write("committing")), self.clock.now())?;
            self.pause(tries.made).await;
        }
    }

    /// Writes one item, again only where it would be seen that it was written before.
    async fn write_one(&self, write: &Write) -> Result<Outcome> {
        let mut tries = Tries::begin(self.clock.now());
        loop {
            match self.send_one(write).await {
                Ok(()) => return Ok(Outcome::Written),
                Err(OneFailed::Guard(item)) if !tries.lost => {
                    return Ok(Outcome::Cancelled(vec![Answer::Failed(item)]));
                }
                Err(OneFailed::Guard(item)) => {
                    let bears = item.as_ref().and_then(|item| id(item, VERSION).ok());
                    let is_own = bears.is_some_and(|version| write.resent == Resent::Recognised(version));
                    // What stands there instead may have been written before this, or over it.
                    return if is_own { Ok(Outcome::Written) } else { Err(lost_while_writing()) };
                }
                Err(OneFailed::Otherwise(Trouble::Lost, error)) if write.resent == Resent::Unclear => {
                    return Err(error);
                }
                Err(OneFailed::Otherwise(what, error)) => tries.failed(what, error, self.clock.now())?,
            }
            self.pause(tries.made).await;
        }
    }

    async fn send_one(&self, write: &Write) -> Result<(), OneFailed> {
        let (table, values, condition) = (&self.table, write.values(), write.condition());
        let shows = write.shows();
        match &write.action {
            Action::Put(item) => {
                let request = self
                    .client
                    .put_item()
                    .table_name(table)
                    .set_item(Some(item.clone()))
                    .set_condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .set_return_values_on_condition_check_failure(shows);
                send!(self, put_item, request).await?;
            }
            Action::Update(expression, _) => {
                let request = self
                    .client
                    .update_item()
                    .table_name(table)
                    .set_key(Some(write.key.attributes()))
                    .update_expression(&**expression)
                    .set_condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .set_return_values_on_condition_check_failure(shows);
                send!(self, update_item, request).await?;
            }
            Action::Check => unreachable!("a condition alone is part of a transaction"),
            Action::Delete => {
                let request = self
                    .client
                    .delete_item()
                    .table_name(table)
                    .set_key(Some(write.key.attributes()))
                    .set_condition_expression(condition)
                    .set_expression_attribute_values(values)
                    .set_return_values_on_condition_check_failure(shows);
                send!(self, delete_item, request).await?;
            }
        }
        Ok(())
    }
}

/// How often a write was tried, and what is known of it.
#[derive(Debug)]
pub(crate) struct Tries {
    pub(crate) made: u32,
    /// Whether an answer is missing, so that it may have happened.
    lost: bool,
    /// When the request was first sent.
    since: Timestamp,
}

/// How long a request is sent again. DynamoDB knows it by its token for a minute more; after that it
/// would be another.
const KNOWN_AGAIN: Duration = Duration::from_secs(9 * 60);

impl Tries {
    pub(crate) fn begin(now: Timestamp) -> Self {
        Self { made: 0, lost: false, since: now }
    }

    /// Notes that for certain nothing happened: what is sent next is sent for the first time.
    fn nothing_happened(&mut self, now: Timestamp) {
        self.lost = false;
        self.since = now;
    }

    /// Notes a failure; an error where there is no use in another try.
    pub(crate) fn failed(&mut self, what: Trouble, error: Error, now: Timestamp) -> Result<()> {
        self.made += 1;
        self.lost |= what == Trouble::Lost;
        let again = match what {
            Trouble::Busy | Trouble::Contended | Trouble::Lost => true,
            // Something else may have happened before.
            Trouble::Unreachable => self.lost,
            Trouble::Refused(_) => false,
        };
        let would_be_another = self.lost && now >= self.since + KNOWN_AGAIN;
        if again && self.made < ATTEMPTS && !would_be_another {
            return Ok(());
        }
        if self.lost && error.kind() != ErrorKind::OutcomeUnknown {
            return Err(lost_while_writing().with_source(error));
        }
        Err(error)
    }
}

fn lost_while_writing() -> Error {
    Error::new(ErrorKind::OutcomeUnknown, "dynamodb was lost while it wrote")
}

/// Why a write of one item failed.
pub(crate) enum OneFailed {
    /// Its guard, on this item or on none.
    Guard(Option<Item>),
    Otherwise(Trouble, Error),
}

macro_rules! one_failed_from {
    ($($error:ident),*) => {$(
        impl From<SdkError<$error>> for OneFailed {
            fn from(error: SdkError<$error>) -> Self {
                if let Some($error::ConditionalCheckFailedException(failed)) = error.as_service_error() {
                    return Self::Guard(stood_there(failed.item()));
                }
                Self::Otherwise(trouble(&error), parse_dynamo_error(error, Doing::Write("committing")))
            }
        }
    )*};
}
one_failed_from!(PutItemError, UpdateItemError, DeleteItemError);

/// What a failed guard found; an empty item says that there was none.
fn stood_there(item: Option<&Item>) -> Option<Item> {
    item.filter(|item| !item.is_empty()).cloned()
}

/// Why DynamoDB cancelled the transaction, where it did.
fn cancellation(error: &SdkError<TransactWriteItemsError>) -> Option<&[CancellationReason]> {
    match error.as_service_error()? {
        TransactWriteItemsError::TransactionCanceledException(cancelled) => {
            Some(cancelled.cancellation_reasons())
        }
        _ => None,
    }
}

/// What the reasons for a cancellation come to.
#[derive(Debug, PartialEq)]
enum Reasons {
    /// At least one guard failed.
    Answers(Vec<Answer>),
    /// It was something else.
    Trouble(Trouble),
}

fn read_reasons(reasons: &[CancellationReason]) -> Reasons {
    let has = |code: &str| reasons.iter().any(|reason| reason.code() == Some(code));
    let answer = |reason: &CancellationReason| match reason.code() {
        Some("ConditionalCheckFailed") => Answer::Failed(stood_there(reason.item())),
        Some("None") | None => Answer::Fine,
        Some(_) => Answer::Contended,
    };
    let is_too_large = |reason: &CancellationReason| {
        reason.code() == Some("ValidationError") && is_about_size(reason.message())
    };
    if has("ConditionalCheckFailed") {
        Reasons::Answers(reasons.iter().map(answer).collect())
    } else if has("ItemCollectionSizeLimitExceeded") || reasons.iter().any(is_too_large) {
        Reasons::Trouble(Trouble::Refused(ErrorKind::TooLarge))
    } else if has("ValidationError") || has("DuplicateItem") {
        Reasons::Trouble(Trouble::Refused(ErrorKind::InvalidInput))
    } else if has("TransactionConflict") {
        Reasons::Trouble(Trouble::Contended)
    } else {
        // ThrottlingError, ProvisionedThroughputExceeded, and whatever else cancels one.
        Reasons::Trouble(Trouble::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::EPOCH;

    fn unavailable() -> Error {
        Error::new(ErrorKind::Unavailable, "constructed")
    }

    fn reasons(codes: &[&str]) -> Reasons {
        let reason = |code: &&str| CancellationReason::builder().code(*code).build();
        read_reasons(&codes.iter().map(reason).collect::<Vec<_>>())
    }

    #[test]
    fn each_cancellation_reason_has_its_meaning() {
        for (codes, expected) in [
            (&["None", "TransactionConflict"][..], Trouble::Contended),
            (&["ThrottlingError", "None"], Trouble::Busy),
            (&["ProvisionedThroughputExceeded"], Trouble::Busy),
            (&["SomethingNew"], Trouble::Busy),
            (&["None", "ValidationError"], Trouble::Refused(ErrorKind::InvalidInput)),
            (&["ItemCollectionSizeLimitExceeded"], Trouble::Refused(ErrorKind::TooLarge)),
        ] {
            assert_eq!(reasons(codes), Reasons::Trouble(expected), "{codes:?}");
        }
        let answers = Reasons::Answers(vec![Answer::Failed(None), Answer::Contended, Answer::Fine]);
        assert_eq!(reasons(&["ConditionalCheckFailed", "TransactionConflict", "None"]), answers);
    }

    #[test]
    fn an_item_beyond_the_limit_is_too_large_in_a_transaction_too() {
        let message = "Item size to update has exceeded the maximum allowed size";
        let reason = CancellationReason::builder().code("ValidationError").message(message).build();
        assert_eq!(read_reasons(&[reason]), Reasons::Trouble(Trouble::Refused(ErrorKind::TooLarge)));
    }

    #[test]
    fn a_failed_guard_carries_the_item_that_stood_there() {
        let item = ItemKey { pk: "p".to_owned(), sk: "s".to_owned() }.attributes();
        let reason = CancellationReason::builder().code("ConditionalCheckFailed");
        let found = reason.clone().set_item(Some(item.clone())).build();
        let absent = reason.set_item(Some(Item::new())).build();
        let answers = vec![Answer::Failed(Some(item)), Answer::Failed(None)];
        assert_eq!(read_reasons(&[found, absent]), Reasons::Answers(answers));
    }

    #[test]
    fn what_may_have_happened_is_never_called_unavailable() {
        let mut tries = Tries::begin(NOW);
        assert!(tries.failed(Trouble::Lost, unavailable(), NOW).is_ok());
        assert!(tries.failed(Trouble::Unreachable, unavailable(), NOW).is_ok());
        let refused = tries.failed(Trouble::Refused(ErrorKind::Config), unavailable(), NOW);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::OutcomeUnknown);

        let mut tries = Tries::begin(NOW);
        let unreachable = tries.failed(Trouble::Unreachable, unavailable(), NOW).unwrap_err();
        assert_eq!(unreachable.kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn what_dynamodb_may_have_forgotten_is_not_sent_again() {
        let late = NOW + KNOWN_AGAIN;
        let mut tries = Tries::begin(NOW);
        assert!(tries.failed(Trouble::Busy, unavailable(), late).is_ok(), "nothing to be known again by");
        let forgotten = tries.failed(Trouble::Lost, unavailable(), late).unwrap_err();
        assert_eq!(forgotten.kind(), ErrorKind::OutcomeUnknown);

        let mut tries = Tries::begin(NOW);
        tries.nothing_happened(late);
        assert!(tries.failed(Trouble::Lost, unavailable(), late).is_ok());
    }

    #[test]
    fn a_busy_store_is_tried_so_often_and_no_more() {
        let mut tries = Tries::begin(NOW);
        let mut made = 1;
        while tries.failed(Trouble::Busy, unavailable(), NOW).is_ok() {
            made += 1;
        }
        assert_eq!(made, ATTEMPTS);
    }
}
