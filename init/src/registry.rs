//! Things by number, which know which of them have changed since they were last written down: see [`crate::handover`].

use std::collections::{BTreeMap, BTreeSet, btree_map};

/// A map whose every mutable access counts as a change.
#[derive(Debug)]
pub struct Registry<T> {
    entries: BTreeMap<u32, T>,
    changed: BTreeSet<u32>,
    next: u32,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), changed: BTreeSet::new(), next: 0 }
    }
}

impl<T> Registry<T> {
    /// With what was written down, as far as it could be read; `next` is the first number that was never used.
    pub fn restore(written: BTreeMap<u32, Option<T>>, next: u32) -> Self {
        // The next program writes all of it down again, in its own way, and that the others are gone: the numbers of their
        // descriptors are going to be somebody else's.
        let changed = written.keys().copied().collect();
        let entries = written.into_iter().filter_map(|(number, entry)| Some((number, entry?))).collect();
        Self { entries, changed, next }
    }

    /// The number that the next entry gets. Numbers are not used twice (before 2³² entries).
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Adds an entry under [`Self::next`].
    pub fn add(&mut self, entry: T) -> u32 {
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.entries.insert(number, entry);
        self.changed.insert(number);
        number
    }

    /// The entry with this number.
    pub fn get(&self, number: u32) -> Option<&T> {
        self.entries.get(&number)
    }

    /// The entry with this number, to be changed.
    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let entry = self.entries.get_mut(&number)?;
        self.changed.insert(number);
        Some(entry)
    }

    /// Takes the entry out.
    pub fn remove(&mut self, number: u32) -> Option<T> {
        let entry = self.entries.remove(&number)?;
        self.changed.insert(number);
        Some(entry)
    }

    /// All entries in the order of their numbers.
    pub fn iter(&self) -> btree_map::Iter<'_, u32, T> {
        self.entries.iter()
    }

    /// All entries in the order of their numbers.
    pub fn values(&self) -> btree_map::Values<'_, u32, T> {
        self.entries.values()
    }

    /// All numbers in order.
    pub fn numbers(&self) -> Vec<u32> {
        self.entries.keys().copied().collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// All of it counts as changed.
    pub fn change_all(&mut self) {
        self.changed.extend(self.entries.keys());
    }

    /// The numbers of what was added, changed or removed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_known_once() {
        let mut registry = Registry::default();
        let (one, two) = (registry.add('a'), registry.add('b'));
        assert_eq!(registry.take_changed(), BTreeSet::from([one, two]));
        assert_eq!(registry.get(one), Some(&'a'));
        assert!(registry.take_changed().is_empty());
        *registry.get_mut(one).unwrap() = 'c';
        assert_eq!(registry.remove(two), Some('b'));
        assert_eq!(registry.take_changed(), BTreeSet::from([one, two]));
        assert_eq!(registry.get_mut(two), None);
        assert_eq!(registry.remove(two), None);
        assert!(registry.take_changed().is_empty());
    }

    #[test]
    fn numbers_are_not_used_again_by_the_next_program() {
        let mut registry = Registry::restore(BTreeMap::from([(3, Some('a')), (4, None)]), 5);
        assert_eq!(registry.add('b'), 5);
        assert_eq!(registry.take_changed(), BTreeSet::from([3, 4, 5]));
        assert_eq!(registry.numbers(), [3, 5]);
    }
}
