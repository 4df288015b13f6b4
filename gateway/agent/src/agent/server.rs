//! What the agent learns of the server, and tells.

use std::time::Instant;

use evenkeel_media::trunk::message::{Load, State};

use super::{Agent, Hands, LEASES_EVERY, Now};
use crate::check::Port;
use crate::sessions::Place;

impl Agent {
    /// The process ended, or runs.
    pub(crate) fn handle_process(&mut self, runs: bool, now: Now, hands: &mut impl Hands) {
        if !runs {
            self.forget_hung();
        }
        self.changes(now, hands, |agent| agent.runs = runs);
    }

    /// How the media port was found.
    pub(crate) fn handle_port(&mut self, port: Port, now: Now, hands: &mut impl Hands) {
        self.changes(now, hands, |agent| agent.port = port);
    }

    /// The node drains from now on, or serves again.
    pub(crate) fn handle_drain(&mut self, draining: bool, now: Now, hands: &mut impl Hands) {
        self.changes(now, hands, |agent| agent.draining = draining);
    }

    /// How loaded the server was found, in thousandths.
    pub(crate) fn handle_measured(&mut self, permille: u16) {
        self.measured = permille;
    }

    /// Something changes; where it changes the state, gateways are told at once.
    fn changes(&mut self, now: Now, hands: &mut impl Hands, change: impl FnOnce(&mut Agent)) {
        let before = self.state();
        change(self);
        let state = self.state();
        if state == before {
            return;
        }
        if !self.drilled.is_cut() {
            let load = self.load();
            let (clocks, secret) = ((now.instant, now.unix_us), &self.rules.secret);
            let send = |to, notice: &[u8]| hands.send(to, notice);
            self.counters.notices += self.notices.tell(load, secret, clocks, send);
        }
        if state == State::Gone {
            // What the server knew of them died with it. Who keeps one open is told that it is unknown.
            let all: Vec<Place> = self.sessions.all().map(|(place, _)| place).collect();
            all.into_iter().for_each(|place| self.end(place, hands));
        }
    }

    /// Where nobody watches the process, a port that was checked and is closed is as good as one that died. Where it is
    /// known to run, it may be opening that port anew: that is [mute](Agent::is_mute).
    pub(super) fn state(&self) -> State {
        if !self.runs || (self.port == Port::Closed && !self.rules.watches) {
            State::Gone
        } else if self.draining {
            State::Draining
        } else {
            State::Serving
        }
    }

    /// A server whose port does not answer may come to itself: of that nothing is said, and nobody vouches for it.
    pub(super) fn is_mute(&self) -> bool {
        self.port != Port::Answers && self.state() != State::Gone
    }

    pub(super) fn load(&self) -> Load {
        let sessions = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        let full = u64::from(self.rules.sessions_max);
        let permille = (u64::from(sessions) * 1_000).checked_div(full).unwrap_or(0);
        let permille = u16::try_from(permille).unwrap_or(u16::MAX).max(self.measured);
        let vouched = self.rules.checks && self.port == Port::Answers;
        Load { permille, state: self.state(), sessions, vouched }
    }

    /// How many sessions are open.
    pub(crate) fn open_sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Ends leases that nobody renewed and drills that nobody took back, and says again what gateways did not note.
    pub(crate) fn handle_timeout(&mut self, now: Now, hands: &mut impl Hands) {
        self.mend_late(now.instant, hands);
        let send = |to, notice: &[u8]| hands.send(to, notice);
        self.counters.notices += self.notices.handle_timeout(now.instant, send);
        if now.instant.duration_since(self.leases_seen) < LEASES_EVERY {
            return;
        }
        self.leases_seen = now.instant;
        let over = self.sessions.all().filter(|(_, session)| session.expires <= now.instant);
        let over: Vec<Place> = over.map(|(place, _)| place).collect();
        for place in over {
            self.counters.expired += 1;
            self.end(place, hands);
        }
        let known: std::collections::BTreeSet<_> =
            self.sessions.all().map(|(_, session)| session.reply_to).collect();
        self.bundles.keep(|address| known.contains(&address));
    }

    /// When to call [`handle_timeout`](Agent::handle_timeout) next.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let leases = self.leases_seen + LEASES_EVERY;
        self.notices.poll_timeout().map_or(leases, |notices| notices.min(leases))
    }
}
