//! A bounded map that forgets what was used least recently.

use std::hash::{BuildHasher as _, Hash};

use crate::keyed::HashKey;

/// Where an entry is.
pub(super) type Place = u32;

/// No entry.
const NONE: Place = Place::MAX;
/// Buckets of the smallest table; always a power of two.
const FEWEST: usize = 8;

/// At most `capacity` entries, in a hash table with chains. There are as many buckets as entries or more,
/// and which bucket a key falls into hangs on a secret, so look-ups take constant time whoever chooses the
/// keys. Nothing is moved but when the table doubles. An empty one takes no memory besides itself.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    hash: HashKey,
    /// The first entry of each bucket's chain.
    buckets: Vec<Place>,
    nodes: Vec<Node<K, V>>,
    free: Vec<Place>,
    newest: Place,
    oldest: Place,
    capacity: usize,
}

#[derive(Debug)]
struct Node<K, V> {
    key: K,
    value: V,
    newer: Place,
    older: Place,
    /// The next one in the same bucket.
    next: Place,
}

impl<K: Hash + Eq + Copy, V> Lru<K, V> {
    pub(super) fn new(capacity: usize, hash: HashKey) -> Self {
        Self {
            hash,
            buckets: Vec::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            capacity,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len().saturating_sub(self.free.len())
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Where the entry is, for [`Self::at`] and [`Self::touch`]; good until the next removal.
    #[inline]
    pub(super) fn place(&self, key: &K) -> Option<Place> {
        // Packets come in trains.
        if self.node(self.newest).is_some_and(|node| node.key == *key) {
            return Some(self.newest);
        }
        let mut place = *self.buckets.get(self.bucket(key))?;
        while let Some(node) = self.node(place) {
            if node.key == *key {
                return Some(place);
            }
            place = node.next;
        }
        None
    }

    /// The value at a place, without counting as use.
    pub(super) fn at(&mut self, place: Place) -> Option<&mut V> {
        self.node_mut(place).map(|node| &mut node.value)
    }

    /// Makes the entry at a place the most recently used.
    pub(super) fn touch(&mut self, place: Place) {
        if place != self.newest && self.node(place).is_some() {
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
            next: NONE,
        };
        let place = match self.free.pop() {
            Some(place) => {
                if let Some(slot) = self.node_mut(place) {
                    *slot = node;
                }
                place
            }
            None => {
                self.nodes.push(node);
                Place::try_from(self.nodes.len() - 1).unwrap_or(NONE)
            }
        };
        self.link(place);
        if self.len() > self.buckets.len() {
            self.grow();
        } else {
            self.chain(place);
        }
        !evicted
    }

    pub(super) fn remove(&mut self, key: &K) -> bool {
        let bucket = self.bucket(key);
        let (mut before, mut place) = (NONE, self.head(bucket));
        while let Some(node) = self.node(place) {
            let next = node.next;
            if node.key == *key {
                match self.node_mut(before) {
                    Some(before) => before.next = next,
                    None => self.set_head(bucket, next),
                }
                self.unlink(place);
                self.free.push(place);
                return true;
            }
            (before, place) = (place, next);
        }
        false
    }

    pub(super) fn oldest(&self) -> Option<(&K, &V)> {
        let node = self.node(self.oldest)?;
        Some((&node.key, &node.value))
    }

    pub(super) fn remove_oldest(&mut self) -> Option<K> {
        let key = *self.oldest()?.0;
        self.remove(&key).then_some(key)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.capacity, self.hash);
    }

    #[inline]
    fn node(&self, place: Place) -> Option<&Node<K, V>> {
        self.nodes.get(usize::try_from(place).ok()?)
    }

    #[inline]
    fn node_mut(&mut self, place: Place) -> Option<&mut Node<K, V>> {
        self.nodes.get_mut(usize::try_from(place).ok()?)
    }

    #[inline]
    fn bucket(&self, key: &K) -> usize {
        let mask = self.buckets.len().saturating_sub(1);
        // The low bits are as good as any.
        usize::try_from(self.hash.hash_one(key) & (mask as u64)).unwrap_or(0)
    }

    fn head(&self, bucket: usize) -> Place {
        self.buckets.get(bucket).copied().unwrap_or(NONE)
    }

    fn set_head(&mut self, bucket: usize, place: Place) {
        if let Some(head) = self.buckets.get_mut(bucket) {
            *head = place;
        }
    }

    /// Puts an entry into its bucket.
    fn chain(&mut self, place: Place) {
        let Some(bucket) = self.node(place).map(|node| self.bucket(&node.key)) else {
            return;
        };
        let head = self.head(bucket);
        if let Some(node) = self.node_mut(place) {
            node.next = head;
        }
        self.set_head(bucket, place);
    }

    /// Twice the buckets, and every entry into its new one.
    fn grow(&mut self) {
        let buckets = self.buckets.len().saturating_mul(2).max(FEWEST);
        self.buckets = vec![NONE; buckets];
        let mut place = self.oldest;
        while let Some(newer) = self.node(place).map(|node| node.newer) {
            self.chain(place);
            place = newer;
        }
    }

    fn link(&mut self, place: Place) {
        let older = self.newest;
        if let Some(node) = self.node_mut(place) {
            (node.newer, node.older) = (NONE, older);
        }
        match self.node_mut(older) {
            Some(node) => node.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }

    fn unlink(&mut self, place: Place) {
        let Some((newer, older)) = self.node(place).map(|n| (n.newer, n.older)) else {
            return;
        };
        match self.node_mut(newer) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.node_mut(older) {
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
        fn it_forgets_like_a_list_would(
            capacity in 1usize..40,
            secret: [u8; 16],
            steps in proptest::collection::vec((0u8..3, 0u8..60), 0..300),
        ) {
            let mut lru = Lru::new(capacity, HashKey::new(secret));
            let mut model: Vec<(u8, usize)> = Vec::new();
            for (step, (action, key)) in steps.into_iter().enumerate() {
                let at = model.iter().position(|(k, _)| *k == key);
                match action {
                    0 => {
                        lru.insert(key, step);
                        if let Some(at) = at {
                            model.remove(at);
                        } else if model.len() == capacity {
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
                for key in 0..60 {
                    let known = model.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
                    let place = lru.place(&key);
                    prop_assert_eq!(place.and_then(|place| lru.at(place).copied()), known);
                }
            }
        }
    }

    #[test]
    fn chains_stay_short_whatever_the_keys() {
        let mut lru = Lru::new(16_384, HashKey::new([3; 16]));
        for key in 0..20_000_u64 {
            lru.insert(key.wrapping_mul(16_384), ());
        }
        assert_eq!(lru.len(), 16_384);
        let lengths = lru.buckets.iter().map(|first| {
            let chain = std::iter::successors(Some(*first), |at| Some(lru.node(*at)?.next));
            chain.take_while(|at| *at != NONE).count()
        });
        let longest = lengths.max().unwrap();
        assert!(longest < 16, "{longest}");
        lru.clear();
        assert_eq!((lru.len(), lru.buckets.len()), (0, 0));
    }
}
