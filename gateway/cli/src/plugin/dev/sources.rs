//! Watched files: a change begins a new build.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Folders that builds write.
const BUILT_FOLDERS: [&str; 3] = ["target", "build", "node_modules"];
/// Endings of files that builds write.
const BUILT_ENDINGS: [&str; 2] = ["wasm", "part"];

/// Files, and folders with their sources.
pub(super) struct Sources(Vec<PathBuf>);

/// Time of the last change and size, by file.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct SourceState(BTreeMap<PathBuf, (SystemTime, u64)>);

impl Sources {
    /// Paths that are missing may be written later.
    pub(super) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Sources {
        let resolved = |path: PathBuf| path.canonicalize().unwrap_or(path);
        Sources(paths.into_iter().map(resolved).collect())
    }

    pub(super) fn state(&self) -> SourceState {
        let (mut files, mut open) = (BTreeMap::new(), self.0.clone());
        while let Some(path) = open.pop() {
            // A symbolic link is not followed, because it may lead to a folder above it.
            let Ok(facts) = fs::symlink_metadata(&path) else { continue };
            if facts.is_dir() {
                let entries = fs::read_dir(&path).into_iter().flatten();
                let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
                open.extend(paths.filter(|path| is_source(path)));
            } else if let Ok(changed_at) = facts.modified() {
                files.insert(path, (changed_at, facts.len()));
            }
        }
        SourceState(files)
    }
}

fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    let is_built = BUILT_FOLDERS.contains(&&*name) || BUILT_ENDINGS.contains(&&*ending);
    !is_built && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn only_changes_of_sources_are_changes() {
        let folder = tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("src/lib.rs", "one");
        let sources = Sources::new([folder.path().to_owned()]);
        let first = sources.state();
        for built in ["target/a.o", "build/policy.o", "node_modules/a.js", "my.wasm", ".git/index"]
        {
            write(built, "built");
        }
        assert_eq!(sources.state(), first);
        write("src/lib.rs", "longer");
        let second = sources.state();
        assert_ne!(second, first);
        write("tests/case.toml", "");
        assert_ne!(sources.state(), second);
    }

    #[test]
    fn named_file_is_watched_whatever_its_ending() {
        let folder = tempdir().unwrap();
        let plugin = folder.path().join("my.wasm");
        let sources = Sources::new([plugin.clone()]);
        let missing = sources.state();
        fs::write(plugin, "a plugin").unwrap();
        assert_ne!(sources.state(), missing);
    }
}
