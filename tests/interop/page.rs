//! The page of `evenkeel demo --serve`: in Chromium, and as it is built.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::binary::evenkeel;
use evenkeel_testkit::clients::{browser_packages, page_packages};
use evenkeel_testkit::required;
use serde_json::json;

use crate::meter::GapLimits;

const LIMITS: GapLimits = GapLimits("page.page_calls*");

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[required(Chromium)]
#[test]
fn page_calls_and_survives_node_death() {
    call_through_deaths("webrtc");
}

#[required(Chromium)]
#[test]
fn page_calls_by_webtransport_through_node_death() {
    call_through_deaths("webtransport");
}

fn call_through_deaths(transport: &str) {
    let folder =
        std::env::temp_dir().join(format!("evenkeel-page-{transport}-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&folder).expect("the temporary folder is ours");
    let mut command = Command::new(evenkeel());
    command.args(["demo", "--serve", "--json", "--sessions", "20"]);
    // The folder of the API's socket.
    command.env("XDG_RUNTIME_DIR", &folder);
    let demo = ChildProcess::start("demo", &mut command, &folder).expect("the demo starts");
    let mut demo = demo.with_grace(TIMEOUT);
    let line = demo.json_line(TIMEOUT).expect("the demo prints where its page is");
    let url = line["page"].as_str().unwrap_or_else(|| panic!("the demo printed {line}"));
    let mut command = Command::new("node");
    command
        .arg(repository().join("tests/interop/browser/page.js"))
        .arg(browser_packages())
        .args([url, transport]);
    let browser = ChildProcess::start("browser", &mut command, &folder).expect("node starts");
    let mut browser = browser.with_grace(TIMEOUT);
    let seen = browser.json_line(4 * TIMEOUT).expect("the page calls through both deaths");
    println!("page: {seen}");
    // How good it is depends on the load of the machine.
    let verdict = seen["probe"]["verdict"].as_str();
    assert!(verdict.is_some_and(|verdict| verdict.starts_with("voice ")), "{seen}");
    let figures = seen["probe"].as_object().expect("figures").values();
    assert!(figures.into_iter().all(|figure| figure != ""), "{seen}");
    assert_eq!((&seen["state"], &seen["again"]), (&json!("connected"), &json!("connected")));
    let killed = format!("the kill of {}", seen["killed"].as_str().expect("a node"));
    let ended = "this call began; the gateway's death ended the one before";
    assert_eq!(seen["since"], json!([killed, killed, ended]), "figures of both pages");
    let gap = seen["gap"].as_str().and_then(|gap| gap.strip_suffix(" ms")?.parse::<f64>().ok());
    let [gap, control] = [gap, seen["control"].as_f64()]
        .map(|ms| Duration::from_secs_f64(ms.unwrap_or_else(|| panic!("no gap in {seen}")) / 1e3));
    LIMITS.judge("the page", gap, control);
    assert_ne!(seen["process"], seen["gateway"], "another process is the gateway");
    assert_eq!(seen["faults"], json!([]), "scripts fail, or something comes from elsewhere");
    drop((browser, demo));
    // Logs of a failed test are kept.
    fs::remove_dir_all(&folder).expect("the folder is ours");
}

/// Copies the files of a folder, and those of its `src`.
fn copy_sources(from: &Path, to: &Path) {
    for folder in ["", "src"] {
        fs::create_dir_all(to.join(folder)).expect("a folder can be made");
        for entry in fs::read_dir(from.join(folder)).expect("the sources are there") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("its type").is_file() {
                fs::copy(entry.path(), to.join(folder).join(entry.file_name())).expect("a copy");
            }
        }
    }
}

fn files(folder: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let read = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(path).expect("text"))
    };
    let mut files: Vec<_> = entries.map(|entry| read(entry.expect("an entry").path())).collect();
    files.sort();
    files
}

#[required(PageTools)]
#[test]
fn built_page_is_current() {
    let (sources, built) = (repository().join("gateway/web"), page_packages());
    // Beside the installed packages, so that node finds them.
    copy_sources(&sources, &built);
    let build = Command::new("npm").args(["run", "--silent", "build"]).current_dir(&built).output();
    let build = build.expect("npm can be run");
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stdout));
    let current = files(&built.join("dist")) == files(&sources.join("dist"));
    assert!(current, "gateway/web/dist is not built from its sources; run make page");
}
