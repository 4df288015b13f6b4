//! Whether people hear each other: all the time where nothing is wrong with the nodes between them, and every packet where
//! two nodes carry all and one of them is well.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use evenkeel_core::{Hop, Mode, RoomId};

use super::World;
use crate::client::Phase;
use crate::packet::Packet;
use crate::worker::Home;

/// What had to be mended is: sessions that a new process did not know are told to it within 4 s.
const MENDED_AFTER: Duration = Duration::from_secs(5);

/// Who is there for so long, where nothing changed, is heard.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// I9: where the node is well, something comes at least so often.
const HEARD_EVERY: Duration = Duration::from_millis(500);

/// A packet that did not come within this does not come any more.
const COMES_WITHIN: Duration = Duration::from_millis(400);

/// Packets of hitless rooms that are on their way.
#[derive(Default)]
pub(crate) struct OnTheirWay {
    packets: VecDeque<Sent>,
}

/// A packet of voice that a client of a hitless room sent.
#[derive(Clone, Copy)]
struct Sent {
    at: Instant,
    client: u32,
    index: u32,
    room: RoomId,
    /// The hops that carried the room then.
    hops: [Option<Hop>; 2],
}

impl OnTheirWay {
    /// Nobody reads for a while: what is late is not lost.
    pub(super) fn forget(&mut self) {
        self.packets.clear();
    }
}

impl World<'_> {
    /// A packet of the room's leaves for wherever the gateway sends it.
    pub(super) fn note_sent(&mut self, packet: &Packet, room: RoomId) {
        let seen = self.checker.scene.rooms.get(&room);
        if seen.is_some_and(|room| room.route.load().mode == Mode::Hitless) {
            let (client, index) = (packet.origin, packet.index);
            let carriers = self.checker.carried.of(room);
            let mut carriers = carriers.map(|(hop, _)| hop);
            let hops = [carriers.next(), carriers.next()];
            self.on_their_way.packets.push_back(Sent { at: self.now, client, index, room, hops });
        }
    }

    /// I9: who is there hears the others, whatever else is dead.
    pub(super) fn everybody_is_heard(&mut self) {
        if self.reads_late() {
            return;
        }
        let since = self.now - HEARD_EVERY;
        let mut found = None;
        for room in &self.people {
            let there: Vec<u32> =
                room.iter().copied().filter(|client| self.has_a_sound_way(*client)).collect();
            for listener in &there {
                for sender in there.iter().filter(|sender| *sender != listener) {
                    let client = &self.clients[*listener as usize];
                    let heard = client.heard.iter().find(|heard| heard.origin == *sender);
                    let sends = self.clients[*sender as usize].join.sends;
                    if sends && heard.is_none_or(|heard| heard.last < since) {
                        let last = heard.map(|heard| self.now - heard.last);
                        found.get_or_insert_with(|| {
                            format!("client {listener} hears nothing of client {sender} since {last:?}, and nothing is wrong with the node")
                        });
                    }
                }
            }
        }
        self.checker.note(found.map(|text| ("I9", text)), self.now);
    }

    /// Workers stand still, or stood just now.
    fn reads_late(&self) -> bool {
        let lately = |at: Instant| self.now - at < SETTLED_AFTER;
        self.workers_stall.is_some() || self.stalled_lately.is_some_and(lately)
    }

    /// Whether the client is there for long enough, and so are the hops that carry it, which are well.
    fn has_a_sound_way(&self, client: u32) -> bool {
        let one = &self.clients[client as usize];
        let settled = |since: Instant| self.now - since > SETTLED_AFTER;
        let Some(home) = self.home_of(client) else { return false };
        let mut carriers = self.checker.carried.of(home.room).peekable();
        let is_well =
            |hop: &Hop| self.nodes[hop.node.0 as usize].is_well_for(MENDED_AFTER, self.now);
        !one.mute
            && settled(one.since)
            && carriers.peek().is_some()
            && carriers.all(|(hop, since)| is_well(&hop) && settled(since))
    }

    fn home_of(&self, client: u32) -> Option<&Home> {
        let one = &self.clients[client as usize];
        let session = one.session.filter(|_| one.phase == Phase::Live)?;
        self.homes.get(session.0 as usize)?.as_deref()
    }

    /// Hitless: what was sent by two hops of which one is well all the time has come to everybody.
    pub(super) fn nothing_is_lost(&mut self) {
        if self.workers_stall.is_some() {
            self.on_their_way.forget();
        }
        let due = self.now - COMES_WITHIN;
        let mut found = None;
        while let Some(sent) = self.on_their_way.packets.pop_front_if(|sent| sent.at <= due) {
            let carriers = self.checker.carried.of(sent.room);
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
                    "client {listener} never heard packet {index} of client {client}, carried by {hops:?}, and {spared:?} is well"
                );
                found.get_or_insert(("hitless", text));
            }
        }
        self.checker.note(found, self.now);
    }

    /// What it delivers are copies of what others do: it does not mix, and forwarded all until it died, if it did.
    fn delivers_copies(&self, hop: Hop, at: Instant) -> bool {
        let node = &self.nodes[hop.node.0 as usize];
        !node.script.mixes && node.muffled.is_none_or(|until| until + SETTLED_AFTER <= at)
    }

    /// Neither the node nor the way there loses anything, by itself or for what goes wrong.
    fn loses_nothing(&self, hop: Hop, at: Instant) -> bool {
        let node = &self.nodes[hop.node.0 as usize];
        let loses = node.script.link.bursts.is_some() || node.script.link.loss_ppm > 0;
        !loses && node.is_well_for(MENDED_AFTER + (self.now - at), self.now)
    }

    /// Somebody who was there all the time, and was open at this hop, as the sender was, and did not hear it.
    fn who_missed(&self, sent: &Sent, hop: Hop) -> Option<u32> {
        let settled = |since: Instant| sent.at.saturating_duration_since(since) > SETTLED_AFTER;
        let open = |client: u32| {
            let home = self.home_of(client)?;
            let leg = home.legs.iter().find(|leg| leg.hop == hop && leg.since.is_some_and(settled));
            leg.filter(|_| settled(self.clients[client as usize].since) && home.room == sent.room)
        };
        open(sent.client)?;
        let room = self.clients[sent.client as usize].join.room as usize;
        let others = self.people[room].iter().copied().filter(|other| *other != sent.client);
        others.filter(|other| open(*other).is_some()).find(|listener| {
            let heard = &self.clients[*listener as usize].heard;
            let heard = heard.iter().find(|heard| heard.origin == sent.client);
            heard.is_none_or(|heard| heard.missed(sent.index))
        })
    }
}
