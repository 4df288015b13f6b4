//! GStreamer publishes by WHIP and a page of Chromium views by WHEP, each with a token, while the node between them is killed.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::clients::browser_packages;
use evenkeel_testkit::required;
use nix::sys::signal::Signal;
use ring::hmac;
use serde_json::{Value, json};

use crate::stage::{NODES, Stage, sample_node};
use crate::webrtc::{CONFIGURATION, script, survives_node_death, webrtcbin};

const ROOM: &str = "stage";

/// The origin is that of the page.
const WEBRTC: &str = r#"
[webrtc]
listen = "127.0.0.1:0"
token_key_file = "secret"
origins = ["http://localhost"]
"#;

/// A token by HS256.
fn token(stage: &Stage, direction: &str) -> String {
    let secret = fs::read(stage.folder().join("secret")).expect("the stage wrote a secret");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let claims = json!({
        "scenario": "live", "room": ROOM, "direction": direction, "jti": direction, "exp": now + 60
    });
    let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let message = format!("{}.{}", part(json!({"alg": "HS256"})), part(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

/// Starts a client with a URL and a token.
fn start(stage: &Stage, mut command: Command, protocol: &str, direction: &str) -> ChildProcess {
    command.arg(format!("http://{}/{protocol}/live/{ROOM}", stage.webrtc()));
    command.arg(token(stage, direction));
    let client = ChildProcess::start(direction, &mut command, stage.folder());
    client.expect("the client starts").with_grace(TIMEOUT)
}

/// Ends a client, which deletes its session.
fn assert_requests_succeed(client: ChildProcess) {
    let lines = client.end(Signal::SIGTERM, TIMEOUT).expect("the client runs");
    let last: Value = serde_json::from_str(lines.last().expect("a line")).unwrap_or_default();
    let statuses = last["statuses"].as_array().unwrap_or_else(|| panic!("{last}"));
    let [first, candidates @ .., end] = &statuses[..] else { panic!("{last}") };
    assert_eq!((first, end), (&json!(["POST", 201]), &json!(["DELETE", 200])), "{last}");
    let patched = json!(["PATCH", 204]);
    assert!(candidates.iter().all(|it| *it == patched) && !candidates.is_empty(), "{last}");
}

#[required(Webrtcbin, Chromium)]
#[test]
fn whip_stream_reaches_whep_page_past_node_death() {
    let mut stage = Stage::before("whip", &(CONFIGURATION.to_owned() + WEBRTC), |folder| {
        NODES.map(|node| sample_node(node, folder, &["--webrtc"])).into()
    });
    let (mut command, _certificate) = webrtcbin();
    command.arg("publish");
    let publisher = start(&stage, command, "whip", "publish");
    // A page that comes later needs a key frame, which the encoder sends on request.
    publisher
        .wait_for("connection", TIMEOUT, |lines| {
            lines.last()?.contains("\"connected\"").then_some(())
        })
        .expect("the publisher connects");
    let mut command = Command::new("node");
    command.arg(script("browser/view.js")).arg(browser_packages());
    let viewer = start(&stage, command, "whep", "view");
    survives_node_death("whip", &mut stage, ROOM, &viewer);
    for (client, left) in [(viewer, 1), (publisher, 0)] {
        assert_requests_succeed(client);
        assert_eq!(stage.read("/v1/sessions")["sessions"].as_array().map(Vec::len), Some(left));
    }
}
