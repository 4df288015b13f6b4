//! What may grow in the contract with policies, as numbers: metrics, actions, reasons, parameters and kinds of catalog
//! entries, generated from `plugin-sdk/wit/registry.toml`.

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
mod tests {
    use super::*;

    #[test]
    fn a_number_is_known_if_the_registry_has_it() {
        assert_eq!(Metric::from_number(1), Some(Metric::LossUp));
        assert_eq!(Metric::from_number(16), None);
        assert_eq!(Op::from_number(2), Some(Op::VoiceOnly));
        assert_eq!(Op::from_number(0), None);
        assert_eq!(CommonReason::from_number(65_537), Some(CommonReason::Loss));
        assert_eq!(CommonReason::from_number(1), None, "that is the plugin's own");
        assert_eq!(Param::from_key("spares"), Some(Param::Spares));
        assert_eq!(Param::from_key("Spares"), None);
    }

    #[test]
    fn parameter_is_clamped_to_bounds() {
        let spares = [0, 1, 3, 4].map(|value| Param::Spares.within(value));
        assert_eq!(spares, [1, 1, 3, 3]);
        assert_eq!(Param::BitrateFloor.within(-1), -1, "the scenario's text bounds it");
    }
}
