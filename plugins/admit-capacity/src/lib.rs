//! Admission policy: admits, caps, redirects or rejects sessions as a region fills up.
//!
//! Sessions that join an existing room have priority over new rooms. While capacity is free, every session is admitted.
//! As the region fills up, a growing share of new sessions is capped; then a growing share of new rooms is redirected
//! to a region with capacity, or rejected for a while. Each session draws whether it is affected, so that no threshold
//! affects all sessions at once. The remaining capacity is for sessions that join a room, and for configured roles.
//! Sessions of one room are never redirected to different regions.

#[cfg(test)]
mod tests;

use evenkeel_plugin_sdk::prelude::*;

/// Settings.
#[derive(Settings, Debug)]
pub struct AdmitCapacity {
    /// Load of its region from which new sessions are capped: few at first, all of them at
    /// `full_above`.
    #[setting(default = 0.8, min = 0, max = 1)]
    cap_above: f64,
    /// Cap of a new session. At most the lowest ceiling of the scenario: the gateway rejects an
    /// answer with a higher cap, and `on_fault` applies.
    #[setting(default = 300, unit = "kbit/s", min = 16)]
    cap: u32,
    /// Load from which a region is full for new rooms. Sessions that join a room are admitted up to
    /// the full capacity.
    #[setting(default = 0.95, min = 0.1, max = 1)]
    full_above: f64,
    /// Width of the range below `full_above` in which a growing share of new rooms is turned away.
    #[setting(default = 0.05, min = 0, max = 1)]
    ramp: f64,
    /// Roles (label `role`) admitted like sessions that join a room, as others wait for them.
    #[setting(default = [])]
    priority_roles: Vec<String>,
    /// Sessions are redirected only to regions below this load.
    #[setting(default = 0.7, min = 0, max = 1)]
    redirect_below: f64,
    /// Retry delay of a rejected session, plus up to half of it, so that not all return at once.
    #[setting(default = "5s", min = "100ms", max = "10m")]
    retry_after: Duration,
    /// R-factor that the client's probe of its path must have forecast (label `probe-r`). A session below it is capped,
    /// so that it begins with what its path carries. 0: none.
    #[setting(default = 0, min = 0, max = 93)]
    min_probe_r: u32,
}

/// Reasons of verdicts.
#[derive(Reason, Clone, Copy, PartialEq, Debug)]
pub enum VerdictReason {
    /// The session's region has capacity.
    HasCapacity = 1,
    /// The session's region is nearly full, or its breaker is half open.
    NearlyFull = 2,
    /// The session's region is full; another one has capacity.
    CapacityElsewhere = 3,
    /// The session's region is full.
    Full = 4,
    /// The breaker of the session's region is open, or none of its nodes is up.
    RegionUnavailable = 5,
    /// The client's path is below `min_probe_r`.
    WeakPath = 6,
}

#[admission]
impl Admission for AdmitCapacity {
    type Reason = VerdictReason;

    const READS: &'static [Metric] =
        &[Metric::Load, Metric::Breaker, Metric::NodesUp, Metric::Capacity];

    fn admit(
        &self,
        newcomer: &NewSession<'_>,
        standing: Option<RegionId>,
        regions: &Regions<'_>,
    ) -> Judgement {
        let region = standing.or(newcomer.region()).and_then(|region| regions.region(region));
        let Some((region, load)) = region.and_then(|region| Some((region, load(&region)?))) else {
            // Without measures of the session's region, the gateway's own limits decide.
            return Verdict::Abstain.into();
        };
        note(0, "load_permille", (load * 1000.0) as i64);
        let lot = Lot(newcomer.session);
        let refusal = if is_out(&region) {
            VerdictReason::RegionUnavailable
        } else if self.is_full(load, standing.is_some() || self.is_awaited(newcomer), lot) {
            VerdictReason::Full
        } else if self.is_capped(&region, load, lot) {
            return self.capped(newcomer).because(VerdictReason::NearlyFull);
        } else if self.has_weak_path(newcomer) {
            return self.capped(newcomer).because(VerdictReason::WeakPath);
        } else {
            return Verdict::Accept.because(VerdictReason::HasCapacity);
        };
        match self.elsewhere(&region, regions, lot) {
            Some(other) if standing.is_none() => {
                Verdict::Redirect(other).because(VerdictReason::CapacityElsewhere)
            }
            _ => Verdict::Reject(self.retry_after(lot)).because(refusal),
        }
    }
}

