//! Plugins that the gateway must refuse or roll back. `evenkeel-guests` writes the modules, and a test there compares them.

use std::borrow::Cow;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Vice {
    Broken,
    Traps,
    NeverEnds,
    Hoards,
}

impl Vice {
    pub(super) const ALL: [Vice; 4] = [Vice::Broken, Vice::Traps, Vice::NeverEnds, Vice::Hoards];

    /// As an adjective.
    pub(super) fn name(self) -> &'static str {
        match self {
            Vice::Broken => "broken",
            Vice::Traps => "trapping",
            Vice::NeverEnds => "endless",
            Vice::Hoards => "memory-hungry",
        }
    }

    /// A routing plugin, or random bytes from this seed.
    pub(super) fn plugin(self, seed: u64) -> Cow<'static, [u8]> {
        match self {
            Vice::Broken => {
                let mut rng = fastrand::Rng::with_seed(seed);
                (0..4_096).map(|_| rng.u8(..)).collect()
            }
            Vice::Traps => Cow::Borrowed(include_bytes!("hostile/trapping.wasm")),
            Vice::NeverEnds => Cow::Borrowed(include_bytes!("hostile/endless.wasm")),
            Vice::Hoards => Cow::Borrowed(include_bytes!("hostile/memory-hungry.wasm")),
        }
    }
}
