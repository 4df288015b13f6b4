//! State of the media server, and the notices about it.

use std::time::Instant;

use evenkeel_media::trunk::message::{NodeLoad, ServingState};

use super::{AgentMachine, BatchTime, Io, LEASES_EVERY};
use crate::check::PortState;
use crate::sessions::SessionSlot;

impl AgentMachine {
    pub(crate) fn handle_process(&mut self, runs: bool, now: BatchTime, io: &mut impl Io) {
        if !runs {
            self.forget_stopped();
        }
        self.change(now, io, |agent| agent.runs = runs);
    }

    pub(crate) fn handle_port(&mut self, port: PortState, now: BatchTime, io: &mut impl Io) {
        self.change(now, io, |agent| agent.port = port);
    }

    pub(crate) fn handle_drain(&mut self, draining: bool, now: BatchTime, io: &mut impl Io) {
        self.change(now, io, |agent| agent.draining = draining);
    }

    pub(crate) fn handle_measured(&mut self, permille: u16) {
        self.measured = permille;
    }

    /// Applies a change, and notifies gateways if the state differs afterwards.
    fn change(&mut self, now: BatchTime, io: &mut impl Io, change: impl FnOnce(&mut AgentMachine)) {
        let before = self.state();
        change(self);
        let state = self.state();
        if state == before {
            return;
        }
        if !self.faults.is_link_cut() {
            let load = self.load();
            let (clocks, secret) = ((now.instant, now.unix_us), &self.settings.secret);
            let send = |to, notice: &[u8]| io.send(to, notice);
            self.counters.notices += self.notices.send(load, secret, clocks, send);
        }
        if state == ServingState::Gone {
            // The server's sessions died with it. A gateway that renews one gets the answer that it is unknown.
            let all: Vec<SessionSlot> = self.sessions.all().map(|(slot, _)| slot).collect();
            all.into_iter().for_each(|slot| self.end(slot, io));
        }
    }

    /// With a watched process, a server may bind a closed port again; until then the port is
    /// [silent](Agent::is_port_silent). Without a watched process, a closed port counts as a dead server.
    pub(super) fn state(&self) -> ServingState {
        if !self.runs || (self.port == PortState::Closed && !self.settings.has_process) {
            ServingState::Gone
        } else if self.draining {
            ServingState::Draining
        } else {
            ServingState::Serving
        }
    }

    /// Returns whether the port is silent while the server may still recover: probes are not answered, and no notice is
    /// sent.
    pub(super) fn is_port_silent(&self) -> bool {
        self.port != PortState::Up && self.state() != ServingState::Gone
    }

    pub(super) fn load(&self) -> NodeLoad {
        let sessions = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        let full = u64::from(self.settings.sessions_max);
        let permille = (u64::from(sessions) * 1_000).checked_div(full).unwrap_or(0);
        let permille = u16::try_from(permille).unwrap_or(u16::MAX).max(self.measured);
        let vouched = self.settings.has_check && self.port == PortState::Up;
        NodeLoad { permille, state: self.state(), sessions, vouched }
    }

    pub(crate) fn open_sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Ends expired leases and faults, and retransmits notices that were not acknowledged.
    pub(crate) fn handle_timeout(&mut self, now: BatchTime, io: &mut impl Io) {
        self.end_expired_faults(now.instant, io);
        let send = |to, notice: &[u8]| io.send(to, notice);
        self.counters.notices += self.notices.handle_timeout(now.instant, send);
        if now.instant.duration_since(self.leases_checked) < LEASES_EVERY {
            return;
        }
        self.leases_checked = now.instant;
        let over = self.sessions.all().filter(|(_, session)| session.expires <= now.instant);
        let over: Vec<SessionSlot> = over.map(|(slot, _)| slot).collect();
        for slot in over {
            self.counters.expired += 1;
            self.end(slot, io);
        }
        let known: std::collections::BTreeSet<_> =
            self.sessions.all().map(|(_, session)| session.reply_to).collect();
        self.bundles.keep(|address| known.contains(&address));
        if let Some(seal) = &mut self.seal {
            seal.keep(|address| known.contains(&address));
        }
    }

    /// Time of the next call of [`handle_timeout`](Agent::handle_timeout).
    pub(crate) fn poll_timeout(&self) -> Instant {
        let leases = self.leases_checked + LEASES_EVERY;
        self.notices.poll_timeout().map_or(leases, |notices| notices.min(leases))
    }
}
