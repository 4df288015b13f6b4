//! A measurement window: packets sent, packets received, events, and the effect of a fault on them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::nanoseconds;
use crate::ledger::PacketLedger;
use evenkeel_client::ServerEvent;
use evenkeel_contract::events::{Moved, NodeHealth, Witness};

/// Length of the span before a fault in which the nodes of a session are looked up.
const JUST_BEFORE_NS: u64 = 500_000_000;

/// The packets and events of a span, and the sessions to which they belong.
pub struct ObservationWindow {
    /// Packets sent and received.
    pub ledger: PacketLedger,
    /// Events of the watched gateways, in order of arrival.
    pub events: Vec<ServerEvent>,
    /// Session numbers by the ids that the gateway assigned.
    pub by_id: BTreeMap<String, u64>,
    /// The span of the window: nanoseconds since the Unix epoch.
    pub span: Range<u64>,
}

impl ObservationWindow {
    /// Excludes these sessions from all figures.
    pub fn forget(&mut self, sessions: &BTreeSet<u64>) {
        sessions.iter().for_each(|&session| self.ledger.forget(session));
    }

    /// Measures what the fault did to the sessions in its scope, and to the others.
    pub fn effect_of(&self, fault: &InjectedFault) -> FaultEffect {
        let hit = self.hit(fault);
        let mut effect = FaultEffect { hit: hit.len(), ..FaultEffect::default() };
        for receiver in self.ledger.receivers() {
            let heard = self.ledger.arrivals_at(receiver);
            let is_hit = hit.contains(&receiver);
            effect.listen(&heard, fault, is_hit, self.span.end);
        }
        self.count_packets(&mut effect, &hit, fault);
        self.count_moves(&mut effect, &hit);
        effect.detections = self.detections(fault);
        effect.marked_down = self.deaths().map(|death| death.node.to_string()).collect();
        effect
    }

    /// Events of nodes that were marked down.
    fn deaths(&self) -> impl Iterator<Item = NodeHealth> {
        let changes = self.events.iter().filter_map(ServerEvent::data_of::<NodeHealth>);
        changes.filter(|change| change.to == "down")
    }

    /// Pauses across these moments without a fault, nanoseconds.
    pub fn control(&self, moments_ns: &[u64]) -> Vec<u64> {
        let gaps = moments_ns.iter().flat_map(|&at_ns| self.ledger.gaps_at(at_ns));
        gaps.map(|gap| gap.gap_ns).collect()
    }

    fn hit(&self, fault: &InjectedFault) -> BTreeSet<u64> {
        let hears = |heard: &[(u64, u32)], nodes: &BTreeSet<u32>| {
            let recent = fault.at_ns.saturating_sub(JUST_BEFORE_NS)..=fault.at_ns;
            let last = heard.iter().rfind(|(at_ns, _)| recent.contains(at_ns));
            last.is_some_and(|(_, node)| nodes.contains(node))
        };
        let freezes = |heard: &[(u64, u32)]| {
            let mut pauses = pauses_after(heard, fault.at_ns, self.span.end);
            pauses.any(|pause| pause >= nanoseconds(FREEZE))
        };
        let is_hit = |receiver: &u64| {
            let heard = self.ledger.arrivals_at(*receiver);
            match &fault.scope {
                Scope::Everybody => true,
                Scope::Sessions(sessions) => sessions.contains(receiver),
                Scope::Nodes(nodes) => hears(&heard, nodes),
                Scope::Paused(nodes) => hears(&heard, nodes) && freezes(&heard),
            }
        };
        self.ledger.receivers().filter(is_hit).collect()
    }

    fn count_packets(&self, effect: &mut FaultEffect, hit: &BTreeSet<u64>, fault: &InjectedFault) {
        for packet in self.ledger.missing() {
            if hit.contains(&packet.path.receiver) {
                effect.lost += 1;
                effect.lost_before += u64::from(packet.sent_ns < fault.at_ns);
            } else {
                effect.lost_of_others += 1;
            }
        }
        effect.sent = self.ledger.sent_count();
        effect.twice = self.ledger.twice().len() as u64;
        effect.misdelivered = self.ledger.misdelivered().len() as u64;
        let after = |at_ns: u64| at_ns >= fault.at_ns;
        let switches = self.ledger.switches();
        for switch in switches.iter().filter(|switch| after(switch.first_ns)) {
            effect.stragglers += switch.stragglers;
            let straggled_ns = switch.straggled_ns.unwrap_or(switch.first_ns) - switch.first_ns;
            effect.straggled_ns = effect.straggled_ns.max(straggled_ns);
        }
    }

