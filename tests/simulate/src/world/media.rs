//! Packets from a client to the room's node, there to the other clients, and back.

use std::time::Duration;

use evenkeel_lab::links::PacketOutcome;
use evenkeel_model::{Affinity, NodeId, SessionId, StreamKind};

use super::{Event, Message, World};
use crate::check::{Delivered, Passed};
use crate::client::{Phase, VOICE_EVERY};
use crate::driver::Tag;
use crate::node::{Arrival, CANARY, Listing};
use crate::packet::{BYTES, Packet};
use crate::worker::Sent;

/// Rate limit of ICMP errors.
const REFUSES_EVERY: Duration = Duration::from_millis(1);

impl World<'_> {
    pub(super) fn beat(&mut self, client: u32, kind: StreamKind, session: SessionId) {
        let one = &mut self.clients[client as usize];
        if one.session != Some(session) || one.phase != Phase::Live || one.mute {
            return;
        }
        let (packets, next) = one.beat(client, kind);
        self.put_in(next, Event::Beat { client, kind, session });
        for packet in packets {
            self.outcome.packets += 1;
            if self.workers_stall.is_some() {
                self.unread.push(Event::FromClient { session, packet });
            } else {
                self.forward(session, packet);
            }
        }
    }

    pub(super) fn forward(&mut self, session: SessionId, packet: Packet) {
        let now = self.now;
        let board = std::sync::Arc::clone(&self.board);
        let Some(state) = self.session(session) else { return };
        let Sent::To { hop, standing, tag, copy } = state.send_to_node(packet.kind, &board, now)
        else {
            self.outcome.dropped += 1;
            return;
        };
        let room = state.room;
        if self.script.thorough && self.script.baseline.is_none() {
            let copy = copy.map(|(hop, _)| hop);
            self.checker.sent(&Passed { session, room, hop, copy, epoch: standing }, now);
            if packet.kind == StreamKind::Audio {
                self.note_sent(&packet, room);
            }
        }
        self.stamps[hop.node.0 as usize].last_sent = Some(now);
        match tag {
            Some(tag) => self.send(hop.node.0 as usize, Arrival::Media { tag, packet }),
            None => self.outcome.dropped += 1,
        }
        if let Some((hop, tag)) = copy {
            self.stamps[hop.node.0 as usize].last_sent = Some(now);
            self.send(hop.node.0 as usize, Arrival::Media { tag, packet });
        }
    }

    pub(super) fn send(&mut self, node: usize, arrival: Arrival) {
        let PacketOutcome::Deliver { at, copy_at, .. } =
            self.nodes[node].up.decide(self.now, BYTES)
        else {
            return;
        };
        for at in copy_at.into_iter().chain([at]) {
            self.queue.put(at, Event::AtNode { node, arrival });
        }
    }

    /// Arrival times of a packet that a node sends now, and of its duplicate.
    fn back(&mut self, node: usize) -> Vec<std::time::Instant> {
        match self.nodes[node].down.decide(self.now, BYTES) {
            PacketOutcome::Deliver { at, copy_at, .. } => [at].into_iter().chain(copy_at).collect(),
            PacketOutcome::Drop(_) => Vec::new(),
        }
    }

    pub(super) fn at_node(&mut self, node: usize, arrival: Arrival) {
        let here = &mut self.nodes[node];
        if here.unplugged > 0 || here.cold {
            return;
        }
        if here.killed > 0 {
            return self.refuse(node, arrival);
        }
        if here.stopped > 0 {
            return here.wait(arrival);
        }
        match arrival {
            Arrival::Media { tag, packet } => self.reflect(node, tag, packet),
            Arrival::Probe { sequence } => {
                let willing = here.willing;
                for at in self.back(node) {
                    let node = NodeId(node as u32);
                    self.queue.put(
                        at,
                        Event::ToControl(Message::ProbeAnswered { node, sequence, willing }),
                    );
                }
            }
            Arrival::Canary { sequence } if !here.drops(CANARY) => {
                let node = NodeId(node as u32);
                self.say_back(Message::CanaryPassed { node, sequence });
            }
            Arrival::Canary { .. } => {}
            Arrival::CanariesKept => self.say_back(Message::CanariesOpen(NodeId(node as u32))),
            Arrival::Open { tag } => self.open_at_node(node, tag),
            Arrival::Close { tag } => {
                let process = Some(here.process);
                if self.tags[tag as usize].process.take() == process {
                    here.taken = here.taken.saturating_sub(1);
                }
            }
        }
    }

    /// Sends a message from a node to control.
    fn say_back(&mut self, message: Message) {
        let (Message::CanaryPassed { node, .. } | Message::CanariesOpen(node)) = message else {
            return;
        };
        if let Some(at) = self.back(node.0 as usize).first() {
            self.queue.put(*at, Event::ToControl(message));
        }
    }

    /// The agent reports state and load, unless its machine is gone.
    pub(super) fn send_agent_report(&mut self, node: usize) {
        let here = &self.nodes[node];
        if self.drivers.dead
            || !here.script.agent
            || here.listing == Listing::Gone
            || here.unplugged > 0
            || here.cold
        {
            return;
        }
        if here.runs() {
            let permille = if here.boasts.is_some() { 0 } else { self.load_at(node) };
            if let Some(at) = self.back(node).first() {
                self.queue.put(*at, Event::ToControl(Message::Load(NodeId(node as u32), permille)));
            }
        }
        let message = Message::Agent(NodeId(node as u32), self.nodes[node].agent_word());
        if let Some(at) = self.back(node).first() {
            self.queue.put(*at, Event::ToControl(message));
        }
    }

    /// Sends the ICMP errors of a node without a process; with port legs, those of the session's port.
    fn refuse(&mut self, node: usize, arrival: Arrival) {
        let now = self.now;
        let message = match arrival {
            Arrival::Media { tag, .. } if self.nodes[node].script.ports => {
                let tag = self.tags[tag as usize];
                Message::PortClosed { session: tag.session, hop: tag.hop }
            }
            _ if self.nodes[node].refused.is_some_and(|at| now - at < REFUSES_EVERY) => return,
            _ => {
                self.nodes[node].refused = Some(now);
                Message::Refused(NodeId(node as u32))
            }
        };
        if let Some(at) = self.back(node).first() {
            self.queue.put(*at, Event::ToControl(message));
        }
    }

    /// A node sends a packet to all other clients of the room that it knows, or back to a client that is alone.
    fn reflect(&mut self, node: usize, from: u32, packet: Packet) {
        let process = Some(self.nodes[node].process);
        let knows = |tag: u32, tags: &[Tag]| {
            let tag = &tags[tag as usize];
            tag.hop.node.0 as usize == node && tag.process == process
        };
        if !knows(from, &self.tags) {
            return;
        }
        if self.nodes[node].drops(from) {
            return self.drop_flow(node, from);
        }
        let call = self.tags[from as usize].call;
        let session = self.tags[from as usize].session;
        let meshed = self.is_meshed(self.tags[from as usize].client);
        // A session that was reopened may have several tags; the last one counts.
        let tags = self.tags_of.get(&call).map_or(&[][..], Vec::as_slice);
        let mut to: Vec<(SessionId, u32)> = Vec::with_capacity(tags.len());
        for &tag in tags {
            let Tag { session: other, hop, process, .. } = self.tags[tag as usize];
            let there = &self.nodes[hop.node.0 as usize];
            let by_mesh = || meshed && there.runs() && process == Some(there.process);
            if knows(tag, &self.tags) || by_mesh() {
                to.retain(|(session, known)| {
                    *session != other || self.tags[*known as usize].hop.node != hop.node
                });
                to.push((other, tag));
            }
        }
        let alone = to.iter().all(|(other, _)| *other == session);
        for (_, tag) in to.into_iter().filter(|(other, _)| alone || *other != session) {
            let there = self.tags[tag as usize].hop.node.0 as usize;
            if self.nodes[there].gray > 0 || meshed && !self.nodes[there].is_news(tag, &packet) {
                continue;
            }
            let node = there;
            let packet = self.nodes[node].send_on(tag, packet);
            for at in self.back(node) {
                self.queue.put(at, Event::FromNode { tag, packet });
            }
        }
    }

    fn drop_flow(&mut self, node: usize, from: u32) {
        let Tag { session, hop, .. } = self.tags[from as usize];
        let is_gray = self.nodes[node].gray > 0;
        if let Some(room) = self.session(session).map(|state| state.room).filter(|_| !is_gray) {
            self.outcome.flows.lost(room, hop, self.now - self.began);
        }
    }

    /// True if the client's scenario uses meshed nodes.
    fn is_meshed(&self, client: u32) -> bool {
        let scenario = if self.clients[client as usize].join.call { "call" } else { "live" };
        let found = self.script.settings.scenarios.get(scenario);
        found.is_some_and(|scenario| scenario.affinity == Affinity::Session)
    }

    /// The node's load, in thousandths of its capacity.
    fn load_at(&self, node: usize) -> u16 {
        let (loads, _) = self.checker.scene.loads();
        let capacity = self.script.settings.nodes[node].capacity_kbps.max(1);
        u16::try_from(loads[node] * 1_000 / capacity).unwrap_or(u16::MAX)
    }

    pub(super) fn arrives(&mut self, tag: u32, packet: Packet) {
        let Some(tag) = self.tags.get(tag as usize).copied() else { return };
        let node = tag.hop.node.0 as usize;
        // A packet counts as media of the node, for any session.
        self.stamps[node].received += 1;
        self.stamps[node].last_received = Some(self.now);
        if tag.closed && tag.read_until.is_none_or(|until| self.now >= until) {
            return;
        }
        let (now, board) = (self.now, std::sync::Arc::clone(&self.board));
        let Some(state) = self.session(tag.session) else { return };
        let room = state.room;
        let out = state.send_to_client(tag.hop, packet, &board, now);
        if let Some(hops) = state.unalike.take() {
            self.put_in(
                Duration::ZERO,
                Event::ToControl(Message::Unalike { session: tag.session, hops }),
            );
        }
        let Some(out) = out else { return };
        self.outcome.delivered += 1;
        if self.script.thorough
            && self.script.baseline.is_none()
            && let Some(header) = out.read()
        {
            let delivered = Delivered {
                session: tag.session,
                room,
                hop: tag.hop,
                heard_in: tag.room,
                said_in: packet.room,
                origin: packet.origin,
                index: packet.index,
                video: packet.kind == StreamKind::Video,
                ssrc: header.ssrc,
                sequence: header.sequence,
            };
            self.checker.delivered(&delivered, &board, now);
        }
        if packet.kind == StreamKind::Audio {
            let gap = self.clients[tag.client as usize].receive(&packet, now);
            self.note_gap(tag.client, packet.origin, gap);
        }
    }

    fn note_gap(&mut self, client: u32, origin: u32, gap: Duration) {
        if gap > VOICE_EVERY * 3 / 2 {
            self.outcome.outage += gap - VOICE_EVERY;
        }
        if gap > VOICE_EVERY * 3 {
            self.trace.say(self.now, || {
                format!("client {client} heard nothing of client {origin} for {gap:?}")
            });
        }
    }
}
