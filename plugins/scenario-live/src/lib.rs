//! Scenario policy: parameters of a live stream by role and device.
//!
//! A stream needs steady quality without stalls. One publisher feeds all viewers, so it moves
//! before them in a mass failover and may be silent for longer; a viewer's rate depends on its
//! device.

#[cfg(test)]
mod tests;

use evenkeel_plugin_sdk::prelude::*;

/// Settings.
#[derive(Settings, Debug)]
pub struct ScenarioLive {
    /// The lowest cap: a stream below it is not worth watching.
    #[setting(default = 300, unit = "kbit/s", min = 6)]
    floor: u32,
    /// The highest rate of a publisher, and of a viewer without a height label.
    #[setting(default = 6000, unit = "kbit/s", min = 24)]
    ceiling: u32,
    /// The highest rate of a viewer of at most 360 lines.
    #[setting(default = 1000, unit = "kbit/s", min = 24)]
    ceiling_360: u32,
    /// The highest rate of a viewer of more than 360 and at most 720 lines.
    #[setting(default = 2500, unit = "kbit/s", min = 24)]
    ceiling_720: u32,
    /// Number of spare nodes of a stream.
    #[setting(default = 2, min = 1, max = 3)]
    spares: u32,
    /// Silence after which a viewer is closed.
    #[setting(default = "15s", min = "1s", max = "1h")]
    close_after: Duration,
    /// Silence after which a publisher is closed, on which all viewers depend.
    #[setting(default = "60s", min = "1s", max = "1h")]
    close_publisher_after: Duration,
    /// Order of moves in a mass failover; higher is earlier. A publisher's is higher by one.
    #[setting(default = 10, max = 100)]
    priority: u32,
}

#[scenario]
impl Scenario for ScenarioLive {
    fn resolve(&self, _: &str, labels: Labels<'_>, out: &mut Params) {
        let publishes = labels.value(label::ROLE) == Some("publisher");
        let lines = labels.value(label::MAX_HEIGHT).and_then(|lines| lines.parse().ok());
        let ceiling = match lines.unwrap_or(u32::MAX) {
            _ if publishes => self.ceiling,
            0..=360 => self.ceiling_360,
            361..=720 => self.ceiling_720,
            _ => self.ceiling,
        };
        let close_after = if publishes { self.close_publisher_after } else { self.close_after };
        out.bitrate_floor_kbps(self.floor)
            .bitrate_ceiling_kbps(ceiling.max(self.floor))
            .spares(self.spares)
            .close_after_ms(close_after.as_millis() as u32)
            .priority(self.priority + u32::from(publishes));
    }
}
