//! The panic threshold: if most nodes fall silent at once, it may be our own uplink that is gone.
//!
//! No node is marked down for silence while it is doubted: media goes on flowing, and an uplink that was cut for a
//! moment costs no more than that moment. A death that is reported is no silence. The doubt ends with the silence, or
//! when it lasted: since some node is heard, or heard again, as long as one witness alone has to accuse a node; if no
//! node is, there is nowhere to go, and it may last longer. A node stays up while its media arrives, even if no node
//! answers probes: these answers are lost, or refused by nodes that do not believe our clock.

use std::time::{Duration, Instant};

use super::{Finding, Node, Nodes};
use crate::effects::Effects;
use crate::{Event, Probed};

/// A node that was heard by so much later than another fell silent outlived it: the last packets of all of them come
/// together.
const TOGETHER: Duration = Duration::from_millis(5);

/// A node that was not heard for so many probes when another fell silent did so before, for a reason of its own.
const HEARD_WITHIN_PROBES: u32 = 3;

/// Nodes that fell silent with a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Silence {
    silent: u32,
    /// Of how many that were heard until then.
    of: u32,
    /// Each of them is accused by now: nodes that are only not due yet would be heard soon.
    total: bool,
}

impl Nodes {
    /// Most nodes fell silent at once.
    pub(crate) fn doubts_uplink(&self) -> bool {
        self.uplink_suspect
    }

    /// Nodes that would be condemned for silence are only accused while our uplink is doubted.
    pub(super) fn doubt_uplink(
        &mut self,
        found: &mut [Finding],
        now: Instant,
        effects: &mut Effects,
    ) {
        let mut doubted: Option<Silence> = None;
        let holds: Vec<bool> = (self.iter().zip(&*found))
            .map(|(node, found)| {
                let silence = (*found == Finding::Dead).then(|| self.doubt(node, now)).flatten();
                doubted = silence.or(doubted);
                silence.is_some()
            })
            .collect();
        if doubted.is_some_and(|silence| silence.total) {
            self.nobody_heard = Some(now);
        }
        for (found, _) in found.iter_mut().zip(holds).filter(|(_, holds)| *holds) {
            *found = Finding::Accused;
        }
        let before = std::mem::replace(&mut self.uplink_suspect, doubted.is_some());
        if before != doubted.is_some() {
            let (silent, of) = doubted.map_or((0, 0), |silence| (silence.silent, silence.of));
            effects.event(Event::Uplink { doubted: doubted.is_some(), silent, of });
        }
    }

    /// The nodes that fell silent together with this one, if they make us doubt our uplink.
    fn doubt(&self, node: &Node, now: Instant) -> Option<Silence> {
        if node.detector.is_told_of() {
            return None;
        }
        let fell_silent = node.detector.fell_silent()?;
        let others = self.iter().filter(|other| other.id != node.id && other.runs());
        let (heard, unheard): (Vec<&Node>, Vec<&Node>) =
            others.partition(|other| was_heard(other, fell_silent));
        let alive = heard.iter().filter(|other| is_alive(other, fell_silent)).count() as u32;
        let of = heard.len() as u32 + 1;
        let silent = of - alive;
        // The state of nodes that say nothing anyway is unknown: they are somewhere to go.
        let somewhere = unheard.iter().any(|other| other.takes_rooms());
        let alone = of == 1 && somewhere;
        let timings = &self.timings;
        let lasted = |since: Instant| now.saturating_duration_since(since);
        let within = node.detector.condemn_alone();
        // Nodes that are heard again come one by one.
        let returns = self.nobody_heard.is_some_and(|at| lasted(at) < within);
        let most = !alone && silent * 100 > of * timings.panic_percent;
        let flows = node.detector.last_received().is_some_and(|at| lasted(at) < within);
        let holds = match alive {
            0 => most && (flows || lasted(fell_silent) < timings.panic_for),
            1.. => returns || (most && lasted(fell_silent) < within),
        };
        let accused = |other: &&Node| other.detector.fell_silent().is_some();
        let total = alive == 0 && heard.iter().all(accused);
        holds.then_some(Silence { silent, of, total })
    }
}

fn was_heard(node: &Node, then: Instant) -> bool {
    let within = node.detector.probe_every() * HEARD_WITHIN_PROBES;
    node.detector.last_heard().is_some_and(|heard| heard + within >= then)
}

/// The node was heard since: its answer, which shows both ways, or if it gives none, its media; or its death was
/// reported.
fn is_alive(node: &Node, then: Instant) -> bool {
    let proof = match node.settings.probed {
        Probed::Yes => node.detector.last_answer(),
        Probed::No => node.detector.last_received(),
    };
    node.detector.is_told_of() || proof.is_some_and(|at| at > then + TOGETHER)
}
