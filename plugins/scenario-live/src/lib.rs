//! Scenario policy: what a live stream asks of the data plane, by role and device.
//!
//! A stream lives by going on without a stall at a steady quality. One publisher feeds every viewer, so it goes before
//! them in a herd and is waited for longer; a viewer gets what its device can show.

#[cfg(test)]
mod tests;

use evenkeel_plugin_sdk::prelude::*;

/// What an operator can set.
#[derive(Settings, Debug)]
pub struct ScenarioLive {
    /// The lowest cap: below it a stream is not worth watching.
    #[setting(default = 300, unit = "kbit/s", min = 6)]
    floor: u32,
    /// The highest rate of a publisher, and of a viewer that says nothing of what it can show.
    #[setting(default = 6000, unit = "kbit/s", min = 24)]
    ceiling: u32,
    /// The highest rate of a viewer that can show 360 lines or fewer.
    #[setting(default = 1000, unit = "kbit/s", min = 24)]
    ceiling_360: u32,
    /// The highest rate of a viewer that can show more than that, and 720 lines or fewer.
    #[setting(default = 2500, unit = "kbit/s", min = 24)]
    ceiling_720: u32,
    /// Nodes that stand by for a stream.
    #[setting(default = 2, min = 1, max = 3)]
    spares: u32,
    /// Silence after which a viewer is closed.
    #[setting(default = "15s", min = "1s", max = "1h")]
    close_after: Duration,
    /// Silence after which a publisher is closed: everyone waits for it.
    #[setting(default = "60s", min = "1s", max = "1h")]
    close_publisher_after: Duration,
    /// Who goes first in a herd; higher is earlier. A publisher's is higher by one.
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
