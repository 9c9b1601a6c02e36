//! Which known name was probably meant.

/// The known name with the fewest edits from `name`, if they are few.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let allowed = (name.chars().count() / 2).clamp(1, 4);
    known.iter().map(|k| (edits(name, k), *k)).filter(|(n, _)| *n <= allowed).min().map(|(_, k)| k)
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn one text into the other.
fn edits(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut before = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut cost = (at(&last, j + 1) + 1).min(at(&row, j) + 1).min(at(&last, j) + usize::from(ca != cb));
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca);
            if swapped {
                cost = cost.min(at(&before, j - 1) + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, n) in
            [("name", "name", 0), ("nmae", "name", 1), ("", "abc", 3), ("pc1", "pc2", 1), ("Name", "name", 0)]
        {
            assert_eq!(edits(a, b), n, "{a} {b}");
        }
    }

    #[test]
    fn far_names_are_not_offered() {
        assert_eq!(nearest("locatoin", &["name", "location"]), Some("location"));
        assert_eq!(nearest("frobnicate", &["name", "location"]), None);
    }
}
