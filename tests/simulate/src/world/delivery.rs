//! Clients hear each other while their nodes are healthy. In hitless rooms they lose no packet while one of the two
//! nodes is healthy.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use evenkeel_model::{Hop, RedundancyMode, RoomId};

use super::World;
use crate::client::Phase;
use crate::packet::Packet;
use crate::worker::SessionState;

/// A new process learns its sessions within 4 s.
const MENDED_AFTER: Duration = Duration::from_secs(5);

/// Media is checked this long after a client joined or something changed.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// I9: longest gap at a healthy node.
const HEARD_EVERY: Duration = Duration::from_millis(500);

/// A packet that has not arrived after this time is lost.
const COMES_WITHIN: Duration = Duration::from_millis(400);

/// Packets of hitless rooms in flight.
#[derive(Default)]
pub(crate) struct InFlight {
    packets: VecDeque<Sent>,
}

/// An audio packet of a client in a hitless room.
#[derive(Clone, Copy)]
struct Sent {
    at: Instant,
    client: u32,
    index: u32,
    room: RoomId,
    /// The hops that carried the room at that time.
    hops: [Option<Hop>; 2],
}

impl InFlight {
    /// Packets read late after a stall are not lost.
    pub(super) fn forget(&mut self) {
        self.packets.clear();
    }
}

impl World<'_> {
    /// Records a packet of a hitless room.
    pub(super) fn note_sent(&mut self, packet: &Packet, room: RoomId) {
        let seen = self.checker.scene.rooms.get(&room);
        if seen.is_some_and(|room| room.route.load().mode == RedundancyMode::Hitless) {
            let (client, index) = (packet.origin, packet.index);
            let carriers = self.checker.carriers.of(room);
            let mut carriers = carriers.map(|(hop, _)| hop);
            let hops = [carriers.next(), carriers.next()];
            self.in_flight.packets.push_back(Sent { at: self.now, client, index, room, hops });
        }
    }

    /// I9: clients of a room hear each other, whatever else fails.
    pub(super) fn check_clients_heard(&mut self) {
        if self.reads_late() {
            return;
        }
        let since = self.now - HEARD_EVERY;
        let mut found = None;
        for room in &self.room_clients {
            let there: Vec<u32> =
                room.iter().copied().filter(|client| self.has_healthy_path(*client)).collect();
            for listener in &there {
                for sender in there.iter().filter(|sender| *sender != listener) {
                    let client = &self.clients[*listener as usize];
                    let heard = client.heard.iter().find(|heard| heard.origin == *sender);
                    let sends = self.clients[*sender as usize].join.sends;
                    if sends && heard.is_none_or(|heard| heard.last < since) {
                        let last = heard.map(|heard| self.now - heard.last);
                        found.get_or_insert_with(|| {
                            format!("client {listener} has heard nothing of client {sender} for {last:?} at a healthy node")
                        });
                    }
                }
            }
        }
        self.checker.note(found.map(|text| ("I9", text)), self.now);
    }

    /// True during a stall of workers and shortly after.
    fn reads_late(&self) -> bool {
        let lately = |at: Instant| self.now - at < SETTLED_AFTER;
        self.workers_stall.is_some() || self.last_stall.is_some_and(lately)
    }

    /// True if the client and its carriers have existed for long enough, and the carriers are healthy. A session is not heard
    /// where its driver opens it late, or failed to, until the core has opened it elsewhere.
    fn has_healthy_path(&self, client: u32) -> bool {
        let one = &self.clients[client as usize];
        let settled = |since: Instant| self.now - since > SETTLED_AFTER;
        let Some(state) = self.session_of(client) else { return false };
        let mut carriers = self.checker.carriers.of(state.room).peekable();
        let is_well =
            |hop: &Hop| self.nodes[hop.node.0 as usize].is_healthy_for(MENDED_AFTER, self.now);
        let hindered = self.checker.flow.last_hindered();
        let hindered = hindered.is_some_and(|at| self.now - at <= MENDED_AFTER);
        let opens = |hop: &Hop| match state.legs.iter().find(|leg| leg.hop == *hop) {
            Some(leg) => leg.since.is_none(),
            None => hindered,
        };
        !one.mute
            && settled(one.since)
            && carriers.peek().is_some_and(|(first, _)| !opens(first))
            && carriers.all(|(hop, since)| is_well(&hop) && settled(since))
    }

    fn session_of(&self, client: u32) -> Option<&SessionState> {
        let one = &self.clients[client as usize];
        let session = one.session.filter(|_| one.phase == Phase::Live)?;
        self.sessions.get(session.0 as usize)?.as_deref()
    }

    /// Hitless: a packet that two hops carried, one of them healthy, reached all clients of the room.
    pub(super) fn check_hitless_loss(&mut self) {
        if self.workers_stall.is_some() {
            self.in_flight.forget();
        }
        let due = self.now - COMES_WITHIN;
        let mut found = None;
        while let Some(sent) = self.in_flight.packets.pop_front_if(|sent| sent.at <= due) {
            let carriers = self.checker.carriers.of(sent.room);
            let carried = |hop: &Hop| {
                let since = carriers.clone().find(|(carrier, _)| carrier == hop);
                since.is_some_and(|(_, since)| sent.at > since + SETTLED_AFTER)
            };
            let hops = sent.hops.iter().flatten();
            let copies = hops.clone().all(|hop| self.delivers_copies(*hop, sent.at));
            let spared =
                hops.copied().find(|hop| carried(hop) && self.loses_nothing(*hop, sent.at));
            let Some(spared) = spared.filter(|_| copies) else { continue };
            if let Some(listener) = self.who_missed(&sent, spared) {
                let Sent { client, index, hops, .. } = sent;
                let text = format!(
                    "client {listener} lost packet {index} of client {client}, carried by {hops:?}, of which {spared:?} is healthy"
                );
                found.get_or_insert(("hitless", text));
            }
        }
        self.checker.note(found, self.now);
    }

    /// True if the node neither mixes nor dropped packets until recently.
    fn delivers_copies(&self, hop: Hop, at: Instant) -> bool {
        let node = &self.nodes[hop.node.0 as usize];
        !node.script.mixes && node.dropping.is_none_or(|until| until + SETTLED_AFTER <= at)
    }

    /// True if neither the node nor its link loses packets.
    fn loses_nothing(&self, hop: Hop, at: Instant) -> bool {
        let node = &self.nodes[hop.node.0 as usize];
        let loses = node.script.link.bursts.is_some() || node.script.link.loss_ppm > 0;
        !loses && node.is_healthy_for(MENDED_AFTER + (self.now - at), self.now)
    }

    /// A client of the room, open at this hop like the sender, that missed the packet.
    fn who_missed(&self, sent: &Sent, hop: Hop) -> Option<u32> {
        let settled = |since: Instant| sent.at.saturating_duration_since(since) > SETTLED_AFTER;
        let open = |client: u32| {
            let state = self.session_of(client)?;
            let leg =
                state.legs.iter().find(|leg| leg.hop == hop && leg.since.is_some_and(settled));
            leg.filter(|_| settled(self.clients[client as usize].since) && state.room == sent.room)
        };
        open(sent.client)?;
        let room = self.clients[sent.client as usize].join.room as usize;
        let others = self.room_clients[room].iter().copied().filter(|other| *other != sent.client);
        others.filter(|other| open(*other).is_some()).find(|listener| {
            let heard = &self.clients[*listener as usize].heard;
            let heard = heard.iter().find(|heard| heard.origin == sent.client);
            heard.is_none_or(|heard| heard.missed(sent.index))
        })
    }
}
