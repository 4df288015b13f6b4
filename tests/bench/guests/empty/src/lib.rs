//! A policy that does nothing, to measure the cost of a call, and fails as its first label says, to measure the cost of
//! a fault.

use evenkeel_plugin_sdk::prelude::*;

/// No settings.
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
