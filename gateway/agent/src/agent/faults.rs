//! What a drill broke, and when that ends by itself: whoever broke it may be gone.

use std::time::Instant;

use evenkeel_media::trunk::message::{Break, Outcome};

use super::{Agent, Hands};

/// What is broken now, and until when.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Drilled {
    /// The way is cut.
    cut: Option<Instant>,
    /// The process stands still.
    hung: Option<Instant>,
}

impl Drilled {
    /// Whether no packet crosses.
    pub(super) fn is_cut(self) -> bool {
        self.cut.is_some()
    }
}

impl Agent {
    pub(super) fn break_it(&mut self, how: Break, now: Instant, hands: &mut impl Hands) -> Outcome {
        if !self.rules.drills {
            return Outcome::Forbidden;
        }
        let over = now + self.rules.drills_last;
        let able = match how {
            Break::Kill | Break::Hang | Break::Wake => {
                let able = hands.signal(how);
                if able {
                    self.drilled.hung = (how == Break::Hang).then_some(over);
                }
                able
            }
            Break::Cut | Break::Heal if self.rules.sessions_max == 0 => false,
            Break::Cut | Break::Heal => {
                self.drilled.cut = (how == Break::Cut).then_some(over);
                true
            }
        };
        if able { Outcome::Done } else { Outcome::Unable }
    }

    /// The process that stood still ended.
    pub(super) fn forget_hung(&mut self) {
        self.drilled.hung = None;
    }

    /// What nobody took back in time ends.
    pub(super) fn mend_late(&mut self, now: Instant, hands: &mut impl Hands) {
        let is_over = |until: &mut Instant| *until <= now;
        if self.drilled.cut.take_if(is_over).is_some() {
            hands.tell("drill: nobody healed the way, so it heals by itself");
        }
        if self.drilled.hung.take_if(is_over).is_some() {
            hands.tell("drill: nobody woke the process, so it wakes by itself");
            hands.signal(Break::Wake);
        }
    }

    /// The agent ends: nobody could take it back any more.
    pub(crate) fn mend(&mut self, hands: &mut impl Hands) {
        self.drilled.cut = None;
        if self.drilled.hung.take().is_some() {
            hands.signal(Break::Wake);
        }
    }
}
