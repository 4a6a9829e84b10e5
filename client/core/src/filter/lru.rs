//! A bounded map that forgets what was used least recently.

use std::collections::BTreeMap;

/// No node.
const NONE: usize = usize::MAX;

/// At most `capacity` entries. Look-ups are logarithmic, use and eviction take constant time.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    places: BTreeMap<K, usize>,
    nodes: Vec<Node<K, V>>,
    free: Vec<usize>,
    newest: usize,
    oldest: usize,
    capacity: usize,
}

#[derive(Debug)]
struct Node<K, V> {
    key: K,
    value: V,
    newer: usize,
    older: usize,
}

impl<K: Ord + Copy, V> Lru<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            places: BTreeMap::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            capacity,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Where the entry is, for [`Self::at`] and [`Self::touch`]; good until the next removal.
    pub(super) fn place(&self, key: &K) -> Option<usize> {
        self.places.get(key).copied()
    }

    /// The value at a place, without counting as use.
    pub(super) fn at(&mut self, place: usize) -> Option<&mut V> {
        self.nodes.get_mut(place).map(|node| &mut node.value)
    }

    /// Makes the entry at a place the most recently used.
    pub(super) fn touch(&mut self, place: usize) {
        if place != self.newest && place < self.nodes.len() {
            self.unlink(place);
            self.link(place);
        }
    }

    /// Puts an entry in, in place of the oldest one where it is full. Returns whether the count grew.
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        if let Some(place) = self.place(&key) {
            if let Some(old) = self.at(place) {
                *old = value;
            }
            self.touch(place);
            return false;
        }
        let evicted = self.is_full() && self.remove_oldest().is_some();
        let node = Node {
            key,
            value,
            newer: NONE,
            older: NONE,
        };
        let place = match self.free.pop() {
            Some(place) => {
                if let Some(slot) = self.nodes.get_mut(place) {
                    *slot = node;
                }
                place
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.places.insert(key, place);
        self.link(place);
        !evicted
    }

    pub(super) fn remove(&mut self, key: &K) -> bool {
        let Some(place) = self.places.remove(key) else {
            return false;
        };
        self.unlink(place);
        self.free.push(place);
        true
    }

    pub(super) fn oldest(&self) -> Option<(&K, &V)> {
        let node = self.nodes.get(self.oldest)?;
        Some((&node.key, &node.value))
    }

    pub(super) fn remove_oldest(&mut self) -> Option<K> {
        let key = *self.oldest()?.0;
        self.remove(&key).then_some(key)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.capacity);
    }

    fn link(&mut self, place: usize) {
        let older = self.newest;
        if let Some(node) = self.nodes.get_mut(place) {
            (node.newer, node.older) = (NONE, older);
        }
        match self.nodes.get_mut(older) {
            Some(node) => node.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }

    fn unlink(&mut self, place: usize) {
        let Some((newer, older)) = self.nodes.get(place).map(|n| (n.newer, n.older)) else {
            return;
        };
        match self.nodes.get_mut(newer) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.nodes.get_mut(older) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_forgets_like_a_list_would(steps in proptest::collection::vec((0u8..3, 0u8..12), 0..200)) {
            let mut lru = Lru::new(5);
            let mut model: Vec<(u8, usize)> = Vec::new();
            for (step, (action, key)) in steps.into_iter().enumerate() {
                let at = model.iter().position(|(k, _)| *k == key);
                match action {
                    0 => {
                        lru.insert(key, step);
                        if let Some(at) = at {
                            model.remove(at);
                        } else if model.len() == 5 {
                            model.remove(0);
                        }
                        model.push((key, step));
                    }
                    1 => {
                        if let Some(place) = lru.place(&key) {
                            lru.touch(place);
                        }
                        if let Some(at) = at {
                            let entry = model.remove(at);
                            model.push(entry);
                        }
                    }
                    _ => {
                        prop_assert_eq!(lru.remove(&key), at.is_some());
                        if let Some(at) = at {
                            model.remove(at);
                        }
                    }
                }
                prop_assert_eq!(lru.len(), model.len());
                prop_assert_eq!(lru.oldest().map(|(k, v)| (*k, *v)), model.first().copied());
                for (key, value) in &model {
                    let place = lru.place(key).unwrap();
                    prop_assert_eq!(lru.at(place).copied(), Some(*value));
                }
            }
        }
    }
}
