//! Calls: what nodes know as one room, where its sessions are rooms of their own here.

use std::sync::Arc;

use super::Gateway;
use crate::room::Room;
use crate::{Affinity, Refused, RoomId, SessionId};

/// Between the name of a call and the session that is a room of its own. No path or query has to escape it.
const APART: char = '~';

/// A call whose sessions are rooms of their own.
#[derive(Debug)]
pub(crate) struct Call {
    /// By what number nodes know it.
    number: RoomId,
    /// A room of another scenario is another room, whatever its name.
    scenario: Arc<str>,
    /// How many rooms it is here.
    rooms: u32,
}

/// The name of the room that a session is by itself.
pub(crate) fn apart(call: &str, session: SessionId) -> Arc<str> {
    format!("{call}{APART}{session}").into()
}

/// Whether a room's name reads as that of a session that is a room of its own, `conf~s7`: nobody may ask for it by that,
/// or would take the place of a stranger.
#[must_use]
pub fn names_one_apart(room: &str) -> bool {
    room.rsplit_once(APART)
        .and_then(|(_, session)| session.strip_prefix('s'))
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

impl Gateway {
    /// Under which number nodes know the room: that of its call, where its sessions are rooms of their own.
    ///
    /// # Errors
    ///
    /// The name is taken by a room of another scenario.
    pub(crate) fn enter_call(
        &mut self,
        name: &Arc<str>,
        scenario: &Arc<str>,
        id: RoomId,
        affinity: Affinity,
    ) -> Result<RoomId, Refused> {
        let call = self.rooms.calls.get(name).map(|call| (call.number, &call.scenario));
        let room = self.rooms.by_name.get(name).and_then(|room| self.rooms.get(room));
        let known = call.or(room.map(|room| (room.call, &room.scenario)));
        if let Some((_, of)) = known.filter(|(_, of)| *of != scenario) {
            return Err(Refused::ScenarioOfRoom(of.clone()));
        }
        let number = known.map_or(id, |(number, _)| number);
        if affinity == Affinity::Session {
            let new = || Call { number, scenario: scenario.clone(), rooms: 0 };
            self.rooms.calls.entry(name.clone()).or_insert_with(new).rooms += 1;
        }
        Ok(number)
    }

    /// The last room of a call takes its number with it.
    pub(crate) fn leave_call(&mut self, room: &Room) {
        let Some((name, _)) = room.name.rsplit_once(APART) else {
            return;
        };
        if let Some(call) = self.rooms.calls.get_mut(name)
            && call.number == room.call
        {
            call.rooms -= 1;
            if call.rooms == 0 {
                self.rooms.calls.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_reads_as_a_session_apart_is_taken_for_one() {
        assert!(names_one_apart(&apart("conf", SessionId(7))));
        for room in ["conf", "conf~", "conf~s", "conf~7", "conf~s7x", "~", "conf~s7~a"] {
            assert!(!names_one_apart(room), "{room}");
        }
    }
}
