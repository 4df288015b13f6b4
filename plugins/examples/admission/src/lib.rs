//! Admission policy: caps new sessions while a region fills up, and rejects them when it is full.
//!
//! A complete example. Change its decisions, settings and tests.

use evenkeel_plugin_sdk::prelude::*;

/// Settings, validated against these bounds.
#[derive(Settings, Debug)]
pub struct ByLoad {
    /// Load of its region from which a new session is capped.
    #[setting(default = 0.8, min = 0, max = 1)]
    cap_above: f64,
    /// Cap of a new session.
    #[setting(default = 300, unit = "kbit/s", min = 24)]
    cap: u32,
    /// Load from which a region is full.
    #[setting(default = 0.95, min = 0.1, max = 1)]
    full_above: f64,
    /// Retry delay of a rejected session.
    #[setting(default = "5s", min = "100ms", max = "10m")]
    retry_after: Duration,
}

/// Reasons, by name for people.
#[derive(Reason, Clone, Copy, PartialEq, Debug)]
pub enum Why {
    /// The session's region has capacity.
    HasCapacity = 1,
    /// The session's region is nearly full.
    NearlyFull = 2,
    /// The session's region is full.
    Full = 3,
}

#[admission]
impl Admission for ByLoad {
    type Reason = Why;

    /// The gateway sends only these columns.
    const READS: &'static [Metric] = &[Metric::Load];

    fn admit(
        &self,
        newcomer: &NewSession<'_>,
        standing: Option<RegionId>,
        regions: &Regions<'_>,
    ) -> Judgement {
        // A session that joins a room belongs to the room's region.
        let region = standing.or(newcomer.region()).and_then(|region| regions.region(region));
        let Some(load) = region.and_then(|region| region.load_permille()) else {
            // `None` means "not measured". No opinion: the gateway's own limits decide.
            return Verdict::Abstain.into();
        };
        note(0, "load_permille", load.into());
        let load = f64::from(load) / 1000.0;
        if load >= self.full_above {
            Verdict::Reject(self.retry_after).because(Why::Full)
        } else if load >= self.cap_above {
            Verdict::AcceptCapped(self.cap).because(Why::NearlyFull)
        } else {
            Verdict::Accept.because(Why::HasCapacity)
        }
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_plugin_sdk::trial::{Trial, World};

    use super::*;

    fn admit(load: u32, labels: &[(&str, &str)], standing: Option<&str>) -> Verdict {
        let world = World::around("east")
            .region("east", &[(Metric::Load, load)])
            .region("west", &[(Metric::Load, 100)])
            .region("north", &[]);
        Trial::of(ByLoad::default(), world).admit(1, labels, standing).verdict()
    }

    #[test]
    fn verdict_depends_on_the_regions_load() {
        assert_eq!(admit(799, &[], None), Verdict::Accept);
        assert_eq!(admit(800, &[], None), Verdict::AcceptCapped(300));
        assert_eq!(admit(949, &[], None), Verdict::AcceptCapped(300));
        assert_eq!(admit(950, &[], None), Verdict::Reject(Duration::from_secs(5)));
    }

    #[test]
    fn joining_session_is_judged_by_the_rooms_region() {
        assert_eq!(admit(950, &[("region", "west")], None), Verdict::Accept);
        let refused = Verdict::Reject(Duration::from_secs(5));
        assert_eq!(admit(950, &[("region", "west")], Some("east")), refused);
    }

    #[test]
    fn unmeasured_region_means_abstention() {
        assert_eq!(admit(950, &[("region", "north")], None), Verdict::Abstain);
    }

    #[test]
    fn settings_outside_their_bounds_are_refused() {
        assert!(ByLoad::parse(r#"{"retry_after": "100ms"}"#).is_ok());
        assert!(ByLoad::parse(r#"{"retry_after": "99ms"}"#).is_err());
    }
}
