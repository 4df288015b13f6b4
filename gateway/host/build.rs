//! Compiles every plugin under `plugins/` for wasm32-unknown-unknown and embeds the bytes.
//!
//! The inner cargo works in a target folder of its own, under `OUT_DIR`, so that it never waits for the folder that
//! the outer one has locked.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

const TARGET: &str = "wasm32-unknown-unknown";

fn main() {
    if let Err(sentence) = build() {
        println!("cargo::error={sentence}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?);
    println!("cargo::rerun-if-changed=build.rs");
    // Of the SDK what a plugin is made from, and not its documentation, releases and other languages.
    let sdk = ["build", "build.rs", "macros", "src", "wit", "Cargo.toml"];
    let sdk = sdk.map(|part| format!("plugin-sdk/{part}"));
    let others = ["plugins", "Cargo.toml", "Cargo.lock"].map(str::to_owned);
    for source in sdk.iter().chain(&others) {
        if root.join(source).exists() {
            println!("cargo::rerun-if-changed={}", root.join(source).display());
        }
    }
    let plugins = plugins(&root.join("plugins"))?;
    if !plugins.is_empty() {
        check_target()?;
    }
    let mut text = "static SHIPPED: &[Shipped] = &[\n".to_owned();
    for (name, manifest) in plugins {
        let wasm = compile(&manifest, &out.join("plugins"))?;
        writeln!(text, "    Shipped {{ name: {name:?}, bytes: include_bytes!({wasm:?}) }},")
            .map_err(|error| error.to_string())?;
    }
    text.push_str("];\n");
    fs::write(out.join("shipped.rs"), text)
        .map_err(|error| format!("cannot write to OUT_DIR: {error}"))
}

/// Name and manifest of every crate in the folder, in the order of their names.
fn plugins(folder: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).map_err(|error| format!("cannot list plugins/: {error}"))?;
    let mut plugins = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| format!("cannot list plugins/: {error}"))?.path();
        let manifest = path.join("Cargo.toml");
        if manifest.exists()
            && let Some(name) = path.file_name()
        {
            plugins.push((name.to_string_lossy().into_owned(), manifest));
        }
    }
    plugins.sort();
    Ok(plugins)
}

fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

fn check_target() -> Result<(), String> {
    let output = rustc()
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|error| format!("cannot run rustc: {error}"))?;
    let folder = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && Path::new(folder.trim()).is_dir() {
        return Ok(());
    }
    Err(format!(
        "the plugins need the target {TARGET}, which is not installed: run `rustup target add {TARGET}`"
    ))
}

/// Builds one plugin and returns the path of its module.
fn compile(manifest: &Path, target_dir: &Path) -> Result<PathBuf, String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--profile", "plugin", "--lib", "--target", TARGET])
        .args(["--message-format", "json-render-diagnostics"])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(target_dir)
        .stderr(Stdio::inherit());
    // What the outer build says about flags and wrappers is meant for its own target.
    for (key, _) in env::vars_os() {
        let name = key.to_string_lossy();
        let outer = name.starts_with("CARGO_CFG_")
            || name.starts_with("CARGO_FEATURE_")
            || name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_PROFILE_");
        if outer {
            cargo.env_remove(&key);
        }
    }
    for key in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "TARGET",
        "HOST",
        "OUT_DIR",
        "OPT_LEVEL",
        "PROFILE",
        "DEBUG",
    ] {
        cargo.env_remove(key);
    }
    let output = cargo.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "the plugin {} does not compile; cargo says why above",
            manifest.display()
        ));
    }
    let modules = String::from_utf8_lossy(&output.stdout);
    modules.lines().rev().find_map(module).ok_or_else(|| {
        format!(
            "the plugin {} makes no module: it needs `crate-type = [\"cdylib\"]`",
            manifest.display()
        )
    })
}

/// The module that a message of cargo tells of.
fn module(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let files = message.get("filenames")?.as_array()?;
    let file =
        files.iter().filter_map(|file| file.as_str()).find(|file| file.ends_with(".wasm"))?;
    Some(file.into())
}