    fn count_moves(&self, effect: &mut FaultEffect, hit: &BTreeSet<u64>) {
        // A sender in an affected room is affected too.
        let rooms = |sessions: &BTreeSet<u64>| -> BTreeSet<u64> {
            let members = sessions.iter().filter_map(|&session| self.ledger.member(session));
            members.map(|member| member.room).collect()
        };
        let hit = rooms(hit);
        for moved in self.events.iter().filter_map(ServerEvent::data_of::<Moved>) {
            let sessions = moved.sessions.iter();
            let rooms = rooms(&sessions.filter_map(|id| self.by_id.get(id).copied()).collect());
            for room in rooms {
                *effect.causes.entry(moved.cause.to_string()).or_default() += 1;
                if hit.contains(&room) {
                    effect.rooms_moved += 1;
                } else {
                    effect.other_rooms_moved += 1;
                }
            }
        }
        effect.rooms_hit = hit.len() as u64;
    }

    fn detections(&self, fault: &InjectedFault) -> Vec<NodeDetection> {
        let at_ns = |death: &NodeHealth| death.at_us * 1_000;
        let down = self.deaths().filter(|death| at_ns(death) >= fault.at_ns);
        let ms_since = |at_ns: u64| (at_ns as f64 - fault.at_ns as f64) / 1e6;
        // A node that is marked down twice counts once.
        let mut found = BTreeSet::new();
        let first = down.filter(move |death| found.insert(Arc::clone(&death.node)));
        first
            .map(|death| {
                let at_ns = at_ns(&death);
                let since = |witness: &Witness| {
                    let since = ms_since(at_ns.saturating_sub(witness.for_us * 1_000));
                    (witness.witness.to_string(), since)
                };
                NodeDetection {
                    node: death.node.to_string(),
                    after_ms: ms_since(at_ns),
                    by_witness: death.witnesses.iter().map(since).collect(),
                }
            })
            .collect()
    }
}

/// The shortest pause that freezes video of 30 frames per second: a frame that is 150 ms later than usual (W3C
/// webrtc-stats, `freezeCount`).
pub(crate) const FREEZE: Duration = Duration::from_micros(33_333 + 150_000);

/// A receiver without packets for this long counts as unheard.
const RECENTLY: Duration = Duration::from_millis(500);

/// The sessions that a fault affects, and how their gaps are measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// All receivers. A gap is the longest pause after the fault.
    Everybody,
    /// Receivers whose last packet before the fault came from one of these nodes. A gap is the time from the last
    /// packet of these nodes to the first packet of another node, or a longer pause after that.
    Nodes(BTreeSet<u32>),
    /// These sessions. A gap is the longest pause of a session after the fault.
    Sessions(BTreeSet<u64>),
    /// Receivers of these nodes with a pause of at least `FREEZE` after the fault. A gap is the longest pause.
    Paused(BTreeSet<u32>),
}

impl Scope {
    /// The nodes that the fault hits; empty if it hits none in particular.
    pub fn nodes(&self) -> &BTreeSet<u32> {
        const NONE: &BTreeSet<u32> = &BTreeSet::new();
        match self {
            Scope::Everybody | Scope::Sessions(_) => NONE,
            Scope::Nodes(nodes) | Scope::Paused(nodes) => nodes,
        }
    }
}

/// A fault whose effect is to be measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InjectedFault {
    /// Time of the fault: nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// The sessions that count as hit.
    pub scope: Scope,
}

/// A node that the gateway marked down.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeDetection {
    /// The node's name.
    pub node: String,
    /// Time from the fault until the node was marked down, in milliseconds.
    pub after_ms: f64,
    /// Time from the fault until each witness accused the node, in milliseconds.
    pub by_witness: BTreeMap<String, f64>,
}

/// The measurements of one window around a fault.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct FaultEffect {
    /// Receivers that the fault affects.
    pub hit: usize,
    /// The gap of each affected receiver, nanoseconds; until the end of the window if no packet followed.
    pub gaps_ns: Vec<u64>,
    /// Time from the fault to each receiver's first packet of an unaffected node, nanoseconds; until the end of the
    /// window if no such packet came.
    pub left_ns: Vec<u64>,
    /// Packets of affected nodes since the window began.
    pub of_the_hit: u64,
    /// Affected receivers without a packet in the last 500 ms, or since the fault if that is less.
    pub unheard: usize,
    /// Pauses after the fault of at least `FREEZE`, of receivers that were hit.
    pub freezes: u64,
    /// Such pauses of receivers that were not hit.
    pub freezes_of_others: u64,
    /// Packets sent in the window.
    pub sent: u64,
    /// Packets due to affected receivers that never arrived.
    pub lost: u64,
    /// The part of `lost` that was sent before the fault.
    pub lost_before: u64,
    /// Packets due to receivers that were not hit, and never arrived.
    pub lost_of_others: u64,
    /// Packets that arrived twice at one receiver.
    pub twice: u64,
    /// Packets that arrived at a wrong receiver.
    pub misdelivered: u64,
    /// Packets of the old node after the first packet of the new one.
    pub stragglers: u64,
    /// The longest time over which stragglers arrived at a receiver, nanoseconds.
    pub straggled_ns: u64,
    /// Rooms with an affected session.
    pub rooms_hit: u64,
    /// Moves of these rooms.
    pub rooms_moved: u64,
    /// Moves of all other rooms.
    pub other_rooms_moved: u64,
    /// Moves by cause: `node-down`.
    pub causes: BTreeMap<String, u64>,
    /// Nodes that were marked down after the fault.
    pub detections: Vec<NodeDetection>,
    /// All nodes that were marked down in the window.
    pub marked_down: Vec<String>,
}

