//! A policy that does nothing, for what a call costs; and fails where the first label says how, for what that costs.

use evenkeel_plugin_sdk::prelude::*;

/// Nothing to set.
#[derive(Settings, Debug)]
pub struct Empty;

#[scenario]
impl Scenario for Empty {
    fn resolve(&self, _: &str, labels: Labels<'_>, _: &mut Params) {
        match labels.iter().next() {
            Some(("trap", _)) => panic!("asked to"),
            Some(("runaway", _)) => loop {
                std::hint::spin_loop();
            },
            Some(_) | None => {}
        }
    }
}
