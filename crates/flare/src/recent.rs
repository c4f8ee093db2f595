use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use evenkeel_core::Version;

use crate::{Document, DocumentUrl};

/// How many documents are remembered, once and again as many that came before them.
const GENERATION: usize = 4096;

/// What this process published last, without the contents, so that the next publication of a document
/// need not read it first.
///
/// A guess: a commit expects what is remembered, and says what stands there where that is something
/// else.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<DocumentUrl, (Document, Version)>,
    old: HashMap<DocumentUrl, (Document, Version)>,
}

impl Recent {
    pub(crate) fn get(&self, url: &DocumentUrl) -> Option<(Document, Version)> {
        let generations = self.lock();
        generations.young.get(url).or_else(|| generations.old.get(url)).cloned()
    }

    pub(crate) fn put(&self, document: &Document, version: Version) {
        let content = document.content.as_ref().map(|_| Bytes::new());
        let document = Document { content, ..document.clone() };
        let mut generations = self.lock();
        if generations.young.len() >= GENERATION {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(document.url.clone(), (document, version));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::Revision;

    #[test]
    fn the_documents_published_last_are_remembered_without_their_contents() {
        let recent = Recent::default();
        let document = |order: usize| Document {
            url: DocumentUrl::parse(&format!("https://api.example.com/orders/{order}")).unwrap(),
            revision: Revision::from(7),
            updated_at: Timestamp::EPOCH,
            content: Some(Bytes::from_static(b"{}")),
        };
        let version = |order: usize| Version(Uuid::from_u128(order as u128));
        for order in 0..=2 * GENERATION {
            recent.put(&document(order), version(order));
        }
        let found = |order| recent.get(&document(order).url);
        assert_eq!(found(0), None);
        for order in [GENERATION, 2 * GENERATION] {
            let (remembered, of) = found(order).unwrap();
            assert_eq!(remembered, Document { content: Some(Bytes::new()), ..document(order) });
            assert_eq!(of, version(order));
        }
    }
}
