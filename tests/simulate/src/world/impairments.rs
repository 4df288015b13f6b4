//! Effects of faults on links and nodes, and which witnesses may accuse a node.

use std::time::{Duration, Instant};

use evenkeel_lab::links::{Bursts, Conditions};
use evenkeel_model::{EvidenceSource, NodeProbing};

use super::World;
use super::node_list::is_meshed;
use crate::check::{Dying, NodeFacts, Notice};
use crate::fault::Fault;
use crate::node::{CANARY, Listing, Node};

/// A report may remain valid this long after the end of a fault, until an answer has returned.
const RIGHT_FOR: Duration = Duration::from_millis(500);

/// The detector remembers latency for this long.
const IRREGULAR_FOR: Duration = Duration::from_secs(10);

const FOR_EVER: Duration = Duration::from_secs(3_600);

impl World<'_> {
    /// Updates the conditions of each link, since when each node is dead, and which witnesses may accuse it.
    pub(super) fn refresh(&mut self) {
        for node in 0..self.nodes.len() {
            let (mut up, mut down) = (self.nodes[node].script.link, self.nodes[node].script.link);
            let mut irregular = false;
            for number in 0..self.script.faults.len() {
                if self.is_at(number, node) {
                    let episode = &self.script.faults[number];
                    let since = self.now - (self.began + episode.at);
                    irregular |= is_irregular(&episode.fault);
                    impair(&episode.fault, (&mut up, &mut down), since, self.turns[number]);
                }
            }
            let now = self.now;
            let probed = self.script.settings.nodes[node].probed == NodeProbing::Yes;
            let here = &mut self.nodes[node];
            here.set_link(up, down);
            let dead = !here.runs() || up.blackout || down.blackout;
            here.dead_since = if dead { here.dead_since.or(Some(now)) } else { None };
            let impaired = (up, down) != (here.script.link, here.script.link);
            let until = |holds: bool, before: Option<Instant>| match holds {
                true => Some(now + FOR_EVER),
                false => before.map(|until| until.min(now + RIGHT_FOR)),
            };
            for witness in EvidenceSource::ALL {
                // If media is a node's only sign of life, a node that drops all of it counts as dead.
                let mute = here.gray_flows > 0 && !probed && witness == EvidenceSource::Silence;
                let holds = mute || may_accuse(witness, here, dead, impaired);
                here.may_accuse[witness as usize] = until(holds, here.may_accuse[witness as usize]);
            }
            let lasts = |holds: bool, before: Option<Instant>, after: Duration| match holds {
                true => Some(now + FOR_EVER),
                false => before.map(|until| until.min(now + after)),
            };
            here.irregular = lasts(irregular, here.irregular, IRREGULAR_FOR);
            let muffles = here.gray > 0 || here.gray_flows > 0;
            let ill = dead || impaired || muffles || here.boasts.is_some();
            here.dropping = lasts(muffles, here.dropping, Duration::ZERO);
            here.impaired = lasts(ill, here.impaired, Duration::ZERO);
        }
    }

    /// A stall of the gateway makes the latency of all nodes irregular.
    pub(super) fn mark_all_irregular(&mut self) {
        let until = self.now + IRREGULAR_FOR;
        for node in &mut self.nodes {
            node.irregular = node.irregular.max(Some(until));
        }
    }

    /// The facts that determine each node's detection limit.
    pub(super) fn node_facts(&self) -> Vec<NodeFacts> {
        let meshed = self.script.settings.scenarios.values().any(is_meshed);
        let facts = |(node, stamp): (&Node, &evenkeel_model::Stamp)| {
            let cut = node.up.conditions.blackout || node.down.conditions.blackout;
            let link = &node.script.link;
            let ended = node.killed > 0 && node.unplugged == 0 && !cut && !node.cold;
            let reports = node.script.agent && !self.drivers.dead;
            let down = &node.down.conditions;
            let drops = down.loss_ppm > link.loss_ppm || down.bursts != link.bursts;
            let notice = match (ended, reports) {
                (true, true) if drops => Notice::None,
                (true, true) => Notice::Agent,
                (true, false) => Notice::Kernel,
                (false, _) => Notice::None,
            };
            let is_there = node.listing != Listing::Gone;
            let one_way = node.up.conditions.blackout && !node.down.conditions.blackout;
            NodeFacts {
                speaks_on: one_way && meshed,
                dying: node.dead_since.filter(|_| is_there).map(|since| Dying { since, notice }),
                round_trip: (link.delay + link.jitter) * 2,
                lossy: link.bursts.is_some() || link.loss_ppm > 0,
                irregular: node.irregular.is_some_and(|until| self.now < until),
                slowed: (down.delay + down.jitter).saturating_sub(link.delay + link.jitter),
                received: stamp.received,
                sent: stamp.last_sent,
            }
        };
        self.nodes.iter().zip(&self.stamps).map(facts).collect()
    }
}

