//! Why a decision was made, as a number with a name in the manifest.

/// Why a decision was made: derive it on an enum without fields. A variant's number is its discriminant (write
/// `Nearest = 1`; 0 means "no reason"), its name in records is the variant's in kebab case.
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
