use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn it_forgets_like_lists_would(
        capacity in 1usize..60,
        secret: [u8; 16],
        steps in proptest::collection::vec((0u8..10, 0u8..60, 0u8..3), 0..300),
    ) {
        let mut lru = Lru::<u8, usize, 3>::new(capacity, HashKey::new(secret));
        let mut model: Vec<(u8, usize, u8)> = Vec::new();
        for (step, (action, key, list)) in steps.into_iter().enumerate() {
            let at = model.iter().position(|(k, ..)| *k == key);
            let removals = lru.removals();
            let found: Vec<_> = (0..60).filter_map(|key| Some((key, lru.place(&key)?))).collect();
            match action {
                0..=5 => {
                    let has_room = at.is_some() || model.len() < capacity;
                    prop_assert_eq!(lru.insert(key, step, list).is_some(), has_room);
                    if let Some(at) = at {
                        model.remove(at);
                    }
                    if has_room {
                        model.push((key, step, list));
                    }
                }
                6 => {
                    if let Some(place) = lru.place(&key) {
                        lru.touch(place, list);
                    }
                    if let Some(at) = at {
                        let (key, value, _) = model.remove(at);
                        model.push((key, value, list));
                    }
                }
                // Many at once, so that it shrinks.
                7 if key < 5 => {
                    for key in 0..50 {
                        lru.remove(&key);
                    }
                    model.retain(|(k, ..)| *k >= 50);
                }
                7 => {
                    let oldest = model.iter().position(|(.., l)| *l == list);
                    prop_assert_eq!(lru.remove_oldest(list), oldest.is_some());
                    if let Some(at) = oldest {
                        model.remove(at);
                    }
                }
                _ => {
                    prop_assert_eq!(lru.remove(&key), at.is_some());
                    if let Some(at) = at {
                        model.remove(at);
                    }
                }
            }
            // What was found before stays where it was, unless something was removed.
            for (key, place) in found {
                let is_there = lru.node(place).is_some_and(|node| node.key == key);
                prop_assert!(is_there || lru.removals() != removals);
            }
            let mut all: Vec<_> = lru.iter().map(|(_, key, value)| (*key, *value)).collect();
            prop_assert!(lru.iter().all(|(place, key, _)| lru.place(key) == Some(place)));
            let mut known: Vec<_> = model.iter().map(|(key, value, _)| (*key, *value)).collect();
            all.sort_unstable();
            known.sort_unstable();
            prop_assert_eq!(all, known);
            prop_assert_eq!(lru.len(), model.len());
            prop_assert!(lru.nodes.capacity() <= (model.len() * 4).max(FEWEST * 2));
            prop_assert!(lru.buckets.len() <= (model.len() * 4).max(FEWEST * 2));
            for list in 0..3 {
                let mut inside = model.iter().filter(|(.., l)| *l == list);
                prop_assert_eq!(lru.len_of(list), inside.clone().count());
                let oldest = inside.next().map(|(key, value, _)| (*key, *value));
                prop_assert_eq!(lru.oldest(list).map(|(k, v)| (*k, *v)), oldest);
            }
            for key in 0..60 {
                let known = model.iter().find(|(k, ..)| *k == key).map(|(_, value, _)| *value);
                let place = lru.place(&key);
                prop_assert_eq!(place.and_then(|place| lru.at(place).copied()), known);
            }
        }
    }
}

#[test]
fn chains_stay_short_whatever_the_keys() {
    let mut lru = Lru::<u64, (), 1>::new(16_384, HashKey::new([3; 16]));
    for key in 0..20_000_u64 {
        if lru.is_full() {
            lru.remove_oldest(0);
        }
        assert!(lru.insert(key.wrapping_mul(16_384), (), 0).is_some());
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

#[test]
fn an_entry_takes_two_words_more_than_what_it_holds() {
    // Two neighbours, the next of the bucket, and the list in what is left of the last word.
    assert_eq!(size_of::<Node<u64, u64>>(), 4 * 8);
}

#[test]
fn what_is_removed_gives_its_memory_back() {
    let mut lru = Lru::<u64, (), 2>::new(16_384, HashKey::new([3; 16]));
    for key in 0..16_384 {
        assert!(lru.insert(key, (), u8::from(key % 3 == 0)).is_some());
    }
    assert!(lru.nodes.capacity() >= 16_384, "positive control");
    for key in 100..16_384 {
        assert!(lru.remove(&key));
    }
    assert_eq!((lru.len(), lru.len_of(1)), (100, 34));
    assert!(lru.nodes.capacity() <= 400 && lru.buckets.len() <= 400);
    assert!(lru.free.capacity() <= 400);
    for key in 0..100 {
        assert!(lru.place(&key).is_some());
        assert!(lru.remove(&key));
    }
    assert!(lru.nodes.capacity() <= 2 * FEWEST);
}
