//! How figures of one kind spread.

use serde_json::{Value, json};

/// The least, the middle one, and the one that 99 of 100 do not exceed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spread {
    /// The least.
    pub min: u64,
    /// As many are above it as below.
    pub median: u64,
    /// 99 of 100 are no larger.
    pub p99: u64,
}

impl Spread {
    /// Of these figures; all 0 of none.
    pub fn of(mut figures: Vec<u64>) -> Spread {
        figures.sort_unstable();
        // Nearest rank.
        let at = |share: usize| {
            let rank = (figures.len() * share).div_ceil(100).max(1);
            figures.get(rank - 1).copied().unwrap_or(0)
        };
        Spread { min: at(0), median: at(50), p99: at(99) }
    }

    /// For tools.
    pub fn json(&self) -> Value {
        json!({"min": self.min, "median": self.median, "p99": self.p99})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_least_the_middle_and_almost_the_most() {
        assert_eq!(Spread::of(vec![]), Spread::default());
        assert_eq!(Spread::of(vec![7]), Spread { min: 7, median: 7, p99: 7 });
        let many = (1..=100).rev().collect();
        assert_eq!(Spread::of(many), Spread { min: 1, median: 50, p99: 99 });
        assert_eq!(Spread::of((1..=101).collect()), Spread { min: 1, median: 51, p99: 100 });
    }
}