impl FaultEffect {
    /// Adds one receiver's packets: arrival and node, in order.
    fn listen(&mut self, heard: &[(u64, u32)], fault: &InjectedFault, hit: bool, end_ns: u64) {
        let freeze_ns = nanoseconds(FREEZE);
        let nodes = fault.scope.nodes();
        self.of_the_hit += heard.iter().filter(|(_, node)| nodes.contains(node)).count() as u64;
        let pauses = || pauses_after(heard, fault.at_ns, end_ns);
        let freezes = pauses().filter(|&pause| pause >= freeze_ns).count() as u64;
        let longest = pauses().max().unwrap_or(0);
        if !hit {
            self.freezes_of_others += freezes;
            return;
        }
        self.freezes += freezes;
        let recently_ns = end_ns.saturating_sub(nanoseconds(RECENTLY)).max(fault.at_ns);
        if heard.last().is_none_or(|(at_ns, _)| *at_ns <= recently_ns) {
            self.unheard += 1;
        }
        let left = heard.iter().find(|(at_ns, node)| *at_ns > fault.at_ns && !nodes.contains(node));
        let left_ns = left.map_or(end_ns, |(at_ns, _)| *at_ns);
        self.left_ns.push(left_ns.saturating_sub(fault.at_ns));
        self.gaps_ns.push(match &fault.scope {
            Scope::Nodes(nodes) => gap_from(heard, nodes, fault.at_ns, end_ns).unwrap_or(longest),
            _ => longest,
        });
    }

    /// Adds the measurements of another window.
    pub fn add(&mut self, other: FaultEffect) {
        self.hit += other.hit;
        self.gaps_ns.extend(other.gaps_ns);
        self.left_ns.extend(other.left_ns);
        self.of_the_hit += other.of_the_hit;
        self.unheard += other.unheard;
        self.freezes += other.freezes;
        self.freezes_of_others += other.freezes_of_others;
        self.sent += other.sent;
        self.lost += other.lost;
        self.lost_before += other.lost_before;
        self.lost_of_others += other.lost_of_others;
        self.twice += other.twice;
        self.misdelivered += other.misdelivered;
        self.stragglers += other.stragglers;
        self.straggled_ns = self.straggled_ns.max(other.straggled_ns);
        self.rooms_hit += other.rooms_hit;
        self.rooms_moved += other.rooms_moved;
        self.other_rooms_moved += other.other_rooms_moved;
        for (cause, moves) in other.causes {
            *self.causes.entry(cause).or_default() += moves;
        }
        self.detections.extend(other.detections);
        self.marked_down.extend(other.marked_down);
    }
}

/// Pauses that end after this moment. The end of the window ends the last pause.
fn pauses_after(
    heard: &[(u64, u32)],
    at_ns: u64,
    end_ns: u64,
) -> impl Iterator<Item = u64> + use<'_> {
    let times = heard.iter().map(|(at_ns, _)| *at_ns).filter(move |&heard| heard < end_ns);
    let heard_before = heard.first().is_some_and(|(first, _)| *first <= at_ns);
    let mut before = (!heard_before).then_some(at_ns);
    times.chain([end_ns]).filter_map(move |time| {
        let since = before.replace(time);
        since.filter(|_| time > at_ns).map(|since| time - since)
    })
}

/// The time from the last packet of these nodes to the first packet of another node, or a longer pause after that.
fn gap_from(heard: &[(u64, u32)], nodes: &BTreeSet<u32>, at_ns: u64, end_ns: u64) -> Option<u64> {
    let is_change = |pair: &&[(u64, u32)]| pair[1].0 > at_ns && !nodes.contains(&pair[1].1);
    let change = heard.windows(2).find(is_change)?;
    let later = pauses_after(heard, change[1].0, end_ns).max().unwrap_or(0);
    Some(later.max(change[1].0 - change[0].0))
}

#[cfg(test)]
mod tests;
