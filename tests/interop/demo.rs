//! The demo with fewer sessions. Gaps and packet loss depend on the machine's load and are not asserted here; `make demo`
//! checks them.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use evenkeel_testkit::binary::evenkeel;
use evenkeel_testkit::required;
use serde_json::Value;

/// The report of one run, which the tests share.
fn report() -> &'static Value {
    static REPORT: OnceLock<Value> = OnceLock::new();
    REPORT.get_or_init(|| {
        let output = Command::new(evenkeel())
            .args(["demo", "--json", "--sessions", "100"])
            .stdin(Stdio::null())
            .output()
            .expect("the demo runs");
        let progress = String::from_utf8_lossy(&output.stderr);
        let output_text = String::from_utf8_lossy(&output.stdout);
        let last =
            output_text.lines().last().unwrap_or_else(|| panic!("no report; stderr:\n{progress}"));
        let report: Value = serde_json::from_str(last).expect("the last line is JSON");
        assert_eq!(report["ok"], output.status.success(), "the exit code agrees");
        report
    })
}

fn number(pointer: &str) -> u64 {
    let number = report().pointer(pointer).and_then(Value::as_u64);
    number.unwrap_or_else(|| panic!("{pointer} in {}", report()))
}

#[required(Namespaces)]
#[test]
fn demo_takes_over_a_killed_gateway() {
    assert_eq!(report()["skipped"].as_array().map(Vec::len), Some(0), "{}", report());
    assert!(number("/takeover/sessions") > 0, "{}", report());
    for pointer in ["/takeover/unheard", "/takeover/twice", "/takeover/misdelivered"] {
        assert_eq!(number(pointer), 0, "{pointer}");
    }
}

/// The checks of the demo but for gaps and packets lost.
#[required(Namespaces)]
#[test]
fn demo_keeps_its_promises() {
    let checks = report()["checks"].as_array().expect("checks");
    assert_eq!(checks.len(), 25, "{checks:?}");
    let is_of_load = |check: &&Value| {
        let promise = check["promise"].as_str().expect("a promise");
        ["gap over", "no packet is lost", "plugin:", "policy swap"]
            .iter()
            .any(|of| promise.contains(of))
    };
    for check in checks.iter().filter(|check| !is_of_load(check)) {
        assert_eq!(check["kept"], true, "{check}");
    }
}

#[test]
fn demo_reports_all_acts_as_one_json_object() {
    let report = report();
    assert_eq!(number("/sessions/udp") + number("/sessions/quic"), 100);
    assert!(number("/packets/sent") > 0 && number("/packets/received") > 0);
    for pointer in ["/packets/lost", "/packets/lost_to_faults", "/packets/shed", "/sessions/lost"] {
        number(pointer);
    }
    for pointer in ["/packets/misdelivered", "/packets/twice", "/strangers/forwarded"] {
        assert_eq!(number(pointer), 0, "{pointer}");
    }
    assert_eq!(number("/strangers/learned"), 0);
    assert!(number("/strangers/sent") > 0);

    let failovers = report["failovers"].as_array().expect("failovers");
    let deaths = |silent: bool, unattended: bool| {
        let is = |failover: &&Value| {
            failover["cause"] == "node-down"
                && failover["silent"] == silent
                && failover["unattended"] == unattended
        };
        let heard =
            failovers.iter().filter(is).filter_map(|failover| failover["sessions"].as_u64());
        heard.sum::<u64>()
    };
    for (silent, unattended) in [(false, false), (true, false), (false, true)] {
        assert!(
            deaths(silent, unattended) > 0,
            "silent {silent}, unattended {unattended}: {report}"
        );
    }
    let reloads = report["reloads"].as_array().expect("reloads");
    for reload in reloads {
        let outcome = reload["outcome"].as_str().unwrap_or("");
        let reason = reload["reason"].as_str().unwrap_or("");
        if reload["plugin"] == "good" {
            assert_eq!(outcome, "activated", "{reload}");
        } else {
            assert!(
                ["refused", "rolled-back"].contains(&outcome) && !reason.is_empty(),
                "{reload}"
            );
        }
    }
    assert_eq!(reloads.len(), 5);
    assert!(number("/policy_calls/applied") > 0 && number("/policy_calls/differs_from_native") > 0);
    for span in ["session.open", "admission", "policy.decide", "policy.rollout", "node.failover"] {
        assert!(number(&format!("/spans_received/{span}")) > 0, "{span}");
    }
}
