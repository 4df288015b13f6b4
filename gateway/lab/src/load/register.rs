//! Whose packets may come to a node, and from where.

use std::collections::HashMap;
use std::net::{SocketAddrV4, UdpSocket};

use evenkeel_media::demux::{self, Kind};
use evenkeel_media::trunk::message::Secret;
use evenkeel_media::trunk::{self, Tag};

use super::answers::Answers;
use super::arrivals::Arrival;
use super::books::Tally;
use super::stream::{self, Way};
use crate::clock;

/// How a relay and nodes tell sessions apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wire {
    /// The relay has a socket for each session.
    Port,
    /// It has one for each node, and packets come alone: nodes go by what is in them.
    Shared,
    /// It has one for each node, and bundles name sessions by tags.
    Bundled,
}

/// Where a session's packets come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Met {
    pub(super) node: usize,
    pub(super) peer: Peer,
}

/// What names a session at a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Peer {
    Address(SocketAddrV4),
    Tag(Tag),
    /// Nothing but the packet itself.
    Nothing,
}

/// What is known of the sessions at all nodes.
pub(super) struct Register {
    wire: Wire,
    /// Where a gateway opens its sessions; without it tags are the sessions' numbers.
    answers: Option<Answers>,
    /// Ours of a gateway's sessions.
    numbers: HashMap<u64, u32>,
    met: Vec<Option<Met>>,
    owners: HashMap<Peer, u32>,
    /// Where each node last got media from.
    upstream: Vec<Option<SocketAddrV4>>,
}

impl Register {
    pub(super) fn new(
        wire: Wire,
        nodes: usize,
        sessions: usize,
        secret: Option<Secret>,
    ) -> Register {
        Register {
            wire,
            answers: secret.map(Answers::new),
            numbers: HashMap::new(),
            met: vec![None; sessions],
            owners: HashMap::new(),
            upstream: vec![None; nodes],
        }
    }

    /// How sessions are told apart.
    pub(super) fn wire(&self) -> Wire {
        self.wire
    }

    /// Says which of ours a gateway's session is.
    pub(super) fn know(&mut self, number: u64, session: u32) {
        self.numbers.insert(number, session);
    }

    /// Where a session's packets came from last.
    pub(super) fn met(&self, session: u32) -> Option<Met> {
        self.met.get(session as usize).copied().flatten()
    }

    /// Where a node last got media from.
    pub(super) fn upstream(&self, node: usize) -> Option<SocketAddrV4> {
        self.upstream[node]
    }

    /// Takes a datagram that came to a node. How many packets of sessions are in it.
    pub(super) fn take(
        &mut self,
        (node, socket): (usize, &UdpSocket),
        arrival: Arrival<'_>,
        window: u8,
        tally: &mut Tally,
    ) -> u64 {
        match demux::classify(arrival.bytes) {
            Kind::Rtp if self.wire != Wire::Bundled => {
                self.upstream[node] = Some(arrival.source);
                let peer = match self.wire {
                    Wire::Port => Peer::Address(arrival.source),
                    Wire::Shared | Wire::Bundled => Peer::Nothing,
                };
                self.count(Met { node, peer }, arrival.bytes, arrival.stamp_ns, window, tally)
            }
            Kind::Bundle if self.wire == Wire::Bundled => {
                self.upstream[node] = Some(arrival.source);
                let mut packets = 0;
                for entry in trunk::entries(arrival.bytes) {
                    let Ok((tag, packet)) = entry else {
                        tally.foreign += 1;
                        break;
                    };
                    let met = Met { node, peer: Peer::Tag(tag) };
                    packets += self.count(met, packet, arrival.stamp_ns, window, tally);
                }
                packets
            }
            Kind::Signed => {
                let answers = self.answers.as_mut();
                let now_us = clock::now_ns() / 1_000;
                if let Some(answer) = answers.and_then(|a| a.answer(arrival.bytes, now_us)) {
                    // Nobody to hear it is the gateway's own affair.
                    let _unheard = socket.send_to(answer, arrival.source);
                }
                0
            }
            Kind::Echo => {
                let _unheard = socket.send_to(arrival.bytes, arrival.source);
                0
            }
            _ => {
                tally.foreign += 1;
                0
            }
        }
    }

    fn count(
        &mut self,
        met: Met,
        packet: &[u8],
        stamp_ns: u64,
        window: u8,
        tally: &mut Tally,
    ) -> u64 {
        let Some(mark) = stream::read(packet, Way::ToNode) else {
            tally.misdelivered += 1;
            return 0;
        };
        let Some(&before) = self.met.get(mark.session as usize) else {
            tally.misdelivered += 1;
            return 0;
        };
        if before != Some(met) && !self.meet(mark.session as u32, before, met, tally) {
            tally.misdelivered += 1;
            return 0;
        }
        if mark.stream == window {
            tally.came += 1;
            tally.delays.note(mark.sent_ns, stamp_ns);
        }
        1
    }

    /// A session's packet came as none of it came before. Whether that may be.
    fn meet(&mut self, session: u32, before: Option<Met>, met: Met, tally: &mut Tally) -> bool {
        let is_own = match met.peer {
            Peer::Tag(tag) => self.owner(tag) == Some(session),
            peer @ Peer::Address(_) => {
                *self.owners.entry(peer).or_insert(session) == session
                    && before.is_none_or(|before| before.peer == met.peer)
            }
            Peer::Nothing => true,
        };
        if is_own {
            tally.moved += u64::from(before.is_some());
            self.met[session as usize] = Some(met);
        }
        is_own
    }

    fn owner(&self, tag: Tag) -> Option<u32> {
        match &self.answers {
            Some(answers) => self.numbers.get(answers.opened.get(&tag)?).copied(),
            None => u32::try_from(tag.0).ok(),
        }
    }
}
