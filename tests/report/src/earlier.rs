//! The rows at commit a3d43ed3, before their limits stood in `tests/limits.toml`.

use std::collections::BTreeSet;

const EARLIER: &str = include_str!("../limits-a3d43ed3.txt");

/// The rows that a section had then. Each command's tests compare its own rows: none may disappear.
pub fn earlier_rows(section: &str) -> BTreeSet<&'static str> {
    let rows = EARLIER.lines().filter_map(|line| {
        let mut fields = line.split('|');
        let is_of = fields.next() == Some(section);
        fields.next().filter(|row| is_of && *row != "*")
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_have_their_rows() {
        let counts = ["chaos", "bench", "interop", "nothing"].map(|it| earlier_rows(it).len());
        assert!(counts[0] > 80 && counts[1] > 25 && counts[2] > 40, "{counts:?}");
        assert_eq!(counts[3], 0);
        assert!(earlier_rows("chaos").contains("drain"));
    }
}
