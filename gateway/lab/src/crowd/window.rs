//! A measurement window: packets sent, packets received, events.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::effect::pauses_after;
use super::{FREEZE, FaultEffect, InjectedFault, NodeDetection, Scope};
use crate::clock::nanoseconds;
use crate::ledger::PacketLedger;
use crate::watch::{at_ns, word};
use evenkeel_client::ServerEvent;

/// Length of the span before a fault in which the nodes of a session are looked up.
const JUST_BEFORE_NS: u64 = 500_000_000;

/// The packets and events of a span, and the sessions to which they belong.
pub struct ObservationWindow {
    pub(super) ledger: PacketLedger,
    pub(super) events: Vec<ServerEvent>,
    pub(super) by_id: BTreeMap<String, u64>,
    /// The span of the window: nanoseconds since the Unix epoch.
    pub(super) span: Range<u64>,
}

impl ObservationWindow {
    /// Packets sent and received.
    pub fn ledger(&self) -> &PacketLedger {
        &self.ledger
    }

    /// Events of the watched gateways, in order of arrival.
    pub fn events(&self) -> &[ServerEvent] {
        &self.events
    }

    /// The span of the window: nanoseconds since the Unix epoch.
    pub fn span(&self) -> Range<u64> {
        self.span.clone()
    }

    /// Session numbers by the ids that the gateway assigned.
    pub fn by_id(&self) -> &BTreeMap<String, u64> {
        &self.by_id
    }

    /// The session with this id of the gateway.
    pub fn session(&self, id: &str) -> Option<u64> {
        self.by_id.get(id).copied()
    }

    /// Excludes these sessions from all figures.
    pub fn forget(&mut self, sessions: &BTreeSet<u64>) {
        sessions.iter().for_each(|&session| self.ledger.forget(session));
    }

    /// Measures what the fault did to the sessions in its scope, and to the others.
    pub fn effect_of(&self, fault: &InjectedFault) -> FaultEffect {
        let hit = self.hit(fault);
        let mut effect = FaultEffect { hit: hit.len(), ..FaultEffect::default() };
        for receiver in self.ledger.receivers() {
            let heard = self.ledger.heard(receiver);
            let is_hit = hit.contains(&receiver);
            effect.listen(&heard, fault, is_hit, self.span.end);
        }
        self.count_packets(&mut effect, &hit, fault);
        self.count_moves(&mut effect, &hit);
        effect.detections = self.detections(fault);
        let is_down = |event: &&ServerEvent| event.name == "node" && event.data["to"] == "down";
        let down = self.events.iter().filter(is_down);
        effect.marked_down = down.map(|event| word(&event.data["node"])).collect();
        effect
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
            let heard = self.ledger.heard(*receiver);
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
        for event in self.events.iter().filter(|event| event.name == "moved") {
            let sessions = event.data["sessions"].as_array().into_iter().flatten();
            let rooms = rooms(&sessions.filter_map(|id| self.session(&word(id))).collect());
            for room in rooms {
                *effect.causes.entry(word(&event.data["cause"])).or_default() += 1;
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
        let down = self.events.iter().filter(|event| {
            event.name == "node" && event.data["to"] == "down" && at_ns(event) >= fault.at_ns
        });
        let ms_since = |at_ns: u64| (at_ns as f64 - fault.at_ns as f64) / 1e6;
        // A node that is marked down twice counts once.
        let mut found = BTreeSet::new();
        let first = down.filter(move |event| found.insert(word(&event.data["node"])));
        first
            .map(|event| {
                let witnesses = event.data["witnesses"].as_array().into_iter().flatten();
                let since = |accusation: &serde_json::Value| {
                    let for_us = accusation["for_us"].as_u64().unwrap_or(0);
                    ms_since(at_ns(event).saturating_sub(for_us * 1_000))
                };
                NodeDetection {
                    node: word(&event.data["node"]),
                    after_ms: ms_since(at_ns(event)),
                    by_witness: witnesses.map(|w| (word(&w["witness"]), since(w))).collect(),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
