//! Extensible parts of the policy contract as numbers: metrics, actions, reasons, parameters and kinds of catalog
//! entries. Generated from `plugin-sdk/wit/registry.toml`.

include!(concat!(env!("OUT_DIR"), "/registry.rs"));

impl Param {
    pub fn from_key(key: &str) -> Option<Param> {
        Param::ALL.into_iter().find(|param| param.key() == key)
    }

    /// The effective value of the parameter if it is set to `value`: the nearest valid one.
    pub fn within(self, value: i64) -> i64 {
        self.bounds().map_or(value, |(low, high)| value.clamp(low, high))
    }
}

#[cfg(test)]
mod tests;
