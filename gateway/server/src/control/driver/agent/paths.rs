//! How long the datagrams are that the way to a node carries, and the way back: found by sending some as long (RFC 8899,
//! datagram packetization layer path MTU discovery).
//!
//! While long bundles cross, a question of their length goes along every 30 ms, and right behind it a short one. Where
//! the short one is answered and the long one is not, four times in a row, the path carries no such bundles any more: they
//! are as short as any path carries at once, and a longer size is tried each second, whether or not anything crosses. The
//! node is told at once, and again with the next questions. The answer is as long as its question, so that both ways are
//! tried; they have one size. A node that answers neither is not judged.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use evenkeel_core::NodeId;
use evenkeel_dataplane::worker::BUNDLE_SIZES;
use evenkeel_media::trunk::message::{PATH_LEN_MIN, Question};

use super::Asking;

/// A longer size is tried this often.
const RAISE_EVERY: Duration = Duration::from_secs(1);

/// How long a way is looked at after a long bundle: where none arrives any more, that is the reason to look.
const USED_FOR: Duration = Duration::from_secs(1);

/// Long questions in a row, unanswered where short ones are answered, that show what the path carries.
///
/// RFC 8899 (section 5.1.2) has 3, and asks less often. At one every 30 ms plain loss of 5 % shortens bundles every 12 s
/// where 2 are enough, every 4 minutes with 3, and once in an hour and a half with 4. These take 120 ms, and nobody hears a freeze.
const MISSES: u8 = 4;

/// A new size is told so often at once, whatever else is asked: one word may be lost.
const TELLINGS: u8 = 3;

