//! A part of a gateway's forecasts, for its standby.

use serde::{Deserialize, Serialize};

/// A part of the forecasts of a gateway, which travels with a batch of records.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForecastPart {
    /// Bytes before it.
    pub at: u32,
    /// Bytes of all parts.
    pub of: u32,
    /// The content.
    pub text: String,
}
