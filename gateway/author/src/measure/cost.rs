//! What a plugin promises that its answers take: `cost` in its manifest, WebAssembly instructions of each call.

use evenkeel_core::Question;
use evenkeel_host::Manifest;

/// A promise that a call does not keep.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{call} about {rows} rows takes {found} instructions; the manifest promises {promised} at most"
)]
pub struct Exceeded {
    /// The call.
    pub call: &'static str,
    /// Its rows.
    pub rows: u32,
    /// Instructions that it took.
    pub found: u64,
    /// The most that was promised for so many rows.
    pub promised: u64,
}

/// The most that a call about so many rows may take; none where nothing is promised of it.
pub(crate) fn promised(manifest: &Manifest, call: &str, rows: u32) -> Option<u64> {
    manifest.cost.get(call).map(|cost| cost.of(rows))
}

impl Exceeded {
    /// Where this is more than was promised.
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

/// What a promise counts: regions of an admission, nodes of a placement, rooms, sessions.
pub(crate) fn rows(question: &Question) -> u32 {
    let rows = match question {
        Question::Resolve { .. } => 0,
        Question::Admit { regions, .. } => regions.len(),
        Question::Place { nodes, .. } => nodes.len(),
        Question::Reroute { rooms, .. } => rooms.len(),
        Question::Tick { sessions, .. } => sessions.len(),
    };
    rows as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_kept_up_to_what_it_says() {
        let of = |found| Exceeded::of("tick", 100, found, Some(32_000));
        assert_eq!(of(32_000), None);
        let broken = Exceeded { call: "tick", rows: 100, found: 32_001, promised: 32_000 };
        assert_eq!(of(32_001), Some(broken));
        assert_eq!(Exceeded::of("open", 100, u64::MAX, None), None);
    }
}
