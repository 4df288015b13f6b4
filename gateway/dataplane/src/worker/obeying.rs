//! What control told: sessions come and go, legs are attached, plans change.

use std::net::UdpSocket;
use std::time::Instant;

use evenkeel_core::NodeId;

use super::command::{Command, Install, Report};
use super::egress::{Side, Trunk};
use super::session::{Loan, Session};
use super::source::{Source, watch};
use super::{COMMANDS_MAX, Worker};
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
                self.sessions.lend(home, |session| session.attach(hop, leg));
            }
            Command::Detach { home, hop } => {
                self.sessions.lend(home, |session| session.detach(hop));
            }
            Command::Plan { home, plan } => {
                self.with(home, now, |session, loan| session.set_plan(plan, loan));
            }
            Command::KeyFrame { home } => self.with(home, now, Session::ask_key_frame),
            #[cfg(any(test, feature = "fault-injection"))]
            Command::Panic { home } => {
                self.sessions.lend(home, |session| session.panics = true);
            }
            Command::Remove { home } => self.remove(home, now),
            Command::Sign { node, message } => self.ways.sign(node, &message),
            Command::LimitBundles { node, size_max } => self.ways.limit_bundles(node, size_max),
            Command::Reach { node, trunk } => self.reach(node, trunk),
            Command::Forget { node } => self.ways.forget_node(node),
            Command::Stop => self.stopped = true,
        }
    }

    fn reach(&mut self, node: NodeId, trunk: UdpSocket) {
        if let Err(error) = watch(&self.epoll, &trunk, Source::Trunk(node)) {
            // Probes go another way: without this word nobody would know why nothing comes back.
            tracing::error!(%node, %error, "nothing is heard of the node");
        }
        self.ways.reach(node, Trunk::new(trunk));
    }

    fn with(&mut self, home: Home, now: Instant, act: impl FnOnce(&mut Session, &mut Loan<'_>)) {
        let loan = &mut Loan { ways: &mut self.ways, board: &self.board, now };
        self.sessions.lend(home, |session| act(session, loan));
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
        let session = Session::new(install);
        if session.is_awake() {
            self.ways.awake.add(session.home);
        }
        self.sessions.put(session);
    }

    fn remove(&mut self, home: Home, now: Instant) {
        let (flows, ways) = (&self.flows, &self.ways);
        self.sessions.lend(home, |session| {
            for &(listener, address) in session.learned() {
                flows.remove(&Key::Udp { listener, address }, home);
            }
            if let Some(ports) = &mut session.ports {
                ports.flush(&ways.stamps, now);
            }
            session.tell_shed(ways);
            let (mode, totals) = (session.mode(), session.final_totals(now));
            ways.report(Report::Removed { session: session.id, mode, totals });
        });
        self.sessions.remove(home);
    }
}
