//! Looks for everything that tests may need, and exports what this machine lacks.

use std::env;
use std::fs;
use std::path::Path;

#[path = "../src/need.rs"]
#[allow(dead_code, unreachable_pub, reason = "the test kit uses the rest")]
mod need;

use need::Need;

/// The value with which lack is a failure: nothing is ignored.
const ALL: &str = "all";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../src/need.rs");
    println!("cargo::rerun-if-env-changed=EVENKEEL_REQUIRED");
    let required = env::var_os("EVENKEEL_REQUIRED");
    assert!(
        required.as_ref().is_none_or(|value| value == ALL),
        "EVENKEEL_REQUIRED is `{ALL}` or unset, not {required:?}"
    );
    let all = if required.is_some() { &[] } else { Need::ALL };
    let lacking: Vec<&Need> = all.iter().filter(|need| !need.is_met()).collect();
    if !lacking.is_empty() {
        watch();
    }
    let lines = lacking.iter().map(|need| format!("{need:?}={}", need.name()));
    println!("cargo::rustc-env=EVENKEEL_LACKING={}", lines.collect::<Vec<_>>().join(";"));
}

/// Runs this again after an installation: a system package changes a folder of PATH, and our scripts a file. Another user has other
/// rights.
fn watch() {
    println!("cargo::rerun-if-env-changed=USER");
    let stamp = need::target().join("installed");
    // Cargo runs this each time if a watched file is missing.
    if stamp.is_file() || fs::write(&stamp, "").is_ok() {
        println!("cargo::rerun-if-changed={}", stamp.display());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    for folder in env::split_paths(&path).filter(|folder| is_watched(folder)) {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
}

/// False for a relative folder, whose tree may be large and change.
fn is_watched(folder: &Path) -> bool {
    folder.is_absolute() && folder.is_dir()
}
