//! Compiles every plugin under `plugins/` for wasm32-unknown-unknown and embeds the bytes.
//!
//! The inner cargo builds into `target/plugins`, so that it never waits for the outer one's lock, and
//! so that all profiles share its work.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use toolchain::TARGET;

#[path = "src/toolchain.rs"]
#[allow(unreachable_pub, reason = "public in the library")]
mod toolchain;

/// Beginnings of variables by which cargo tells a build script of the outer build.
const OUTER: [&str; 15] = [
    "CARGO_BUILD_",
    "CARGO_CFG_",
    "CARGO_ENCODED_",
    "CARGO_FEATURE_",
    "CARGO_PKG_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "DEBUG",
    "HOST",
    "OPT_LEVEL",
    "OUT_DIR",
    "PROFILE",
    "RUSTC_W",
    "RUSTFLAGS",
    "TARGET",
];

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
    // The documentation, releases and other languages of the SDK are not part of a plugin.
    let sdk = ["build", "build.rs", "macros", "src", "wit", "Cargo.toml"];
    let sdk = sdk.map(|part| format!("plugin-sdk/{part}"));
    let plugins = plugins(&root.join("plugins"))?;
    let of_plugins = plugins
        .iter()
        .flat_map(|name| ["src", "Cargo.toml"].map(|part| format!("plugins/{name}/{part}")));
    // A new plugin changes the lock file.
    let workspace = ["Cargo.toml", "Cargo.lock"].map(str::to_owned);
    for source in sdk.into_iter().chain(of_plugins).chain(workspace) {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    toolchain::check_target().map_err(|error| error.to_string())?;
    // OUT_DIR is target/PROFILE/build/PACKAGE/out.
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not below a target folder")?;
    let modules = compile(&root, &plugins, &target.join("plugins"))?;
    let mut text = "static SHIPPED: &[Shipped] = &[\n".to_owned();
    for name in plugins {
        let file = format!("{}.wasm", name.replace('-', "_"));
        let wasm = out.join(&file);
        fs::copy(modules.join(&file), &wasm).map_err(|error| format!("{file}: {error}"))?;
        writeln!(text, "    Shipped {{ name: {name:?}, bytes: include_bytes!({wasm:?}) }},")
            .map_err(|error| error.to_string())?;
    }
    text.push_str("];\n");
    fs::write(out.join("shipped.rs"), text)
        .map_err(|error| format!("cannot write to OUT_DIR: {error}"))
}

/// Names of the crates in the folder, in order.
fn plugins(folder: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("cannot list plugins/: {error}"))?;
    let mut plugins = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("cannot list plugins/: {error}"))?;
        if entry.path().join("Cargo.toml").exists() {
            plugins.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    plugins.sort();
    Ok(plugins)
}

fn compile(root: &Path, plugins: &[String], target_dir: &Path) -> Result<PathBuf, String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--profile", "plugin", "--lib", "--target", TARGET])
        .args(plugins.iter().flat_map(|name| ["--package", name]))
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    // Flags and wrappers of the outer build apply to its own target only.
    for (key, _) in env::vars_os() {
        if OUTER.iter().any(|prefix| key.to_string_lossy().starts_with(prefix)) {
            cargo.env_remove(&key);
        }
    }
    let status = cargo.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !status.success() {
        return Err("a plugin does not compile; see cargo's errors above".to_owned());
    }
    Ok(target_dir.join(TARGET).join("plugin"))
}
