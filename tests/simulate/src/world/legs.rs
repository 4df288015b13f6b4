//! Sessions are opened and closed at nodes, over the same links as media.

use std::time::Duration;

use evenkeel_core::NotOpened;
use evenkeel_lab::links::PacketOutcome;
use evenkeel_model::{Hop, RoomId, SessionId};

use super::{Event, Message, World};
use crate::driver::{LEASES_EVERY, OPEN_RETRY_AFTER, Tag, WORKER_CLOSE_DELAY};
use crate::node::Arrival;
use crate::worker::Leg;

impl World<'_> {
    pub(super) fn open(&mut self, session: SessionId, call: RoomId, hop: Hop) {
        let tag = self.tags.len() as u32;
        let Some(state) = self.session(session) else { return };
        let client = state.client;
        state.legs.push(Leg { hop, tag, since: None });
        let room = self.clients[client as usize].join.room;
        self.tags.push(Tag {
            session,
            hop,
            client,
            room,
            call,
            process: None,
            reported: false,
            closed: false,
            read_until: None,
        });
        let tags = self.tags_of.remove(&call).unwrap_or_default();
        let tags = tags.into_iter().filter(|tag| !self.is_gone(*tag)).chain([tag]).collect();
        self.tags_of.insert(call, tags);
        let slow = self.drivers.slow.mul_f64(self.rng.f64());
        self.put_in(slow, Event::RetryOpen { tag });
    }

    /// Closed by the gateway and unknown to the node.
    fn is_gone(&self, tag: u32) -> bool {
        let tag = &self.tags[tag as usize];
        tag.closed && tag.process != Some(self.nodes[tag.hop.node.0 as usize].process)
    }

    pub(super) fn ask_driver(&mut self, tag: u32) {
        let Tag { reported, closed, hop, .. } = self.tags[tag as usize];
        if !reported && !closed {
            if self.drivers.dead {
                self.checker.flow.hindered(self.now);
            } else {
                self.send(hop.node.0 as usize, Arrival::Open { tag });
            }
            self.put_in(OPEN_RETRY_AFTER, Event::RetryOpen { tag });
        }
    }

    pub(super) fn open_at_node(&mut self, node: usize, tag: u32) {
        let known = self.tags[tag as usize].reported
            || self.tags[tag as usize].process == Some(self.nodes[node].process);
        let full = self.nodes[node].boasts.is_some_and(|most| self.nodes[node].taken >= most);
        let full = full && !known;
        let takes = known || !full && self.rng.u8(0..100) >= self.drivers.refuses;
        if takes {
            self.nodes[node].taken += u32::from(!known);
            self.tags[tag as usize].process = Some(self.nodes[node].process);
        }
        let working = Duration::from_micros(self.rng.u64(20..500));
        let link = self.nodes[node].down.decide(self.now + working, crate::packet::BYTES);
        if let PacketOutcome::Deliver { at, .. } = link {
            self.queue.put(at, Event::ToControl(Message::Opened { tag, taken: takes, full }));
        }
    }

    pub(super) fn opened(&mut self, tag: u32, taken: bool) {
        let Tag { session, hop, closed, reported, .. } = self.tags[tag as usize];
        if closed || reported {
            return;
        }
        self.tags[tag as usize].reported = true;
        self.tags[tag as usize].closed = !taken;
        let now = Some(self.now);
        if let Some(state) = self.session(session) {
            state.legs.retain(|leg| taken || leg.tag != tag);
            state.legs.iter_mut().filter(|leg| leg.tag == tag).for_each(|leg| leg.since = now);
        }
        if self.script.baseline.is_some() {
            return self.reopened(tag);
        }
        if !taken {
            self.checker.flow.hindered(self.now);
            self.checker.refused(session, hop);
        }
        let result = if taken { Ok(()) } else { Err(NotOpened) };
        self.gateway.handle_opened(session, hop, result, self.now);
    }

    pub(super) fn close_at(&mut self, session: SessionId, hop: Hop) {
        let Some(state) = self.session(session) else { return };
        let Some(at) = state.legs.iter().position(|leg| leg.hop == hop) else { return };
        let leg = state.legs.swap_remove(at);
        if leg.since.is_none() {
            self.checker.flow.hindered(self.now);
        }
        let delay = WORKER_CLOSE_DELAY.mul_f64(self.rng.f64());
        self.tags[leg.tag as usize].closed = true;
        self.tags[leg.tag as usize].read_until = Some(self.now + delay);
        self.send(hop.node.0 as usize, Arrival::Close { tag: leg.tag });
    }

    /// Refreshes the leases at a node, which opens sessions that it does not know.
    pub(super) fn renew_leases(&mut self, node: usize) {
        self.put_in(LEASES_EVERY, Event::Leases { node });
        let process = Some(self.nodes[node].process);
        let unknown = |tag: &Tag| {
            tag.hop.node.0 as usize == node && tag.reported && !tag.closed && tag.process != process
        };
        let again: Vec<u32> =
            (0..).zip(&self.tags).filter(|(_, tag)| unknown(tag)).map(|(at, _)| at).collect();
        for tag in again {
            self.send(node, Arrival::Open { tag });
        }
    }
}
