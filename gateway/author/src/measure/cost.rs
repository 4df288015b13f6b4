//! Declared costs (`cost` in the manifest), in WebAssembly instructions per call.

use evenkeel_host::Manifest;
use evenkeel_model::PolicyQuestion;

/// A call that costs more than the manifest declares.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{call} with {rows} rows takes {found} instructions; the manifest declares at most {promised}"
)]
pub struct Exceeded {
    pub(crate) call: &'static str,
    /// Rows of the question.
    pub rows: u32,
    /// Measured instructions.
    pub found: u64,
    /// The declared bound for this number of rows.
    pub promised: u64,
}

/// The declared bound of a call; none if not declared.
pub(crate) fn promised(manifest: &Manifest, call: &str, rows: u32) -> Option<u64> {
    manifest.cost.get(call).map(|cost| cost.of(rows))
}

impl Exceeded {
    /// Returns the call if it exceeds its declared cost.
    pub(crate) fn of(
        call: &'static str,
        rows: u32,
        found: u64,
        promised: Option<u64>,
    ) -> Option<Exceeded> {
        let promised = promised.filter(|&promised| found > promised)?;
        Some(Exceeded { call, rows, found, promised })
    }
}

/// Rows of a question: regions of an admission, nodes of a placement, rooms, sessions.
pub(crate) fn rows(question: &PolicyQuestion) -> u32 {
    let rows = match question {
        PolicyQuestion::Resolve { .. } => 0,
        PolicyQuestion::Admit { regions, .. } => regions.len(),
        PolicyQuestion::Place { nodes, .. } => nodes.len(),
        PolicyQuestion::Reroute { rooms, .. } => rooms.len(),
        PolicyQuestion::Tick { sessions, .. } => sessions.len(),
    };
    rows as u32
}

#[cfg(test)]
mod tests;
