//! Scenario policy: what a call asks of the data plane, by what the device can take.
//!
//! A call lives by its voice and by how soon it arrives. So the floor is what voice needs, the ceiling is what the device
//! can show, and in a herd calls go before streams.

#[cfg(test)]
mod tests;

use evenkeel_plugin_sdk::prelude::*;

/// What an operator can set.
#[derive(Settings, Debug)]
pub struct ScenarioCall {
    /// The lowest cap: what voice needs.
    #[setting(default = 24, unit = "kbit/s", min = 6)]
    floor: u32,
    /// The highest rate of a device that says nothing of what it can show.
    #[setting(default = 2000, unit = "kbit/s", min = 24)]
    ceiling: u32,
    /// The highest rate of one that can show 360 lines or fewer.
    #[setting(default = 600, unit = "kbit/s", min = 24)]
    ceiling_360: u32,
    /// The highest rate of one that can show more than that, and 720 lines or fewer.
    #[setting(default = 1500, unit = "kbit/s", min = 24)]
    ceiling_720: u32,
    /// The part of its ceiling that is left to a device whose battery is low.
    #[setting(default = 0.5, min = 0.1, max = 1)]
    low_battery: f64,
    /// Nodes that stand by for a call.
    #[setting(default = 2, min = 1, max = 3)]
    spares: u32,
    /// Silence after which a session is closed: longer than a tunnel.
    #[setting(default = "30s", min = "1s", max = "1h")]
    close_after: Duration,
    /// Who goes first in a herd; higher is earlier.
    #[setting(default = 20, max = 100)]
    priority: u32,
}

#[scenario]
impl Scenario for ScenarioCall {
    fn resolve(&self, _: &str, labels: Labels<'_>, out: &mut Params) {
        let lines = labels.value(label::MAX_HEIGHT).and_then(|lines| lines.parse().ok());
        let ceiling = match lines.unwrap_or(u32::MAX) {
            0..=360 => self.ceiling_360,
            361..=720 => self.ceiling_720,
            _ => self.ceiling,
        };
        let spared = labels.value(label::BATTERY) == Some("low");
        let part = if spared { self.low_battery } else { 1.0 };
        let ceiling = ((f64::from(ceiling) * part) as u32).max(self.floor);
        out.bitrate_floor_kbps(self.floor)
            .bitrate_ceiling_kbps(ceiling)
            .spares(self.spares)
            .close_after_ms(self.close_after.as_millis() as u32)
            .priority(self.priority);
    }
}
