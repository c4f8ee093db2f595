mod decode;
mod encode;

use evenkeel_core::{Error, ErrorKind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Something that happened, as a type of the application: an enum of events, or one struct.
///
/// Its kind is the name that serde gives it: an enum's variant, or a struct's name, changed by
/// `rename` and `rename_all` as usual. The payload is the JSON of what is inside. Nothing else is
/// to be written:
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// enum AccountEvent {
///     Opened { owner: String },
///     Deposited { cents: i64 },
///     Closed,
/// }
/// impl evenkeel_projections::Event for AccountEvent {}
/// ```
///
/// Enums are derived without `tag` and `untagged`, which would put the kind elsewhere or nowhere;
/// appending one that is not is refused.
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The version of the payload's shape that this code writes for a kind, from 1. What was
    /// written in an earlier one is brought to this one by
    /// [upcasters](crate::EventStore::upcast).
    #[must_use]
    fn version(_kind: &str) -> u32 {
        1
    }
}

/// Kind and payload of an event.
pub(crate) fn encode<E: Event>(event: &E) -> Result<(&'static str, Vec<u8>)> {
    if !decode::knows_its_kinds::<E>() {
        return Err(not_an_event::<E>("an event is an enum without `tag`, or a struct"));
    }
    event.serialize(encode::KindAndPayload).map_err(|source| {
        not_an_event::<E>("the event does not turn into kind and payload").with_source(source)
    })
}

fn not_an_event<E>(problem: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, problem).with("type", std::any::type_name::<E>())
}

/// The event of this kind; `None` where `E` has no such kind.
pub(crate) fn decode<E: Event>(kind: &str, payload: &[u8]) -> Result<Option<E>> {
    match E::deserialize(decode::KindAndPayload { kind, payload }) {
        Ok(event) => Ok(Some(event)),
        Err(decode::Failure::UnknownKind) => Ok(None),
        Err(decode::Failure::Payload(source)) => {
            Err(Error::new(ErrorKind::Corrupt, "the event's payload is not that of its kind")
                .with("kind", kind)
                .with("type", std::any::type_name::<E>())
                .with_source(source))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Account {
        MoneyIn { cents: i64, by: Option<String> },
        Renamed(String),
        Moved(i32, i32),
        Closed,
    }
    impl Event for Account {}

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename = "order-placed")]
    struct Placed {
        order: u32,
    }
    impl Event for Placed {}

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Total(u32);
    impl Event for Total {}

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "type")]
    enum Tagged {
        A { n: u32 },
    }
    impl Event for Tagged {}

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Lenient {
        Known(u32),
        #[serde(other)]
        Other,
    }
    impl Event for Lenient {}

    #[test]
    fn a_type_may_take_kinds_that_it_does_not_know_for_one_of_its_own() {
        let (kind, payload) = encode(&Lenient::Known(1)).unwrap();
        assert_eq!(decode::<Lenient>(kind, &payload).unwrap(), Some(Lenient::Known(1)));
        assert_eq!(decode::<Lenient>("another", br#"{"a":1}"#).unwrap(), Some(Lenient::Other));
        assert_eq!(encode(&Lenient::Other).unwrap(), ("Other", b"null".to_vec()));
    }

    fn check<E: Event + Debug + PartialEq>(event: &E, kind: &str, payload: &str) {
        let (found, json) = encode(event).unwrap();
        assert_eq!((found, std::str::from_utf8(&json).unwrap()), (kind, payload));
        assert_eq!(decode::<E>(found, &json).unwrap().as_ref(), Some(event));
        assert_eq!(decode::<E>("another", &json).unwrap(), None);
    }

    #[test]
    fn the_kind_is_the_variant_or_the_struct_and_the_payload_what_is_inside() {
        check(&Account::MoneyIn { cents: 5, by: None }, "money-in", r#"{"cents":5,"by":null}"#);
        check(&Account::Renamed("x".into()), "renamed", r#""x""#);
        check(&Account::Moved(1, -2), "moved", "[1,-2]");
        check(&Account::Closed, "closed", "null");
        check(&Placed { order: 7 }, "order-placed", r#"{"order":7}"#);
        check(&Total(3), "Total", "3");
    }

    #[test]
    fn a_payload_of_another_shape_is_corrupt() {
        let error = decode::<Account>("money-in", br#"{"cents":"five"}"#).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("money-in"), "{error}");
        assert_eq!(decode::<Account>("closed", b"null}").unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_type_that_hides_its_kind_is_refused() {
        let error = encode(&Tagged::A { n: 1 }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("Tagged"), "{error}");
    }
}
