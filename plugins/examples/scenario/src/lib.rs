//! Scenario policy: what a session asks of the data plane, by the device it runs on.
//!
//! It is complete and works as it is. Change what it decides, what an operator can set, and the tests below.

use evenkeel_plugin_sdk::prelude::*;

/// What an operator can set. Checked against these bounds before it gets here.
#[derive(Settings, Debug)]
pub struct ByDevice {
    /// The lowest cap: what voice needs.
    #[setting(default = 24, unit = "kbit/s", min = 6)]
    floor: u32,
    /// The highest rate of a phone.
    #[setting(default = 800, unit = "kbit/s", min = 24)]
    phone_ceiling: u32,
    /// The highest rate of every other device.
    #[setting(default = 2500, unit = "kbit/s", min = 24)]
    ceiling: u32,
    /// The part of its ceiling that is left to a device whose battery is low.
    #[setting(default = 0.5, min = 0.1, max = 1)]
    low_battery: f64,
    /// Who goes first when many have to move; higher is earlier.
    #[setting(default = 10, max = 100)]
    priority: u32,
}

#[scenario]
impl Scenario for ByDevice {
    fn resolve(&self, _scenario: &str, labels: Labels<'_>, out: &mut Params) {
        let is_phone = labels.value(label::DEVICE) == Some("phone");
        let most = if is_phone { self.phone_ceiling } else { self.ceiling };
        let is_low = labels.value(label::BATTERY) == Some("low");
        let part = if is_low { self.low_battery } else { 1.0 };
        let ceiling = ((f64::from(most) * part) as u32).max(self.floor);
        // What is not said here stays as the policy set has it.
        out.bitrate_floor_kbps(self.floor).bitrate_ceiling_kbps(ceiling).priority(self.priority);
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_plugin_sdk::trial::{Trial, World};

    use super::*;

    fn ceiling(settings: &str, labels: &[(&str, &str)]) -> Option<i64> {
        let policy = ByDevice::parse(settings).expect("settings within their bounds");
        let params = Trial::of(policy, World::around("east")).resolve(labels);
        params.value(Param::BitrateCeiling)
    }

    #[test]
    fn a_phone_gets_less_than_others() {
        assert_eq!(ceiling("{}", &[("device", "phone")]), Some(800));
        assert_eq!(ceiling("{}", &[("device", "desktop")]), Some(2_500));
        assert_eq!(ceiling("{}", &[]), Some(2_500));
    }

    #[test]
    fn a_low_battery_is_spared() {
        assert_eq!(ceiling("{}", &[("device", "phone"), ("battery", "low")]), Some(400));
    }

    #[test]
    fn the_ceiling_never_falls_below_the_floor() {
        let settings = r#"{"floor": 500}"#;
        assert_eq!(ceiling(settings, &[("device", "phone"), ("battery", "low")]), Some(500));
    }

    #[test]
    fn what_it_does_not_set_is_left_alone() {
        let params = Trial::of(ByDevice::default(), World::around("east")).resolve(&[]);
        assert_eq!(params.value(Param::Spares), None);
        assert_eq!(params.value(Param::Priority), Some(10));
    }
}
