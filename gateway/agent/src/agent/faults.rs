//! Faults that a drill injected. Each ends after a time limit, because its drill may have died.

use std::time::Instant;

use evenkeel_media::trunk::message::NodeFault;

use super::io::Io;

#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Faults {
    /// Time until which the trunk link is cut.
    cut: Option<Instant>,
    /// Time until which the process is stopped.
    pub(super) stopped: Option<Instant>,
}

impl Faults {
    pub(super) fn is_link_cut(self) -> bool {
        self.cut.is_some()
    }

    /// Injects a fault that ends at `over`, or ends one. Returns false if there is no process, or no leg to cut.
    pub(super) fn inject(
        &mut self,
        how: NodeFault,
        over: Instant,
        has_legs: bool,
        io: &mut impl Io,
    ) -> bool {
        match how {
            NodeFault::Kill | NodeFault::Hang | NodeFault::Wake => {
                let done = io.signal(how);
                if done {
                    self.stopped = (how == NodeFault::Hang).then_some(over);
                }
                done
            }
            NodeFault::Cut | NodeFault::Heal => {
                if has_legs {
                    self.cut = (how == NodeFault::Cut).then_some(over);
                }
                has_legs
            }
        }
    }

    pub(super) fn end_expired(&mut self, now: Instant, io: &mut impl Io) {
        let is_over = |until: &mut Instant| *until <= now;
        if self.cut.take_if(is_over).is_some() {
            io.log("drill expired: link restored");
        }
        if self.stopped.take_if(is_over).is_some() {
            io.log("drill expired: process woken");
            io.signal(NodeFault::Wake);
        }
    }

    /// Ends all faults when the agent exits.
    pub(crate) fn end(&mut self, io: &mut impl Io) {
        self.cut = None;
        if self.stopped.take().is_some() {
            io.signal(NodeFault::Wake);
        }
    }
}
