//! What control told: sessions come and go, legs are attached, plans change.

use std::time::Instant;

use evenkeel_core::Hop;

use super::command::{Command, Install, Leg, Report};
use super::session::{Loan, Session};
use super::source::{Source, watch};
use super::ways::Side;
use super::{COMMANDS_MAX, Tags, Worker, session};
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
                    attach(session, &mut self.tags, hop, leg);
                }
            }
            Command::Detach { home, hop } => {
                let leg = session(&mut self.sessions, home).and_then(|session| session.detach(hop));
                if let Some(Leg::Trunk(tag)) = leg {
                    self.tags.remove(&tag);
                }
            }
            Command::Plan { home, plan } => {
                self.with(home, now, |session, loan| session.set_plan(plan, loan));
            }
            Command::KeyFrame { home } => self.with(home, now, Session::ask_key_frame),
            Command::Remove { home } => self.remove(home, now),
            Command::Sign { node, message } => self.ways.sign(node, &message),
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
        for (_, leg) in session.legs() {
            if let Leg::Trunk(tag) = leg {
                self.tags.remove(tag);
            }
        }
        for &(listener, address) in session.learned() {
            self.flows.remove(&Key::Udp { listener, address }, home);
        }
        if let Some(ports) = &mut session.ports {
            ports.flush(&self.ways.stamps, now);
        }
        session.tell_shed(&self.ways);
        self.ways.report(Report::Removed { session: session.id, totals: session.final_totals() });
    }
}

/// The session is open at the hop by this leg, and by no other any more.
fn attach(session: &mut Session, tags: &mut Tags, hop: Hop, leg: Leg) {
    if let Some(Leg::Trunk(tag)) = session.attach(hop, leg) {
        tags.remove(&tag);
    }
    if let Leg::Trunk(tag) = leg {
        tags.insert(tag, (session.home, hop));
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::{Incarnation, NodeId, Srtp};
    use evenkeel_media::trunk::Tag;

    use super::*;
    use crate::worker::Client;

    #[test]
    fn a_leg_that_takes_anothers_place_leaves_no_tag_of_it() {
        let install = session::tests::install(Client::Stun, Srtp::Plain, 3);
        let (home, mut tags) = (install.home, Tags::default());
        let mut session = Session::new(install);
        let hop = |node| Hop { node: NodeId(node), incarnation: Incarnation(1) };
        attach(&mut session, &mut tags, hop(0), Leg::Trunk(Tag(1)));
        attach(&mut session, &mut tags, hop(1), Leg::Trunk(Tag(2)));
        attach(&mut session, &mut tags, hop(0), Leg::Trunk(Tag(3)));
        assert_eq!(tags, Tags::from_iter([(Tag(2), (home, hop(1))), (Tag(3), (home, hop(0)))]));
        attach(&mut session, &mut tags, hop(0), Leg::Trunk(Tag(3)));
        assert!(tags.contains_key(&Tag(3)), "the same once more");
    }

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
