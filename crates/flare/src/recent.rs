use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use evenkeel_core::Version;

use crate::{Document, DocumentUrl, Told};

/// How many are remembered, once and again as many that came before them.
const GENERATION: usize = 4096;

/// What this process wrote last, so that what follows need not read it first.
///
/// A guess: a commit expects what is remembered, and says what stands there where that is something
/// else.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    generations: Mutex<Generations<K, V>>,
}

#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

/// Documents, without their contents.
pub(crate) type RecentDocuments = Recent<DocumentUrl, (Document, Version)>;

/// What subscribers were told, by subscription and document.
pub(crate) type RecentTold = Recent<(String, String), KnownTold>;

/// What a subscriber was told of a document; `None` is nothing.
pub(crate) type KnownTold = Option<(Told, Version)>;

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new() };
        Self { generations: Mutex::new(generations) }
    }
}

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let generations = self.lock();
        generations.young.get(key).or_else(|| generations.old.get(key)).cloned()
    }

    pub(crate) fn put(&self, key: K, value: V) {
        let mut generations = self.lock();
        if generations.young.len() >= GENERATION {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(key, value);
    }

    pub(crate) fn forget<Q: Hash + Eq + ?Sized>(&self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let mut generations = self.lock();
        generations.young.remove(key);
        generations.old.remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, Generations<K, V>> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecentDocuments {
    pub(crate) fn put_document(&self, document: &Document, version: Version) {
        let content = document.content.as_ref().map(|_| Bytes::new());
        self.put(document.url.clone(), (Document { content, ..document.clone() }, version));
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::Revision;

    #[test]
    fn what_was_written_last_is_remembered() {
        let recent = Recent::<usize, usize>::default();
        (0..=2 * GENERATION).for_each(|n| recent.put(n, n));
        assert_eq!(recent.get(&0), None);
        for n in [GENERATION, 2 * GENERATION] {
            assert_eq!(recent.get(&n), Some(n));
            recent.forget(&n);
            assert_eq!(recent.get(&n), None);
        }
    }

    #[test]
    fn documents_are_remembered_without_their_contents() {
        let recent = RecentDocuments::default();
        let document = Document {
            url: DocumentUrl::parse("https://api.example.com/orders/17").unwrap(),
            revision: Revision::from(7),
            updated_at: Timestamp::EPOCH,
            content: Some(Bytes::from_static(b"{}")),
        };
        let version = Version(Uuid::from_u128(7));
        recent.put_document(&document, version);
        let remembered = Document { content: Some(Bytes::new()), ..document.clone() };
        assert_eq!(recent.get(&document.url), Some((remembered, version)));
    }
}
