//! What control told: sessions come and go, legs are attached, plans change.

use std::time::Instant;

use super::command::{Command, Install, Report};
use super::session::{Loan, Session};
use super::source::{Source, watch};
use super::ways::Side;
use super::{COMMANDS_MAX, Worker, session};
use crate::flows::{Home, Key};

/// Commands obeyed before packets get their turn: about a millisecond of them.
const PER_TURN: usize = 1_024;

impl Worker {
    /// The bell rang: control told something.
    pub(super) fn hear_commands(&mut self, now: Instant) {
        self.bell.quiet();
        if self.obey_at_most(PER_TURN, now) {
            self.go_on_with(Source::Commands);
        }
    }

    /// What was told so far holds for what is read from now on.
    pub(super) fn take_commands(&mut self, now: Instant) {
        self.obey_at_most(COMMANDS_MAX, now);
    }

    /// Whether there may be more.
    fn obey_at_most(&mut self, most: usize, now: Instant) -> bool {
        let obeyed = (0..most).map_while(|_| {
            let command = self.commands.try_recv().ok()?;
            self.obey(command, now);
            Some(())
        });
        let may_have_more = obeyed.count() == most;
        // What waited for a leg goes before what is read from now on.
        self.send_waiting(now);
        may_have_more
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Install(install) => self.install(*install),
            Command::Attach { home, hop, leg } => {
                if let Some(session) = session(&mut self.sessions, home) {
                    session.attach(hop, leg);
                }
            }
            Command::Detach { home, hop } => {
                if let Some(session) = session(&mut self.sessions, home) {
                    session.detach(hop);
                }
            }
            Command::Plan { home, plan } => {
                self.with(home, now, |session, loan| session.set_plan(plan, loan));
            }
            Command::KeyFrame { home } => self.with(home, now, Session::ask_key_frame),
            Command::Remove { home } => self.remove(home, now),
            Command::Sign { node, message } => self.ways.sign(node, &message),
            Command::LimitBundles { node, size_max } => self.ways.limit_bundles(node, size_max),
            Command::Stop => self.stopped = true,
        }
    }

    fn with(&mut self, home: Home, now: Instant, act: impl FnOnce(&mut Session, &mut Loan<'_>)) {
        if let Some(session) = session(&mut self.sessions, home) {
            act(session, &mut Loan { ways: &mut self.ways, board: &self.board, now });
        }
    }

    fn install(&mut self, install: Install) {
        let slot = install.home.slot;
        for side in [Side::Rtp, Side::Rtcp] {
            let fd = install.ports.as_ref().and_then(|ports| ports.fd(side));
            if let Some(fd) = fd
                && let Err(error) = watch(&self.epoll, fd, Source::Port(slot, side))
            {
                tracing::warn!(%error, session = %install.session, "a session's port cannot be watched");
            }
        }
        let place = slot as usize;
        if self.sessions.len() <= place {
            self.sessions.resize_with(place + 1, || None);
        }
        let session = Session::new(install);
        if session.is_awake() {
            self.ways.awake.add(session.home);
        }
        self.sessions[place] = Some(Box::new(session));
    }

    fn remove(&mut self, home: Home, now: Instant) {
        if session(&mut self.sessions, home).is_none() {
            return;
        }
        let Some(mut session) = self.sessions[home.slot as usize].take() else {
            return;
        };
        for &(listener, address) in session.learned() {
            self.flows.remove(&Key::Udp { listener, address }, home);
        }
        if let Some(ports) = &mut session.ports {
            ports.flush(&self.ways.stamps, now);
        }
        session.tell_shed(&self.ways);
        let (mode, totals) = (session.mode(), session.final_totals(now));
        self.ways.report(Report::Removed { session: session.id, mode, totals });
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::Srtp;

    use super::*;
    use crate::worker::Client;

    #[test]
    fn a_slot_that_is_used_again_is_another_home() {
        let install = session::tests::install(Client::Stun, Srtp::Plain, 0);
        let home = install.home;
        let mut sessions = [Some(Box::new(Session::new(install)))];
        assert!(session(&mut sessions, home).is_some());
        let before = Home { generation: home.generation - 1, ..home };
        assert!(session(&mut sessions, before).is_none());
    }
}
