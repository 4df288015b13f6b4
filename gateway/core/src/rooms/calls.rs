//! Calls: what nodes know as one room, where its sessions are rooms of their own here.

use std::sync::Arc;

use super::{Founding, Room, Rooms};
use crate::{Affinity, Offer, Refused, RegionId, RoomId, Scenario, SessionId};

/// Between the name of a call and the session that is a room of its own. No path or query has to escape it.
const APART: char = '~';

/// A call with a room per session.
#[derive(Debug)]
pub(super) struct Call {
    /// By what number nodes know it.
    number: RoomId,
    /// A room of another scenario is another room, whatever its name.
    scenario: Arc<str>,
    /// Rooms of the call here.
    rooms: u32,
}

/// The name of the room that a session is by itself.
pub(crate) fn session_room_name(call: &str, session: SessionId) -> Arc<str> {
    format!("{call}{APART}{session}").into()
}

/// Tells if a room's name reads as that of a session that is a room of its own, `conf~s7`: no client may ask for it by
/// that, or it would take the place of another.
#[must_use]
pub fn is_session_room_name(room: &str) -> bool {
    room.rsplit_once(APART)
        .and_then(|(_, session)| session.strip_prefix('s'))
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

impl Rooms {
    /// The room of this name that the session joins, founded if there is none; where each session is placed by itself, a room
    /// of its own.
    pub(crate) fn enter(
        &mut self,
        session: SessionId,
        offer: &Offer,
        scenario: &Scenario,
        region: RegionId,
    ) -> Result<RoomId, Refused> {
        let name = match scenario.affinity {
            Affinity::Room => offer.room.clone(),
            Affinity::Session => session_room_name(&offer.room, session),
        };
        if let Some(&room) = self.by_name.get(&name) {
            let room = self.all.get_mut(&room).expect("names are of rooms that are there");
            if room.scenario != offer.scenario {
                return Err(Refused::ScenarioOfRoom(room.scenario.clone()));
            }
            room.sessions.insert(session);
            return Ok(room.id);
        }
        let id = RoomId(self.next);
        let call = self.enter_call(&offer.room, &offer.scenario, id, scenario.affinity)?;
        self.next += 1;
        let founding = Founding {
            name: name.clone(),
            scenario: offer.scenario.clone(),
            labels: offer.labels.clone(),
            region,
            spares: scenario.spares,
            mode: scenario.mode,
            call,
            priority: scenario.priority,
        };
        self.by_name.insert(name, id);
        let mut room = Box::new(Room::new(id, founding));
        room.sessions.insert(session);
        self.all.insert(id, room);
        Ok(id)
    }

    /// The room is gone: no list holds it any more.
    pub(super) fn remove(&mut self, id: RoomId) -> Option<Box<Room>> {
        self.unstrand(id);
        self.away.remove(&id);
        let room = self.all.remove(&id)?;
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

    /// Under which number nodes know the room: that of its call, where its sessions are rooms of their own.
    ///
    /// # Errors
    ///
    /// The name is taken by a room of another scenario.
    pub(super) fn enter_call(
        &mut self,
        name: &Arc<str>,
        scenario: &Arc<str>,
        id: RoomId,
        affinity: Affinity,
    ) -> Result<RoomId, Refused> {
        let call = self.calls.get(name).map(|call| (call.number, &call.scenario));
        let room = self.by_name.get(name).and_then(|room| self.all.get(room));
        let known = call.or(room.map(|room| (room.call, &room.scenario)));
        if let Some((_, of)) = known.filter(|(_, of)| *of != scenario) {
            return Err(Refused::ScenarioOfRoom(of.clone()));
        }
        let number = known.map_or(id, |(number, _)| number);
        if affinity == Affinity::Session {
            let new = || Call { number, scenario: scenario.clone(), rooms: 0 };
            self.calls.entry(name.clone()).or_insert_with(new).rooms += 1;
        }
        Ok(number)
    }

    /// The last room of a call takes its number with it.
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
