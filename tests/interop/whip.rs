//! Programs and libraries publish by WHIP and pages of Chromium view by WHEP, each with a token, while the node between them is killed.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::clients::{browser_packages, python};
use evenkeel_testkit::required;
use nix::sys::signal::Signal;
use ring::hmac;
use serde_json::{Value, json};

use crate::stage::{NODES, Stage, sample_node};
use crate::webrtc::{
    CONFIGURATION, note_versions, received, replayed, script, survives_node_death, webrtcbin,
};

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

/// The status of each answer to a client, by its last line of output.
fn statuses(lines: &[String]) -> Option<Vec<(String, u16)>> {
    let last: Value = serde_json::from_str(lines.last()?).ok()?;
    serde_json::from_value(last["statuses"].clone()).ok()
}

/// Ends a client, which deletes its session. Returns the statuses of its answers in between.
fn end(client: ChildProcess) -> Vec<(String, u16)> {
    let lines = client.end(Signal::SIGTERM, TIMEOUT).expect("the client runs");
    let statuses = statuses(&lines).unwrap_or_else(|| panic!("{:?}", lines.last()));
    let [(opens, created), between @ .., (deletes, ended)] = &statuses[..] else {
        panic!("{statuses:?}")
    };
    assert_eq!((opens.as_str(), *created, deletes.as_str()), ("POST", 201, "DELETE"));
    // The session of a client that closes its transport before has ended.
    assert!([200, 404].contains(ended), "{statuses:?}");
    between.to_vec()
}

/// The status of each `PATCH`; there is no other request.
fn patches(requests: &[(String, u16)]) -> Vec<u16> {
    assert!(requests.iter().all(|(method, _)| method == "PATCH"), "{requests:?}");
    requests.iter().map(|(_, status)| *status).collect()
}

/// A gateway with a publisher that is connected, and a viewer.
struct Show {
    publisher: ChildProcess,
    viewer: ChildProcess,
    /// Dropped last.
    stage: Stage,
}

impl Show {
    fn begin(test: &str, publisher: Command, viewer: Command) -> Show {
        let stage = Stage::before(test, &(CONFIGURATION.to_owned() + WEBRTC), |folder| {
            NODES.map(|node| sample_node(node, folder, &["--webrtc"])).into()
        });
        let publisher = start(&stage, publisher, "whip", "publish");
        // A page that comes later needs a key frame, which the encoder sends on request.
        publisher
            .wait_for("connection", TIMEOUT, |lines| {
                lines.last()?.contains("\"connected\"").then_some(())
            })
            .expect("the publisher connects");
        let viewer = start(&stage, viewer, "whep", "view");
        Show { publisher, viewer, stage }
    }

    fn survives_node_death(&mut self, test: &str) {
        note_versions(&self.publisher);
        survives_node_death(test, &mut self.stage, ROOM, &self.viewer);
        assert_eq!(replayed(&mut self.stage), 0);
    }

    /// Ends the viewer and then the publisher, and with each its session. Returns the statuses of their answers to `PATCH`.
    fn end(self) -> [Vec<u16>; 2] {
        let Show { publisher, viewer, mut stage } = self;
        [(viewer, 1), (publisher, 0)].map(|(client, left)| {
            let requests = end(client);
            let sessions = stage.read("/v1/sessions");
            assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(left));
            patches(&requests)
        })
    }
}

/// A page that sends the requests of WHEP itself.
fn view_page() -> Command {
    let mut command = Command::new("node");
    command.arg(script("browser/view.js")).arg(browser_packages());
    command
}

/// A page with the library `whip-whep`.
fn whip_whep(direction: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(script("browser/whip_whep.js")).arg(browser_packages()).arg(direction);
    command
}

fn are_all(status: u16, patches: &[u16]) -> bool {
    !patches.is_empty() && patches.iter().all(|found| *found == status)
}

#[required(Webrtcbin, Chromium)]
#[test]
fn whip_stream_reaches_whep_page_past_node_death() {
    let (mut publisher, _certificate) = webrtcbin("127.0.0.1");
    publisher.arg("publish");
    let mut show = Show::begin("whip", publisher, view_page());
    show.survives_node_death("whip");
    for patches in show.end() {
        assert!(are_all(204, &patches), "{patches:?}");
    }
}

/// aiortc sends all candidates with its offer.
#[required(Aiortc, Chromium)]
#[test]
fn whip_stream_of_aiortc_survives_node_death() {
    let mut publisher = Command::new(python());
    publisher.arg(script("whip_aiortc.py"));
    let mut show = Show::begin("whip-aiortc", publisher, view_page());
    show.survives_node_death("whip-aiortc");
    let [_, patches] = show.end();
    assert!(patches.is_empty(), "{patches:?}");
}

/// The library sends no `If-Match` with the candidates of a viewer, which the gateway does not need.
#[required(WhipWhep)]
#[test]
fn whip_and_whep_of_a_library_survive_node_death() {
    let mut show = Show::begin("whip-library", whip_whep("publish"), whip_whep("view"));
    show.survives_node_death("whip-library");
    let [viewed, published] = show.end();
    assert!(are_all(428, &viewed), "{viewed:?}");
    assert!(are_all(204, &published), "{published:?}");
}

#[required(WhipWhep, Chromium)]
#[test]
fn whip_library_restarts_ice() {
    let show = Show::begin("whip-restart", whip_whep("publish"), view_page());
    let before = received(&show.viewer, None);
    show.publisher.signal(Signal::SIGUSR2).expect("the publisher runs");
    let restarted = show.publisher.wait_for("a restart of ICE", TIMEOUT, |lines| {
        statuses(lines)?.contains(&("PATCH".to_owned(), 200)).then_some(())
    });
    restarted.unwrap_or_else(|error| panic!("{error}; {:?}", show.publisher.lines().last()));
    received(&show.viewer, Some(&before));
    note_versions(&show.publisher);
    note_versions(&show.viewer);
    let [_, published] = show.end();
    let restarts = published.iter().filter(|status| **status == 200).count();
    assert_eq!(restarts, 1, "{published:?}");
    assert!(published.iter().all(|status| [200, 204].contains(status)), "{published:?}");
}
