//! Sessions are opened at nodes, and closed there, over the same links as media.

use std::time::Duration;

use evenkeel_core::{Hop, NotOpened, RoomId, SessionId};
use evenkeel_links::Fate;

use super::{Event, Word, World};
use crate::driver::{ASKED_AGAIN_AFTER, LEASES_EVERY, Tag, WORKER_TOLD_WITHIN};
use crate::node::Arrival;
use crate::worker::Leg;

impl World<'_> {
    pub(super) fn open(&mut self, session: SessionId, call: RoomId, hop: Hop) {
        let tag = self.tags.len() as u32;
        let Some(home) = self.home(session) else { return };
        let client = home.client;
        home.legs.push(Leg { hop, tag, since: None });
        let room = self.clients[client as usize].join.room;
        self.tags.push(Tag {
            session,
            hop,
            client,
            room,
            call,
            process: None,
            told: false,
            closed: false,
            read_until: None,
        });
        let tags = self.tags_of.remove(&call).unwrap_or_default();
        let tags = tags.into_iter().filter(|tag| !self.is_gone(*tag)).chain([tag]).collect();
        self.tags_of.insert(call, tags);
        let slow = self.drivers.slow.mul_f64(self.rng.f64());
        self.put_in(slow, Event::AskAgain { tag });
    }

    /// Closed here, and unknown there.
    fn is_gone(&self, tag: u32) -> bool {
        let tag = &self.tags[tag as usize];
        tag.closed && tag.process != Some(self.nodes[tag.hop.node.0 as usize].process)
    }

    pub(super) fn ask_driver(&mut self, tag: u32) {
        let Tag { told, closed, hop, .. } = self.tags[tag as usize];
        if !told && !closed {
            if self.drivers.dead {
                self.checker.flow.hindered(self.now);
            } else {
                self.send(hop.node.0 as usize, Arrival::Open { tag });
            }
            self.put_in(ASKED_AGAIN_AFTER, Event::AskAgain { tag });
        }
    }

    pub(super) fn open_at_node(&mut self, node: usize, tag: u32) {
        let known = self.tags[tag as usize].told
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
        if let Fate::Deliver { at, .. } = link {
            self.queue.put(at, Event::Told(Word::Opened { tag, taken: takes, full }));
        }
    }

    pub(super) fn opened(&mut self, tag: u32, taken: bool) {
        let Tag { session, hop, closed, told, .. } = self.tags[tag as usize];
        if closed || told {
            return;
        }
        self.tags[tag as usize].told = true;
        self.tags[tag as usize].closed = !taken;
        let now = Some(self.now);
        if let Some(home) = self.home(session) {
            home.legs.retain(|leg| taken || leg.tag != tag);
            home.legs.iter_mut().filter(|leg| leg.tag == tag).for_each(|leg| leg.since = now);
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
        let Some(home) = self.home(session) else { return };
        let Some(at) = home.legs.iter().position(|leg| leg.hop == hop) else { return };
        let leg = home.legs.swap_remove(at);
        if leg.since.is_none() {
            self.checker.flow.hindered(self.now);
        }
        let told = WORKER_TOLD_WITHIN.mul_f64(self.rng.f64());
        self.tags[leg.tag as usize].closed = true;
        self.tags[leg.tag as usize].read_until = Some(self.now + told);
        self.send(hop.node.0 as usize, Arrival::Close { tag: leg.tag });
    }

    /// The node is told what is open there, and opens what it does not know.
    pub(super) fn renew_leases(&mut self, node: usize) {
        self.put_in(LEASES_EVERY, Event::Leases { node });
        let process = Some(self.nodes[node].process);
        let unknown = |tag: &Tag| {
            tag.hop.node.0 as usize == node && tag.told && !tag.closed && tag.process != process
        };
        let again: Vec<u32> =
            (0..).zip(&self.tags).filter(|(_, tag)| unknown(tag)).map(|(at, _)| at).collect();
        for tag in again {
            self.send(node, Arrival::Open { tag });
        }
    }
}
