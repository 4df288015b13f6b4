//! The panic threshold: if most nodes fall silent at once, the gateway's own uplink is suspected.
//!
//! While it is suspected, no node is marked down for silence. Media continues, and an uplink that was interrupted
//! briefly costs no more than that. A reported death is not silence. The suspicion ends with the silence or by time: if
//! some node is heard, or heard again, after the time that one witness alone needs to mark a node down; if no node is
//! heard there is no alternative, and it may last longer. A node whose media arrives stays up even if no node answers
//! probes: the answers were lost, or the nodes refused probes because they reject the gateway's clock.
//!
//! A far node is probed seldom. One that was not probed since another fell silent is probed at once, so that a doubt lasts for
//! a round trip, and not for the interval of its probes.

use std::time::{Duration, Instant};

use evenkeel_model::{CoreEvent, NodeId, NodeProbing};

use super::{DetectorFinding, Node, NodeTable};

/// A node heard this much later than another fell silent outlived it: the last packets before a common loss arrive
/// within this time.
const TOGETHER: Duration = Duration::from_millis(5);

/// A node that had not been heard for this many probes when another fell silent failed earlier, for a separate reason.
const HEARD_WITHIN_PROBES: u32 = 3;

/// Nodes that fell silent together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct CommonSilence {
    silent: u32,
    /// Number of nodes that were heard until then.
    of: u32,
    /// Every node is accused by now. Nodes that are merely not due yet would be heard soon.
    total: bool,
}

impl NodeTable {
    pub fn doubts_uplink(&self) -> bool {
        self.uplink_suspect
    }

    /// Weakens findings of death by silence to accusations while the uplink is suspected.
    pub(super) fn doubt_uplink(&mut self, found: &mut [DetectorFinding], now: Instant) {
        let mut doubted: Option<CommonSilence> = None;
        let holds: Vec<bool> = (self.iter().zip(&*found))
            .map(|(node, found)| {
                let silence =
                    (*found == DetectorFinding::Dead).then(|| self.doubt(node, now)).flatten();
                doubted = silence.or(doubted);
                silence.is_some()
            })
            .collect();
        if doubted.is_some_and(|silence| silence.total) {
            self.none_heard = Some(now);
        }
        for id in self.unasked(&holds, now) {
            self.probe(id, now);
        }
        for (found, _) in found.iter_mut().zip(holds).filter(|(_, holds)| *holds) {
            *found = DetectorFinding::Accused;
        }
        let before = std::mem::replace(&mut self.uplink_suspect, doubted.is_some());
        if before != doubted.is_some() {
            let (silent, of) = doubted.map_or((0, 0), |silence| (silence.silent, silence.of));
            self.event(CoreEvent::Uplink { doubted: doubted.is_some(), silent, of });
        }
    }

    /// Nodes without a probe since the newest silence in doubt: no answer of theirs can show that they outlived it.
    ///
    /// A node gets at most one more probe per silence, since its last probe is then later than the silence. A near node
    /// is found dead 15 to 20 ms after it fell silent: if others follow, a far node is probed at most every 10 to
    /// 15 ms.
    fn unasked(&self, in_doubt: &[bool], now: Instant) -> Vec<NodeId> {
        let in_doubt = self.iter().zip(in_doubt).filter(|(_, in_doubt)| **in_doubt);
        let newest = in_doubt.filter_map(|(node, _)| node.detector.fell_silent()).max();
        let by = newest.map(|newest| newest + TOGETHER).filter(|by| *by < now);
        let Some((newest, by)) = newest.zip(by) else { return Vec::new() };
        let unasked = |node: &&Node| {
            let probed = node.detector.last_probed();
            node.settings.probed == NodeProbing::Yes
                && node.runs()
                && was_heard(node, newest)
                && probed.is_none_or(|at| at <= by)
        };
        self.iter().filter(unasked).map(|node| node.id).collect()
    }

    /// The nodes that fell silent together with this one, if they make the uplink suspect.
    fn doubt(&self, node: &Node, now: Instant) -> Option<CommonSilence> {
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
        // Nodes that never send anything have an unknown state, and count as an alternative.
        let somewhere = unheard.iter().any(|other| other.takes_rooms());
        let alone = of == 1 && somewhere;
        let timings = &self.timings;
        let lasted = |since: Instant| now.saturating_duration_since(since);
        let within = node.detector.down_after();
        // Nodes are heard again one by one.
        let returns = self.none_heard.is_some_and(|at| lasted(at) < within);
        let most = !alone && silent * 100 > of * timings.panic_percent;
        let flows = node.detector.last_received().is_some_and(|at| lasted(at) < within);
        let holds = match alive {
            0 => most && (flows || lasted(fell_silent) < timings.panic_for),
            1.. => returns || (most && lasted(fell_silent) < within),
        };
        let accused = |other: &&Node| other.detector.fell_silent().is_some();
        let total = alive == 0 && heard.iter().all(accused);
        holds.then_some(CommonSilence { silent, of, total })
    }
}

fn was_heard(node: &Node, then: Instant) -> bool {
    let within = node.detector.probe_every() * HEARD_WITHIN_PROBES;
    node.detector.last_heard().is_some_and(|heard| heard + within >= then)
}

/// The node has been heard since `then`: by an answer, which proves both directions, or by media if it gives no
/// answers. A reported death also counts.
fn is_alive(node: &Node, then: Instant) -> bool {
    let proof = match node.settings.probed {
        NodeProbing::Yes => node.detector.last_answer(),
        NodeProbing::No => node.detector.last_received(),
    };
    node.detector.is_told_of() || proof.is_some_and(|at| at > then + TOGETHER)
}
