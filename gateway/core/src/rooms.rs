//! The table of rooms: the unit of placement and moves. Calls with one room per session: nodes see one room, the gateway has a
//! room for each session.

pub(crate) mod placement;
pub(crate) mod reviews;
pub(crate) mod room;
pub(crate) mod worklists;

use std::collections::BTreeMap;
use std::ops::{Bound, Index};
use std::sync::Arc;

use evenkeel_model::{Affinity, IdMap, Offer, OfferRefusal, RegionId, RoomId, Scenario, SessionId};

use crate::rooms::room::{MoveUnderWay, Room};
use crate::sessions::SessionTable;

/// Separates the name of a call from the session in the name of a session's own room. It needs no escaping in paths or
/// queries.
const APART: char = '~';

#[derive(Debug)]
struct CallRooms {
    /// The room's number at nodes.
    number: RoomId,
    /// Rooms of different scenarios are different rooms, even with the same name.
    scenario: Arc<str>,
    rooms: u32,
}

fn session_room_name(call: &str, session: SessionId) -> Arc<str> {
    format!("{call}{APART}{session}").into()
}

/// Tells if a room's name has the form of a session's own room, `conf~s4k7mq2-7`. Clients may not request such names, since
/// they could take another session's place.
#[must_use]
pub fn is_session_room_name(room: &str) -> bool {
    room.rsplit_once(APART).is_some_and(|(_, session)| SessionId::parse(session).is_some())
}

/// The name of the room that clients requested: without the session, for a session's own room.
#[must_use]
pub fn requested_room_name(room: &str) -> &str {
    let own = room.rsplit_once(APART).filter(|_| is_session_room_name(room));
    own.map_or(room, |(call, _)| call)
}

#[derive(Debug)]
pub(crate) struct RoomTable {
    all: IdMap<RoomId, Box<Room>>,
    next: u64,
    by_name: BTreeMap<Arc<str>, RoomId>,
    /// Calls with one room per session, by name.
    calls: BTreeMap<Arc<str>, CallRooms>,
}

impl Default for RoomTable {
    fn default() -> RoomTable {
        RoomTable {
            all: IdMap::default(),
            next: 1,
            by_name: BTreeMap::new(),
            calls: BTreeMap::new(),
        }
    }
}

impl RoomTable {
    pub(crate) fn get(&self, id: &RoomId) -> Option<&Room> {
        self.all.get(*id).map(|room| &**room)
    }

    pub(crate) fn get_mut(&mut self, id: &RoomId) -> Option<&mut Room> {
        self.all.get_mut(*id).map(|room| &mut **room)
    }

    /// The room of a session.
    pub(crate) fn of_session(
        &mut self,
        session: SessionId,
        sessions: &SessionTable,
    ) -> Option<&mut Room> {
        self.get_mut(&sessions.get(&session)?.room())
    }

