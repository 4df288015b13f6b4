//! `docs/webrtc.md` names the causes of calls that do not begin, and what a caller may miss.

use crate::page::Page;

const PAGE: &str = "docs/webrtc.md";

/// The text between this heading and the next one of its level.
fn section(heading: &str) -> String {
    let page = Page::read(PAGE);
    let (_, rest) = page.text.split_once(&format!("\n{heading}\n")).expect("the heading stands");
    rest.split("\n## ").next().unwrap_or_default().to_owned()
}

#[test]
fn causes_of_calls_that_do_not_begin_are_listed() {
    let section = section("## When a call does not begin");
    for cause in [
        "without a network interface",
        "Local Network Access",
        "a browser was killed",
        "iceServers: [turn]",
        "turn:turn.example.org:443?transport=tcp",
    ] {
        assert!(section.contains(cause), "{cause}");
    }
}

#[test]
fn missing_functions_are_listed() {
    let section = section("## Limitations");
    for missing in ["Data channels", "Recording", "Screen share"] {
        assert!(section.contains(&format!("- *{missing}")), "{missing}");
    }
}
