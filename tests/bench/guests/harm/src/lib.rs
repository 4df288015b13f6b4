//! A policy that makes media worse: it holds everybody down, whoever they are and however they fare.

use evenkeel_plugin_sdk::prelude::*;

/// What an operator can set.
#[derive(Settings, Debug)]
pub struct Harm {
    /// What everybody may send.
    #[setting(default = 100, unit = "kbit/s", min = 24, max = 2000)]
    cap: u32,
}

#[degradation]
impl Degradation for Harm {
    fn tick(&self, _: &Session, out: &mut Actions) {
        out.cap(self.cap);
    }
}
