use crate::{Action, Document, Told};

/// What a delivery is to do, from what the subscriber was last told and what the document is now.
///
/// | last told | document now | send |
/// |---|---|---|
/// | nothing | live | `create` |
/// | revision r | live, newer than r | `update` |
/// | revision r | live, r or older | nothing |
/// | revision r | deleted | `delete`, then forget |
/// | nothing, no attempt ever begun | deleted | nothing |
/// | nothing, an attempt begun | deleted | `delete`, then forget |
///
/// Where a replay was asked for, the revision told last is sent once more, as it was.
pub(crate) fn decide(told: Option<&Told>, begun: bool, document: Option<&Document>) -> Option<Action> {
    let last = told.and_then(|told| told.last.as_ref());
    let is_live = document.is_some_and(|document| !document.is_deleted());
    match (last, document) {
        (None, Some(_)) if is_live => Some(Action::Create),
        (None, _) => begun.then_some(Action::Delete),
        (Some(last), Some(document)) if is_live => {
            if document.revision > last.revision {
                Some(Action::Update)
            } else {
                let is_told = document.revision == last.revision;
                told.is_some_and(|told| told.again && is_told).then_some(last.action)
            }
        }
        (Some(_), _) => Some(Action::Delete),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use evenkeel_core::Timestamp;

    use super::*;
    use crate::told::Last;
    use crate::{DocumentUrl, Revision};

    fn document(revision: i64, content: Option<&'static str>) -> Document {
        Document {
            url: DocumentUrl::parse("https://api.example.com/orders/17").unwrap(),
            revision: Revision::from(revision),
            updated_at: Timestamp::EPOCH,
            content: content.map(|content| Bytes::from_static(content.as_bytes())),
        }
    }

    fn told(revision: i64, again: bool) -> Told {
        let mut told = Told::nothing("https://api.example.com/orders/17".to_owned());
        told.again = again;
        told.last = Some(Last {
            revision: Revision::from(revision),
            action: Action::Create,
            at: Timestamp::EPOCH,
            status: 200,
        });
        told
    }

    #[test]
    fn each_row_of_the_table_decides_as_it_says() {
        let (live, deleted) = (document(5, Some("{}")), document(5, None));
        for (last, begun, now, expected) in [
            (None, false, Some(&live), Some(Action::Create)),
            (None, true, Some(&live), Some(Action::Create)),
            (Some(told(4, false)), false, Some(&live), Some(Action::Update)),
            (Some(told(5, false)), false, Some(&live), None),
            (Some(told(6, false)), false, Some(&live), None),
            (Some(told(5, false)), false, Some(&deleted), Some(Action::Delete)),
            (Some(told(4, false)), false, Some(&deleted), Some(Action::Delete)),
            (Some(told(5, false)), false, None, Some(Action::Delete)),
            (None, false, Some(&deleted), None),
            (None, false, None, None),
            (None, true, Some(&deleted), Some(Action::Delete)),
            (Some(told(5, true)), false, Some(&live), Some(Action::Create)),
            (Some(told(4, true)), false, Some(&live), Some(Action::Update)),
            (Some(told(5, true)), false, Some(&deleted), Some(Action::Delete)),
        ] {
            assert_eq!(decide(last.as_ref(), begun, now), expected, "{last:?}, begun {begun}, {now:?}");
        }
    }
}
