//! Reasons of decisions: numbers with names in the manifest or the registry.

use crate::registry::CommonReason;

/// The reason of a decision; derive it on an enum without fields. A variant's number is its discriminant: write
/// `Nearest = 1`. 0 means "no reason", and numbers from 65,536 are [`CommonReason`]s. A variant's name in records is
/// its identifier in kebab case.
///
/// ```compile_fail,E0080
/// # use evenkeel_plugin_sdk::prelude::*;
/// #[derive(Reason)]
/// enum Why {
///     Loss = 65_536, // reserved for common reasons
/// }
/// ```
pub trait Reason {
    /// Numbers and names, for the manifest.
    const NAMES: &'static [(u32, &'static str)];

    /// Returns the number for answers.
    fn number(self) -> u32;
}

/// No reasons.
impl Reason for () {
    const NAMES: &'static [(u32, &'static str)] = &[];

    fn number(self) -> u32 {
        0
    }
}

/// The registry names these reasons; a manifest omits them.
impl Reason for CommonReason {
    const NAMES: &'static [(u32, &'static str)] = &[];

    fn number(self) -> u32 {
        self as u32
    }
}
