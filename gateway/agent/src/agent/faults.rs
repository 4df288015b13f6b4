//! Faults that a drill injected. Each ends after a time limit, because its drill may have died.

use std::time::Instant;

use evenkeel_media::trunk::message::{NodeFault, OrderOutcome};

use super::{AgentMachine, Io};

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

impl AgentMachine {
    pub(super) fn inject_fault(
        &mut self,
        how: NodeFault,
        now: Instant,
        io: &mut impl Io,
    ) -> OrderOutcome {
        if !self.settings.drills {
            return OrderOutcome::Forbidden;
        }
        let over = now + self.settings.drill_timeout;
        let done = match how {
            NodeFault::Kill | NodeFault::Hang | NodeFault::Wake => {
                let done = io.signal(how);
                if done {
                    self.faults.stopped = (how == NodeFault::Hang).then_some(over);
                }
                done
            }
            NodeFault::Cut | NodeFault::Heal if self.settings.sessions_max == 0 => false,
            NodeFault::Cut | NodeFault::Heal => {
                self.faults.cut = (how == NodeFault::Cut).then_some(over);
                true
            }
        };
        if done { OrderOutcome::Done } else { OrderOutcome::Unable }
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
            io.signal(NodeFault::Wake);
        }
    }

    /// Ends all faults when the agent exits.
    pub(crate) fn end_faults(&mut self, io: &mut impl Io) {
        self.faults.cut = None;
        if self.faults.stopped.take().is_some() {
            io.signal(NodeFault::Wake);
        }
    }
}
