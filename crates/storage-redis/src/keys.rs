//! The keys of a partition, all in one hash tag, so that a cluster keeps them in one slot.
//!
//! ```text
//!  {prefix}:store                    what the store is, a hash
//!  {prefix:namespace/3}:x            when records expire: score, and space NUL group NUL id
//!                      :r:space NUL group    records by id, a hash    :i:...  their ids in order
//!                      :s            heads by stream, a hash; under "" the head of the log
//!                      :l            the log, a stream with one entry a position
//!                      :t            streams that are trimmed and not yet swept, by stream
//!                      :v:stream     the positions of its versions, a list
//!                      :q:queue      jobs by id, a hash               :d:...  when each is ready
//!                                                                     :j:...  their ids in order
//!                      :u:key        the user's own
//!                      :n            never anything
//! ```

use std::collections::HashMap;

use evenkeel_core::{Key, Partition};
use redis::cluster_routing::Slot;

/// What the keys of one partition begin with.
#[derive(Clone, Debug)]
pub(crate) struct Tag {
    text: String,
    slot: Slot,
}

/// Something stored under one key, or under two or three that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place<'a> {
    /// Records, their ids in order.
    Group { space: &'a str, group: &'a str },
    /// Heads, log, trims.
    Log,
    /// The positions of a stream's versions.
    Stream(&'a str),
    /// Jobs, when each is ready, their ids in order.
    Queue(&'a str),
    /// The index of expiries.
    Expiries,
    /// A key of the user's.
    User(&'a str),
    /// Never anything: while a cluster moves a slot, it refuses calls that name what is not there.
    Nothing,
}

impl<'a> Place<'a> {
    /// The group that a record belongs to.
    pub(crate) fn group_of(key: &'a Key) -> Self {
        Self::Group { space: &key.space, group: &key.group }
    }

    const fn letters(self) -> &'static [char] {
        match self {
            Self::Group { .. } => &['r', 'i'],
            Self::Log => &['s', 'l', 't'],
            Self::Stream(_) => &['v'],
            Self::Queue(_) => &['q', 'd', 'j'],
            Self::Expiries => &['x'],
            Self::User(_) => &['u'],
            Self::Nothing => &['n'],
        }
    }
}

impl Tag {
    pub(crate) fn new(prefix: &str, at: &Partition) -> Self {
        let text = format!("{{{prefix}:{at}}}");
        let slot = Slot::for_key(&text);
        Self { text, slot }
    }

    /// The slot of all its keys.
    pub(crate) const fn slot(&self) -> Slot {
        self.slot
    }

    /// The channel on which the partition's hints are published.
    pub(crate) fn channel(&self) -> &str {
        &self.text
    }

    /// Where, counted from 1, the name begins in a key that has one.
    pub(crate) const fn name_begins(&self) -> usize {
        self.text.len() + ":r:".len() + 1
    }

    /// The keys of a place.
    pub(crate) fn keys(&self, place: Place<'_>) -> impl Iterator<Item = String> {
        place.letters().iter().map(move |letter| {
            let tag = &self.text;
            match place {
                Place::Group { space, group } => format!("{tag}:{letter}:{space}\0{group}"),
                Place::Stream(name) | Place::Queue(name) | Place::User(name) => {
                    format!("{tag}:{letter}:{name}")
                }
                Place::Log | Place::Expiries | Place::Nothing => format!("{tag}:{letter}"),
            }
        })
    }

    /// Heads, log, trims.
    pub(crate) fn log(&self) -> [String; 3] {
        self.three(Place::Log)
    }

    /// Jobs, when each is ready, their ids in order.
    pub(crate) fn queue(&self, queue: &str) -> [String; 3] {
        self.three(Place::Queue(queue))
    }

    fn three(&self, place: Place<'_>) -> [String; 3] {
        let mut keys = self.keys(place);
        [(); 3].map(|()| keys.next().expect("the place has three keys"))
    }

    /// The first key of a place.
    pub(crate) fn key(&self, place: Place<'_>) -> String {
        self.keys(place).next().expect("every place has a key")
    }
}

/// The keys that a call names, each once; its arguments refer to them by number.
#[derive(Debug)]
pub(crate) struct Keys<'a> {
    tag: &'a Tag,
    names: Vec<String>,
    numbers: HashMap<Place<'a>, usize>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(tag: &'a Tag) -> Self {
        Self { tag, names: Vec::new(), numbers: HashMap::new() }
    }

    /// The number, from 1, of the place's first key; the others follow it.
    pub(crate) fn number(&mut self, place: Place<'a>) -> usize {
        let Self { tag, names, numbers } = self;
        *numbers.entry(place).or_insert_with(|| {
            let number = names.len() + 1;
            names.extend(tag.keys(place));
            number
        })
    }

    /// Their names, in order.
    pub(crate) fn into_names(self) -> Vec<String> {
        self.names
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::Namespace;

    use super::*;

    #[test]
    fn every_key_of_a_partition_has_the_same_slot() {
        let tag = Tag::new("evenkeel", &Partition::new(Namespace::default(), 3));
        for place in [
            Place::Group { space: "a}b", group: "{c}" },
            Place::Log,
            Place::Stream("{x}"),
            Place::Queue("}{"),
            Place::Expiries,
            Place::User("{other}:stock"),
            Place::Nothing,
        ] {
            for key in tag.keys(place) {
                assert_eq!(Slot::for_key(&key), tag.slot(), "{key:?}");
            }
        }
        assert_eq!(Slot::for_key(tag.channel()), tag.slot());
    }

    #[test]
    fn a_place_is_named_once() {
        let tag = Tag::new("evenkeel", &Partition::new(Namespace::default(), 3));
        let mut keys = Keys::new(&tag);
        assert_eq!(
            [Place::Expiries, Place::Queue("q"), Place::Log].map(|place| keys.number(place)),
            [1, 2, 5]
        );
        assert_eq!(keys.number(Place::Queue("q")), 2);
        assert_eq!(keys.into_names()[1], "{evenkeel:default/3}:q:q");
    }
}
