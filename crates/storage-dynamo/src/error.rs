use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::dns::ResolveDnsError;
use evenkeel_core::{Error, ErrorKind, RetryHint};

/// What a failed request means for whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// DynamoDB did nothing, because it has too much to do: worth another try a little later.
    Busy,
    /// DynamoDB did nothing, because another request is at the same items.
    Contended,
    /// The request was not sent.
    Unreachable,
    /// The answer is missing or says nothing: a write may have happened.
    Lost,
    /// DynamoDB did nothing, and will not another time.
    Refused(ErrorKind),
}

/// What the error of any request means.
pub(crate) fn trouble<E>(error: &SdkError<E>) -> Trouble
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    match error {
        SdkError::ConstructionFailure(_) => Trouble::Refused(ErrorKind::Config),
        SdkError::DispatchFailure(failure) => {
            let cause = failure.as_connector_error().map(|cause| cause as &(dyn StdError + 'static));
            match cause.and_then(of_credentials) {
                Some(trouble) => trouble,
                None if cause.is_some_and(was_not_sent) => Trouble::Unreachable,
                None => Trouble::Lost,
            }
        }
        SdkError::ServiceError(error) => of_code(error.err().code(), error.err().message()),
        // Time ran out, or what came back is no answer.
        _ => Trouble::Lost,
    }
}

fn of_code(code: Option<&str>, message: Option<&str>) -> Trouble {
    use ErrorKind::{Config, InvalidInput, TooLarge, Unexpected};
    match code.unwrap_or_default() {
        "ThrottlingException"
        | "Throttling"
        | "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "ReplicatedWriteConflictException" => Trouble::Busy,
        "TransactionConflictException" => Trouble::Contended,
        // The same request with the same token is under way: its answer is still to come.
        "TransactionInProgressException" => Trouble::Lost,
        "ResourceNotFoundException"
        | "AccessDeniedException"
        | "UnrecognizedClientException"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignatureException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "ExpiredTokenException"
        | "NotAuthorized"
        | "OptInRequired" => Trouble::Refused(Config),
        "ItemCollectionSizeLimitExceededException" => Trouble::Refused(TooLarge),
        "ValidationException" | "SerializationException" | "ValidationError" => {
            Trouble::Refused(if is_about_size(message) { TooLarge } else { InvalidInput })
        }
        // What is sent again with its token is what was sent: a mismatch is a mistake of ours.
        "IdempotentParameterMismatchException" | "ConditionalCheckFailedException" => {
            Trouble::Refused(Unexpected)
        }
        // 5xx and what is not known: it may have happened.
        _ => Trouble::Lost,
    }
}

/// Whether what DynamoDB finds invalid is only too large.
pub(crate) fn is_about_size(message: Option<&str>) -> bool {
    let words = ["exceeded the maximum allowed size", "4MB limit"];
    message.is_some_and(|message| words.iter().any(|words| message.contains(words)))
}

/// What it means that a request could not be signed, where that is the cause.
fn of_credentials(error: &(dyn StdError + 'static)) -> Option<Trouble> {
    let cause = chain(error).find_map(|cause| cause.downcast_ref())?;
    Some(match cause {
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
            Trouble::Refused(ErrorKind::Config)
        }
        // Whoever gives them out may do so another time.
        _ => Trouble::Unreachable,
    })
}

/// Whether the connection was never made.
fn was_not_sent(error: &(dyn StdError + 'static)) -> bool {
    let connects = |cause: &(dyn StdError + 'static)| {
        cause.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect())
    };
    // A connection that was made may break in the same words.
    let refused = |cause: &(dyn StdError + 'static)| {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
        cause.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
        })
    };
    let is_unresolved = chain(error).any(|cause| cause.is::<ResolveDnsError>());
    is_unresolved || chain(error).any(connects) && chain(error).any(refused)
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// What a request was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Look; where the answer is lost, nothing is.
    Read(&'static str),
    /// Change something.
    Write(&'static str),
}

/// The error of a request as evenkeel's.
pub(crate) fn parse_dynamo_error<E>(error: SdkError<E>, doing: Doing) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    parse_as(trouble(&error), error, doing)
}

