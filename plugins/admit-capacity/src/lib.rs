//! Admission policy: who may come in while a region fills up, and where to go instead.
//!
//! Those already talking come before those who want to join, and those who join them before those who begin something
//! new. While the region has room everyone comes in. As it fills up newcomers come in capped, more and more of them; then
//! rooms that are new are sent to a region with room, or asked to try again later, more and more of them as well: by the
//! session's lot, so that there is no edge for a crowd to swing about. What is left after that belongs to those who join
//! a room that stands, and to roles that others wait for. A room stays together: who joins one is never sent elsewhere.

#[cfg(test)]
mod tests;

use evenkeel_plugin_sdk::prelude::*;

/// What an operator can set.
#[derive(Settings, Debug)]
pub struct AdmitCapacity {
    /// From this part of its region's capacity on newcomers are capped: few at first, all of them at `full_above`.
    #[setting(default = 0.8, min = 0, max = 1)]
    cap_above: f64,
    /// What a capped newcomer may send. No more than the lowest ceiling of the scenario: a cap above a session's ceiling
    /// breaks a rule of the gateway, and `on_fault` says what happens then.
    #[setting(default = 300, unit = "kbit/s", min = 16)]
    cap: u32,
    /// From this part of its capacity on a region is full for new rooms. Those who join one come in until nothing is left.
    #[setting(default = 0.95, min = 0.1, max = 1)]
    full_above: f64,
    /// So much before that the first new rooms are turned away, and then more and more of them.
    #[setting(default = 0.05, min = 0, max = 1)]
    ease: f64,
    /// Roles (label `role`) that others wait for: they come in as those do who join a room.
    #[setting(default = [])]
    awaited: Vec<String>,
    /// A newcomer is sent to another region only while that carries less than this part of its capacity.
    #[setting(default = 0.7, min = 0, max = 1)]
    redirect_below: f64,
    /// Whoever is refused may try again after this, and up to half as long more, so that they do not all come at once.
    #[setting(default = "5s", min = "100ms", max = "10m")]
    retry_after: Duration,
}

/// Why a session came in or stayed out.
#[derive(Reason, Clone, Copy, PartialEq, Debug)]
pub enum Why {
    /// Its region has room.
    Room = 1,
    /// Its region is nearly full, or its breaker is half open.
    NearlyFull = 2,
    /// Its region is full; another has room.
    RoomElsewhere = 3,
    /// Its region is full.
    Full = 4,
    /// Its region's breaker is open, or none of its nodes is up.
    RegionOut = 5,
}

#[admission]
impl Admission for AdmitCapacity {
    type Reason = Why;

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
            // Nothing is known of its region: the gateway's own limits decide.
            return Verdict::Abstain.into();
        };
        note(0, "load_permille", (load * 1000.0) as i64);
        let lot = Lot(newcomer.session);
        let refusal = if is_out(&region) {
            Why::RegionOut
        } else if self.is_full(load, standing.is_some() || self.is_awaited(newcomer), lot) {
            Why::Full
        } else if self.is_capped(&region, load, lot) {
            return Verdict::AcceptCapped(self.cap).because(Why::NearlyFull);
        } else {
            return Verdict::Accept.because(Why::Room);
        };
        match self.elsewhere(&region, regions, lot) {
            Some(other) if standing.is_none() => {
                Verdict::Redirect(other).because(Why::RoomElsewhere)
            }
            _ => Verdict::Reject(self.retry_after(lot)).because(refusal),
        }
    }
}

impl AdmitCapacity {
    /// Whether others wait for it.
    fn is_awaited(&self, newcomer: &NewSession<'_>) -> bool {
        let role = newcomer.labels.value(label::ROLE);
        role.is_some_and(|role| self.awaited.iter().any(|awaited| awaited == role))
    }

    fn is_full(&self, load: f64, goes_first: bool, lot: Lot) -> bool {
        if goes_first {
            return load >= 1.0;
        }
        lot.is_below(ramp(load, self.full_above - self.ease, self.full_above))
    }

    fn is_capped(&self, region: &Region<'_>, load: f64, lot: Lot) -> bool {
        region.breaker() == Some(Breaker::HalfOpen)
            || lot.is_below(ramp(load, self.cap_above, self.full_above))
    }

    /// Another region that has enough room, if there is one: each as often as it has capacity free, so that those who are
    /// turned away together do not all go to the same.
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

/// No node of it may take anybody.
fn is_out(region: &Region<'_>) -> bool {
    region.breaker() == Some(Breaker::Open) || region.nodes_up() == Some(0)
}

/// Part of its capacity that a region carries.
fn load(region: &Region<'_>) -> Option<f64> {
    region.load_permille().map(|permille| f64::from(permille) / 1000.0)
}

/// How far a load is from where something begins to where it is complete: 0 to 1.
fn ramp(load: f64, from: f64, to: f64) -> f64 {
    if load >= to {
        1.0
    } else if load < from {
        0.0
    } else {
        (load - from) / (to - from)
    }
}

/// What a session drew: the same at every question about it.
#[derive(Clone, Copy, Debug)]
struct Lot(SessionId);

impl Lot {
    /// That of whoever is first affected.
    const FIRST: Lot = Lot(SessionId(0));

    /// Whether it belongs to this part of all sessions. The lowest number belongs to any part that is none of nothing.
    fn is_below(self, part: f64) -> bool {
        part > 0.0 && draw(self.0.0) < part
    }

    /// Another draw of it, which has nothing to do with the first: from 0, and below 1.
    fn again(self) -> f64 {
        part(mix(self.0.0))
    }
}

/// Of numbers that follow each other, as evenly as can be (Knuth's multiplicative hash).
fn draw(number: u64) -> f64 {
    part(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// As a part of all numbers there are.
fn part(bits: u64) -> f64 {
    (bits >> 32) as f64 / (1_u64 << 32) as f64
}

/// The mixer of SplitMix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
