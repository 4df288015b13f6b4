//! The forecasts of regions and nodes, as the process that continues them reads them. Control does not read them.

use std::io;
use std::path::{Path, PathBuf};

use evenkeel_forecast::{ForecastRecord, ForecastTable};
use evenkeel_kept::{Document, EarlierDocument, Encoded, FollowerCopy, KeptPart, Kind};
use serde::{Deserialize, Serialize};

/// Regions and nodes with a row: more than 1,024 nodes in 512 regions. Of names that are gone the rows stay until then.
const ROWS_MAX: usize = 2_048;

/// Maximum size of the forecasts that an owner of an earlier version sends, bytes.
const TEXT_MAX: usize = 16 << 20;

/// The version of the text of forecasts in files and records of earlier versions.
const TEXT_VERSION: u32 = 1;

/// The forecasts of a region or node.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(transparent)]
pub struct KeptForecast(pub ForecastRecord);

impl Document for KeptForecast {
    const KIND: Kind =
        Kind { name: "forecasts", version: 1, rows_max: ROWS_MAX, copy: FollowerCopy::Adds };

    /// The disk has those of weeks.
    fn merge(kept: KeptForecast, _own: KeptForecast) -> KeptForecast {
        kept
    }

    fn earlier_files(name: &str) -> Vec<PathBuf> {
        vec![Path::new("forecasts").join(format!("{name}.json"))]
    }

    fn read_earlier(bytes: &[u8]) -> io::Result<Vec<EarlierDocument>> {
        let document = |record: ForecastRecord| {
            let key = record.key().into();
            Ok(EarlierDocument { key, value: serde_json::to_value(record)? })
        };
        read_text(bytes)?.records().map(document).collect()
    }
}

/// The forecasts of an earlier version.
#[derive(Deserialize)]
struct ForecastText<T> {
    version: u32,
    table: T,
}

fn read_text(bytes: &[u8]) -> io::Result<ForecastTable> {
    let text: ForecastText<serde::de::IgnoredAny> = serde_json::from_slice(bytes)?;
    if text.version != TEXT_VERSION {
        return Err(io::Error::other(format!(
            "version {} instead of {TEXT_VERSION}",
            text.version
        )));
    }
    let text: ForecastText<ForecastTable> = serde_json::from_slice(bytes)?;
    Ok(text.table)
}

/// A part of the forecasts of an owner of an earlier version, which travels with a batch of records.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ForecastPart {
    /// Bytes before it.
    pub(crate) at: u32,
    /// Bytes of all parts.
    pub(crate) of: u32,
    /// The content.
    pub(crate) text: String,
}

/// The parts that came.
#[derive(Clone, Default, Debug)]
pub(crate) struct ForecastParts {
    received: String,
    whole: Option<EarlierForecasts>,
}

/// All forecasts of an owner of an earlier version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EarlierForecasts(String);

impl EarlierForecasts {
    /// The rows. It takes about 10 ms for 1 MiB.
    ///
    /// # Errors
    /// If the text is damaged, or has another version.
    pub fn read(&self) -> io::Result<KeptPart> {
        let row = |record: ForecastRecord| {
            let key = record.key();
            Encoded::new(&key, &KeptForecast(record))
        };
        Ok(KeptPart::of_rows(read_text(self.0.as_bytes())?.records().map(row)))
    }
}

impl ForecastParts {
    /// Adds a part.
    pub(crate) fn add(&mut self, ForecastPart { at, of, text }: ForecastPart) {
        let (at, of) = (at as usize, of as usize);
        if at == 0 {
            self.received.clear();
        }
        let end = at + text.len();
        if at != self.received.len() || end > of || of > TEXT_MAX {
            return;
        }
        self.received.push_str(&text);
        if end == of {
            self.whole = Some(EarlierForecasts(std::mem::take(&mut self.received)));
        }
    }

    /// Takes the forecasts once all parts came.
    pub(crate) fn take_whole(&mut self) -> Option<EarlierForecasts> {
        self.whole.take()
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.whole.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use evenkeel_forecast::{NodeMinute, NodeSample, RegionSample};
    use evenkeel_kept::{Follower, Store};
    use evenkeel_process::file;
    use tempfile::{TempDir, tempdir};

    use super::*;

    /// Written by 0b0f1044.
    const FILE: &str = include_str!("../tests/fixtures/forecasts.json");

    fn parts(text: &str) -> Vec<ForecastPart> {
        let of = text.len() as u32;
        let (first, second) = text.split_at(text.len() / 2);
        let second = ForecastPart { at: first.len() as u32, of, text: second.into() };
        vec![ForecastPart { at: 0, of, text: first.into() }, second]
    }

    const SOCKET: &str = "/admin.sock";

    /// A folder with the file of forecasts, and its path.
    fn folder_of_an_earlier_version() -> (TempDir, PathBuf) {
        let folder = tempdir().unwrap();
        let name = format!("{}.json", file::name_of(Path::new(SOCKET)));
        let path = folder.path().join("forecasts").join(name);
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, FILE).unwrap();
        (folder, path)
    }

