//! Rungs of a session's ladder: selects the next one down, and the next one up.

use evenkeel_plugin_sdk::prelude::*;

use crate::climb::UpgradeAttempt;
use crate::network::Remedy;
use crate::{DegradeLadder, LadderMemory, LadderStep};

/// The lowest cap if the scenario sets none: less carries no voice. kbit/s.
const FLOOR: u32 = 24;

/// An action that goes one rung down or up.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Rung {
    /// Caps the session at `kbps`; `of` is the bit rate before the first cap.
    Cap {
        kbps: u32,
        of: u32,
    },
    LiftCap,
    VoiceOnly,
    RestoreVideo,
}

pub(crate) struct Ladder<'a> {
    pub(crate) settings: &'a DegradeLadder,
    pub(crate) session: &'a Session<'a, LadderMemory>,
}

impl Ladder<'_> {
    /// Returns the next rung down, from the first step that has a rung left, would help, and is granted by the
    /// operator.
    pub(crate) fn down(
        &self,
        memory: &LadderMemory,
        remedy: Remedy,
        may: impl Fn(Op) -> bool,
    ) -> Option<Rung> {
        self.settings.steps.iter().find_map(|step| match step {
            LadderStep::Cap if remedy.cap && may(Op::Cap) => self.lower_cap(memory),
            LadderStep::VoiceOnly if remedy.voice_only && may(Op::VoiceOnly) => {
                self.drop_video(memory)
            }
            LadderStep::Cap | LadderStep::VoiceOnly => None,
        })
    }

    /// Reverts the last upgrade: to the cap before it, or to voice only. Returns `None` if the state has changed
    /// meanwhile.
    pub(crate) fn back(
        &self,
        memory: &LadderMemory,
        climb: UpgradeAttempt,
        may: impl Fn(Op) -> bool,
    ) -> Option<Rung> {
        let steps = &self.settings.steps;
        if climb.from == 0 {
            let may = steps.contains(&LadderStep::VoiceOnly) && may(Op::VoiceOnly);
            return self.drop_video(memory).filter(|_| may);
        }
        let kbps = climb.from.min(self.ceiling(memory).unwrap_or(u32::MAX));
        let is_lower = memory.cap == 0 || kbps < memory.cap;
        let uncapped = Some(memory.uncapped).filter(|&kbps| kbps > 0);
        let of = uncapped.or(self.uncapped(memory)).unwrap_or(kbps).max(kbps);
        let may = steps.contains(&LadderStep::Cap) && may(Op::Cap);
        (may && is_lower).then_some(Rung::Cap { kbps, of })
    }

    /// Returns the next rung up, from the last step taken. Steps that were removed from the settings are reverted
    /// first.
    ///
    /// Actions of an earlier policy are reverted as well. Its cap is visible in `cap`; dropped video is visible only in
    /// the current `rung`.
    pub(crate) fn up(&self, memory: &LadderMemory) -> Option<Rung> {
        let steps = &self.settings.steps;
        let gone = [LadderStep::VoiceOnly, LadderStep::Cap]
            .into_iter()
            .filter(|step| !steps.contains(step));
        gone.chain(steps.iter().rev().copied()).find_map(|step| match step {
            LadderStep::Cap => self.raise_cap(memory),
            LadderStep::VoiceOnly => {
                let taken_by_another = memory.cap == 0 && self.session.rung() > Some(0);
                (memory.voice_only || taken_by_another).then_some(Rung::RestoreVideo)
            }
        })
    }

    fn lower_cap(&self, memory: &LadderMemory) -> Option<Rung> {
        let floor = self.session.floor_kbps().filter(|&kbps| kbps > 0).unwrap_or(FLOOR);
        let ceiling = self.ceiling(memory);
        let (from, of) = if memory.cap > 0 {
            (memory.cap, memory.uncapped.max(memory.cap))
        } else {
            let uncapped = self.uncapped(memory)?;
            (uncapped, uncapped)
        };
        let kbps = (f64::from(from) * self.settings.cap_factor) as u32;
        let kbps = kbps.min(ceiling.unwrap_or(kbps)).max(floor);
        (from > floor).then_some(Rung::Cap { kbps, of })
    }

    /// Returns the bit rate without a cap or, if unknown, the limit.
    fn uncapped(&self, memory: &LadderMemory) -> Option<u32> {
        let sends = self.session.bitrate_up_kbps().filter(|&kbps| kbps > 0);
        sends.into_iter().chain(self.ceiling(memory)).min()
    }

    fn raise_cap(&self, memory: &LadderMemory) -> Option<Rung> {
        if memory.cap == 0 || memory.cap == memory.allowed {
            return None;
        }
        let kbps = (f64::from(memory.cap) * self.settings.raise_factor).ceil() as u32;
        // The bit rate before the cap suffices. If it is unknown, the ceiling applies.
        let ceiling = self.ceiling(memory).unwrap_or(u32::MAX);
        let of = if memory.uncapped > 0 { memory.uncapped.min(ceiling) } else { ceiling };
        match memory.allowed {
            _ if kbps < of => Some(Rung::Cap { kbps, of }),
            0 => Some(Rung::LiftCap),
            allowed => Some(Rung::Cap { kbps: allowed, of }),
        }
    }

    /// Returns the highest allowed rate: the lower limit of scenario and admission.
    fn ceiling(&self, memory: &LadderMemory) -> Option<u32> {
        let allowed = Some(memory.allowed);
        [self.session.ceiling_kbps(), allowed].into_iter().flatten().filter(|&kbps| kbps > 0).min()
    }

    fn drop_video(&self, memory: &LadderMemory) -> Option<Rung> {
        let there = self.session.video() == Some(true) && !memory.voice_only;
        there.then_some(Rung::VoiceOnly)
    }
}