/// Pairs of questions whose answers may still come: those of a second.
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
    /// How often the node is still to be told of the size.
    tellings: u8,
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

    /// Nothing leads to the node any more.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.paths.retain(|(_, at), _| *at != node);
        self.asking.retain(|asking| asking.node != node);
    }

    /// To be called every 30 ms: what is to be asked is due then.
    pub(super) fn look(&mut self, now: Instant) {
        for (&way, path) in &mut self.paths {
            if let Some((size, nonce)) = path.try_size(now) {
                let long = BUNDLE_SIZES[size] - PATH_LEN_MIN as u16;
                self.asking.push_back(path.ask(way, nonce, long));
                self.asking.push_back(path.ask(way, nonce.wrapping_add(1), 0));
            } else {
                self.asking.extend(path.tell(way));
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
        let (way, path) =
            ways.find_map(|(&way, path)| path.answered(nonce, now).then_some((way, path)))?;
        self.asking.extend(path.tell(way));
        Some((way.0, BUNDLE_SIZES[path.size]))
    }
}

impl Path {
    fn new(nonce: u64, now: Instant) -> Path {
        let (size, pairs) = (BUNDLE_SIZES.len() - 1, VecDeque::new());
        Path { size, misses: 0, tellings: 0, used_until: now, raise_at: now, nonce, pairs }
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
        let nonce = self.next_nonce();
        self.pairs.push_back(Pair { nonce, size, long_answered: false, short_answered: false });
        Some((size, nonce))
    }

    /// Room for two: of a pair, or of one that stands alone.
    fn next_nonce(&mut self) -> u64 {
        let nonce = self.nonce;
        self.nonce = nonce.wrapping_add(2);
        nonce
    }

    fn ask(&self, (worker, node): Way, nonce: u64, padding: u16) -> Asking {
        let question = Question::Path { bundle_max: BUNDLE_SIZES[self.size], padding };
        Asking { node, worker, question, nonce }
    }

    /// A word about the size, if that is new. Nobody waits for its answer.
    fn tell(&mut self, way: Way) -> Option<Asking> {
        self.tellings = self.tellings.checked_sub(1)?;
        let nonce = self.next_nonce();
        Some(self.ask(way, nonce, 0))
    }

    /// Whether that changes the size.
    fn answered(&mut self, nonce: u64, now: Instant) -> bool {
        let is_asked = |pair: &&mut Pair| nonce.wrapping_sub(pair.nonce) < 2;
        let Some(pair) = self.pairs.iter_mut().find(is_asked) else { return false };
        if nonce == pair.nonce {
            pair.long_answered = true;
            if pair.size >= self.size {
                self.misses = 0;
            }
            let longer = (pair.size > self.size).then_some(pair.size);
            return longer.is_some_and(|size| self.take(size, now));
        }
        let is_miss = !pair.long_answered && !pair.short_answered && pair.size == self.size;
        pair.short_answered = true;
        self.misses += u8::from(is_miss);
        self.misses >= MISSES && self.take(0, now)
    }

    fn take(&mut self, size: usize, now: Instant) -> bool {
        self.size = size;
        self.misses = 0;
        self.raise_at = now + RAISE_EVERY;
        // What was asked before says nothing about this size.
        self.pairs.clear();
        self.tellings = TELLINGS;
        true
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
        /// How long bundles of the worker are, and those of the node.
        sizes: (u16, u16),
    }

    impl World {
        fn new(carries: usize) -> World {
            let paths = Paths::default();
            World { paths, now: Instant::now(), carries, answers: true, sizes: (1_400, 1_400) }
        }

        fn go_on(&mut self, looks: u32) {
            for _ in 0..looks {
                self.now += LOOK_EVERY;
                self.paths.used(WAY, &mut || u64::MAX - 4, self.now);
                self.paths.look(self.now);
                self.answer();
            }
        }

        fn answer(&mut self) {
            while let Some(Asking { node, worker, question, nonce }) = self.paths.due() {
                assert_eq!((worker, node), WAY);
                let Question::Path { bundle_max, padding } = question else { panic!() };
                if self.answers && PATH_LEN_MIN + usize::from(padding) <= self.carries {
                    self.sizes.1 = bundle_max;
                    let changed = self.paths.answered(node, nonce, self.now);
                    self.sizes.0 = changed.map_or(self.sizes.0, |(_, size)| size);
                }
            }
        }
    }

    #[test]
    fn bundles_are_as_short_as_any_path_carries_when_four_long_questions_got_lost() {
        let mut world = World::new(1_400);
        world.go_on(100);
        assert_eq!(world.sizes, (1_400, 1_400));
        world.carries = 1_300;
        world.go_on(3);
        assert_eq!(world.sizes.0, 1_400, "three may be lost");
        world.go_on(1);
        assert_eq!(world.sizes, (1_200, 1_200));
    }

    #[test]
    fn what_the_path_carries_is_found_from_below_and_what_it_carries_again() {
        let mut world = World::new(1_300);
        world.go_on(4);
        world.go_on(19);
        assert_eq!(world.sizes, (1_200, 1_200));
        world.go_on(1);
        assert_eq!(world.sizes, (1_252, 1_252));
        world.go_on(200);
        assert_eq!(world.sizes, (1_252, 1_252), "1,400 is tried, and does not cross");
        world.carries = 1_500;
        world.go_on(20);
        assert_eq!(world.sizes, (1_400, 1_400));
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
        assert_eq!(world.sizes, (1_400, 1_400));
    }

    #[test]
    fn plain_loss_is_not_taken_for_a_path_that_carries_less() {
        let mut world = World::new(1_400);
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut changes, mut before) = (0, world.sizes.0);
        // An hour of looks, of which a twentieth is lost there or back.
        for _ in 0..120_000 {
            world.carries = if rng.u32(0..20) == 0 { 1_300 } else { 1_400 };
            world.go_on(1);
            changes += u32::from(world.sizes.0 != before);
            before = world.sizes.0;
        }
        assert!(changes <= 9, "{changes} times");
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
        assert_eq!(world.sizes, (1_400, 1_400));
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
        world.paths.look(world.now);
        assert!(world.paths.due().is_none());
        world.go_on(1);
        world.now += USED_FOR;
        world.paths.look(world.now);
        assert!(world.paths.due().is_none());
    }
}
