//! What is wrong with a node, or with the way there: what it does to its link, and who may rightly say that it is dead.

use std::time::{Duration, Instant};

use evenkeel_core::{Probed, Witness};
use evenkeel_links::{Bursts, Conditions};

use super::World;
use super::node_list::is_meshed;
use crate::check::{Dying, Patient, Voice};
use crate::fault::Fault;
use crate::node::{CANARY, Listing, Node};

/// So long after something was undone what was said of it may still stand: until an answer has come back.
const RIGHT_FOR: Duration = Duration::from_millis(500);

/// What was usual on the way is remembered so long.
const BENT_FOR: Duration = Duration::from_secs(10);

const FOR_EVER: Duration = Duration::from_secs(3_600);

impl World<'_> {
    /// What every link does now, since when each node cannot answer, and who may say so.
    pub(super) fn refresh(&mut self) {
        for node in 0..self.nodes.len() {
            let (mut up, mut down) = (self.nodes[node].script.link, self.nodes[node].script.link);
            let mut bent = false;
            for number in 0..self.script.faults.len() {
                if self.is_at(number, node) {
                    let episode = &self.script.faults[number];
                    let since = self.now - (self.began + episode.at);
                    bent |= bends(&episode.fault);
                    bend(&episode.fault, (&mut up, &mut down), since, self.turns[number]);
                }
            }
            let now = self.now;
            let probed = self.script.settings.nodes[node].probed == Probed::Yes;
            let here = &mut self.nodes[node];
            here.set_link(up, down);
            let dead = !here.runs() || up.blackout || down.blackout;
            here.dead_since = if dead { here.dead_since.or(Some(now)) } else { None };
            let impaired = (up, down) != (here.script.link, here.script.link);
            let until = |holds: bool, before: Option<Instant>| match holds {
                true => Some(now + FOR_EVER),
                false => before.map(|until| until.min(now + RIGHT_FOR)),
            };
            for witness in Witness::ALL {
                // Where nothing but its media speaks for a node, one that drops all there is of it is as good as dead.
                let mute = here.gray_flows > 0 && !probed && witness == Witness::Silence;
                let holds = mute || may_say(witness, here, dead, impaired);
                here.right[witness as usize] = until(holds, here.right[witness as usize]);
            }
            let lasts = |holds: bool, before: Option<Instant>, after: Duration| match holds {
                true => Some(now + FOR_EVER),
                false => before.map(|until| until.min(now + after)),
            };
            here.bent = lasts(bent, here.bent, BENT_FOR);
            let muffles = here.gray > 0 || here.gray_flows > 0;
            let ill = dead || impaired || muffles || here.boasts.is_some();
            here.muffled = lasts(muffles, here.muffled, Duration::ZERO);
            here.ill = lasts(ill, here.ill, Duration::ZERO);
        }
    }

    /// Our own stall makes what comes late usual, at every node.
    pub(super) fn bend_all(&mut self) {
        let until = self.now + BENT_FOR;
        for node in &mut self.nodes {
            node.bent = node.bent.max(Some(until));
        }
    }

    /// Each node, as far as it counts for how soon its death is known.
    pub(super) fn patients(&self) -> Vec<Patient> {
        let meshed = self.script.settings.scenarios.values().any(is_meshed);
        let patient = |(node, stamp): (&Node, &evenkeel_core::Stamp)| {
            let cut = node.up.conditions.blackout || node.down.conditions.blackout;
            let voice = match (
                node.killed > 0 && node.unplugged == 0 && !cut && !node.cold,
                node.script.agent && !self.drivers.dead,
            ) {
                (true, true) => Voice::Agent,
                (true, false) => Voice::Kernel,
                (false, _) => Voice::Nobody,
            };
            let is_there = node.listing != Listing::Gone;
            let link = &node.script.link;
            let one_way = node.up.conditions.blackout && !node.down.conditions.blackout;
            Patient {
                speaks_on: one_way && meshed,
                dying: node.dead_since.filter(|_| is_there).map(|since| Dying { since, voice }),
                round_trip: (link.delay + link.jitter) * 2,
                lossy: link.bursts.is_some() || link.loss_ppm > 0,
                bent: node.bent.is_some_and(|until| self.now < until),
                received: stamp.received,
                sent: stamp.last_sent,
            }
        };
        self.nodes.iter().zip(&self.stamps).map(patient).collect()
    }
}

/// Whether the witness has reason to accuse the node: the dead are accused by all who see it, and the kernel and the
/// agent speak of a process that ended. Where the way is bad, only what asks the node itself may take it for dead; what
/// its canaries and other rooms lose is no death.
fn may_say(witness: Witness, node: &Node, dead: bool, impaired: bool) -> bool {
    let mute = node.gray > 0 || node.drops(CANARY);
    match witness {
        Witness::Agent | Witness::KernelError => node.killed > 0,
        Witness::Probe => dead || impaired,
        Witness::Silence => dead || impaired || mute,
        Witness::Canary => dead || mute,
        Witness::Cohort | Witness::Feedback | Witness::Operator => false,
    }
}

/// Whether answers, or packets, come later or more seldom than they did, and come.
fn bends(fault: &Fault) -> bool {
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

/// What the fault does to a link, both ways.
fn bend(fault: &Fault, (up, down): (&mut Conditions, &mut Conditions), since: Duration, turn: u32) {
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
