//! A bounded map that knows what was used least recently, in each of some lists.

use std::hash::{BuildHasher as _, Hash};

use crate::keyed::HashKey;

/// Where an entry is.
pub(super) type Place = u32;
/// Which of the lists an entry is in.
pub(super) type ListId = u8;

/// No entry.
const NONE: Place = Place::MAX;
/// Buckets of the smallest table; always a power of two.
const FEWEST: usize = 8;

/// At most `capacity` entries, in a hash table with chains. There are as many buckets as entries or more,
/// and which bucket a key falls into hangs on a secret, so look-ups take constant time whoever chooses the
/// keys. Nothing is moved but when the table doubles, or when less than half of its places are taken: it has
/// room for four times its entries at the most, or for a few. An unused one takes no memory besides itself.
///
/// Each entry is in one of `LISTS` lists, and each list in the order of last use.
#[derive(Debug)]
pub(super) struct Lru<K, V, const LISTS: usize> {
    hash: HashKey,
    /// The first entry of each bucket's chain.
    buckets: Vec<Place>,
    nodes: Vec<Node<K, V>>,
    free: Vec<Place>,
    lists: [List; LISTS],
    /// The one used last, in whichever list.
    latest: Place,
    /// How often a place may have become another entry's.
    removals: u32,
    capacity: usize,
}

#[derive(Clone, Copy, Debug)]
struct List {
    newest: Place,
    oldest: Place,
    len: u32,
}

impl List {
    const EMPTY: Self = Self {
        newest: NONE,
        oldest: NONE,
        len: 0,
    };
}

#[derive(Debug)]
struct Node<K, V> {
    key: K,
    value: V,
    newer: Place,
    older: Place,
    /// The next one in the same bucket.
    next: Place,
    list: ListId,
}

impl<K: Hash + Eq + Copy, V, const LISTS: usize> Lru<K, V, LISTS> {
    pub(super) fn new(capacity: usize, hash: HashKey) -> Self {
        Self {
            hash,
            buckets: Vec::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            lists: [List::EMPTY; LISTS],
            latest: NONE,
            removals: 0,
            capacity,
        }
    }

    /// Counts removals: places that were found at one count are good while it stands. It wraps after four thousand million
    /// of them, so a place is not to be kept for long.
    #[inline]
    pub(super) fn removals(&self) -> u32 {
        self.removals
    }

