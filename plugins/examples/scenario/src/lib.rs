//! Scenario policy: parameters of a session by its device.
//!
//! A complete example. Change its decisions, settings and tests.

use evenkeel_plugin_sdk::prelude::*;

/// Settings, validated against these bounds.
#[derive(Settings, Debug)]
pub struct ByDevice {
    /// The lowest cap: enough for voice.
    #[setting(default = 24, unit = "kbit/s", min = 6)]
    floor: u32,
    /// The highest rate of a phone.
    #[setting(default = 800, unit = "kbit/s", min = 24)]
    phone_ceiling: u32,
    /// The highest rate of other devices.
    #[setting(default = 2500, unit = "kbit/s", min = 24)]
    ceiling: u32,
    /// Share of the ceiling for a device with a low battery.
    #[setting(default = 0.5, min = 0.1, max = 1)]
    low_battery: f64,
    /// Order of moves in a mass failover; higher is earlier.
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
        // Other parameters stay as in the policy set.
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
    fn phone_has_a_lower_ceiling() {
        assert_eq!(ceiling("{}", &[("device", "phone")]), Some(800));
        assert_eq!(ceiling("{}", &[("device", "desktop")]), Some(2_500));
        assert_eq!(ceiling("{}", &[]), Some(2_500));
    }

    #[test]
    fn low_battery_lowers_the_ceiling() {
        assert_eq!(ceiling("{}", &[("device", "phone"), ("battery", "low")]), Some(400));
    }

    #[test]
    fn ceiling_is_never_below_the_floor() {
        let settings = r#"{"floor": 500}"#;
        assert_eq!(ceiling(settings, &[("device", "phone"), ("battery", "low")]), Some(500));
    }

    #[test]
    fn other_parameters_are_unchanged() {
        let params = Trial::of(ByDevice::default(), World::around("east")).resolve(&[]);
        assert_eq!(params.value(Param::Spares), None);
        assert_eq!(params.value(Param::Priority), Some(10));
    }
}
