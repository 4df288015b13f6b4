//! Facts known when a session opens.

use crate::wit::types::Label;

/// Facts known when a session opens, in the order given; keys that mean the same to every policy are in
/// [`label`](crate::label).
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a>(pub(crate) &'a [Label]);

impl<'a> Labels<'a> {
    /// The value of the first label with this key.
    pub fn value(&self, key: &str) -> Option<&'a str> {
        self.iter().find_map(|(name, value)| (name == key).then_some(value))
    }

    /// All of them, keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.0.iter().map(|label| (label.key.as_str(), label.value.as_str()))
    }
}
