//! The `evenkeel` binary under test: built along with the tests, or on first use with their profile.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Variables beside `CARGO_PKG_*` that cargo sets for the test's own package.
const PACKAGE_VARIABLES: [&str; 4] =
    ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"];

/// Environment variable with the path of an `evenkeel` that is already built. A build of that package alone would
/// select other features of its dependencies and compile for minutes.
const BUILT: &str = "EVENKEEL_BUILT";

pub fn evenkeel() -> &'static Path {
    static EVENKEEL: OnceLock<PathBuf> = OnceLock::new();
    EVENKEEL.get_or_init(|| env::var_os(BUILT).map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    // <target>/<profile>/deps/interop-<hash>
    let test = env::current_exe().expect("a process knows its own program");
    let folder = test.ancestors().nth(2).expect("a test lies in the profile's deps");
    let target = folder.parent().expect("a profile lies in the target folder");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // These variables belong to the test's package; dependencies that read them would be rebuilt each time.
    let set = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in
        set.filter(|name| name.starts_with("CARGO_PKG_") || PACKAGE_VARIABLES.contains(&&**name))
    {
        cargo.env_remove(name);
    }
    let built = cargo
        .args(["build", "--quiet", "--package", "evenkeel", "--bin", "evenkeel"])
        .args(["--message-format", "json-render-diagnostics", "--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be run");
    assert!(built.status.success(), "evenkeel cannot be built: {}", built.status);
    let messages = String::from_utf8_lossy(&built.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut programs = messages.filter_map(|message: serde_json::Value| {
        let ours = message["target"]["name"] == "evenkeel";
        message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
    });
    programs.next_back().expect("cargo reports the executable")
}
