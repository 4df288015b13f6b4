//! Parts of the contract with policies that may grow, as numbers: metrics, actions, reasons, parameters and kinds of
//! catalog entries, generated from `plugin-sdk/wit/registry.toml`.

include!(concat!(env!("OUT_DIR"), "/registry.rs"));

impl Param {
    /// The parameter with this key, if this gateway knows it.
    pub fn from_key(key: &str) -> Option<Param> {
        Param::ALL.into_iter().find(|param| param.key() == key)
    }

    /// The value that counts where this one was set: itself, or the nearest that means something.
    pub(crate) fn within(self, value: i64) -> i64 {
        self.bounds().map_or(value, |(low, high)| value.clamp(low, high))
    }
}

#[cfg(test)]
mod tests;
