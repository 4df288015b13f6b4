//! Links between members and voters.

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;

/// One direction of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Way {
    /// From this member to the other ones.
    Beats(usize),
    /// From this member to this voter: an agent or the store. The number of the store follows those of the agents.
    Up(usize, usize),
    /// From this voter to this member.
    Down(usize, usize),
}

#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) delay: Duration,
    /// Added in each direction to and from voters: witnesses may be in another region.
    pub(super) voters_further: Duration,
    pub(super) jitter: Duration,
    pub(super) loss: f64,
    cut: BTreeSet<Way>,
}

impl Network {
    pub(super) fn draw(rng: &mut Rng, lossy: bool) -> Network {
        Network {
            delay: Duration::from_micros(rng.u64(30..400)),
            jitter: Duration::from_micros(if lossy { rng.u64(0..4_000) } else { rng.u64(0..300) }),
            loss: if lossy { rng.f64() * [0.02, 0.1, 0.5][rng.usize(0..3)] } else { 0.0 },
            cut: BTreeSet::new(),
            voters_further: match rng.u8(0..3) {
                0 => Duration::from_millis(rng.u64(1..30)),
                _ => Duration::ZERO,
            },
        }
    }

    pub(super) fn cut(&mut self, ways: impl IntoIterator<Item = Way>) {
        self.cut.extend(ways);
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(super) fn is_cut(&self, way: Way) -> bool {
        self.cut.contains(&way)
    }

    /// The delay of a message, which may overtake others; none if it is lost.
    pub(super) fn carry(&self, way: Way, rng: &mut Rng) -> Option<Duration> {
        let lost = self.is_cut(way) || rng.f64() < self.loss;
        let further = match way {
            Way::Beats(_) => Duration::ZERO,
            Way::Up(..) | Way::Down(..) => self.voters_further,
        };
        (!lost).then(|| self.delay + further + self.jitter.mul_f64(rng.f64()))
    }
}

/// All directions between these members.
pub(super) fn between_members(members: usize) -> impl Iterator<Item = Way> {
    (0..members).map(Way::Beats)
}

/// Both directions between a member and these voters.
pub(super) fn to_voters(member: usize, voters: usize) -> impl Iterator<Item = Way> {
    (0..voters).flat_map(move |voter| [Way::Up(member, voter), Way::Down(member, voter)])
}