    #[test]
    fn file_of_an_earlier_version_is_read() {
        let (folder, path) = folder_of_an_earlier_version();
        for _ in 0..2 {
            let store = Store::default();
            let kept = store.documents::<KeptForecast>();
            let _thread =
                store.open(Some(folder.path()), Path::new(SOCKET), &Default::default()).unwrap();
            store.begin(Duration::from_secs(20));
            let records = kept.rows().into_iter().map(|row| row.decode().unwrap().0);
            let table = ForecastTable::from_records(records);
            assert_eq!(table, read_text(FILE.as_bytes()).unwrap());
            assert_eq!(table.forecasts().map(|it| &*it.subject).collect::<Vec<_>>(), ["a"]);
            assert!(kept.row("node/a").is_some() && kept.row("region/east").is_some());
        }
        assert!(!path.exists());
    }

    #[test]
    fn file_of_an_earlier_version_is_read_after_an_upgrade() {
        let (folder, _) = folder_of_an_earlier_version();
        let (earlier, store) = (Store::default(), Store::default());
        earlier.documents::<KeptForecast>();
        let kept = store.documents::<KeptForecast>();
        let _thread =
            store.open(Some(folder.path()), Path::new(SOCKET), &Default::default()).unwrap();
        let mut follower = Follower::default();
        while let Some(part) = earlier.next_part(&mut follower, usize::MAX) {
            store.add_part(part);
        }
        store.begin(Duration::from_secs(20));
        let until = Instant::now() + Duration::from_secs(20);
        while kept.row("node/a").is_none() {
            assert!(Instant::now() < until, "the file is not read");
            std::thread::yield_now();
        }
    }

    #[test]
    fn text_of_another_version_is_refused() {
        for text in ["", "{\"version\":1}", "{\"version\":2,\"table\":{\"x\":1}}"] {
            assert!(KeptForecast::read_earlier(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn parts_of_an_earlier_owner_become_rows() {
        let mut copy = ForecastParts::default();
        let [first, second] = parts(FILE).try_into().unwrap();
        copy.add(second.clone());
        copy.add(first.clone());
        assert!(!copy.is_whole(), "the first part was missing");
        copy.add(second.clone());
        let rows = copy.take_whole().unwrap().read().unwrap();
        assert!(rows.document::<KeptForecast>("node/a").is_some());
        assert!(rows.document::<KeptForecast>("region/east").is_some());
        for (at, of) in [(0, 3), (0, TEXT_MAX as u32 + 1), (4, 8)] {
            copy.add(ForecastPart { at, of, text: "four".into() });
            assert!(copy.received.is_empty() && !copy.is_whole());
        }
        copy.add(ForecastPart { at: 0, of: 4, text: "four".into() });
        assert!(copy.take_whole().unwrap().read().is_err());
    }

    #[test]
    fn row_of_full_series_delays_no_beat() {
        let load = RegionSample { load_kbps: 123_456.7, capacity_kbps: 1e6 };
        let regions = BTreeMap::from([("region".into(), load)]);
        let mut table = ForecastTable::default();
        for minute in 0..8 * 1_440_u32 {
            let sample = NodeSample {
                round_trip_ms: Some(12.345_678 + f64::from(minute) / 7.0),
                loss: f64::from(minute) / 1e6,
                memory: Some(0.123_456_7 + f64::from(minute) / 1e6),
                started_s: Some(u64::from(minute) * 60),
                may_restart: false,
            };
            let node = NodeMinute { sample, changes: 9 };
            let nodes = BTreeMap::from([("node".into(), node)]);
            table.sample(u64::from(minute), &regions, &nodes, 30);
        }
        let bytes = |record| serde_json::to_string(&KeptForecast(record)).unwrap().len();
        let bytes: Vec<usize> = table.records().map(bytes).collect();
        // Batches of records have 16 KiB of documents.
        assert!(bytes[0] < 16 << 10 && bytes[1] < 4 << 10, "{bytes:?}");
    }
}
