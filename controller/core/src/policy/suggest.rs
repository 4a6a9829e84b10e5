//! "Did you mean": the nearest known word by edit distance.

/// The known word that `word` was most likely meant to be, if any is near.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let typed: Vec<char> = word.chars().take(80).collect();
    // One slip in a short word, up to three in a long one.
    let near = (typed.len() / 3).clamp(1, 3);
    known
        .into_iter()
        .filter(|name| name.len().abs_diff(word.len()) <= near * 4)
        .filter_map(|name| {
            let name_chars: Vec<char> = name.chars().take(80).collect();
            let away = distance(&typed, &name_chars);
            (away <= near && away < name_chars.len()).then_some((away, name))
        })
        .min()
        .map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one into the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut last = None;
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let at =
                |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
            let replace = at(&above, j) + usize::from(from != to);
            let mut best = replace.min(at(&above, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = j > 0 && last == Some(to) && b.get(j - 1) == Some(from);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
        last = Some(from);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["posture", "to_posture", "ports", "schedule"];
        assert_eq!(nearest("prots", known), Some("ports"));
        assert_eq!(nearest("posturre", known), Some("posture"));
        assert_eq!(nearest("shedule", known), Some("schedule"));
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn distances_count_slips() {
        let away = |a: &str, b: &str| {
            distance(
                &a.chars().collect::<Vec<_>>(),
                &b.chars().collect::<Vec<_>>(),
            )
        };
        assert_eq!(away("tag", "tag"), 0);
        assert_eq!(away("tga", "tag"), 1);
        assert_eq!(away("", "tag"), 3);
        assert_eq!(away("kitten", "sitting"), 3);
    }
}
