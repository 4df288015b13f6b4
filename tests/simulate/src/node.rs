//! Nodes as they are: processes that come and go, and what they do with a packet.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use evenkeel_core::{AgentWord, Kind, Witness};
use evenkeel_links::{Conditions, Impairment};

use crate::packet::{Numbers, Packet};
use crate::script::NodeScript;

/// The flow of a node's canary.
pub(crate) const CANARY: u32 = u32::MAX;

/// Packets that wait in the sockets of a process that stands still.
const SOCKET_MAX: usize = 256;

/// What the list says of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Listing {
    Stays,
    /// It is to go.
    Leaves,
    /// The gateway has forgotten it.
    Gone,
}

pub(crate) struct Node {
    pub(crate) script: NodeScript,
    pub(crate) listing: Listing,
    /// Counts the processes it had: what was open in one before is gone.
    pub(crate) process: u32,
    /// How many of what goes on now hold it down.
    pub(crate) killed: u32,
    pub(crate) unplugged: u32,
    pub(crate) stopped: u32,
    pub(crate) gray: u32,
    /// One flow in so many is dropped; none where it is 0.
    pub(crate) gray_flows: u32,
    /// It says that it is empty, and refuses more sessions than this.
    pub(crate) boasts: Option<u32>,
    /// Sessions that its process has taken.
    pub(crate) taken: u32,
    /// It does not run until its hook is called.
    pub(crate) cold: bool,
    pub(crate) leaving: u32,
    pub(crate) willing: bool,
    pub(crate) up: Impairment,
    pub(crate) down: Impairment,
    /// What waits for a process that stands still.
    pub(crate) waiting: Vec<Arrival>,
    /// Streams of its own, by whom they are for, from whom, and what.
    streams: HashMap<(u32, u32, bool), Numbers>,
    /// The newest of each sender's packets that came from another node.
    meshed: HashMap<(u32, u32, bool), u32>,
    /// When its kernel last said that nobody listens.
    pub(crate) refused: Option<Instant>,
    /// Since when it cannot answer, if it cannot.
    pub(crate) dead_since: Option<Instant>,
    /// Until when each witness may rightly accuse it, in the order of [`Witness::ALL`].
    pub(crate) right: [Option<Instant>; Witness::ALL.len()],
    /// Until when what was usual on the way there counts.
    pub(crate) bent: Option<Instant>,
    /// Until when something was wrong with it, or with the way there, if ever.
    pub(crate) ill: Option<Instant>,
    /// Until when it kept packets to itself, if ever.
    pub(crate) muffled: Option<Instant>,
}

/// What comes to a node.
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
    /// Both canary sessions are opened, or kept open.
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
            right: [None; Witness::ALL.len()],
            bent: None,
            ill: None,
            muffled: None,
        }
    }

    /// Another node takes its place in the list. What goes wrong there meanwhile goes on.
    pub(crate) fn renew(&mut self, script: NodeScript) {
        self.end_process();
        (self.script, self.listing) = (script, Listing::Stays);
        (self.cold, self.willing) = (script.starts.is_some(), true);
        (self.refused, self.bent, self.ill, self.muffled) = (None, None, None, None);
        self.right = [None; Witness::ALL.len()];
    }

    pub(crate) fn runs(&self) -> bool {
        self.killed == 0 && self.unplugged == 0 && self.stopped == 0 && !self.cold
    }

    /// What the agent beside it sees.
    pub(crate) fn agent_word(&self) -> AgentWord {
        match (self.killed, self.leaving) {
            (1.., _) => AgentWord::Gone,
            (0, 1..) => AgentWord::Draining,
            (0, 0) => AgentWord::Serving,
        }
    }

    /// A new process, which knows nothing of before.
    pub(crate) fn end_process(&mut self) {
        self.process += 1;
        self.taken = 0;
        self.waiting.clear();
        self.streams.clear();
        self.meshed.clear();
    }

    /// Whether nothing was wrong with it, or with the way there, for so long.
    pub(crate) fn is_well_for(&self, time: Duration, now: Instant) -> bool {
        self.ill.is_none_or(|until| until + time <= now)
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

    /// Whether it drops what comes by this flow.
    pub(crate) fn drops(&self, tag: u32) -> bool {
        self.gray > 0
            || self.gray_flows > 0
                && (tag.wrapping_mul(0x9e37_79b1) >> 8).is_multiple_of(self.gray_flows)
    }

    /// Whether what another node passes on is news: what comes after newer ones is played no more.
    pub(crate) fn is_news(&mut self, to: u32, packet: &Packet) -> bool {
        let key = (to, packet.origin, packet.kind == Kind::Video);
        let newest = self.meshed.insert(key, packet.index);
        if newest.is_some_and(|newest| newest >= packet.index) {
            self.meshed.extend(newest.map(|newest| (key, newest)));
            return false;
        }
        true
    }

    /// The packet as this node sends it on: as it came, or in a stream of its own.
    pub(crate) fn send_on(&mut self, to: u32, mut packet: Packet) -> Packet {
        if !self.script.mixes {
            return packet;
        }
        let Some(header) = packet.read() else { return packet };
        let key = (to, packet.origin, packet.kind == Kind::Video);
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
