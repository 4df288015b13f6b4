//! The file of forecasts, from which the next process continues: it knows the load of the past weeks.

use std::io;
use std::path::{Path, PathBuf};

use evenkeel_forecast::ForecastTable;
use evenkeel_process::file;
use serde::{Deserialize, Serialize};

/// The version of the file. A file of another version is replaced.
const VERSION: u32 = 1;

/// Maximum size of the file, bytes: 4 KiB of each of 1,024 nodes, and 16 KiB of each of 512 regions.
const BYTES_MAX: u64 = 12 << 20;

/// Maximum number of files in the folder, more than the gateways of one machine.
const FILES_MAX: usize = 64;

/// The file of this gateway's forecasts.
#[derive(Debug)]
pub struct ForecastFile {
    /// `None`: forecasts end with the process.
    path: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct FileContent<T> {
    version: u32,
    table: T,
}

impl ForecastFile {
    /// Names the file in the folder.
    pub fn new(folder: Option<&Path>, socket: &Path) -> ForecastFile {
        let name = format!("{}.json", file::name_of(socket));
        ForecastFile { path: folder.map(|folder| folder.join("forecasts").join(name)) }
    }

    /// Reads the file. An unreadable file is reported, and replaced.
    pub fn read(&self) -> ForecastTable {
        let Some(path) = &self.path else { return ForecastTable::default() };
        read(path).unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), %error, "forecasts cannot be read; learning anew");
            ForecastTable::default()
        })
    }

    /// Replaces the file.
    pub fn write(&self, table: &ForecastTable) {
        let Some(path) = &self.path else { return };
        if let Err(error) = write(path, table) {
            tracing::warn!(file = %path.display(), %error, "forecasts end with the process");
        }
    }
}

fn read(path: &Path) -> io::Result<ForecastTable> {
    let bytes = match file::read(path, BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(ForecastTable::default());
        }
        read => read?,
    };
    let FileContent { version, .. }: FileContent<serde::de::IgnoredAny> =
        serde_json::from_slice(&bytes)?;
    if version != VERSION {
        return Err(io::Error::other(format!("version {version} instead of {VERSION}")));
    }
    let FileContent { table, .. }: FileContent<ForecastTable> = serde_json::from_slice(&bytes)?;
    match table.is_valid() {
        true => Ok(table),
        false => Err(io::Error::other("a list has another length")),
    }
}

fn write(path: &Path, table: &ForecastTable) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    file::create_private_folder(folder)?;
    file::replace(path, &serde_json::to_vec(&FileContent { version: VERSION, table })?)?;
    // The next write tries again.
    let _ = file::trim(folder, path, FILES_MAX);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use evenkeel_forecast::RegionSample;
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn next_process_continues_the_forecasts() {
        let folder = tempdir().unwrap();
        let open = || ForecastFile::new(Some(folder.path()), Path::new("/admin.sock"));
        let mut table = open().read();
        assert_eq!(table, ForecastTable::default());
        let sample = RegionSample { load_kbps: 100.0, capacity_kbps: 100.0 };
        table.sample(7, &BTreeMap::from([("east".into(), sample)]), &BTreeMap::new(), 30);
        open().write(&table);
        let next = open().read();
        assert_eq!(next.forecasts().collect::<Vec<_>>(), table.forecasts().collect::<Vec<_>>());
        assert_eq!(next.forecasts().count(), 1);
    }

    #[test]
    fn unreadable_file_is_replaced() {
        let folder = tempdir().unwrap();
        let file = ForecastFile::new(Some(folder.path()), Path::new("/admin.sock"));
        file.write(&ForecastTable::default());
        let path = file.path.as_ref().unwrap();
        assert!(read(path).is_ok());
        for content in ["", "{\"version\":1,\"table\":{}}", "{\"version\":2,\"table\":{\"x\":1}}"] {
            fs::write(path, content).unwrap();
            assert!(read(path).is_err(), "{content}");
            assert_eq!(file.read(), ForecastTable::default());
        }
        file.write(&ForecastTable::default());
        assert!(read(path).is_ok());
    }

    #[test]
    fn file_of_the_most_nodes_and_regions_is_read() {
        let names = |prefix: &str, count: usize| {
            (0..count).map(|number| format!("{prefix}{number:03}").into()).collect::<Vec<_>>()
        };
        let sample = RegionSample { load_kbps: 123_456.7, capacity_kbps: 1e6 };
        let regions = names("region", 8).into_iter().map(|name| (name, sample)).collect();
        let nodes = names("node", 8).into_iter().map(|name| (name, Default::default())).collect();
        let mut table = ForecastTable::default();
        for minute in 0..8 * 1_440 {
            table.sample(minute, &regions, &nodes, 30);
        }
        let written = serde_json::to_vec(&table).unwrap().len() as u64;
        assert!(written < BYTES_MAX / 128, "{written} bytes");
    }
}
