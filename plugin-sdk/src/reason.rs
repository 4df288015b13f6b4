//! Why a decision was made, as a number with a name in the manifest or in the registry.

use crate::registry::CommonReason;

/// Why a decision was made: derive it on an enum without fields. A variant's number is its discriminant (write
/// `Nearest = 1`; 0 means "no reason", and from 65,536 on they are [`CommonReason`]s), its name in records is the
/// variant's in kebab case.
///
/// ```compile_fail,E0080
/// # use evenkeel_plugin_sdk::prelude::*;
/// #[derive(Reason)]
/// enum Why {
///     Loss = 65_536, // this is a common reason's
/// }
/// ```
pub trait Reason {
    /// Numbers and names, for the manifest.
    const NAMES: &'static [(u32, &'static str)];

    /// The number that answers carry.
    fn number(self) -> u32;
}

/// No reasons given.
impl Reason for () {
    const NAMES: &'static [(u32, &'static str)] = &[];

    fn number(self) -> u32 {
        0
    }
}

/// It has its name in the registry, not in the manifest.
impl Reason for CommonReason {
    const NAMES: &'static [(u32, &'static str)] = &[];

    fn number(self) -> u32 {
        self as u32
    }
}
