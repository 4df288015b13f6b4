//! The end of a world: all clients are heard, then the gateway shuts down.

use std::time::{Duration, Instant};

use super::World;
use crate::client::{Client, Phase};
use crate::worker::SessionState;

impl World<'_> {
    /// I9: at the end, after a time without faults, each client hears the others.
    pub(super) fn flows_at_the_end(&mut self) {
        let live = |client: &Client, now: Instant| {
            client.phase == Phase::Live
                && !client.mute
                && now - client.since > Duration::from_secs(4)
        };
        let stands = |state: &SessionState| state.route.load().first_usable(&self.board).is_some();
        let mut found = None;
        for (at, client) in
            self.clients.iter().enumerate().filter(|(_, client)| live(client, self.now))
        {
            let Some(state) =
                client.session.and_then(|id| self.sessions.get(id.0 as usize)?.as_deref())
            else {
                continue;
            };
            let lately = Duration::from_secs(2);
            if !stands(state) || self.checker.flow.rescued_within(state.room, lately, self.now) {
                continue;
            }
            let others = |(other, one): &(usize, &Client)| {
                *other != at
                    && one.join.room == client.join.room
                    && live(one, self.now)
                    && one.join.sends
            };
            for (other, _) in self.clients.iter().enumerate().filter(others) {
                let heard = client.heard.iter().find(|heard| heard.origin == other as u32);
                let packets = heard.map_or(0, |heard| heard.recent);
                if packets < 35 {
                    let id = state.id;
                    let text = format!(
                        "{id} (client {at}) heard {packets} of 50 packets of client {other} in the last second"
                    );
                    found.get_or_insert(("I9", text));
                }
            }
        }
        self.checker.note(found, self.now);
    }

    pub(super) fn close(&mut self) {
        self.ending = true;
        self.gateway.handle_shutdown(Duration::from_secs(1), self.now);
        self.settle();
        let end = self.now + Duration::from_secs(2);
        while self.step(end) {}
        self.now = end;
        self.checker.ended(&self.gateway, self.now);
    }
}
