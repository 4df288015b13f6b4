//! Which layer passes: the highest that the path, the cap and the policy admit.
//!
//! Layers are ordered by their measured rates, since neither RIDs nor their order tell which one is higher. A layer that the path does not
//! carry is left at once. The estimate of a path exceeds what is sent by half at most, so that it cannot show whether the path carries the
//! next layer. With room for a fifth more, a higher layer is tried; after a trial that failed the next one waits for twice the time.

use std::time::{Duration, Instant};

/// The path has had room for this time before a higher layer is tried.
const ROOM_FOR: Duration = Duration::from_secs(2);

/// Trials that failed double the time up to a minute.
const FAILURES_MAX: u32 = 5;

/// After this time a higher layer has shown whether the path carries it: estimates grow by 30 % in a second, and layers differ by factors up to 5.
const TRIAL: Duration = Duration::from_secs(8);

/// In per cent of the layer's rate: an estimate above it is room for more, and one below does not carry the layer. Rates vary from second to
/// second.
const ROOM_PERCENT: u64 = 120;
const CARRIED_PERCENT: u64 = 90;

/// A trial ends once the estimate is below this share of that at its beginning.
const FALL_PERCENT: u64 = 90;

/// A key frame of the next layer is requested at this interval until it comes. A request may be lost, or be one of many within the
/// interval in which its sender answers one.
const ASKED_EVERY: Duration = Duration::from_millis(500);

/// The limits of a receiver on one video.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LayerLimits {
    /// The rate that its path carries; `None` if it is unknown.
    pub path_kbps: Option<u32>,
    /// A rate that no layer exceeds but the lowest.
    pub cap_kbps: Option<u32>,
    /// The number of the highest layer, from 1 on; 0: no limit.
    pub highest: u8,
}

/// The layer that is to pass, and the evidence for it.
#[derive(Clone, Default, Debug)]
pub(super) struct LayerChoice {
    target: Option<usize>,
    asked: Option<Instant>,
    room_since: Option<Instant>,
    trial: Option<LayerTrial>,
    failures: u32,
    /// The number of the layer that passes, from 1 on; 0 before it is known.
    rank: u8,
}

#[derive(Clone, Copy, Debug)]
struct LayerTrial {
    since: Instant,
    path_kbps: u32,
}

/// A layer that is received.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerRate {
    pub(super) place: usize,
    pub(super) kbps: u32,
}

impl LayerRate {
    fn is_carried(self, path_kbps: u32) -> bool {
        u64::from(path_kbps) * 100 >= u64::from(self.kbps) * CARRIED_PERCENT
    }
}

impl LayerChoice {
    pub(super) fn target(&self) -> Option<usize> {
        self.target
    }

    pub(super) fn end_target(&mut self) {
        (self.target, self.asked) = (None, None);
    }

    /// Chooses among the layers that are received, lowest first. `current`: the place of the layer that passes.
    pub(super) fn update(
        &mut self,
        rates: &[LayerRate],
        current: usize,
        limits: LayerLimits,
        now: Instant,
    ) {
        let rank = |place: usize| rates.iter().position(|rate| rate.place == place);
        if let Some(rank) = rank(current) {
            self.rank = rank as u8 + 1;
        }
        let most = if limits.highest == 0 { rates.len() } else { limits.highest.into() };
        let within = rates.get(..most).unwrap_or(rates);
        let is_capped = |rate: &LayerRate| limits.cap_kbps.is_some_and(|cap| rate.kbps > cap);
        let admitted = within.iter().rposition(|rate| !is_capped(rate)).unwrap_or(0);
        let Some(admitted) = within.get(..=admitted) else {
            // The sender has stopped.
            self.end_target();
            return;
        };
        let wanted = self.target.unwrap_or(current);
        let at = rank(wanted).filter(|at| *at < admitted.len());
        let next = self.next(at, admitted, limits.path_kbps, now);
        let target = Some(admitted[next].place).filter(|place| *place != current);
        if target != self.target {
            (self.target, self.asked) = (target, None);
        }
    }

    /// Returns the place of the layer of which a key frame is to be requested now.
    pub(super) fn due_request(&mut self, now: Instant) -> Option<usize> {
        let target = self.target?;
        let is_recent = |at: Instant| now.saturating_duration_since(at) < ASKED_EVERY;
        if self.asked.is_some_and(is_recent) {
            return None;
        }
        self.asked = Some(now);
        Some(target)
    }

    /// Returns the number of the layer that passes, from 1 for the lowest on; `None` before it is known.
    pub(super) fn rank(&self) -> Option<u8> {
        Some(self.rank).filter(|rank| *rank > 0)
    }

    /// Returns the index of the layer to pass among those that are admitted, lowest first. `at`: that of the layer that passes, or is to.
    fn next(
        &mut self,
        at: Option<usize>,
        admitted: &[LayerRate],
        path_kbps: Option<u32>,
        now: Instant,
    ) -> usize {
        let highest = admitted.len() - 1;
        let Some(path_kbps) = path_kbps else {
            (self.room_since, self.trial) = (None, None);
            return highest;
        };
        let carried = admitted.iter().rposition(|rate| rate.is_carried(path_kbps)).unwrap_or(0);
        // The layer that passed is silent, or is not admitted any more.
        let Some(at) = at else { return carried };
        let passed = |since: Instant| now.saturating_duration_since(since);
        if !admitted[at].is_carried(path_kbps) && !self.is_tried(path_kbps, now) {
            if self.trial.take().is_some() {
                self.failures = (self.failures + 1).min(FAILURES_MAX);
            }
            self.room_since = None;
            return carried;
        }
        if self.trial.is_some_and(|trial| passed(trial.since) >= TRIAL) {
            (self.trial, self.failures) = (None, 0);
        }
        let room_kbps = u64::from(admitted[at].kbps) * ROOM_PERCENT / 100;
        if at == highest || self.trial.is_some() || u64::from(path_kbps) < room_kbps {
            self.room_since = None;
            return at;
        }
        let since = *self.room_since.get_or_insert(now);
        if passed(since) < ROOM_FOR * 2_u32.pow(self.failures) {
            return at;
        }
        self.room_since = None;
        self.trial = Some(LayerTrial { since: now, path_kbps });
        at + 1
    }

    /// Returns whether a trial goes on: the estimate does not follow the higher rate at once.
    fn is_tried(&self, path_kbps: u32, now: Instant) -> bool {
        self.trial.is_some_and(|trial| {
            let is_new = now.saturating_duration_since(trial.since) < TRIAL;
            let fell_to = u64::from(trial.path_kbps) * FALL_PERCENT;
            is_new && u64::from(path_kbps) * 100 >= fell_to
        })
    }
}

#[cfg(test)]
mod tests;
