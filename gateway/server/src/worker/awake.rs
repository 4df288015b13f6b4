//! Sessions to which something happens. Those to which nothing does cost no time.

use std::ops::Range;

use crate::flows::Home;

/// All that are awake, in no order.
#[derive(Default, Debug)]
pub(super) struct Awake(Vec<Home>);

impl Awake {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// It is summed up from the next round on.
    pub(super) fn add(&mut self, home: Home) {
        self.0.push(home);
    }

    /// Sums up these; those that rest now, or are gone, leave. The last ones take their places, and have had no turn
    /// this round if they have none left: the next one is theirs.
    pub(super) fn visit(&mut self, share: Range<usize>, mut rests: impl FnMut(Home) -> bool) {
        for place in share.rev() {
            if rests(self.0[place]) {
                self.0.swap_remove(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_rest_leave_and_nobody_is_forgotten() {
        let home = |slot| Home { worker: 0, slot, generation: 1 };
        let mut awake = Awake::default();
        (0..10).for_each(|slot| awake.add(home(slot)));
        let mut seen = Vec::new();
        awake.visit(2..6, |home| {
            seen.push(home.slot);
            home.slot % 2 == 0
        });
        seen.sort_unstable();
        assert_eq!(seen, [2, 3, 4, 5]);
        let mut left: Vec<u32> = awake.0.iter().map(|home| home.slot).collect();
        left.sort_unstable();
        assert_eq!((awake.len(), left), (8, vec![0, 1, 3, 5, 6, 7, 8, 9]));
    }
}
