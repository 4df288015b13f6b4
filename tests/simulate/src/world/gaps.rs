//! Gaps at receivers during faults.

use std::time::{Duration, Instant};

use super::World;
use crate::client::{Phase, Watch};
use crate::worker::SessionState;

impl World<'_> {
    /// Assigns further gaps at the nodes of this fault to it.
    pub(super) fn begin_gaps_of(&mut self, number: usize) {
        let fault = &self.script.faults[number].fault;
        let hit = self.nodes_of(fault);
        let everybody = hit.is_empty();
        for at in 0..self.clients.len() {
            let Some(id) = self.clients[at].session else { continue };
            let Some(state) = self.sessions.get(id.0 as usize).and_then(Option::as_deref) else {
                continue;
            };
            let stands =
                state.route.load().first_usable(&self.board).map(|(hop, _)| hop.node.0 as usize);
            if !everybody && !stands.is_some_and(|node| hit.contains(&node)) {
                continue;
            }
            for place in 0..self.clients[at].heard.len() {
                self.close_watch(at, place);
                let recent = self.now - self.clients[at].heard[place].last < Duration::from_secs(1);
                if recent {
                    let watch = Watch { episode: number, worst: Duration::ZERO, lost: 0 };
                    self.clients[at].heard[place].watch = Some(watch);
                }
            }
        }
    }

    pub(super) fn end_gaps_of(&mut self, number: usize) {
        for at in 0..self.clients.len() {
            for place in 0..self.clients[at].heard.len() {
                if self.clients[at].heard[place].watch.is_some_and(|watch| watch.episode == number)
                {
                    self.close_watch(at, place);
                }
            }
        }
    }

    pub(super) fn end_gaps(&mut self) {
        let lost = |state: &SessionState| state.route.load().first_usable(&self.board).is_none();
        let live = self.clients.iter().filter(|client| client.phase == Phase::Live);
        let states =
            live.filter_map(|client| self.sessions.get(client.session?.0 as usize)?.as_deref());
        self.outcome.homeless = states.filter(|state| lost(state)).count() as u64;
        for at in 0..self.clients.len() {
            for place in 0..self.clients[at].heard.len() {
                self.close_watch(at, place);
                let heard = &self.clients[at].heard[place];
                if self.both_live(at, heard.origin as usize, heard.last) {
                    let gap = self.now.saturating_duration_since(heard.last);
                    if gap > Duration::from_millis(60) {
                        self.outcome.outage += gap;
                    }
                }
            }
        }
    }

    /// True if receiver and sender were both live since then.
    fn both_live(&self, at: usize, origin: usize, since: Instant) -> bool {
        let live = |client: usize| {
            let client = &self.clients[client];
            client.phase == Phase::Live && !client.mute && client.since <= since
        };
        let room = self.clients[at].join.room;
        let alone = !self.clients.iter().enumerate().any(|(other, client)| {
            other != at && client.join.room == room && client.phase == Phase::Live
        });
        live(at) && live(origin) && (at != origin || alone)
    }

    fn close_watch(&mut self, at: usize, place: usize) {
        let heard = &mut self.clients[at].heard[place];
        let (last, origin) = (heard.last, heard.origin as usize);
        let Some(mut watch) = heard.watch.take() else { return };
        if self.both_live(at, origin, last) {
            watch.worst = watch.worst.max(self.now.saturating_duration_since(last));
        }
        if watch.worst > Duration::ZERO {
            self.outcome.gap(watch.episode, watch.worst, watch.lost);
        }
    }
}
