//! Faults that a drill injected. Each ends after a time limit, because its drill may have died.

use std::time::Instant;

use evenkeel_media::trunk::message::{Break, Outcome};

use super::{Agent, Io};

#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Faults {
    /// Time until which the trunk link is cut.
    cut: Option<Instant>,
    /// Time until which the process is stopped.
    stopped: Option<Instant>,
}

impl Faults {
    pub(super) fn is_link_cut(self) -> bool {
        self.cut.is_some()
    }
}

impl Agent {
    pub(super) fn inject_fault(&mut self, how: Break, now: Instant, io: &mut impl Io) -> Outcome {
        if !self.settings.drills {
            return Outcome::Forbidden;
        }
        let over = now + self.settings.drill_timeout;
        let done = match how {
            Break::Kill | Break::Hang | Break::Wake => {
                let done = io.signal(how);
                if done {
                    self.faults.stopped = (how == Break::Hang).then_some(over);
                }
                done
            }
            Break::Cut | Break::Heal if self.settings.sessions_max == 0 => false,
            Break::Cut | Break::Heal => {
                self.faults.cut = (how == Break::Cut).then_some(over);
                true
            }
        };
        if done { Outcome::Done } else { Outcome::Unable }
    }

    pub(super) fn forget_stopped(&mut self) {
        self.faults.stopped = None;
    }

    pub(super) fn end_expired_faults(&mut self, now: Instant, io: &mut impl Io) {
        let is_over = |until: &mut Instant| *until <= now;
        if self.faults.cut.take_if(is_over).is_some() {
            io.log("drill expired: link restored");
        }
        if self.faults.stopped.take_if(is_over).is_some() {
            io.log("drill expired: process woken");
            io.signal(Break::Wake);
        }
    }

    /// Ends all faults when the agent exits.
    pub(crate) fn end_faults(&mut self, io: &mut impl Io) {
        self.faults.cut = None;
        if self.faults.stopped.take().is_some() {
            io.signal(Break::Wake);
        }
    }
}
