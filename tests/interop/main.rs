//! Third-party clients and servers against the `evenkeel` binary, with real media.
//!
//! `make clients` installs them. Tests of absent clients are ignored by name; with `EVENKEEL_REQUIRED=all` they fail.

mod demo;
mod examples;
mod ffmpeg;
mod gstreamer;
mod janus;
mod lossy;
mod meter;
mod operating;
mod otlp;
mod page;
mod phones;
mod promql;
mod roq;
mod rtpengine;
mod rtpengine_srtp;
mod sdp;
mod srtp;
mod stage;
mod tap;
mod telemetry;
mod webrtc;
mod webtransport;
mod whip;

#[test]
fn each_row_of_a3d43ed3_is_there() {
    let program = std::env::current_exe().expect("a path");
    let list = std::process::Command::new(program).arg("--list").output().expect("it runs");
    let list = String::from_utf8_lossy(&list.stdout).replace("::tests::", "::").replace("::", ".");
    let now = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let gone: Vec<_> = evenkeel_report::earlier_rows("interop").difference(&now).copied().collect();
    assert!(gone.is_empty(), "{gone:?}");
}
