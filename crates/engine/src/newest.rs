//! Maps that keep the newest of what was put in.

use alloc::collections::{BTreeMap, VecDeque};

/// Keeps the values of the newest keys, at most so many.
#[derive(Clone, Debug)]
pub(crate) struct Newest<K, V> {
    values: BTreeMap<K, V>,
    /// Every key once, the oldest first; some may have been taken out since.
    order: VecDeque<K>,
    len_max: usize,
}

impl<K: Copy + Ord, V> Newest<K, V> {
    pub(crate) fn new(len_max: usize) -> Self {
        Self {
            values: BTreeMap::new(),
            order: VecDeque::new(),
            len_max,
        }
    }

    /// Puts a value in; a known key keeps its age.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.values.insert(key, value).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > self.len_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.values.get_mut(key)
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.values.contains_key(key)
    }

    /// Takes a value out for good: its key must not come again.
    pub(crate) fn remove(&mut self, key: &K) {
        self.values.remove(key);
    }

    /// The keys from the newest to the oldest, with their values.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = (&K, &V)> {
        let keys = self.order.iter().rev();
        keys.filter_map(|key| self.values.get_key_value(key))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.values.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_putting_in_again_makes_nothing_younger() {
        let mut map = Newest::new(2);
        map.insert(1, 'a');
        map.insert(2, 'b');
        map.insert(1, 'c');
        map.insert(3, 'd');
        assert_eq!(
            (map.get(&1), map.get(&2), map.get(&3)),
            (None, Some(&'b'), Some(&'d'))
        );
    }

    #[test]
    fn what_was_taken_out_leaves_no_trace() {
        let mut map = Newest::new(2);
        map.insert(1, 'a');
        map.remove(&1);
        map.insert(2, 'b');
        assert!(map.newest_first().eq([(&2, &'b')]));
        for key in 3..100 {
            map.insert(key, 'c');
            map.remove(&key);
        }
        assert!(map.order.len() <= 2);
    }
}
