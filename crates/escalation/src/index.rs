//! Numbers found by a hash. Tables that a million holds make large are read at random, and what
//! that takes of the processor's caches is most of what they cost: an entry has eight bytes, and
//! what came lately, which mostly goes soon, is in small tables of its own.

use hashbrown::HashTable;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// The lower half of the hash.
    hash: u32,
    at: u32,
}

impl Entry {
    fn new(hash: u64, at: u32) -> Self {
        let hash = u32::try_from(hash & u64::from(u32::MAX)).unwrap_or(0);
        Self { hash, at }
    }

    /// Where the table puts it: it looks at the highest bits as well, which half a hash has not.
    fn spread(&self) -> u64 {
        u64::from(self.hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Entries of the youngest table before they age.
const YOUNG: usize = if cfg!(test) { 8 } else { 2048 };

/// What is found may have another hash, or stand for something that only has the same: whoever
/// looks compares.
#[derive(Default)]
pub(crate) struct Index {
    young: HashTable<Entry>,
    /// What was young before.
    aged: HashTable<Entry>,
    old: HashTable<Entry>,
}

impl Index {
    pub(crate) fn insert(&mut self, hash: u64, at: u32) {
        if self.young.len() >= YOUNG {
            for entry in self.aged.drain() {
                self.old.insert_unique(entry.spread(), entry, Entry::spread);
            }
            std::mem::swap(&mut self.young, &mut self.aged);
        }
        let entry = Entry::new(hash, at);
        self.young.insert_unique(entry.spread(), entry, Entry::spread);
    }

    pub(crate) fn remove(&mut self, hash: u64, at: u32) {
        let entry = Entry::new(hash, at);
        for table in [&mut self.young, &mut self.aged, &mut self.old] {
            if let Ok(found) = table.find_entry(entry.spread(), |other| *other == entry) {
                found.remove();
                return;
            }
        }
    }

    /// All that may be meant.
    pub(crate) fn find(&self, hash: u64) -> impl Iterator<Item = u32> {
        let wanted = Entry::new(hash, 0);
        let tables = [&self.young, &self.aged, &self.old].into_iter();
        let found = tables.flat_map(move |table| table.iter_hash(wanted.spread()));
        found.filter(move |entry| entry.hash == wanted.hash).map(|entry| entry.at)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.young.is_empty() && self.aged.is_empty() && self.old.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_finds_what_a_list_does(
            steps in prop::collection::vec((any::<bool>(), 0u64..6, 0u32..4, any::<bool>()), 0..200)
        ) {
            let (mut index, mut model) = (Index::default(), Vec::new());
            for (insert, hash, at, high) in steps {
                // Hashes of which only the upper half differs are told apart by whoever looks.
                let hash = hash | u64::from(high) << 40;
                let entry = (hash & u64::from(u32::MAX), at);
                if insert {
                    index.insert(hash, at);
                    model.push(entry);
                } else {
                    index.remove(hash, at);
                    if let Some(one) = model.iter().position(|other| *other == entry) {
                        model.swap_remove(one);
                    }
                }
            }
            for hash in 0..6 {
                let mut found: Vec<_> = index.find(hash).collect();
                let mut there: Vec<_> =
                    model.iter().filter(|(other, _)| *other == hash).map(|(_, at)| *at).collect();
                found.sort_unstable();
                there.sort_unstable();
                prop_assert_eq!(found, there);
            }
        }
    }
}
