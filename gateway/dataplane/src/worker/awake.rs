//! Sessions to which something happens. Those to which nothing does cost no time.

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

    /// Who has this place.
    pub(super) fn at(&self, place: usize) -> Home {
        self.0[place]
    }

    /// It rests, or is gone. The last one takes its place, and may have had no turn this round: the next one is its.
    pub(super) fn remove(&mut self, place: usize) {
        self.0.swap_remove(place);
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
        for place in (2..6).rev() {
            assert_eq!(awake.at(place), home(place as u32), "each has its turn");
            if place % 2 == 0 {
                awake.remove(place);
            }
        }
        let mut left: Vec<u32> = awake.0.iter().map(|home| home.slot).collect();
        left.sort_unstable();
        assert_eq!((awake.len(), left), (8, vec![0, 1, 3, 5, 6, 7, 8, 9]));
    }
}
