//! The file of forecasts, from which the next process continues: it knows the load of the past weeks.

use std::io;
use std::path::{Path, PathBuf};

use evenkeel_forecast::ForecastTable;
use evenkeel_process::documents::{KeptDocument, UnwrittenDocuments};
use evenkeel_process::file;
use serde::{Deserialize, Serialize};

/// The version of the file. A file of another version is replaced.
const FILE_VERSION: u32 = 1;

/// Maximum sizes of a node and of a region in the file, bytes.
const NODE_BYTES_MAX: u64 = 4 << 10;
const REGION_BYTES_MAX: u64 = 16 << 10;

/// Maximum size of the file, bytes: of 1,024 nodes in 512 regions.
const BYTES_MAX: u64 = 1_024 * NODE_BYTES_MAX + 512 * REGION_BYTES_MAX;

/// Maximum number of files in the folder, more than the gateways of one machine.
const FILES_MAX: usize = 64;

/// The file of this gateway's forecasts.
#[derive(Clone, Debug)]
pub(super) struct ForecastFile {
    /// `None`: forecasts end with the process.
    path: Option<PathBuf>,
    unwritten: UnwrittenDocuments,
}

#[derive(Serialize, Deserialize)]
struct FileContent<T> {
    version: u32,
    table: T,
}

impl ForecastFile {
    /// Names the file in the folder.
    pub(super) fn new(
        folder: Option<&Path>,
        socket: &Path,
        unwritten: UnwrittenDocuments,
    ) -> ForecastFile {
        let name = format!("{}.json", file::name_of(socket));
        let path = folder.map(|folder| folder.join("forecasts").join(name));
        ForecastFile { path, unwritten }
    }

    /// The forecasts of the owner that this gateway replaces, if there is a copy of them, or those of the file.
    pub(super) fn continued(&self, copied: Option<&str>) -> ForecastTable {
        let Some(copied) = copied else { return self.read() };
        decode(copied.as_bytes()).unwrap_or_else(|error| {
            tracing::warn!(%error, "the owner's forecasts cannot be read; continuing those of the file");
            self.read()
        })
    }

    /// Reads the file. An unreadable file is reported in the log and replaced.
    fn read(&self) -> ForecastTable {
        let Some(path) = &self.path else { return ForecastTable::default() };
        read(path).unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), %error, "forecasts cannot be read; learning anew");
            ForecastTable::default()
        })
    }

    /// Replaces the file. Returns its content.
    pub(super) fn write(&self, table: &ForecastTable) -> serde_json::Result<String> {
        let content = serde_json::to_string(&FileContent { version: FILE_VERSION, table })?;
        if let Some(path) = &self.path {
            self.unwritten.note(KeptDocument::Forecasts, path, &write(path, &content));
        }
        Ok(content)
    }
}

fn read(path: &Path) -> io::Result<ForecastTable> {
    let bytes = match file::read(path, BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(ForecastTable::default());
        }
        read => read?,
    };
    decode(&bytes)
}

fn decode(bytes: &[u8]) -> io::Result<ForecastTable> {
    let FileContent { version, .. }: FileContent<serde::de::IgnoredAny> =
        serde_json::from_slice(bytes)?;
    if version != FILE_VERSION {
        return Err(io::Error::other(format!("version {version} instead of {FILE_VERSION}")));
    }
    let FileContent { table, .. }: FileContent<ForecastTable> = serde_json::from_slice(bytes)?;
    match table.is_valid() {
        true => Ok(table),
        false => Err(io::Error::other("a list has another length")),
    }
}

fn write(path: &Path, content: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    file::create_private_folder(folder)?;
    file::replace(path, content.as_bytes())?;
    // The next write tries again.
    let _ = file::trim(folder, path, FILES_MAX);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::Arc;

    use evenkeel_forecast::{NodeMinute, NodeSample, RegionSample};
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn next_process_continues_the_forecasts() {
        let folder = tempdir().unwrap();
        let open = || {
            ForecastFile::new(
                Some(folder.path()),
                Path::new("/admin.sock"),
                UnwrittenDocuments::default(),
            )
        };
        let mut table = open().read();
        assert_eq!(table, ForecastTable::default());
        let sample = RegionSample { load_kbps: 100.0, capacity_kbps: 100.0 };
        table.sample(7, &BTreeMap::from([("east".into(), sample)]), &BTreeMap::new(), 30);
        let content = open().write(&table).unwrap();
        let next = open().read();
        assert_eq!(next.forecasts().collect::<Vec<_>>(), table.forecasts().collect::<Vec<_>>());
        assert_eq!(next.forecasts().count(), 1);
        let standby =
            ForecastFile::new(None, Path::new("/admin.sock"), UnwrittenDocuments::default());
        assert_eq!(standby.continued(Some(&content)), next, "the copy of the owner's");
        assert_eq!(standby.continued(None), ForecastTable::default());
        assert_eq!(open().continued(Some("{")), next, "an unreadable copy");
    }

    #[test]
    fn unreadable_file_is_replaced() {
        let folder = tempdir().unwrap();
        let file = ForecastFile::new(
            Some(folder.path()),
            Path::new("/admin.sock"),
            UnwrittenDocuments::default(),
        );
        file.write(&ForecastTable::default()).unwrap();
        let path = file.path.as_ref().unwrap();
        assert!(read(path).is_ok());
        for content in ["", "{\"version\":1,\"table\":{}}", "{\"version\":2,\"table\":{\"x\":1}}"] {
            fs::write(path, content).unwrap();
            assert!(read(path).is_err(), "{content}");
            assert_eq!(file.read(), ForecastTable::default());
        }
        file.write(&ForecastTable::default()).unwrap();
        assert!(read(path).is_ok());
    }

    #[test]
    fn file_of_full_series_is_within_its_limit() {
        let names = |prefix: &str| -> Vec<Arc<str>> {
            (0..8).map(|number| format!("{prefix}{number:03}").into()).collect()
        };
        let load = RegionSample { load_kbps: 123_456.7, capacity_kbps: 1e6 };
        let regions = names("region").into_iter().map(|name| (name, load)).collect();
        let mut table = ForecastTable::default();
        for minute in 0..8 * 1_440_u32 {
            let round_trip_ms = Some(12.345_678 + f64::from(minute) / 7.0);
            let loss = f64::from(minute) / 1e6;
            let sample = NodeSample {
                round_trip_ms,
                loss,
                memory: Some(0.123_456_7 + f64::from(minute) / 1e6),
                started_s: Some(u64::from(minute) * 60),
                may_restart: false,
            };
            let node = NodeMinute { sample, changes: 9 };
            let nodes = names("node").into_iter().map(|name| (name, node)).collect();
            table.sample(u64::from(minute), &regions, &nodes, 30);
        }
        let folder = tempdir().unwrap();
        let file = ForecastFile::new(
            Some(folder.path()),
            Path::new("/admin.sock"),
            UnwrittenDocuments::default(),
        );
        file.write(&table).unwrap();
        assert!(file.read().forecasts().eq(table.forecasts()));
        assert!(table.forecasts().count() > 0);
        let bytes = fs::metadata(file.path.as_ref().unwrap()).unwrap().len();
        assert!(bytes < 8 * (NODE_BYTES_MAX + REGION_BYTES_MAX), "{bytes} bytes");
    }
}
