//! Errors in the text of a case.

/// An error in the text of a case.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CaseError {
    /// The text is no TOML or JSON, or has another shape; the parser's error.
    #[error("{0}")]
    Syntax(String),
    /// A measure that the registry does not have for these rows.
    #[error("`{place}` is none of the measures {known}")]
    Unknown {
        /// Path of the measure: `ask[0].sessions[0].jiter-up`.
        place: String,
        /// The names that exist.
        known: String,
    },
    /// A value that does not fit.
    #[error("`{place}` should be {expected}, found {found}")]
    Value {
        /// Path of the value: `ask[0].call`.
        place: String,
        /// The value.
        found: String,
        /// The possible values.
        expected: String,
    },
}
