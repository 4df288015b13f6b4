//! Judges the last revision that became active in each policy set, by the objectives of the set's scenarios: after it against
//! before.
//!
//! No canary shows this harm: offers that are refused for lack of capacity or opened late, and revisions that became active at
//! once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{
    Breach, BreachCount, CoreSettings, FAST_BURN, Figure, PolicyName, SloIndicator,
};
use serde::{Deserialize, Serialize};

use crate::counts::{SHORTEST, WINDOWS};
use crate::table::SloTable;

/// A revision is judged as long as the shortest window lasts, which contains all since it became active.
const JUDGED_TICKS: u32 = WINDOWS[SHORTEST].buckets;

/// Fewer sessions or offers on either side are not compared.
const COMPARED_MIN: u32 = 20;

/// An activated revision misses the limit more often than this many times the share before.
const TIMES_BEFORE: f64 = 2.0;

/// The judges of all policy sets.
#[derive(Default, Debug)]
pub struct ActivationJudges(BTreeMap<Arc<str>, ActivationJudge>);

/// A revision that burns an error budget fast since it became active.
#[derive(Clone, PartialEq, Debug)]
pub struct ActivationBreach {
    /// The policy, by set and hook.
    pub policy: PolicyName,
    pub revision: Arc<str>,
    /// The evidence.
    pub breach: Breach,
}

#[derive(Debug)]
struct ActivationJudge {
    policy: PolicyName,
    revision: Arc<str>,
    began: u32,
    /// Later ticks are compared: the activation is over, this process serves, as many nodes are up as at that time, and no
    /// canary decides.
    compared_from: u32,
    /// The number of nodes that were up.
    up: usize,
    /// Of all scenarios of the set, in the shortest window.
    before: Vec<(Arc<str>, SloIndicator, BreachCount)>,
}

/// A judged revision, for the process that continues. Ticks count as those of the windows in the same record.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct ActivationRecord {
    policy: PolicyName,
    revision: Arc<str>,
    began: u32,
    up: usize,
    before: Vec<CountRecord>,
}

/// A count of one indicator, by name: another version may have other indicators.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
struct CountRecord {
    scenario: Arc<str>,
    slo: Box<str>,
    count: BreachCount,
}

impl ActivationJudges {
    pub(crate) fn records(&self) -> Vec<ActivationRecord> {
        let counted = |(scenario, of, count): &(Arc<str>, SloIndicator, BreachCount)| CountRecord {
            scenario: Arc::clone(scenario),
            slo: of.name().into(),
            count: *count,
        };
        let record = |judge: &ActivationJudge| ActivationRecord {
            policy: judge.policy.clone(),
            revision: Arc::clone(&judge.revision),
            began: judge.began,
            up: judge.up,
            before: judge.before.iter().map(counted).collect(),
        };
        self.0.values().map(record).collect()
    }

    /// Continues the judges of another process at this tick. Revisions are not blamed for the time before, in which that
    /// process may have failed.
    pub(crate) fn restore(&mut self, records: Vec<ActivationRecord>, tick: u32) {
        let judge = |ActivationRecord { policy, revision, began, up, before }| {
            let known = |CountRecord { scenario, slo, count }| {
                let of = SloIndicator::ALL.into_iter().find(|it| it.name() == &*slo)?;
                Some((scenario, of, count))
            };
            let before = before.into_iter().filter_map(known).collect();
            let set = Arc::clone(&policy.set);
            (set, ActivationJudge { policy, revision, began, compared_from: tick, up, before })
        };
        self.0 = records.into_iter().map(judge).collect();
    }

    /// Judges a revision from now on, in place of an earlier one of its set. `up`: the number of nodes that are up.
    pub fn begin(
        &mut self,
        policy: PolicyName,
        revision: Arc<str>,
        table: &SloTable,
        settings: &CoreSettings,
        up: usize,
        now: Instant,
    ) {
        let of_set = settings.scenarios.iter().filter(|(_, scenario)| scenario.set == policy.set);
        let limited = of_set.filter_map(|(name, scenario)| Some((name, scenario.slo.as_ref()?)));
        let before = limited.flat_map(move |(name, slo)| {
            let indicators = SloIndicator::ALL.into_iter().filter(|of| slo.has(*of));
            let last = move |of| table.last_ticks(name, of, JUDGED_TICKS, now);
            indicators.map(move |of| (Arc::clone(name), of, last(of)))
        });
        let before = before.collect();
        let judge = ActivationJudge {
            began: table.tick(now),
            compared_from: table.tick(now),
            up,
            before,
            revision,
            policy: policy.clone(),
        };
        self.0.insert(policy.set, judge);
    }

    /// Returns the revisions that burn an error budget fast, each once. A revision is not blamed for the time in which fewer
    /// nodes are up than when it became active, or in which a canary of its set decides: the canary may do the harm.
    pub fn judge(
        &mut self,
        table: &SloTable,
        settings: &CoreSettings,
        up: usize,
        with_canary: &BTreeSet<Arc<str>>,
        now: Instant,
    ) -> Vec<ActivationBreach> {
        let mut breaches = Vec::new();
        self.0.retain(|_, judge| {
            let tick = table.tick(now);
            if tick.saturating_sub(judge.began) > JUDGED_TICKS {
                return false;
            }
            if up < judge.up || with_canary.contains(&judge.policy.set) {
                judge.compared_from = tick;
            }
            let ticks = tick.saturating_sub(judge.compared_from);
            let breach = judge.breach(table, settings, ticks, now);
            let is_over = breach.is_some();
            breaches.extend(breach.map(|breach| ActivationBreach {
                policy: judge.policy.clone(),
                revision: Arc::clone(&judge.revision),
                breach,
            }));
            !is_over
        });
        breaches
    }
}

impl ActivationJudge {
    /// Compares the last ticks with those before the activation.
    fn breach(
        &self,
        table: &SloTable,
        settings: &CoreSettings,
        ticks: u32,
        now: Instant,
    ) -> Option<Breach> {
        let share = |count: &BreachCount| f64::from(count.worse) / f64::from(count.of.max(1));
        self.before.iter().find_map(|(scenario, of, before)| {
            let (_, slo) = settings.slo(scenario)?;
            let fast = (FAST_BURN * slo.error_budget()).min(1.0);
            let after = table.last_ticks(scenario, *of, ticks, now);
            let is_breach = before.of.min(after.of) >= COMPARED_MIN
                && share(&after) >= fast
                && share(&after) > TIMES_BEFORE * share(before);
            let rest = BreachCount::default();
            is_breach.then_some(Breach { figure: Figure::Slo, canary: after, rest })
        })
    }
}

#[cfg(test)]
mod tests;
