//! Admission policy: who may come in while a region fills up, and where to go instead.
//!
//! Those already talking come before those who want to join. While the region has room everyone comes in; when it is
//! nearly full newcomers come in capped; when it is full, or its breaker is open, the first session of a room is sent
//! to a region with room, and everyone else is asked to try again later. A room stays together: who joins one that
//! stands somewhere is never sent elsewhere.

#[cfg(test)]
mod tests;

use evenkeel_plugin_sdk::prelude::*;

/// What an operator can set.
#[derive(Settings, Debug)]
pub struct AdmitCapacity {
    /// From this part of its region's capacity on a newcomer is capped.
    #[setting(default = 0.8, min = 0, max = 1)]
    cap_above: f64,
    /// What a capped newcomer may send.
    #[setting(default = 300, unit = "kbit/s", min = 16)]
    cap: u32,
    /// From this part of its capacity on a region is full.
    #[setting(default = 0.95, min = 0.1, max = 1)]
    full_above: f64,
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

/// What a region can do for a newcomer.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Space {
    Free,
    Nearly,
    Full,
    Out,
}

#[admission]
impl Admission for AdmitCapacity {
    type Reason = Why;

    const READS: &'static [Metric] = &[Metric::Load, Metric::Breaker, Metric::NodesUp];

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
        let refusal = match self.space(&region, load) {
            Space::Free => return Verdict::Accept.because(Why::Room),
            Space::Nearly => return Verdict::AcceptCapped(self.cap).because(Why::NearlyFull),
            Space::Full => Why::Full,
            Space::Out => Why::RegionOut,
        };
        match self.elsewhere(&region, regions) {
            Some(other) if standing.is_none() => {
                Verdict::Redirect(other).because(Why::RoomElsewhere)
            }
            _ => Verdict::Reject(self.retry_after(newcomer.session)).because(refusal),
        }
    }
}

impl AdmitCapacity {
    fn space(&self, region: &Region<'_>, load: f64) -> Space {
        let breaker = region.breaker();
        if breaker == Some(Breaker::Open) || region.nodes_up() == Some(0) {
            Space::Out
        } else if load >= self.full_above {
            Space::Full
        } else if load >= self.cap_above || breaker == Some(Breaker::HalfOpen) {
            Space::Nearly
        } else {
            Space::Free
        }
    }

    /// The other region with most room, if one has enough.
    fn elsewhere(&self, full: &Region<'_>, regions: &Regions<'_>) -> Option<RegionId> {
        let others = regions.iter().filter(|region| region.id() != full.id());
        let open = others.filter_map(|region| {
            let load = load(&region).filter(|&load| load < self.redirect_below)?;
            (self.space(&region, load) == Space::Free).then_some((region.id(), load))
        });
        open.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(region, _)| region)
    }

    /// Spread by the session's number (Knuth's multiplicative hash).
    fn retry_after(&self, session: SessionId) -> Duration {
        let lot = session.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let share = lot as f64 / f64::from(u32::MAX);
        self.retry_after + self.retry_after.mul_f64(share / 2.0)
    }
}

/// Part of its capacity that a region carries.
fn load(region: &Region<'_>) -> Option<f64> {
    region.load_permille().map(|permille| f64::from(permille) / 1000.0)
}
