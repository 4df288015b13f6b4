//! Labels of a session.

use crate::wit::types::Label;

/// Labels given when a session opens, in order; [`label`](crate::label) has keys with a common
/// meaning.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a>(pub(crate) &'a [Label]);

impl<'a> Labels<'a> {
    /// Returns the value of the first label with this key.
    pub fn value(&self, key: &str) -> Option<&'a str> {
        self.iter().find_map(|(name, value)| (name == key).then_some(value))
    }

    /// Returns the highest bit rate in kbit/s that the labels `max-bitrate` and `max-height` allow to the device; `None`
    /// without a limit, and for a `publisher`, which receives no media. The gateway refuses a higher cap.
    pub fn max_kbps(&self) -> Option<u32> {
        crate::device::max_kbps(|key| self.value(key))
    }

    /// Iterates over all labels, as keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.0.iter().map(|label| (label.key.as_str(), label.value.as_str()))
    }
}
