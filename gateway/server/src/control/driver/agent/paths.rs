//! How long the datagrams are that the way to a node carries, and the way back: found by sending some as long (RFC 8899,
//! datagram packetization layer path MTU discovery).
//!
//! While long bundles cross, a question of their length goes along every 50 ms, and right behind it a short one. Where
//! the short one is answered and the long one is not, twice in a row, the path carries no such bundles any more: they are
//! as short as any path carries at once, and a longer size is tried each second. The answer is as long as its question,
//! so that both ways are tried; they have one size. A node that answers neither is not judged.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use evenkeel_core::NodeId;
use evenkeel_media::trunk::message::{PATH_LEN_MIN, Question};

use super::Asking;
use crate::worker::BUNDLE_SIZES;

/// A longer size is tried this often.
const RAISE_EVERY: Duration = Duration::from_secs(1);

/// How long a way is looked at after a long bundle: where none arrives any more, that is the reason to look.
const USED_FOR: Duration = Duration::from_secs(1);

/// Long questions in a row, unanswered where short ones are answered, that show what the path carries: one may be lost.
const MISSES: u8 = 2;

/// Pairs of questions whose answers may still come: those of 1.6 s.
const PAIRS_MAX: usize = 32;

/// From which worker to which node.
pub(super) type Way = (u16, NodeId);

/// All ways that ever carried long bundles.
#[derive(Default)]
pub(super) struct Paths {
    paths: BTreeMap<Way, Path>,
    /// What is to be asked now.
    asking: VecDeque<Asking>,
}

struct Path {
    /// The place in [`BUNDLE_SIZES`] of what packets may share.
    size: usize,
    misses: u8,
    used_until: Instant,
    raise_at: Instant,
    /// Of the next question. Drawn once, since nobody's answers to others may fit.
    nonce: u64,
    pairs: VecDeque<Pair>,
}

/// A long question, and the short one with the next nonce.
struct Pair {
    nonce: u64,
    size: usize,
    long_answered: bool,
    short_answered: bool,
}

impl Paths {
    /// A long bundle went this way, or came.
    pub(super) fn used(&mut self, way: Way, draw: &mut dyn FnMut() -> u64, now: Instant) {
        let path = self.paths.entry(way).or_insert_with(|| Path::new(draw(), now));
        path.used_until = now + USED_FOR;
    }

    /// To be called every 50 ms: what is to be asked is due then.
    pub(super) fn look(&mut self, now: Instant) {
        for (&(worker, node), path) in &mut self.paths {
            let Some((size, nonce)) = path.try_size(now) else { continue };
            let bundle_max = BUNDLE_SIZES[path.size];
            let long = BUNDLE_SIZES[size] - PATH_LEN_MIN as u16;
            for (nonce, padding) in [(nonce, long), (nonce.wrapping_add(1), 0)] {
                let question = Question::Path { bundle_max, padding };
                self.asking.push_back(Asking { node, worker, question, nonce });
            }
        }
    }

    pub(super) fn due(&mut self) -> Option<Asking> {
        self.asking.pop_front()
    }

    /// A question of the path was answered. How long bundles are from now on, where that changes, and from which worker.
    pub(super) fn answered(
        &mut self,
        node: NodeId,
        nonce: u64,
        now: Instant,
    ) -> Option<(u16, u16)> {
        let mut ways = self.paths.iter_mut().filter(|((_, at), _)| *at == node);
        let (worker, size) =
            ways.find_map(|(&(worker, _), path)| Some((worker, path.answered(nonce, now)?)))?;
        Some((worker, BUNDLE_SIZES[size]))
    }
}

impl Path {
    fn new(nonce: u64, now: Instant) -> Path {
        let (size, pairs) = (BUNDLE_SIZES.len() - 1, VecDeque::new());
        Path { size, misses: 0, used_until: now, raise_at: now, nonce, pairs }
    }

    /// The size to ask about now, if any, and the nonce to ask with.
    fn try_size(&mut self, now: Instant) -> Option<(usize, u64)> {
        let size = if self.size + 1 < BUNDLE_SIZES.len() && now >= self.raise_at {
            self.raise_at = now + RAISE_EVERY;
            self.size + 1
        } else if self.size > 0 && now < self.used_until {
            self.size
        } else {
            return None;
        };
        if self.pairs.len() == PAIRS_MAX {
            self.pairs.pop_front();
        }
        let nonce = self.nonce;
        self.nonce = nonce.wrapping_add(2);
        self.pairs.push_back(Pair { nonce, size, long_answered: false, short_answered: false });
        Some((size, nonce))
    }

