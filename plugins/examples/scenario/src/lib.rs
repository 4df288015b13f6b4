//! Scenario: what does a session ask of the data plane? Here, of a webinar, who presents gets what it needs, and the
//! audience what is left. What is not said stays as the policy set's text has it, which bounds all that is said here.

use evenkeel_plugin_sdk::prelude::*;

/// What an operator can set.
#[derive(Settings)]
pub struct Webinar {
    /// The highest rate of who presents.
    #[setting(default = 4000, unit = "kbit/s", min = 24)]
    presents: u32,
    /// The highest rate of everyone else.
    #[setting(default = 300, unit = "kbit/s", min = 24)]
    listens: u32,
    /// Silence after which a session is closed.
    #[setting(default = "60s", min = "1s", max = "1h")]
    close_after: Duration,
}

#[scenario]
impl Scenario for Webinar {
    fn resolve(&self, _scenario: &str, labels: Labels<'_>, out: &mut Params) {
        let presents = labels.value(label::ROLE) == Some("publisher");
        out.bitrate_ceiling_kbps(if presents { self.presents } else { self.listens })
            .close_after_ms(self.close_after.as_millis() as u32)
            // Rooms go in this order when a node dies.
            .priority(if presents { 12 } else { 8 });
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_plugin_sdk::trial::{Trial, World};

    use super::*;

    fn ceiling(settings: &str, labels: &[(&str, &str)]) -> Option<i64> {
        let policy = Webinar::parse(settings).expect("these are settings of it");
        Trial::of(policy, World::around("east")).resolve(labels).value(Param::BitrateCeiling)
    }

    #[test]
    fn who_presents_may_send_more_than_who_listens() {
        assert_eq!(ceiling("{}", &[("role", "publisher")]), Some(4_000));
        assert_eq!(ceiling("{}", &[("role", "viewer")]), Some(300));
        assert_eq!(ceiling("{}", &[]), Some(300));
        assert_eq!(ceiling(r#"{"listens": 64}"#, &[]), Some(64));
    }
}
