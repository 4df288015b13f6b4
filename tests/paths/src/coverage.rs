//! LLVM's counters of a running process: which functions were called between two moments.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use evenkeel_lab::process::ChildProcess;
use serde::Deserialize;

/// Crates of `gateway/` that take no part in a running gateway.
const APART: [&str; 2] = ["lab", "links"];

/// The file of counters of a process without an environment, as rustc names it.
const DEFAULT_PROFILE: &[u8; 21] = b"default_%m_%p.profraw";

/// Functions, by file.
pub(crate) type Entered = BTreeMap<String, BTreeSet<String>>;

/// The counters of a process at one moment.
pub(crate) struct Snapshot(PathBuf);

/// The functions of a program by their symbols.
pub(crate) struct Coverage {
    tools: PathBuf,
    functions: HashMap<String, Function>,
}

/// A function with the closures in it, and all its instances.
struct Function {
    file: String,
    name: String,
}

/// The file of a process's counters is `FOLDER/PID.profraw`, as `LLVM_PROFILE_FILE` says to it.
pub(crate) fn profile(folder: &Path) -> PathBuf {
    folder.join("%p%c.profraw")
}

/// Copies the counters of a process that writes them into this folder.
pub(crate) fn snapshot(process: &ChildProcess, folder: &Path) -> Result<Snapshot, String> {
    let number = fs::read_dir(folder).map_or(0, Iterator::count);
    let from = folder.join(format!("{}.profraw", process.id()));
    let to = folder.join(format!("snapshot-{number}"));
    fs::copy(&from, &to).map_err(|error| format!("{}: {error}", from.display()))?;
    Ok(Snapshot(to))
}

/// A program whose processes without an environment map their counters as well. Otherwise the compiler of plugins, which is
/// started without one, would write them when it ends; that call is not allowed to it.
pub(crate) struct MappedProgram {
    pub(crate) path: PathBuf,
    /// The counters of these processes. The path replaces the default name in the program, so its length is fixed.
    profiles: PathBuf,
}

impl MappedProgram {
    /// Writes a copy of the program into this folder.
    pub(crate) fn copy(program: &Path, folder: &Path) -> Result<MappedProgram, String> {
        let failed = |error| format!("{}: {error}", program.display());
        // A killed run leaves its folder, and others may have folders of such names.
        let own = std::process::id();
        let mut names =
            (0..=0xfff).map(|next| format!("/tmp/{:03x}", own.wrapping_add(next) & 0xfff));
        let profiles = names
            .find(|name| fs::create_dir(name).is_ok())
            .map(PathBuf::from)
            .ok_or("no folder of three digits can be created in /tmp")?;
        let mapped = MappedProgram { path: folder.join("evenkeel"), profiles };
        let name = format!("{}/%p%c.profraw", mapped.profiles.display());
        let mut bytes = fs::read(program).map_err(failed)?;
        let mut at = 0;
        while let Some(next) =
            bytes[at..].windows(name.len()).position(|text| text == DEFAULT_PROFILE)
        {
            at += next;
            bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
        }
        let written = fs::copy(program, &mapped.path).and_then(|_| fs::write(&mapped.path, bytes));
        written.map_err(failed)?;
        Ok(mapped)
    }
}

impl Drop for MappedProgram {
    fn drop(&mut self) {
        // A folder that is left takes a name, and nothing reads it.
        let _ = fs::remove_dir_all(&self.profiles);
    }
}

#[derive(Deserialize)]
struct Export {
    data: Vec<ExportedProgram>,
}

#[derive(Deserialize)]
struct ExportedProgram {
    functions: Vec<ExportedFunction>,
}

#[derive(Deserialize)]
struct ExportedFunction {
    name: String,
    filenames: Vec<PathBuf>,
}

impl Coverage {
    /// Reads the functions of a program, whose sources are below `root`.
    pub(crate) fn of(program: &Path, root: &Path, any: &Snapshot) -> Result<Coverage, String> {
        let tools = tools()?;
        let merged = any.0.with_extension("profdata");
        run(
            &tools,
            "llvm-profdata",
            &["merge".as_ref(), any.0.as_ref(), "-o".as_ref(), merged.as_ref()],
        )?;
        let counters = format!("-instr-profile={}", merged.display());
        let words = ["export", "-format=text", "-skip-expansions", "-skip-branches", &counters];
        let words = words.iter().map(OsStr::new).chain([program.as_os_str()]).collect::<Vec<_>>();
        let exported = run(&tools, "llvm-cov", &words)?;
        let exported: Export = serde_json::from_slice(&exported)
            .map_err(|error| format!("llvm-cov export printed no such list: {error}"))?;
        let functions = exported.data.into_iter().flat_map(|program| program.functions);
        let functions: HashMap<_, _> = functions
            .filter_map(|function| {
                let file = function.filenames.first()?.strip_prefix(root).ok()?.to_str()?;
                let name = plain(&format!("{:#}", rustc_demangle::demangle(&function.name)));
                is_product(file).then(|| (function.name, Function { file: file.to_owned(), name }))
            })
            .collect();
        if functions.is_empty() {
            return Err(format!("{} has no counters of {}", program.display(), root.display()));
        }
        Ok(Coverage { tools, functions })
    }

