//! Calls with one room per session: nodes see one room, the gateway has a room for each session.

use std::sync::Arc;

use evenkeel_model::{Affinity, Offer, OfferRefusal, RegionId, RoomId, Scenario, SessionId};

use super::{Room, RoomTable};

/// Separates the name of a call from the session in the name of a session's own room. It needs no escaping in paths or
/// queries.
pub(super) const APART: char = '~';

#[derive(Debug)]
pub(super) struct CallRooms {
    /// The room's number at nodes.
    pub(super) number: RoomId,
    /// Rooms of different scenarios are different rooms, even with the same name.
    pub(super) scenario: Arc<str>,
    pub(super) rooms: u32,
}

/// The name of a session's own room.
pub(crate) fn session_room_name(call: &str, session: SessionId) -> Arc<str> {
    format!("{call}{APART}{session}").into()
}

/// Tells if a room's name has the form of a session's own room, `conf~s7`. Clients may not request such names, since
/// they could take another session's place.
#[must_use]
pub fn is_session_room_name(room: &str) -> bool {
    room.rsplit_once(APART)
        .and_then(|(_, session)| session.strip_prefix('s'))
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// The name of the room that clients requested: without the session, for a session's own room.
#[must_use]
pub fn requested_room_name(room: &str) -> &str {
    let own = room.rsplit_once(APART).filter(|_| is_session_room_name(room));
    own.map_or(room, |(call, _)| call)
}

impl RoomTable {
    /// The room that the session joins, created if it does not exist. With session affinity, a room of the session's
    /// own.
    pub(crate) fn enter(
        &mut self,
        session: SessionId,
        offer: &Offer,
        scenario: &Scenario,
        region: RegionId,
    ) -> Result<RoomId, OfferRefusal> {
        let name = match scenario.affinity {
            Affinity::Room => offer.room.clone(),
            Affinity::Session => session_room_name(&offer.room, session),
        };
        if let Some(&room) = self.by_name.get(&name) {
            let room = self.all.get_mut(&room).expect("names are of rooms that are there");
            if room.scenario != offer.scenario {
                return Err(OfferRefusal::ScenarioOfRoom(room.scenario.clone()));
            }
            room.sessions.insert(session);
            self.changes.note(room.id);
            return Ok(room.id);
        }
        let id = RoomId(self.next);
        let call = self.enter_call(&offer.room, &offer.scenario, id, scenario.affinity)?;
        self.next += 1;
        let mut room = Box::new(Room::new(id, name.clone(), offer, scenario, region, call));
        self.by_name.insert(name, id);
        room.sessions.insert(session);
        self.all.insert(id, room);
        Ok(id)
    }

    /// Removes the room from every list.
    pub(super) fn remove(&mut self, id: RoomId) -> Option<Box<Room>> {
        self.unstrand(id);
        self.set_away(id, false);
        let room = self.all.remove(&id)?;
        self.changes.note(id);
        self.placed -= usize::from(room.is_placed());
        self.unreserved.remove(&id);
        for node in room.listed.iter() {
            self.at[node.0 as usize].remove(&id);
        }
        self.by_name.remove(&room.name);
        self.leave_call(&room);
        self.changing.remove(&id);
        Some(room)
    }

    /// The room's number at nodes: that of its call with session affinity, else its own.
    ///
    /// # Errors
    ///
    /// Another scenario's room has the name.
    pub(super) fn enter_call(
        &mut self,
        name: &Arc<str>,
        scenario: &Arc<str>,
        id: RoomId,
        affinity: Affinity,
    ) -> Result<RoomId, OfferRefusal> {
        let call = self.calls.get(name).map(|call| (call.number, &call.scenario));
        let room = self.by_name.get(name).and_then(|room| self.all.get(room));
        let known = call.or(room.map(|room| (room.call, &room.scenario)));
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

    pub(super) fn leave_call(&mut self, room: &Room) {
        let Some((name, _)) = room.name.rsplit_once(APART) else {
            return;
        };
        if let Some(call) = self.calls.get_mut(name)
            && call.number == room.call
        {
            call.rooms -= 1;
            if call.rooms == 0 {
                self.calls.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests;