/// True if the witness may accuse the node. All witnesses may accuse a dead one; the kernel and the agent only a process
/// that ended. On an impaired path only probes and media may take it for dead. Loss at canaries and other rooms is not
/// a death.
fn may_accuse(witness: EvidenceSource, node: &Node, dead: bool, impaired: bool) -> bool {
    let mute = node.gray > 0 || node.drops(CANARY);
    match witness {
        EvidenceSource::Agent | EvidenceSource::KernelError => node.killed > 0,
        EvidenceSource::Probe => dead || impaired,
        EvidenceSource::Silence => dead || impaired || mute,
        EvidenceSource::Canary => dead || mute,
        EvidenceSource::Cohort | EvidenceSource::Feedback | EvidenceSource::Operator => false,
    }
}

/// True if packets or answers arrive, but later or more rarely than before.
fn is_irregular(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Stop(_)
            | Fault::Flap(..)
            | Fault::CrashLoop(_)
            | Fault::Blackouts(..)
            | Fault::FlapLink(..)
            | Fault::LossRamp(_)
            | Fault::Bursts(_)
            | Fault::Slow(..)
            | Fault::Jitter(..)
            | Fault::Scatter(..)
            | Fault::Unruly(_)
            | Fault::RegionBrownOut(_)
            | Fault::Gray(_)
            | Fault::GrayFlows(..)
    )
}

/// Applies the fault to both directions of a link.
fn impair(
    fault: &Fault,
    (up, down): (&mut Conditions, &mut Conditions),
    since: Duration,
    turn: u32,
) {
    let both = |up: &mut Conditions, down: &mut Conditions, change: &dyn Fn(&mut Conditions)| {
        change(up);
        change(down);
    };
    match fault {
        Fault::Cut(_) | Fault::RegionCut(_) => both(up, down, &|link| link.blackout = true),
        Fault::CutUp(_) => up.blackout = true,
        Fault::CutDown(_) => down.blackout = true,
        Fault::Blackouts(..) | Fault::FlapLink(..) if !turn.is_multiple_of(2) => {
            both(up, down, &|link| link.blackout = true);
        }
        Fault::LossRamp(_) => {
            let ppm = (since.as_millis() as u32).saturating_mul(75).min(300_000);
            both(up, down, &|link| link.loss_ppm = ppm);
        }
        Fault::RegionBrownOut(_) => both(up, down, &|link| link.loss_ppm = 150_000),
        Fault::Bursts(_) => {
            let bursts = Bursts {
                enter_ppm: 10_000,
                leave_ppm: 100_000,
                good_loss_ppm: 0,
                bad_loss_ppm: 1_000_000,
            };
            both(up, down, &|link| link.bursts = Some(bursts));
        }
        Fault::Slow(_, by) => both(up, down, &|link| link.delay += *by),
        Fault::Jitter(_, by, over) | Fault::Scatter(_, by, over) => {
            let grown = (since.as_secs_f64() / over.as_secs_f64().max(f64::EPSILON)).min(1.0);
            let overtaking = matches!(fault, Fault::Scatter(..));
            both(up, down, &|link| {
                (link.jitter, link.overtaking) = (by.mul_f64(grown), overtaking);
            });
        }
        Fault::Unruly(_) => {
            both(up, down, &|link| (link.reorder_ppm, link.duplicate_ppm) = (100_000, 50_000));
        }
        _ => {}
    }
}
