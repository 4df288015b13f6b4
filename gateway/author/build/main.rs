//! Embeds the SDK's source for new projects: with the part of the workspace from which it inherits, and its part of the
//! workspace's lock file.

mod lock;
mod manifest;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use toml::{Table, Value};

use crate::manifest::{Needs, table};

/// Licence files to embed with the SDK.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

fn main() {
    if let Err(sentence) = embed() {
        println!("cargo::error={sentence}");
        std::process::exit(1);
    }
}

fn embed() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
    for source in ["plugin-sdk", "Cargo.toml", "Cargo.lock"].iter().chain(&LICENCES) {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo::rerun-if-changed=build");

    let sdk = root.join("plugin-sdk");
    let manifest: Table = read(&root.join("Cargo.toml"))?.parse().map_err(context("Cargo.toml"))?;
    let mut files = Vec::new();
    collect_crate(&sdk, &mut files)?;
    files.sort();
    let mut crates = Vec::new();
    for path in files.iter().filter(|path| path.ends_with("Cargo.toml")) {
        let own: Table = read(path)?.parse().map_err(context(&path.to_string_lossy()))?;
        crates.push(Needs::of(&own)?);
    }
    let mut code = "/// Paths and contents of the SDK's files.\npub(crate) static FILES: &[(&str, &str)] = &[\n".to_owned();
    for path in files {
        let mut text = read(&path)?;
        if path == sdk.join("Cargo.toml") {
            text += &format!("\n{}", manifest::workspace(&manifest, &crates)?);
        }
        let name = path.strip_prefix(&sdk).map_err(|error| error.to_string())?;
        write(&mut code, &format!("    ({:?}, {text:?}),", name.to_string_lossy()))?;
    }
    for licence in LICENCES {
        let text = read(&root.join(licence))?;
        write(&mut code, &format!("    ({licence:?}, {text:?}),"))?;
    }
    write(&mut code, "];\n\n/// By name: the entry of each crate in a lock file.")?;
    write(&mut code, "static LOCKED: &[(&str, &str)] = &[")?;
    let locked: Table = read(&root.join("Cargo.lock"))?.parse().map_err(context("Cargo.lock"))?;
    for (name, entry) in lock::part(&locked, &crates)? {
        write(&mut code, &format!("    ({name:?}, {entry:?}),"))?;
    }
    write(&mut code, "];\n\n/// How a plugin is built: members of a profile in a manifest.")?;
    let mut profile = table(&manifest, &["profile", "plugin"])?.clone();
    profile.remove("inherits");
    write(&mut code, &format!("pub(crate) static PROFILE: &str = {:?};", profile.to_string()))?;
    let package = table(&manifest, &["workspace", "package"])?;
    for (name, key) in [("EDITION", "edition"), ("RUST", "rust-version")] {
        let value = package.get(key).and_then(Value::as_str);
        let value = value.ok_or_else(|| format!("workspace.package has no {key}"))?;
        write(&mut code, &format!("pub(crate) static {name}: &str = {value:?};"))?;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?);
    fs::write(out.join("sdk.rs"), code).map_err(|error| format!("cannot write to OUT_DIR: {error}"))
}

/// Files that a build of a crate reads; tests are left out.
const PARTS: [&str; 5] = ["Cargo.toml", "build.rs", "build", "src", "wit"];

/// Collects the files of a crate and of the crates inside its folder.
fn collect_crate(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    for part in PARTS {
        collect(&folder.join(part), files)?;
    }
    for path in list(folder)?.into_iter().filter(|path| path.join("Cargo.toml").exists()) {
        collect_crate(&path, files)?;
    }
    Ok(())
}

/// Collects a file, or all files below a folder. A missing path adds nothing.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    if path.is_file() {
        files.push(path.to_owned());
    } else if path.is_dir() {
        for path in list(path)? {
            collect(&path, files)?;
        }
    }
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(context(&folder.to_string_lossy()))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths.collect::<Result<_, _>>().map_err(context(&folder.to_string_lossy()))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(context(&path.to_string_lossy()))
}

fn write(code: &mut String, line: &str) -> Result<(), String> {
    writeln!(code, "{line}").map_err(|error| error.to_string())
}

fn context<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> String + use<'_, E> {
    move |error| format!("{what}: {error}")
}