/// The error of a request that is known to mean a certain trouble.
pub(crate) fn parse_as<E>(trouble: Trouble, error: SdkError<E>, doing: Doing) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    use ErrorKind::{OutcomeUnknown, Unavailable};
    let (Doing::Read(what) | Doing::Write(what)) = doing;
    let parsed = match (trouble, doing) {
        (Trouble::Busy, _) => Error::new(Unavailable, "dynamodb throttles the requests")
            .with_retry(RetryHint::After(Duration::from_secs(1))),
        (Trouble::Contended, _) => Error::new(Unavailable, "other requests are at the same items"),
        (Trouble::Unreachable, _) => Error::new(Unavailable, "dynamodb could not be reached"),
        (Trouble::Lost, Doing::Read(_)) => Error::new(Unavailable, "dynamodb did not answer"),
        (Trouble::Lost, Doing::Write(_)) => Error::new(OutcomeUnknown, "dynamodb was lost while it wrote"),
        (Trouble::Refused(kind), _) => Error::new(kind, refusal(kind, error.code())),
    };
    let parsed = parsed.with("while", what);
    let parsed = match error.code() {
        Some(code) => parsed.with("code", code),
        None => parsed,
    };
    parsed.with_source(error)
}

fn refusal(kind: ErrorKind, code: Option<&str>) -> &'static str {
    match (kind, code) {
        (ErrorKind::Config, Some("ResourceNotFoundException")) => {
            "a table does not exist: DynamoConfig::create_table creates the store's"
        }
        (ErrorKind::Config, Some(_)) => "dynamodb does not accept the credentials or their permissions",
        (ErrorKind::Config, None) => "no request can be made with the credentials and settings at hand",
        (ErrorKind::TooLarge, _) => "what is written is beyond dynamodb's limits",
        (ErrorKind::InvalidInput, _) => "dynamodb finds the request invalid",
        _ => "dynamodb failed in a way that was not foreseen",
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::error::ErrorMetadata;
    use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
    use aws_sdk_dynamodb::types::error::{
        IdempotentParameterMismatchException, InternalServerError, TransactionInProgressException,
    };
    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::body::SdkBody;

    use super::*;
    use crate::DynamoConfig;
    use crate::client::send;

    type Failure = SdkError<TransactWriteItemsError>;

    fn response(status: u16) -> HttpResponse {
        HttpResponse::new(status.try_into().unwrap(), SdkBody::empty())
    }

    fn coded(code: &str, message: &str) -> Failure {
        let metadata = ErrorMetadata::builder().code(code).message(message).build();
        SdkError::service_error(TransactWriteItemsError::generic(metadata), response(400))
    }

    /// Checks what an error means, and its kind where something was to be written.
    fn check(error: Failure, expected: Trouble, kind: ErrorKind) {
        let name = format!("{error:?}");
        assert_eq!(trouble(&error), expected, "{name}");
        let parsed = parse_dynamo_error(error, Doing::Write("testing"));
        assert_eq!(parsed.kind(), kind, "{name}");
        assert!(parsed.source().is_some());
    }

    #[test]
    fn each_exception_has_its_kind() {
        use ErrorKind::*;
        for (code, expected, kind) in [
            ("ThrottlingException", Trouble::Busy, Unavailable),
            ("ProvisionedThroughputExceededException", Trouble::Busy, Unavailable),
            ("RequestLimitExceeded", Trouble::Busy, Unavailable),
            ("LimitExceededException", Trouble::Busy, Unavailable),
            ("ReplicatedWriteConflictException", Trouble::Busy, Unavailable),
            ("TransactionConflictException", Trouble::Contended, Unavailable),
            ("TransactionInProgressException", Trouble::Lost, OutcomeUnknown),
            ("InternalServerError", Trouble::Lost, OutcomeUnknown),
            ("ServiceUnavailable", Trouble::Lost, OutcomeUnknown),
            ("SomethingNew", Trouble::Lost, OutcomeUnknown),
            ("ResourceNotFoundException", Trouble::Refused(Config), Config),
            ("AccessDeniedException", Trouble::Refused(Config), Config),
            ("UnrecognizedClientException", Trouble::Refused(Config), Config),
            ("ExpiredTokenException", Trouble::Refused(Config), Config),
            ("IdempotentParameterMismatchException", Trouble::Refused(Unexpected), Unexpected),
            ("ItemCollectionSizeLimitExceededException", Trouble::Refused(TooLarge), TooLarge),
            ("ValidationException", Trouble::Refused(InvalidInput), InvalidInput),
        ] {
            check(coded(code, "constructed"), expected, kind);
        }
    }

    #[test]
    fn an_item_beyond_the_limit_is_too_large() {
        for message in [
            "Item size has exceeded the maximum allowed size",
            "Item size to update has exceeded the maximum allowed size",
            "the aggregate size of the items in the transaction exceeding the 4MB limit",
        ] {
            let parsed = parse_dynamo_error(coded("ValidationException", message), Doing::Write("testing"));
            assert_eq!(parsed.kind(), ErrorKind::TooLarge, "{message}");
        }
    }

    #[test]
    fn the_modeled_exceptions_are_read_by_their_codes() {
        // A response names its exception, which the SDK keeps as the code.
        let metadata = |code: &str| ErrorMetadata::builder().code(code).build();
        let modeled = [
            (
                TransactWriteItemsError::TransactionInProgressException(
                    TransactionInProgressException::builder()
                        .meta(metadata("TransactionInProgressException"))
                        .build(),
                ),
                Trouble::Lost,
            ),
            (
                TransactWriteItemsError::IdempotentParameterMismatchException(
                    IdempotentParameterMismatchException::builder()
                        .meta(metadata("IdempotentParameterMismatchException"))
                        .build(),
                ),
                Trouble::Refused(ErrorKind::Unexpected),
            ),
            (
                TransactWriteItemsError::InternalServerError(
                    InternalServerError::builder().meta(metadata("InternalServerError")).build(),
                ),
                Trouble::Lost,
            ),
        ];
        for (error, expected) in modeled {
            assert_eq!(trouble(&SdkError::service_error(error, response(400))), expected);
        }
    }

    #[test]
    fn only_what_was_surely_not_sent_is_unreachable() {
        let io = |kind: io::ErrorKind| io::Error::from(kind).into();
        let broken = |kind| Failure::dispatch_failure(ConnectorError::io(io(kind)));
        for lost in [
            broken(io::ErrorKind::ConnectionReset),
            broken(io::ErrorKind::BrokenPipe),
            // Not while connecting.
            broken(io::ErrorKind::HostUnreachable),
            Failure::dispatch_failure(ConnectorError::user("the body was aborted".into())),
            Failure::dispatch_failure(ConnectorError::timeout("too slow".into())),
            Failure::timeout_error("too slow"),
            Failure::response_error("garbled", response(200)),
        ] {
            check(lost, Trouble::Lost, ErrorKind::OutcomeUnknown);
        }
        let unresolved = ConnectorError::io(ResolveDnsError::new("no such host").into());
        assert_eq!(trouble(&Failure::dispatch_failure(unresolved)), Trouble::Unreachable);
        let unbuilt = Failure::construction_failure("no region");
        check(unbuilt, Trouble::Refused(ErrorKind::Config), ErrorKind::Config);
    }

    #[tokio::test]
    async fn a_refused_connection_is_unreachable() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = DynamoConfig::new(&format!("dynamo://shop?endpoint=http://{closed}")).unwrap();
        let dynamo = config.dynamo().await;
        let error = send!(&dynamo, describe_table, dynamo.client.describe_table().table_name("shop")).await;
        assert_eq!(trouble(&error.unwrap_err()), Trouble::Unreachable);
    }

    #[test]
    fn a_request_that_could_not_be_signed_was_not_sent() {
        let unsigned =
            |error: CredentialsError| Failure::dispatch_failure(ConnectorError::other(error.into(), None));
        let missing = unsigned(CredentialsError::not_loaded("none"));
        check(missing, Trouble::Refused(ErrorKind::Config), ErrorKind::Config);
        let late = unsigned(CredentialsError::provider_error("out of order"));
        check(late, Trouble::Unreachable, ErrorKind::Unavailable);
    }

    #[test]
    fn a_read_whose_answer_is_lost_changed_nothing() {
        let parsed = parse_dynamo_error(Failure::timeout_error("too slow"), Doing::Read("testing"));
        assert_eq!(parsed.kind(), ErrorKind::Unavailable);
    }
}
