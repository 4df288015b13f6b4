//! A policy that makes media worse: it caps every session.

use evenkeel_plugin_sdk::prelude::*;

#[derive(Settings, Debug)]
pub struct Harm {
    /// The cap of every session, kbit/s.
    #[setting(default = 100, unit = "kbit/s", min = 24, max = 2000)]
    cap: u32,
}

#[degradation]
impl Degradation for Harm {
    fn tick(&self, _: &Session, out: &mut Actions) {
        out.cap(self.cap);
    }
}
