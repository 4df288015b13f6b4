//! Outputs and timers: the parts push them here, in the order in which they decide.

use std::collections::VecDeque;
use std::time::Instant;

use crate::timer::{Timer, Timers};
use crate::{Event, Output};

#[derive(Default, Debug)]
pub(crate) struct Effects {
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) timers: Timers,
}

impl Effects {
    pub(crate) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.timers.set(timer, at);
    }

    pub(crate) fn set_if_idle(&mut self, timer: Timer, at: Instant) {
        self.timers.set_if_idle(timer, at);
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        self.timers.cancel(timer);
    }
}
