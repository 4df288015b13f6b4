//! The degradation actions of the contract, each in a file of its own.

mod cap;
mod cap_down;
mod cap_up;
mod end;
mod layer;
mod park;
mod thin;
mod voice_only;

use crate::action::Action;
use crate::registry::Op;

/// The action of this number of the contract. The native ladder steps down in the order of the numbers, and up in reverse.
pub fn of(op: Op) -> &'static dyn Action {
    match op {
        Op::Cap => &cap::Cap,
        Op::VoiceOnly => &voice_only::VoiceOnly,
        Op::CapUp => &cap_up::CapUp,
        Op::CapDown => &cap_down::CapDown,
        Op::Thin => &thin::Thin,
        Op::Park => &park::Park,
        Op::End => &end::End,
        Op::Layer => &layer::Layer,
    }
}