    /// The functions that were called from one moment to another.
    pub(crate) fn entered(&self, (from, to): &(Snapshot, Snapshot)) -> Result<Entered, String> {
        let (from, to) = (self.counts(from)?, self.counts(to)?);
        let mut entered = Entered::new();
        for (symbol, after) in &to {
            let Some(Function { file, name }) = self.functions.get(symbol) else { continue };
            let is_called = match from.get(symbol) {
                Some(before) => before.iter().zip(after).any(|(before, after)| after > before),
                None => after.iter().any(|count| *count > 0),
            };
            if is_called {
                entered.entry(file.clone()).or_default().insert(name.clone());
            }
        }
        Ok(entered)
    }

    fn counts(&self, snapshot: &Snapshot) -> Result<HashMap<String, Vec<u64>>, String> {
        let text = snapshot.0.with_extension("text");
        let words = [
            "merge".as_ref(),
            "-text".as_ref(),
            snapshot.0.as_os_str(),
            "-o".as_ref(),
            text.as_os_str(),
        ];
        run(&self.tools, "llvm-profdata", &words)?;
        let text =
            fs::read_to_string(&text).map_err(|error| format!("{}: {error}", text.display()))?;
        // A record is the symbol, a hash, the number of counters and the counters, and ends with an empty line.
        let lines = text.lines().filter(|line| !line.starts_with([':', '#']));
        let lines: Vec<&str> = lines.collect();
        let records = lines.split(|line| line.is_empty());
        let counts = records.filter_map(|record| {
            let (symbol, rest) = record.split_first()?;
            let counters = rest.get(2..)?.iter().filter_map(|count| count.parse().ok()).collect();
            Some(((*symbol).to_owned(), counters))
        });
        Ok(counts.collect())
    }
}

fn is_product(file: &str) -> bool {
    let mut parts = file.split('/');
    let is_inside =
        parts.next() == Some("gateway") && parts.next().is_some_and(|name| !APART.contains(&name));
    is_inside && !parts.any(|part| part == "tests" || part == "tests.rs")
}

/// The demangled name of a function without closures and the types of its instance.
fn plain(name: &str) -> String {
    let name = name.split("::{closure").next().unwrap_or(name);
    let (mut plain, mut depth, mut before) = (String::new(), 0_usize, ' ');
    for letter in name.chars() {
        match letter {
            '<' if depth > 0 || before == ':' || before.is_alphanumeric() => depth += 1,
            '>' if depth > 0 && before != '-' => depth -= 1,
            _ if depth == 0 => plain.push(letter),
            _ => {}
        }
        before = letter;
    }
    plain.replace("::::", "::").trim_end_matches("::").to_owned()
}

/// The folder of `llvm-profdata` and `llvm-cov`, which fit the compiler of the workspace.
fn tools() -> Result<PathBuf, String> {
    let missing = "llvm-tools is missing: run `rustup component add llvm-tools`";
    let printed = Command::new("rustc").args(["--print", "target-libdir"]).output();
    let printed = printed.map_err(|error| format!("cannot run rustc: {error}"))?;
    let printed = String::from_utf8_lossy(&printed.stdout).trim().to_owned();
    let tools = Path::new(&printed).with_file_name("bin");
    let is_there = ["llvm-profdata", "llvm-cov"].iter().all(|tool| tools.join(tool).is_file());
    is_there.then_some(tools).ok_or_else(|| missing.to_owned())
}

fn run(tools: &Path, tool: &str, words: &[&OsStr]) -> Result<Vec<u8>, String> {
    let output = Command::new(tools.join(tool)).args(words).output();
    let output = output.map_err(|error| format!("cannot run {tool}: {error}"))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(format!("{tool} failed: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_and_closures_share_a_name() {
        for (name, expected) in [
            ("evenkeel_core::rooms::offer", "evenkeel_core::rooms::offer"),
            ("evenkeel_core::rooms::offer::<u32>::{closure#0}", "evenkeel_core::rooms::offer"),
            ("<evenkeel_core::Table<u8>>::get::<fn() -> u8>", "<evenkeel_core::Table>::get"),
            ("<a::B<c::D> as e::F<g::H>>::i", "<a::B as e::F>::i"),
        ] {
            assert_eq!(plain(name), expected);
        }
    }

    #[test]
    fn only_files_of_the_gateway_are_counted() {
        let counted = ["gateway/core/src/lib.rs", "gateway/api/src/offer.rs"];
        let others = [
            "gateway/core/src/rooms/tests.rs",
            "gateway/core/src/gateway/tests/moves.rs",
            "gateway/lab/src/client.rs",
            "plugin-sdk/src/lib.rs",
        ];
        assert!(counted.iter().all(|file| is_product(file)));
        assert!(!others.iter().any(|file| is_product(file)));
    }
}
