//! Scenario policy: what a conference asks of the data plane, by role and device.
//!
//! A few people see and hear each other, and what must not be lost is the voice of whoever speaks. Nobody measures who
//! that is, so the label `role` says whose video matters least: who only listens may send a small picture and no more,
//! which leaves the room's bandwidth to those who speak. Who names no role is taken for one who speaks.

#[cfg(test)]
mod tests;

use evenkeel_plugin_sdk::prelude::*;

/// What an operator can set.
#[derive(Settings, Debug)]
pub struct ScenarioConference {
    /// The lowest cap: what voice needs.
    #[setting(default = 24, unit = "kbit/s", min = 6)]
    floor: u32,
    /// The highest rate of who speaks.
    #[setting(default = 2500, unit = "kbit/s", min = 24)]
    ceiling: u32,
    /// The highest rate of who speaks from a phone.
    #[setting(default = 1200, unit = "kbit/s", min = 24)]
    ceiling_phone: u32,
    /// The highest rate of a role that gives way.
    #[setting(default = 500, unit = "kbit/s", min = 24)]
    ceiling_aside: u32,
    /// Roles (label `role`) that give way to the others.
    #[setting(default = ["listener", "viewer"])]
    gives_way: Vec<String>,
    /// The part of its ceiling that is left to a device whose battery is low.
    #[setting(default = 0.5, min = 0.1, max = 1)]
    low_battery: f64,
    /// Nodes that stand by for a conference.
    #[setting(default = 2, min = 1, max = 3)]
    spares: u32,
    /// Silence after which a session is closed.
    #[setting(default = "45s", min = "1s", max = "1h")]
    close_after: Duration,
    /// Who goes first in a herd; higher is earlier.
    #[setting(default = 15, max = 100)]
    priority: u32,
}

#[scenario]
impl Scenario for ScenarioConference {
    fn resolve(&self, _: &str, labels: Labels<'_>, out: &mut Params) {
        let role = labels.value(label::ROLE);
        let gives_way = role.is_some_and(|role| self.gives_way.iter().any(|one| one == role));
        let by_device = match labels.value(label::DEVICE) {
            Some("phone") => self.ceiling_phone,
            _ => self.ceiling,
        };
        let ceiling = if gives_way { by_device.min(self.ceiling_aside) } else { by_device };
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
