//! Hash tables whose keys others choose.
//!
//! Ports and addresses come from peers, who would like them to fall into one bucket. The hash is
//! SipHash-1-3 under a key drawn for this data path, and nothing here can be iterated, so what the data
//! path does depends on the key in nothing but time.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};

/// The key of the hash.
#[derive(Clone, Copy)]
pub struct HashKey(u64, u64);

impl HashKey {
    /// From 16 bytes that nobody else knows.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Self {
        let [low, high] = [0, 64].map(|shift| {
            let word = (u128::from_le_bytes(bytes) >> shift) & u128::from(u64::MAX);
            u64::try_from(word).unwrap_or_default()
        });
        Self(low, high)
    }
}

/// Leaves the key out.
impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey")
    }
}

impl BuildHasher for HashKey {
    type Hasher = Sip;

    fn build_hasher(&self) -> Sip {
        Sip {
            v0: self.0 ^ 0x736f_6d65_7073_6575,
            v1: self.1 ^ 0x646f_7261_6e64_6f6d,
            v2: self.0 ^ 0x6c79_6765_6e65_7261,
            v3: self.1 ^ 0x7465_6462_7974_6573,
            words: 0,
        }
    }
}

/// SipHash-1-3 over words: each write is one or more of eight bytes, so keys are best given as few of
/// them.
#[derive(Debug)]
pub struct Sip {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
    words: u64,
}

impl Sip {
    #[inline]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline]
    fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }
}

impl Hasher for Sip {
    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.word(word);
        self.words = self.words.wrapping_add(1);
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    #[inline]
    fn write_u128(&mut self, number: u128) {
        self.write(&number.to_le_bytes());
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        let mut last = Self { ..*self };
        // The last block carries the number of bytes.
        last.word(self.words.wrapping_shl(3 + 56));
        last.v2 ^= 0xff;
        for _ in 0..3 {
            last.round();
        }
        last.v0 ^ last.v1 ^ last.v2 ^ last.v3
    }
}

#[expect(
    clippy::disallowed_types,
    reason = "on the path of every packet, and never iterated"
)]
type Map<K, V> = std::collections::HashMap<K, V, HashKey>;

/// A map for look-ups only.
#[derive(Clone, Debug)]
pub(crate) struct KeyedMap<K, V>(Map<K, V>);

impl<K: Hash + Eq, V: Copy> KeyedMap<K, V> {
    pub(crate) fn new(key: HashKey) -> Self {
        Self(Map::with_hasher(key))
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.0.insert(key, value);
    }

    /// Puts a value in unless there is one.
    pub(crate) fn insert_new(&mut self, key: K, value: V) {
        self.0.entry(key).or_insert(value);
    }

    #[inline]
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.0.get(key).copied()
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use super::*;

    #[test]
    fn it_is_siphash_and_hangs_on_the_key() {
        let zero = HashKey::new([0; 16]);
        for words in [&[][..], &[1], &[u64::MAX, 7], &[3; 40]] {
            // The standard library's, which has the key 0.
            let mut reference = DefaultHasher::new();
            let mut ours = zero.build_hasher();
            for word in words {
                reference.write(&word.to_le_bytes());
                ours.write(&word.to_le_bytes());
            }
            assert_eq!(ours.finish(), reference.finish(), "{words:?}");
        }
        let mut seen = std::collections::BTreeSet::new();
        for at in 0..16 {
            let mut bytes = [0; 16];
            bytes[at] = 1;
            seen.insert(HashKey::new(bytes).hash_one(5_u64));
        }
        seen.insert(zero.hash_one(5_u64));
        assert_eq!(seen.len(), 17);
        assert_eq!(format!("{zero:?}"), "HashKey");
    }

    #[test]
    fn parts_of_words_count_too() {
        let key = HashKey::new([9; 16]);
        assert_ne!(key.hash_one(1_u32), key.hash_one(1_u128));
        assert_ne!(key.hash_one([1_u8, 2, 3]), key.hash_one([1_u8, 2, 4]));
        let mut map = KeyedMap::new(key);
        map.insert_new(1_u32, 'a');
        map.insert_new(1, 'b');
        map.insert(2, 'c');
        map.insert(2, 'd');
        assert_eq!(
            [1, 2, 3].map(|key| map.get(&key)),
            [Some('a'), Some('d'), None]
        );
        assert!(map.contains(&2) && !map.contains(&3));
    }
}
