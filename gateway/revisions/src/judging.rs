//! The thresholds of judges.

use std::time::Duration;

/// Thresholds by which a candidate is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judging {
    /// Silence after which a session is bad. Default 400 ms.
    pub gap: Duration,
    /// Loss up or down, parts per million. Default 50,000 (5 %).
    pub loss_ppm: u32,
    /// R-factor below this, times 100. Default 6,000: many are dissatisfied (ITU-T G.109).
    pub r_factor_centi: u32,
    /// Rung from which a session is bad. Default 2: capped, and voice only.
    pub rung: u8,
    /// Moves of a room within a minute. Default 3.
    pub moves_per_minute: u32,
    /// Decisions that break a rule, or that leave a room without the standby that the native default has, per cent.
    /// Default 10.
    pub guarded_percent: u32,
    /// Rooms of the canary on one node, per cent; below this, a policy may crowd rooms more than the one before.
    /// Default 50.
    pub one_node_percent: u32,
    /// Calls of a candidate that may fault, per thousand. Default 0.
    pub faults_permille: u32,
    /// Newcomers turned away, per cent of the canary's; below this, a policy may be stricter than the one before.
    /// Default 20.
    pub refused_percent: u32,
    /// Minimum rooms, sessions or newcomers in a canary that is judged; a step needs as many. Default 5.
    pub cohort_min: u32,
    /// Share of the canary that misses the limits of its scenario's service level objective, in ppm; below this, the error
    /// budget burns slowly. Default 144,000: the fast burn of an objective of 99 %.
    pub burn_ppm: u32,
}

impl Default for Judging {
    fn default() -> Self {
        Judging {
            gap: Duration::from_millis(400),
            loss_ppm: 50_000,
            r_factor_centi: 6_000,
            rung: 2,
            moves_per_minute: 3,
            guarded_percent: 10,
            one_node_percent: 50,
            faults_permille: 0,
            refused_percent: 20,
            cohort_min: 5,
            burn_ppm: 144_000,
        }
    }
}
