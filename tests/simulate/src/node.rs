//! Simulated nodes: processes that end and restart, and what they do with packets.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use evenkeel_lab::links::{Conditions, Impairment};
use evenkeel_model::{EvidenceSource, StreamKind};
use evenkeel_nodes::AgentWord;

use crate::packet::{Numbers, Packet};
use crate::script::NodeScript;

/// The flow of canary packets.
pub(crate) const CANARY: u32 = u32::MAX;

/// Packets that wait in the sockets of a stopped process.
const SOCKET_MAX: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Listing {
    Stays,
    Leaves,
    Gone,
}

pub(crate) struct Node {
    pub(crate) script: NodeScript,
    pub(crate) listing: Listing,
    /// The number of the current process, which does not know sessions that were opened at earlier processes.
    pub(crate) process: u32,
    /// Active faults of each kind.
    pub(crate) killed: u32,
    pub(crate) unplugged: u32,
    pub(crate) stopped: u32,
    pub(crate) gray: u32,
    /// One of this many flows is dropped; 0 drops none.
    pub(crate) gray_flows: u32,
    /// The node reports no load, and refuses more sessions than this.
    pub(crate) boasts: Option<u32>,
    /// Sessions open in the current process.
    pub(crate) taken: u32,
    /// True if the node waits for its start hook.
    pub(crate) cold: bool,
    pub(crate) leaving: u32,
    pub(crate) willing: bool,
    pub(crate) up: Impairment,
    pub(crate) down: Impairment,
    /// Packets for a stopped process.
    pub(crate) waiting: Vec<Arrival>,
    /// Outgoing streams by receiver, sender and kind.
    streams: HashMap<(u32, u32, bool), Numbers>,
    /// The newest packet of each sender that came through another node.
    meshed: HashMap<(u32, u32, bool), u32>,
    /// The last ICMP refusal.
    pub(crate) refused: Option<Instant>,
    /// The time since which the node cannot answer.
    pub(crate) dead_since: Option<Instant>,
    /// The time until which each witness may accuse the node, in the order of [`EvidenceSource::ALL`].
    pub(crate) may_accuse: [Option<Instant>; EvidenceSource::ALL.len()],
    /// The time until which earlier latency of the node is not representative.
    pub(crate) irregular: Option<Instant>,
    /// The time until which the node, or the path to it, was impaired.
    pub(crate) impaired: Option<Instant>,
    /// The time until which the node dropped packets of sessions.
    pub(crate) dropping: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrival {
    Media {
        tag: u32,
        packet: Packet,
    },
    Probe {
        sequence: u64,
    },
    Canary {
        sequence: u64,
    },
    /// Both canary sessions are opened or refreshed.
    CanariesKept,
    Open {
        tag: u32,
    },
    Close {
        tag: u32,
    },
}

impl Node {
    pub(crate) fn new(script: NodeScript, seed: u64) -> Node {
        let link = |seed| {
            let mut link = Impairment::new(seed);
            link.conditions = script.link;
            link
        };
        Node {
            script,
            listing: Listing::Stays,
            process: 1,
            killed: 0,
            unplugged: 0,
            stopped: 0,
            gray: 0,
            gray_flows: 0,
            boasts: None,
            taken: 0,
            cold: script.starts.is_some(),
            leaving: 0,
            willing: true,
            up: link(seed),
            down: link(seed ^ 0x9e37_79b9),
            waiting: Vec::new(),
            streams: HashMap::new(),
            meshed: HashMap::new(),
            refused: None,
            dead_since: None,
            may_accuse: [None; EvidenceSource::ALL.len()],
            irregular: None,
            impaired: None,
            dropping: None,
        }
    }

    /// Another node gets this number in the list; faults of this number continue.
    pub(crate) fn renew(&mut self, script: NodeScript) {
        self.end_process();
        (self.script, self.listing) = (script, Listing::Stays);
        (self.cold, self.willing) = (script.starts.is_some(), true);
        (self.refused, self.irregular, self.impaired, self.dropping) = (None, None, None, None);
        self.may_accuse = [None; EvidenceSource::ALL.len()];
    }

    pub(crate) fn runs(&self) -> bool {
        self.killed == 0 && self.unplugged == 0 && self.stopped == 0 && !self.cold
    }

    /// The report of the node's agent.
    pub(crate) fn agent_word(&self) -> AgentWord {
        match (self.killed, self.leaving) {
            (1.., _) => AgentWord::Gone,
            (0, 1..) => AgentWord::Draining,
            (0, 0) => AgentWord::Serving,
        }
    }

    /// Ends the process; the next one has no state.
    pub(crate) fn end_process(&mut self) {
        self.process += 1;
        self.taken = 0;
        self.waiting.clear();
        self.streams.clear();
        self.meshed.clear();
    }

    /// True if the node and the path to it were unimpaired for this long.
    pub(crate) fn is_healthy_for(&self, time: Duration, now: Instant) -> bool {
        self.impaired.is_none_or(|until| until + time <= now)
    }

    pub(crate) fn wait(&mut self, arrival: Arrival) {
        if self.waiting.len() < SOCKET_MAX {
            self.waiting.push(arrival);
        }
    }

    pub(crate) fn set_link(&mut self, up: Conditions, down: Conditions) {
        self.up.conditions = up;
        self.down.conditions = down;
    }

    /// True if the node drops packets of this flow.
    pub(crate) fn drops(&self, tag: u32) -> bool {
        self.gray > 0
            || self.gray_flows > 0
                && (tag.wrapping_mul(0x9e37_79b1) >> 8).is_multiple_of(self.gray_flows)
    }

    /// True if a packet from another node is newer than all before it; older ones are not played.
    pub(crate) fn is_news(&mut self, to: u32, packet: &Packet) -> bool {
        let key = (to, packet.origin, packet.kind == StreamKind::Video);
        let newest = self.meshed.insert(key, packet.index);
        if newest.is_some_and(|newest| newest >= packet.index) {
            self.meshed.extend(newest.map(|newest| (key, newest)));
            return false;
        }
        true
    }

    /// The packet as this node sends it: unchanged, or in a stream of its own.
    pub(crate) fn send_on(&mut self, to: u32, mut packet: Packet) -> Packet {
        if !self.script.mixes {
            return packet;
        }
        let Some(header) = packet.read() else { return packet };
        let key = (to, packet.origin, packet.kind == StreamKind::Video);
        let fresh = (to ^ packet.origin.rotate_left(16)).wrapping_mul(0x85eb_ca6b)
            ^ self.process << 8
            ^ u32::from(key.2);
        let stream = self.streams.entry(key).or_insert(Numbers {
            ssrc: fresh,
            sequence: fresh as u16,
            timestamp: header.timestamp.wrapping_add(fresh),
        });
        stream.sequence = stream.sequence.wrapping_add(1);
        stream.timestamp = header.timestamp.wrapping_add(fresh);
        packet.set(*stream);
        packet
    }
}
