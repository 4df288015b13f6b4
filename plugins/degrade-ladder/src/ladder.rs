//! Rungs of a session's ladder: selects the next one down, and the next one up.

use evenkeel_plugin_sdk::prelude::*;

use crate::climb::UpgradeAttempt;
use crate::memory::PathMemory;
use crate::network::{Direction, Remedy};
use crate::{ActionReason, DegradeLadder, LadderMemory, LadderStep};

/// The lowest cap if the scenario sets none: less carries no voice. kbit/s.
const FLOOR: u32 = 24;

/// Share of the rate above which a cap would save nothing worth a rung.
const RUNG_BELOW: f64 = 0.95;

/// An action that goes one rung down or up.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Rung {
    /// Caps the direction at `kbps`; `of` is the bit rate before the first cap.
    Cap {
        kbps: u32,
        of: u32,
    },
    LiftCap,
    /// Replaces the cap of an earlier policy on both directions; 0 lifts it.
    EarlierCap {
        kbps: u32,
    },
    VoiceOnly,
    RestoreVideo,
    /// Sets the level of `thin`, one higher or lower than before.
    Thin {
        level: u8,
    },
    Park,
    Resume,
    End,
}

/// The ladder of a direction.
#[derive(Clone, Copy)]
pub(crate) struct Ladder<'a> {
    pub(crate) settings: &'a DegradeLadder,
    pub(crate) session: &'a Session<'a, LadderMemory>,
    pub(crate) direction: Direction,
}