    pub(crate) fn contains_key(&self, id: &RoomId) -> bool {
        self.all.contains_key(*id)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = RoomId> {
        self.all.keys()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Room> {
        self.all.values().map(|room| &**room)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Room> {
        self.all.values_mut().map(|room| &mut **room)
    }

    pub(crate) fn after(&self, after: RoomId) -> impl Iterator<Item = &Room> {
        let rest = (Bound::Excluded(after), Bound::Unbounded);
        self.all.range(rest).map(|(_, room)| &**room)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The number of calls with one room per session.
    pub(crate) fn calls(&self) -> usize {
        self.calls.len()
    }

    pub(crate) fn named(&self, name: &str) -> Option<(&Arc<str>, RoomId)> {
        self.by_name.get_key_value(name).map(|(name, id)| (name, *id))
    }

    /// The room's name; its number if the room is gone.
    pub(crate) fn name_of(&self, room: RoomId) -> Arc<str> {
        let name = self.get(&room).map(|room| Arc::clone(room.name()));
        name.unwrap_or_else(|| room.to_string().into())
    }

    /// The room that the session joins, created if it does not exist. With session affinity, a room of the session's
    /// own.
    pub(crate) fn enter(
        &mut self,
        session: SessionId,
        offer: &Offer,
        scenario: &Scenario,
        region: RegionId,
    ) -> Result<&Room, OfferRefusal> {
        let name = match scenario.affinity {
            Affinity::Room => offer.room.clone(),
            Affinity::Session => session_room_name(&offer.room, session),
        };
        if let Some(&room) = self.by_name.get(&name) {
            let room = self.all.get_mut(room).expect("names are of rooms that are there");
            if *room.scenario() != offer.scenario {
                return Err(OfferRefusal::ScenarioOfRoom(room.scenario().clone()));
            }
            room.join(session);
            return Ok(room);
        }
        let id = RoomId(self.next);
        let call = self.enter_call(&offer.room, &offer.scenario, id, scenario.affinity)?;
        self.next += 1;
        let (kind, labels) = (offer.scenario.clone(), offer.labels.clone());
        let mut room = Box::new(Room::new(id, name.clone(), kind, labels, region, call));
        room.take_scenario(scenario);
        self.by_name.insert(name, id);
        room.join(session);
        self.all.insert(id, room);
        Ok(&self.all[id])
    }

    pub(crate) fn remove(&mut self, id: RoomId) -> Option<Box<Room>> {
        let room = self.all.remove(id)?;
        self.by_name.remove(room.name());
        self.leave_call(&room);
        Some(room)
    }

    /// The room's number at nodes: that of its call with session affinity, else its own.
    ///
    /// # Errors
    ///
    /// Another scenario's room has the name.
    fn enter_call(
        &mut self,
        name: &Arc<str>,
        scenario: &Arc<str>,
        id: RoomId,
        affinity: Affinity,
    ) -> Result<RoomId, OfferRefusal> {
        let call = self.calls.get(name).map(|call| (call.number, &call.scenario));
        let room = self.by_name.get(name).and_then(|room| self.all.get(*room));
        let known = call.or(room.map(|room| (room.call(), room.scenario())));
        if let Some((_, of)) = known.filter(|(_, of)| *of != scenario) {
            return Err(OfferRefusal::ScenarioOfRoom(of.clone()));
        }
        let number = known.map_or(id, |(number, _)| number);
        if affinity == Affinity::Session {
            let new = || CallRooms { number, scenario: scenario.clone(), rooms: 0 };
            self.calls.entry(name.clone()).or_insert_with(new).rooms += 1;
        }
        Ok(number)
    }

    fn leave_call(&mut self, room: &Room) {
        let Some((name, _)) = room.name().rsplit_once(APART) else { return };
        if let Some(call) = self.calls.get_mut(name)
            && call.number == room.call()
        {
            call.rooms -= 1;
            if call.rooms == 0 {
                self.calls.remove(name);
            }
        }
    }

    /// All moves in progress, by room. Each ends with a [`CoreEvent::Moved`] to its target or an [`CoreEvent::MoveEnded`].
    pub(crate) fn moves_under_way(&self) -> impl Iterator<Item = MoveUnderWay> {
        self.values().filter_map(Room::move_under_way)
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    /// Continues the numbers of another process.
    pub(crate) fn resume_numbers(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Adds a placed room of another process under its own number.
    pub(crate) fn restore(&mut self, room: Room) {
        let id = room.id();
        self.by_name.insert(Arc::clone(room.name()), id);
        if let Some((call, _)) = room.name().rsplit_once(APART)
            && is_session_room_name(room.name())
        {
            let new = || CallRooms {
                number: room.call(),
                scenario: Arc::clone(room.scenario()),
                rooms: 0,
            };
            self.calls.entry(call.into()).or_insert_with(new).rooms += 1;
        }
        self.all.insert(id, Box::new(room));
    }

    /// Removes all rooms, which go on at another process. Their routes were not published here. Returns their numbers.
    pub(crate) fn forget_restored(&mut self) -> Vec<RoomId> {
        let ids = self.all.keys().collect();
        self.all.clear();
        self.by_name.clear();
        self.calls.clear();
        ids
    }
}

impl Index<&RoomId> for RoomTable {
    type Output = Room;

    fn index(&self, id: &RoomId) -> &Room {
        &self.all[*id]
    }
}

#[cfg(test)]
mod tests;
