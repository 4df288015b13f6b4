//! Scenario policy: parameters of a conference by role and device.
//!
//! Participants see and hear each other, and the voice of the speaker matters most. No measurement identifies the
//! speaker, so the label `role` decides: a listener sends a small video, which leaves the room's bandwidth to speakers.
//! A session without a role is treated as a speaker.

#[cfg(test)]
mod tests;

use evenkeel_plugin_sdk::prelude::*;

/// Settings.
#[derive(Settings, Debug)]
pub struct ScenarioConference {
    /// The lowest cap: enough for voice.
    #[setting(default = 24, unit = "kbit/s", min = 6)]
    floor: u32,
    /// The highest rate of a speaker.
    #[setting(default = 2500, unit = "kbit/s", min = 24)]
    ceiling: u32,
    /// The highest rate of a speaker on a phone.
    #[setting(default = 1200, unit = "kbit/s", min = 24)]
    ceiling_phone: u32,
    /// The highest rate of a role that gives way.
    #[setting(default = 500, unit = "kbit/s", min = 24)]
    low_priority_ceiling: u32,
    /// Roles (label `role`) that give way to others.
    #[setting(default = ["listener", "viewer"])]
    low_priority_roles: Vec<String>,
    /// Share of the ceiling for a device with a low battery.
    #[setting(default = 0.5, min = 0.1, max = 1)]
    low_battery: f64,
    /// Number of spare nodes of a conference.
    #[setting(default = 2, min = 1, max = 3)]
    spares: u32,
    /// Silence after which a session is closed.
    #[setting(default = "45s", min = "1s", max = "1h")]
    close_after: Duration,
    /// Order of moves in a mass failover; higher is earlier.
    #[setting(default = 15, max = 100)]
    priority: u32,
}

#[scenario]
impl Scenario for ScenarioConference {
    fn resolve(&self, _: &str, labels: Labels<'_>, out: &mut Params) {
        let role = labels.value(label::ROLE);
        let low_priority =
            role.is_some_and(|role| self.low_priority_roles.iter().any(|one| one == role));
        let by_device = match labels.value(label::DEVICE) {
            Some("phone") => self.ceiling_phone,
            _ => self.ceiling,
        };
        let ceiling =
            if low_priority { by_device.min(self.low_priority_ceiling) } else { by_device };
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
