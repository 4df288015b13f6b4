//! The inputs of calls: rows as the gateway sends them, and frames for native calls.

use std::sync::Arc;

use evenkeel_model::{
    CatalogEntry, EntryKind, Measures, Metric, PluginState, PolicyQuestion, RoomId, Row, SessionRow,
};
use evenkeel_plugin_sdk::wit::types;

/// Nodes to choose from.
pub(crate) const NODES: usize = 50;

pub(crate) const SESSIONS: usize = 256;

/// Regions and zones that nodes are spread over.
const REGIONS: u64 = 5;
const ZONES: u64 = 10;

/// Gateway time of all questions.
pub(crate) const NOW_US: u64 = 3_600_000_000;

/// Distinct and valid rows, so that no policy skips one early.
pub(crate) fn nodes() -> Vec<Row> {
    let row = |id: u64| {
        let mut measures = Measures::default();
        measures
            .set(Metric::Delay, 500 + id % ZONES * 3_000 + id * 17)
            .set(Metric::LossNode, id % 7 * 100)
            .set(Metric::JitterNode, 200)
            .set(Metric::Load, 100 + id * 13 % 700)
            .set(Metric::Health, 0)
            .set(Metric::Draining, 0)
            .set(Metric::Capacity, 400_000)
            .set(Metric::Rooms, 40 + id % 30);
        Row { id, measures }
    };
    (0..NODES as u64).map(row).collect()
}

pub(crate) fn catalog() -> Vec<CatalogEntry> {
    let entry = |kind, id, parent, name: String| CatalogEntry {
        kind,
        id,
        parent,
        name: name.into(),
        labels: Vec::new(),
    };
    let regions = (0..REGIONS).map(|id| entry(EntryKind::Region, id, 0, format!("region-{id}")));
    let zones = (0..ZONES).map(|id| entry(EntryKind::Zone, id, id % REGIONS, format!("zone-{id}")));
    let nodes =
        (0..NODES as u64).map(|id| entry(EntryKind::Node, id, id % ZONES, format!("node-{id}")));
    let home = entry(EntryKind::Home, 0, 0, "region-0".to_owned());
    regions.chain(zones).chain(nodes).chain([home]).collect()
}

/// The catalog as a plugin receives it.
pub(crate) fn entries() -> Vec<types::Entry> {
    let entries = catalog().into_iter().map(|entry| types::Entry {
        kind: entry.kind as u32,
        id: entry.id,
        parent: entry.parent,
        name: entry.name.to_string(),
        labels: Vec::new(),
    });
    entries.collect()
}

pub(crate) fn place(room: u64) -> PolicyQuestion {
    PolicyQuestion::Place {
        room: RoomId(room),
        scenario: "call".into(),
        labels: Arc::new([]),
        nodes: nodes(),
    }
}

/// Distinct sessions with good quality.
pub(crate) fn sessions() -> Vec<Row> {
    let row = |id: u64| {
        let mut measures = Measures::default();
        measures
            .set(Metric::LossUp, id * 31 % 9_000)
            .set(Metric::LossDown, id * 17 % 9_000)
            .set(Metric::JitterUp, 2_000 + id)
            .set(Metric::JitterDown, 3_000 + id)
            .set(Metric::RttClient, 40_000 + id * 10)
            .set(Metric::BitrateUp, 900 + id % 200)
            .set(Metric::BitrateDown, 900)
            .set(Metric::Rung, 0)
            .set(Metric::Cap, 0)
            .set(Metric::Age, 60_000)
            .set(Metric::Video, 1)
            .set(Metric::Sessions, 2)
            .set(Metric::Floor, 24)
            .set(Metric::Ceiling, 2_000);
        Row { id, measures }
    };
    (1..=SESSIONS as u64).map(row).collect()
}

/// A tick of all sessions with these states.
pub(crate) fn tick(states: &[Option<PluginState>]) -> PolicyQuestion {
    let rows = sessions().into_iter().zip(states);
    let rows = rows.map(|(row, state)| SessionRow {
        room: RoomId(row.id / 2),
        row,
        scenario: "call".into(),
        labels: Arc::new([]),
        state: state.clone(),
    });
    PolicyQuestion::Tick { sessions: rows.collect(), memo: None }
}

/// Rows as columns of these metrics, as the host writes them.
pub(crate) fn frame(rows: &[Row], metrics: &[u32]) -> types::Frame {
    let known = metrics.iter().filter_map(|&number| Metric::from_number(number));
    let cells = known.flat_map(|metric| rows.iter().map(move |row| row.measures.value(metric)));
    types::Frame { ids: rows.iter().map(|row| row.id).collect(), cells: cells.collect() }
}

/// States as a plugin receives them.
pub(crate) fn blobs(states: &[Option<PluginState>]) -> types::Blobs {
    let mut blobs = types::Blobs { offsets: vec![0], bytes: Vec::new() };
    for state in states {
        blobs.bytes.extend(state.iter().flat_map(|state| state.bytes.iter()));
        blobs.offsets.push(blobs.bytes.len() as u32);
    }
    blobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_holds_column_after_column() {
        let rows = &sessions()[..2];
        let frame = frame(rows, &[Metric::BitrateUp as u32, Metric::Age as u32]);
        assert_eq!(frame.ids, [1, 2]);
        assert_eq!(frame.cells, [901, 902, 60_000, 60_000]);
    }

    #[test]
    fn a_state_that_is_not_there_is_no_bytes() {
        let state =
            |bytes: &[u8]| Some(PluginState { plugin: "x".into(), schema: 1, bytes: bytes.into() });
        let blobs = blobs(&[state(&[1, 2]), None, state(&[3])]);
        assert_eq!((blobs.offsets, blobs.bytes), (vec![0, 2, 2, 3], vec![1, 2, 3]));
    }
}