    /// The size from now on, where it changes.
    fn answered(&mut self, nonce: u64, now: Instant) -> Option<usize> {
        let is_asked = |pair: &&mut Pair| nonce.wrapping_sub(pair.nonce) < 2;
        let pair = self.pairs.iter_mut().find(is_asked)?;
        if nonce == pair.nonce {
            pair.long_answered = true;
            if pair.size >= self.size {
                self.misses = 0;
            }
            return (pair.size > self.size).then(|| pair.size).map(|size| self.take(size, now));
        }
        let is_miss = !pair.long_answered && !pair.short_answered && pair.size == self.size;
        pair.short_answered = true;
        self.misses += u8::from(is_miss);
        (self.misses >= MISSES).then(|| self.take(0, now))
    }

    fn take(&mut self, size: usize, now: Instant) -> usize {
        self.size = size;
        self.misses = 0;
        self.raise_at = now + RAISE_EVERY;
        // What was asked before says nothing about this size.
        self.pairs.clear();
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK_EVERY: Duration = Duration::from_millis(50);
    const WAY: Way = (3, NodeId(7));

    /// A way on which long bundles go all the time, and a path that carries so much.
    struct World {
        paths: Paths,
        now: Instant,
        carries: usize,
        answers: bool,
        /// How long bundles are.
        size: u16,
    }

    impl World {
        fn new(carries: usize) -> World {
            let paths = Paths::default();
            World { paths, now: Instant::now(), carries, answers: true, size: 1_400 }
        }

        fn go_on(&mut self, looks: u32) {
            for _ in 0..looks {
                self.now += LOOK_EVERY;
                self.paths.used(WAY, &mut || u64::MAX - 4, self.now);
                self.look();
            }
        }

        fn look(&mut self) {
            self.paths.look(self.now);
            let asked: Vec<Asking> = std::iter::from_fn(|| self.paths.due()).collect();
            let size = self.size;
            for Asking { node, worker, question, nonce } in asked {
                let Question::Path { bundle_max, padding } = question else { panic!() };
                assert_eq!(((worker, node), bundle_max), (WAY, size));
                if self.answers && PATH_LEN_MIN + usize::from(padding) <= self.carries {
                    let changed = self.paths.answered(node, nonce, self.now);
                    self.size = changed.map_or(self.size, |(_, size)| size);
                }
            }
        }
    }

    #[test]
    fn bundles_are_as_short_as_any_path_carries_when_two_long_questions_got_lost() {
        let mut world = World::new(1_400);
        world.go_on(100);
        assert_eq!(world.size, 1_400);
        world.carries = 1_300;
        world.go_on(1);
        assert_eq!(world.size, 1_400, "one may be lost");
        world.go_on(1);
        assert_eq!(world.size, 1_200);
    }

    #[test]
    fn what_the_path_carries_is_found_from_below_and_what_it_carries_again() {
        let mut world = World::new(1_300);
        world.go_on(2);
        world.go_on(19);
        assert_eq!(world.size, 1_200);
        world.go_on(1);
        assert_eq!(world.size, 1_252);
        world.go_on(200);
        assert_eq!(world.size, 1_252, "1,400 is tried, and does not cross");
        world.carries = 1_500;
        world.go_on(20);
        assert_eq!(world.size, 1_400);
    }

    #[test]
    fn one_long_question_that_is_lost_now_and_then_changes_nothing() {
        let mut world = World::new(1_400);
        for _ in 0..100 {
            world.carries = 1_300;
            world.go_on(1);
            world.carries = 1_400;
            world.go_on(1);
        }
        assert_eq!(world.size, 1_400);
    }

    #[test]
    fn a_long_answer_that_fell_behind_is_no_loss() {
        let mut world = World::new(1_400);
        for _ in 0..100 {
            world.now += LOOK_EVERY;
            world.paths.used(WAY, &mut || 5, world.now);
            world.paths.look(world.now);
            let pair: Vec<u64> = std::iter::from_fn(|| Some(world.paths.due()?.nonce)).collect();
            for nonce in pair.into_iter().rev() {
                assert_eq!(world.paths.answered(WAY.1, nonce, world.now), None);
            }
        }
    }

    #[test]
    fn a_node_that_answers_nothing_is_not_judged() {
        let mut world = World::new(1_400);
        world.answers = false;
        world.go_on(100);
        assert_eq!(world.size, 1_400);
    }

    #[test]
    fn a_copy_of_an_answer_is_no_second_loss() {
        let mut world = World::new(1_400);
        world.paths.used(WAY, &mut || 5, world.now);
        world.paths.look(world.now);
        for _ in 0..3 {
            assert_eq!(world.paths.answered(WAY.1, 6, world.now), None);
        }
    }

    #[test]
    fn ways_without_long_bundles_are_left_alone() {
        let mut world = World::new(1_400);
        world.look();
        assert!(world.paths.due().is_none());
        world.go_on(1);
        world.now += USED_FOR;
        world.paths.look(world.now);
        assert!(world.paths.due().is_none());
    }
}
