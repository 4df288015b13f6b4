//! Scenario policy: parameters of a call by its device.
//!
//! A call needs its voice with low delay: the floor is enough for voice, the ceiling is what the
//! device can show, and calls move before streams in a mass failover.

#[cfg(test)]
mod tests;

use evenkeel_plugin_sdk::prelude::*;

/// Settings.
#[derive(Settings, Debug)]
pub struct ScenarioCall {
    /// The lowest cap: enough for voice.
    #[setting(default = 24, unit = "kbit/s", min = 6)]
    floor: u32,
    /// The highest rate of a device without a height label.
    #[setting(default = 2000, unit = "kbit/s", min = 24)]
    ceiling: u32,
    /// The highest rate of a device of at most 360 lines.
    #[setting(default = 600, unit = "kbit/s", min = 24)]
    ceiling_360: u32,
    /// The highest rate of a device of more than 360 and at most 720 lines.
    #[setting(default = 1500, unit = "kbit/s", min = 24)]
    ceiling_720: u32,
    /// Share of the ceiling for a device with a low battery.
    #[setting(default = 0.5, min = 0.1, max = 1)]
    low_battery: f64,
    /// Number of spare nodes of a call.
    #[setting(default = 2, min = 1, max = 3)]
    spares: u32,
    /// Silence after which a session is closed: longer than a tunnel.
    #[setting(default = "30s", min = "1s", max = "1h")]
    close_after: Duration,
    /// Order of moves in a mass failover; higher is earlier.
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
