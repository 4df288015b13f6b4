//! A question that a plugin answers while it is sampled.

use evenkeel_model::{CatalogEntry, PolicyQuestion};

/// A question with the names that it refers to.
pub(crate) struct ProfiledQuestion {
    pub(crate) question: PolicyQuestion,
    pub(crate) catalog: Vec<CatalogEntry>,
    pub(crate) now_us: u64,
    /// As the plugin gets them.
    pub(crate) settings: String,
}
