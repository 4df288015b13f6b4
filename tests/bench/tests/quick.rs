//! The quick benchmark, with the gateway that the tests built: it measures, and delivers no packet to a wrong session.

use std::fs;
use std::path::Path;
use std::process::Command;

use evenkeel_testkit::binary::evenkeel;
use evenkeel_testkit::required;
use serde_json::Value;

const RELAYS: [&str; 2] = ["ours", "floor"];

#[required(Namespaces)]
#[test]
fn each_row_is_measured_for_each_relay() {
    let report = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-quick.json");
    let bench = Command::new(env!("CARGO_BIN_EXE_evenkeel-bench"))
        .args(["quick", "--rounds", "1", "--seconds", "0.2", "--relays", &RELAYS.join(",")])
        .arg("--evenkeel")
        .arg(evenkeel())
        .arg("--out")
        .arg(&report)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&bench.stderr);
    assert!(bench.status.success(), "{}: {printed}", bench.status);
    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let measured = report["measurements"].as_array().unwrap();
    assert_eq!(measured.len(), 12, "{report:#}");
    for row in measured {
        for relay in RELAYS {
            assert!(row["each"][relay]["cpu_ns"].is_number(), "{relay}: {row:#}");
        }
        assert_eq!(row["misdelivered"], 0, "{row:#}");
    }
}