    /// All entries and where they are, those used last first within each list.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, &K, &V)> {
        let newest = self.lists.into_iter().map(|list| list.newest);
        newest
            .flat_map(|place| {
                std::iter::successors(self.whole(place), |(_, node)| self.whole(node.older))
            })
            .map(|(place, node)| (place, &node.key, &node.value))
    }

    fn whole(&self, place: Place) -> Option<(Place, &Node<K, V>)> {
        self.node(place).map(|node| (place, node))
    }

    /// The entry at a place.
    pub(super) fn get(&self, place: Place) -> Option<(&K, &V)> {
        self.node(place).map(|node| (&node.key, &node.value))
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len().saturating_sub(self.free.len())
    }

    /// How many entries are in a list.
    pub(super) fn len_of(&self, list: ListId) -> usize {
        usize::try_from(self.list(list).len).unwrap_or(usize::MAX)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Where the entry is, for [`Self::at`] and [`Self::touch`]; good until the next removal.
    #[inline]
    pub(super) fn place(&self, key: &K) -> Option<Place> {
        // Packets come in trains.
        if self.node(self.latest).is_some_and(|node| node.key == *key) {
            return Some(self.latest);
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

    /// Makes the entry at a place the most recently used of `list`.
    #[inline]
    pub(super) fn touch(&mut self, place: Place, list: ListId) {
        let Some(was_in) = self.node(place).map(|node| node.list) else {
            return;
        };
        self.latest = place;
        if was_in != list || self.list(list).newest != place {
            self.unlink(place);
            self.link(place, list);
        }
    }

    /// Puts an entry in, as the most recently used of `list`, and says where; `None` where it is full.
    pub(super) fn insert(&mut self, key: K, value: V, list: ListId) -> Option<Place> {
        if let Some(place) = self.place(&key) {
            if let Some(old) = self.at(place) {
                *old = value;
            }
            self.touch(place, list);
            return Some(place);
        }
        if self.is_full() {
            return None;
        }
        let node = Node {
            key,
            value,
            newer: NONE,
            older: NONE,
            next: NONE,
            list,
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
        self.link(place, list);
        self.latest = place;
        if self.len() > self.buckets.len() {
            self.grow();
        } else {
            self.chain(place);
        }
        Some(place)
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
                self.removals = self.removals.wrapping_add(1);
                if self.latest == place {
                    self.latest = NONE;
                }
                if self.nodes.len() > FEWEST && self.free.len() > self.len() {
                    self.shrink();
                }
                return true;
            }
            (before, place) = (place, next);
        }
        false
    }

    /// The entry of a list that was used least recently.
    pub(super) fn oldest(&self, list: ListId) -> Option<(&K, &V)> {
        let node = self.node(self.list(list).oldest)?;
        Some((&node.key, &node.value))
    }

    pub(super) fn remove_oldest(&mut self, list: ListId) -> bool {
        let oldest = self.oldest(list).map(|(key, _)| *key);
        oldest.is_some_and(|key| self.remove(&key))
    }

    pub(super) fn clear(&mut self) {
        let removals = self.removals.wrapping_add(1);
        *self = Self::new(self.capacity, self.hash);
        self.removals = removals;
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
        self.chain_all(self.buckets.len().saturating_mul(2));
    }

    fn chain_all(&mut self, buckets: usize) {
        self.buckets = vec![NONE; buckets.max(FEWEST)];
        for list in self.lists {
            let mut place = list.oldest;
            while let Some(newer) = self.node(place).map(|node| node.newer) {
                self.chain(place);
                place = newer;
            }
        }
    }

    /// Gives back the room of what is gone: entries at the end move to free places before it.
    fn shrink(&mut self) {
        let len = self.len();
        let is_kept = |place: Place| usize::try_from(place).is_ok_and(|place| place < len);
        let mut free = std::mem::take(&mut self.free);
        free.retain(|place| is_kept(*place));
        for list in self.lists {
            let mut place = list.oldest;
            while let Some(newer) = self.node(place).map(|node| node.newer) {
                if !is_kept(place)
                    && let Some(to) = free.pop()
                {
                    self.relocate(place, to);
                }
                place = newer;
            }
        }
        let room = len.next_power_of_two().max(FEWEST);
        self.nodes.truncate(len);
        self.nodes.shrink_to(room);
        self.latest = NONE;
        self.chain_all(room);
    }

    /// Moves an entry to a place that is free. Its bucket is another matter.
    fn relocate(&mut self, from: Place, to: Place) {
        let Some((newer, older, list)) = self.node(from).map(|n| (n.newer, n.older, n.list)) else {
            return;
        };
        if let (Ok(from), Ok(to)) = (usize::try_from(from), usize::try_from(to)) {
            self.nodes.swap(from, to);
        }
        if let Some(node) = self.node_mut(newer) {
            node.older = to;
        } else if let Some(list) = self.list_mut(list) {
            list.newest = to;
        }
        if let Some(node) = self.node_mut(older) {
            node.newer = to;
        } else if let Some(list) = self.list_mut(list) {
            list.oldest = to;
        }
    }

    #[inline]
    fn list(&self, list: ListId) -> List {
        let list = self.lists.get(usize::from(list));
        list.copied().unwrap_or(List::EMPTY)
    }

    fn list_mut(&mut self, list: ListId) -> Option<&mut List> {
        self.lists.get_mut(usize::from(list))
    }

    fn link(&mut self, place: Place, list: ListId) {
        let older = self.list(list).newest;
        if let Some(node) = self.node_mut(place) {
            (node.newer, node.older, node.list) = (NONE, older, list);
        }
        if let Some(node) = self.node_mut(older) {
            node.newer = place;
        }
        if let Some(list) = self.list_mut(list) {
            list.newest = place;
            if older == NONE {
                list.oldest = place;
            }
            list.len = list.len.saturating_add(1);
        }
    }

    fn unlink(&mut self, place: Place) {
        let Some((newer, older, list)) = self.node(place).map(|n| (n.newer, n.older, n.list))
        else {
            return;
        };
        if let Some(node) = self.node_mut(newer) {
            node.older = older;
        }
        if let Some(node) = self.node_mut(older) {
            node.newer = newer;
        }
        if let Some(list) = self.list_mut(list) {
            if list.newest == place {
                list.newest = older;
            }
            if list.oldest == place {
                list.oldest = newer;
            }
            list.len = list.len.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