impl Ladder<'_> {
    /// Returns the next rung down, from the first step that has a rung left, would help, and is granted by the
    /// operator.
    pub(crate) fn down(
        &self,
        memory: &LadderMemory,
        remedy: Remedy,
        why: ActionReason,
        may: impl Fn(Op) -> bool,
    ) -> Option<Rung> {
        let path = memory.path(self.direction);
        self.settings.steps.iter().find_map(|step| match step {
            LadderStep::Cap if remedy.cap && may(self.direction.cap()) => self.lower_cap(path, why),
            LadderStep::VoiceOnly if remedy.voice_only && may(Op::VoiceOnly) => {
                self.drop_video(memory)
            }
            LadderStep::Thin if remedy.thin && may(Op::Thin) => self.drop_frames(memory),
            LadderStep::Park if remedy.park && may(Op::Park) => self.suspend(memory),
            LadderStep::End if remedy.park && may(Op::End) => Some(Rung::End),
            LadderStep::Cap
            | LadderStep::VoiceOnly
            | LadderStep::Thin
            | LadderStep::Park
            | LadderStep::End => None,
        })
    }

    /// Reverts the last upgrade: to the cap before it, to fewer frames, to voice only or to no media. Returns `None` if the state has changed
    /// meanwhile.
    pub(crate) fn back(
        &self,
        memory: &LadderMemory,
        climb: UpgradeAttempt,
        may: impl Fn(Op) -> bool,
    ) -> Option<Rung> {
        if !self.settings.steps.contains(&climb.step) {
            return None;
        }
        match climb.step {
            LadderStep::Cap if may(self.direction.cap()) => self.lower_again(memory, climb),
            LadderStep::VoiceOnly if may(Op::VoiceOnly) => self.drop_video(memory),
            LadderStep::Thin if may(Op::Thin) => {
                let level = climb.from as u8;
                self.drop_frames(memory)
                    .filter(|_| memory.thin < level)
                    .map(|_| Rung::Thin { level })
            }
            LadderStep::Park if may(Op::Park) => self.suspend(memory),
            LadderStep::Cap
            | LadderStep::VoiceOnly
            | LadderStep::Thin
            | LadderStep::Park
            | LadderStep::End => None,
        }
    }

    fn lower_again(&self, memory: &LadderMemory, climb: UpgradeAttempt) -> Option<Rung> {
        let path = memory.path(self.direction);
        let kbps = climb.from.min(self.ceiling().unwrap_or(u32::MAX));
        let is_lower = path.cap == 0 || kbps < path.cap;
        let uncapped = Some(path.uncapped).filter(|&kbps| kbps > 0);
        let of = uncapped.or(self.uncapped(path)).unwrap_or(kbps).max(kbps);
        is_lower.then_some(Rung::Cap { kbps, of })
    }

    /// The upgrade that this rung tries; `None` for one of both directions: the next downgrade is one of this direction.
    pub(crate) fn attempt(&self, rung: Rung, memory: &LadderMemory) -> Option<UpgradeAttempt> {
        let (step, from, progress) = match rung {
            Rung::Cap { .. } | Rung::LiftCap => {
                let cap = memory.path(self.direction).cap;
                (LadderStep::Cap, cap, cap)
            }
            Rung::Thin { level } => {
                (LadderStep::Thin, memory.thin.into(), 2 - u32::from(level).min(2))
            }
            Rung::RestoreVideo => (LadderStep::VoiceOnly, 1, 0),
            Rung::Resume => (LadderStep::Park, 1, 0),
            Rung::EarlierCap { .. } | Rung::VoiceOnly | Rung::Park | Rung::End => return None,
        };
        let later = self.settings.steps.iter().rev().position(|other| *other == step);
        let height = (later.unwrap_or(0) as u32) << 24 | progress.min((1 << 24) - 1);
        Some(UpgradeAttempt { at: self.session.now(), step, from, height })
    }

    /// Returns the next rung up, from the last step taken. Steps that were removed from the settings are reverted
    /// first.
    ///
    /// Actions of an earlier policy are reverted as well. Video that it dropped is visible only in the current `rung`; a session that it
    /// suspended goes on if the operator grants that action.
    pub(crate) fn up(&self, memory: &LadderMemory, may: impl Fn(Op) -> bool) -> Option<Rung> {
        let steps = &self.settings.steps;
        let gone = [LadderStep::Park, LadderStep::VoiceOnly, LadderStep::Thin, LadderStep::Cap]
            .into_iter()
            .filter(|step| !steps.contains(step));
        let rung = gone.chain(steps.iter().rev().copied()).find_map(|step| match step {
            LadderStep::Cap => self.raise_cap(memory.path(self.direction)),
            LadderStep::VoiceOnly => {
                let is_dropped = memory.voice_only || self.is_dropped_by_another(memory);
                (is_dropped && self.direction == Direction::Down).then_some(Rung::RestoreVideo)
            }
            LadderStep::Thin => {
                let is_thinned = memory.thin > 0 && self.direction == Direction::Down;
                let level =
                    if self.session.thin() == Some(0) { 0 } else { memory.thin.saturating_sub(1) };
                is_thinned.then_some(Rung::Thin { level })
            }
            LadderStep::Park => {
                let is_parked = memory.path(self.direction).parked && may(Op::Park);
                is_parked.then_some(Rung::Resume)
            }
            LadderStep::End => None,
        });
        rung.or(memory.earlier_cap.map(|kbps| Rung::EarlierCap { kbps }))
    }

    /// The session is on a rung that is none of the other actions.
    fn is_dropped_by_another(&self, memory: &LadderMemory) -> bool {
        let session = self.session;
        let caps = [session.cap_kbps(), session.cap_up_kbps(), session.cap_down_kbps()];
        let is_capped = caps.into_iter().flatten().any(|kbps| kbps > 0);
        let is_thinned = session.thin().map_or(memory.thin > 0, |level| level > 0);
        let is_parked = session.park().unwrap_or(memory.up.parked || memory.down.parked);
        let others: u32 = [is_capped, is_thinned, is_parked].into_iter().map(u32::from).sum();
        session.rung() > Some(others)
    }

    /// A cap below what the path carries. Loss may be random, and jitter inherent, so neither takes more than a share of the rate.
    fn lower_cap(&self, path: &PathMemory, why: ActionReason) -> Option<Rung> {
        let floor = self.session.floor_kbps().filter(|&kbps| kbps > 0).unwrap_or(FLOOR);
        let (from, of) = match path.cap {
            0 => {
                let uncapped = self.uncapped(path)?;
                (uncapped, uncapped)
            }
            cap => (cap, path.uncapped.max(cap)),
        };
        let carried = self.carried(path).map_or(f64::from(from), |kbps| kbps.min(from.into()));
        let missing = f64::from(self.direction.missing_ppm(self.session).unwrap_or(0)) / 1e6;
        let base = if path.helped > 0 { path.helped } else { of };
        let kept = match why {
            ActionReason::Loss => f64::from(base) * (1.0 - self.settings.cut_per_loss * missing),
            ActionReason::Jitter => f64::from(of) * self.settings.cap_factor,
            ActionReason::Queue | ActionReason::Recovered | ActionReason::Relapse => 0.0,
        };
        let kbps = (carried * self.settings.cap_factor).max(kept).round() as u32;
        let kbps = kbps.min(self.ceiling().unwrap_or(kbps)).max(floor);
        let is_rung = f64::from(kbps) <= f64::from(from) * RUNG_BELOW;
        is_rung.then_some(Rung::Cap { kbps, of })
    }

    /// Returns the share of packets that the path loses, limited so that it can divide.
    fn lost(&self) -> f64 {
        let ppm = self.direction.loss_ppm(self.session).unwrap_or(0);
        (f64::from(ppm) / 1e6).min(0.99)
    }

    /// Returns the bit rate that arrives at the end of the path.
    fn carried(&self, path: &PathMemory) -> Option<f64> {
        let rate = Some(f64::from(path.rate)).filter(|_| path.rate > 0)?;
        Some(match self.direction {
            Direction::Up => rate,
            Direction::Down => rate * (1.0 - self.lost()),
        })
    }

    /// Returns the bit rate without a cap or, if unknown, the limit.
    fn uncapped(&self, path: &PathMemory) -> Option<u32> {
        let sent =
            Some(f64::from(path.rate)).filter(|_| path.rate > 0).map(|rate| match self.direction {
                Direction::Up => (rate / (1.0 - self.lost())).round() as u32,
                Direction::Down => path.rate,
            });
        sent.into_iter().chain(self.ceiling()).min()
    }

    fn raise_cap(&self, path: &PathMemory) -> Option<Rung> {
        if path.cap == 0 {
            return None;
        }
        let kbps = (f64::from(path.cap) * self.settings.raise_factor).ceil() as u32;
        // The bit rate before the cap suffices. If it is unknown, the ceiling applies.
        let ceiling = self.ceiling().unwrap_or(u32::MAX);
        let of = if path.uncapped > 0 { path.uncapped.min(ceiling) } else { ceiling };
        Some(if kbps < of { Rung::Cap { kbps, of } } else { Rung::LiftCap })
    }

    /// Returns the highest allowed rate: the lower limit of the scenario, and of the cap on both directions.
    fn ceiling(&self) -> Option<u32> {
        let limits = [self.session.ceiling_kbps(), self.session.cap_kbps()];
        limits.into_iter().flatten().filter(|&kbps| kbps > 0).min()
    }

    /// The session is sent video.
    fn is_watched(&self, memory: &LadderMemory) -> bool {
        self.session.video() == Some(true) && !memory.voice_only
    }

    fn drop_video(&self, memory: &LadderMemory) -> Option<Rung> {
        self.is_watched(memory).then_some(Rung::VoiceOnly)
    }

    /// The next level of `thin`, unless the last one had no effect: then the frames of this video cannot be told apart.
    fn drop_frames(&self, memory: &LadderMemory) -> Option<Rung> {
        let has_effect = memory.thin == 0 || self.session.thin() != Some(0);
        let helps = self.is_watched(memory) && memory.thin < 2 && has_effect;
        helps.then_some(Rung::Thin { level: memory.thin + 1 })
    }

    fn suspend(&self, memory: &LadderMemory) -> Option<Rung> {
        (!memory.up.parked && !memory.down.parked).then_some(Rung::Park)
    }
}
