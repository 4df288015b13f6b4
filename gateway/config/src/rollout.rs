use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_revisions::{Judging, RolloutRules, Strategy};
use toml::Spanned;

use super::check::ConfigCheck;
use super::raw;
use super::set::PolicySet;

/// Maximum steps of a canary; more steps add no safety.
const STEPS_MAX: usize = 16;

/// `[rollout]` of a policy set, with the default of each key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RolloutSettings {
    /// The set has `[rollout]`. Without it a changed file is rolled out by the defaults, and a push is active at once.
    pub is_stated: bool,
    /// Shares of the canary in per cent, ascending. After the last one the revision becomes active. Default 1, 5, 25,
    /// 50, 100; empty: active at once.
    pub canary: Vec<u8>,
    /// Minimum duration of a step. Default 10 s.
    pub pace: Duration,
    /// The rollout stays at its step until resumed. Default false.
    pub hold: bool,
    /// Duration of the shadow stage. Default 5 s; 0 s, for none, if `canary` is empty.
    pub shadow: Duration,
    /// Time for which the previous revision, and the state it can read, is kept for a rollback. Default 10 min.
    pub rollback_window: Duration,
    /// When a canary counts as worse.
    pub judging: Judging,
}

impl Default for RolloutSettings {
    fn default() -> Self {
        RolloutSettings {
            is_stated: false,
            canary: vec![1, 5, 25, 50, 100],
            pace: Duration::from_secs(10),
            hold: false,
            shadow: Duration::from_secs(5),
            rollback_window: Duration::from_secs(600),
            judging: Judging::default(),
        }
    }
}

impl RolloutSettings {
    /// The stages of a new revision.
    pub fn strategy(&self) -> Strategy {
        let (steps, each, shadow) = (self.canary.clone(), self.pace, self.shadow);
        Strategy { steps, each, shadow, stays_in_shadow: false, held: self.hold }
    }

    /// The rules of the lifecycle.
    pub fn rules(&self) -> RolloutRules {
        RolloutRules {
            strategy: self.strategy(),
            keep: self.rollback_window,
            judging: self.judging,
        }
    }

    pub(super) fn check(
        raw: Option<&raw::RolloutTable>,
        check: &mut ConfigCheck,
    ) -> RolloutSettings {
        let default = RolloutSettings::default();
        let Some(raw) = raw else { return default };
        let second = Duration::from_secs(1);
        let canary = raw.canary.as_ref().map(|list| steps(list, check));
        let at_once = canary.as_ref().is_some_and(Vec::is_empty);
        let shadow = if at_once { Duration::ZERO } else { default.shadow };
        let none = Duration::ZERO;
        RolloutSettings {
            is_stated: true,
            canary: canary.unwrap_or(default.canary),
            pace: check.duration(&raw.pace, default.pace, second / 10..=86_400 * second),
            hold: raw.hold.unwrap_or(default.hold),
            shadow: check.duration(&raw.shadow, shadow, none..=86_400 * second),
            rollback_window: check.duration(
                &raw.rollback_window,
                default.rollback_window,
                none..=86_400 * second,
            ),
            judging: judging(&raw.judge, check),
        }
    }
}

fn steps(list: &Spanned<Vec<Spanned<i64>>>, check: &mut ConfigCheck) -> Vec<u8> {
    if list.get_ref().len() > STEPS_MAX {
        let found = format!("{} steps", list.get_ref().len());
        check.refuse(list.span(), found, format!("at most {STEPS_MAX}"));
    }
    let mut steps: Vec<u8> = Vec::new();
    for raw in list.get_ref() {
        let least = steps.last().map_or(1, |last| last.saturating_add(1));
        match u8::try_from(*raw.get_ref()).ok().filter(|step| (least..=100).contains(step)) {
            Some(step) => steps.push(step),
            None => {
                let found = format!("a step of {} %", raw.get_ref());
                let expected = match steps.last() {
                    Some(last) => format!("more than {last}, and at most 100"),
                    None => "1 to 100".to_owned(),
                };
                check.refuse(raw.span(), found, expected);
            }
        }
    }
    steps
}

/// `[rollout.judge]`; missing keys keep the core's defaults.
fn judging(raw: &raw::RolloutJudge, check: &mut ConfigCheck) -> Judging {
    let default = Judging::default();
    let gap = Duration::from_millis(50)..=Duration::from_secs(60);
    Judging {
        gap: check.duration(&raw.gap, default.gap, gap),
        loss_ppm: check.number(&raw.loss_percent, default.loss_ppm / 10_000, 1..=100) * 10_000,
        r_factor_centi: check.number(&raw.r_factor, default.r_factor_centi / 100, 1..=100) * 100,
        rung: check.number(&raw.rung, default.rung, 1..=10),
        moves_per_minute: check.number(&raw.moves_per_minute, default.moves_per_minute, 1..=60),
        guarded_percent: check.number(&raw.guarded_percent, default.guarded_percent, 1..=100),
        refused_percent: check.number(&raw.refused_percent, default.refused_percent, 1..=100),
        cohort_min: check.number(&raw.min_sessions, default.cohort_min, 1..=100_000),
    }
}

/// `[rollout]` by policy set.
pub fn paces(sets: &[PolicySet]) -> BTreeMap<Arc<str>, RolloutSettings> {
    sets.iter().map(|set| (Arc::clone(&set.name), set.rollout.clone())).collect()
}

#[cfg(test)]
mod tests;