impl AdmitCapacity {
    /// Returns whether the session has a role that others wait for.
    fn is_awaited(&self, newcomer: &NewSession<'_>) -> bool {
        let role = newcomer.labels.value(label::ROLE);
        role.is_some_and(|role| self.priority_roles.iter().any(|awaited| awaited == role))
    }

    /// Returns whether the client has probed its path and found it below `min_probe_r`.
    fn has_weak_path(&self, newcomer: &NewSession<'_>) -> bool {
        let r = newcomer.labels.value("probe-r").and_then(|r| r.parse::<u32>().ok());
        r.is_some_and(|r| r < self.min_probe_r)
    }

    fn capped(&self, newcomer: &NewSession<'_>) -> Verdict {
        let limit = newcomer.labels.max_kbps();
        Verdict::AcceptCapped(limit.map_or(self.cap, |limit| self.cap.min(limit)))
    }

    fn is_full(&self, load: f64, goes_first: bool, lot: Lot) -> bool {
        if goes_first {
            return load >= 1.0;
        }
        lot.is_below(ramp(load, self.full_above - self.ramp, self.full_above))
    }

    fn is_capped(&self, region: &Region<'_>, load: f64, lot: Lot) -> bool {
        region.breaker() == Some(Breaker::HalfOpen)
            || lot.is_below(ramp(load, self.cap_above, self.full_above))
    }

    /// Selects another region with enough capacity, if there is one. The probability is proportional to free capacity,
    /// so that redirected sessions spread.
    fn elsewhere(&self, full: &Region<'_>, regions: &Regions<'_>, lot: Lot) -> Option<RegionId> {
        let others = regions.iter().filter(|region| region.id() != full.id());
        let open = others.filter_map(|region| {
            let load = load(&region).filter(|&load| load < self.redirect_below)?;
            let is_open = !is_out(&region) && !self.is_capped(&region, load, Lot::FIRST);
            let capacity = f64::from(region.capacity_kbps().unwrap_or(1).max(1));
            is_open.then_some((region.id(), capacity * (1.0 - load)))
        });
        let open: Vec<(RegionId, f64)> = open.collect();
        let mut drawn = lot.again() * open.iter().map(|(_, free)| free).sum::<f64>();
        let chosen = open.iter().find(|(_, free)| {
            drawn -= free;
            drawn < 0.0
        });
        chosen.or(open.last()).map(|&(region, _)| region)
    }

    fn retry_after(&self, lot: Lot) -> Duration {
        self.retry_after + self.retry_after.mul_f64(lot.again() / 2.0)
    }
}

/// Returns whether no node of the region may take sessions.
fn is_out(region: &Region<'_>) -> bool {
    region.breaker() == Some(Breaker::Open) || region.nodes_up() == Some(0)
}

/// Returns the load of a region, as a share of its capacity.
fn load(region: &Region<'_>) -> Option<f64> {
    region.load_permille().map(|permille| f64::from(permille) / 1000.0)
}

/// Returns the position of a load between two thresholds: 0 to 1.
fn ramp(load: f64, from: f64, to: f64) -> f64 {
    if load >= to {
        1.0
    } else if load < from {
        0.0
    } else {
        (load - from) / (to - from)
    }
}

/// A session's draw; the same in every question about the session.
#[derive(Clone, Copy, Debug)]
struct Lot(SessionId);

impl Lot {
    /// The draw that is affected first.
    const FIRST: Lot = Lot(SessionId(0));

    /// Returns whether the session belongs to this share of all sessions. The lowest identifier is below any share
    /// above 0.
    fn is_below(self, part: f64) -> bool {
        part > 0.0 && draw(self.0.0) < part
    }

    /// Returns an independent second draw in [0, 1).
    fn again(self) -> f64 {
        part(mix(self.0.0))
    }
}

/// Spreads consecutive numbers evenly (Knuth's multiplicative hash).
fn draw(number: u64) -> f64 {
    part(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Returns the upper bits as a share of their range.
fn part(bits: u64) -> f64 {
    (bits >> 32) as f64 / (1_u64 << 32) as f64
}

/// Mixes bits like SplitMix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
