//! Admission policy: newcomers are capped while a region fills up, and asked to come later when it is full.
//!
//! It is complete and works as it is. Change what it decides, what an operator can set, and the tests below.

use evenkeel_plugin_sdk::prelude::*;

/// What an operator can set. Checked against these bounds before it gets here.
#[derive(Settings, Debug)]
pub struct ByLoad {
    /// From this part of its region's capacity on a newcomer is capped.
    #[setting(default = 0.8, min = 0, max = 1)]
    cap_above: f64,
    /// What a capped newcomer may send.
    #[setting(default = 300, unit = "kbit/s", min = 24)]
    cap: u32,
    /// From this part of its capacity on a region is full.
    #[setting(default = 0.95, min = 0.1, max = 1)]
    full_above: f64,
    /// Whoever is refused may try again after this.
    #[setting(default = "5s", min = "100ms", max = "10m")]
    retry_after: Duration,
}

/// Why a session came in or stayed out; people see the names.
#[derive(Reason, Clone, Copy, PartialEq, Debug)]
pub enum Why {
    /// Its region has room.
    Room = 1,
    /// Its region is nearly full.
    NearlyFull = 2,
    /// Its region is full.
    Full = 3,
}

#[admission]
impl Admission for ByLoad {
    type Reason = Why;

    /// The gateway sends these columns and no others.
    const READS: &'static [Metric] = &[Metric::Load];

    fn admit(
        &self,
        newcomer: &NewSession<'_>,
        standing: Option<RegionId>,
        regions: &Regions<'_>,
    ) -> Judgement {
        // Who joins a room goes where that is.
        let region = standing.or(newcomer.region()).and_then(|region| regions.region(region));
        let Some(load) = region.and_then(|region| region.load_permille()) else {
            // `None` is "not measured". No opinion: the gateway's own limits decide.
            return Verdict::Abstain.into();
        };
        note(0, "load_permille", load.into());
        let load = f64::from(load) / 1000.0;
        if load >= self.full_above {
            Verdict::Reject(self.retry_after).because(Why::Full)
        } else if load >= self.cap_above {
            Verdict::AcceptCapped(self.cap).because(Why::NearlyFull)
        } else {
            Verdict::Accept.because(Why::Room)
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
    fn a_newcomer_gets_what_its_region_has_left() {
        assert_eq!(admit(799, &[], None), Verdict::Accept);
        assert_eq!(admit(800, &[], None), Verdict::AcceptCapped(300));
        assert_eq!(admit(949, &[], None), Verdict::AcceptCapped(300));
        assert_eq!(admit(950, &[], None), Verdict::Reject(Duration::from_secs(5)));
    }

    #[test]
    fn who_joins_a_room_is_judged_by_the_region_of_that() {
        assert_eq!(admit(950, &[("region", "west")], None), Verdict::Accept);
        let refused = Verdict::Reject(Duration::from_secs(5));
        assert_eq!(admit(950, &[("region", "west")], Some("east")), refused);
    }

    #[test]
    fn of_a_region_that_was_not_measured_it_has_no_opinion() {
        assert_eq!(admit(950, &[("region", "north")], None), Verdict::Abstain);
    }

    #[test]
    fn settings_outside_their_bounds_are_refused() {
        assert!(ByLoad::parse(r#"{"retry_after": "100ms"}"#).is_ok());
        assert!(ByLoad::parse(r#"{"retry_after": "99ms"}"#).is_err());
    }
}
