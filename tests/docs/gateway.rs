//! A gateway of its own process, and requests to its socket.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use evenkeel_testkit::binary::evenkeel;
use evenkeel_testkit::http::{HttpAnswer, HttpClient};

use crate::schema::ApiDescription;

/// One that the examples of an operator's requests fit: a node, regions, listeners of each kind, drills.
const CONFIG: &str = r#"
[gateway]
region = "east"
cache = "none"

[admin]
socket = "evenkeel.sock"
drills = true

[[region]]
name = "east"

[[region]]
name = "west"

[[listen]]
udp = "127.0.0.1:0"
identity = ["declared", "declared-ip", "stun"]
rtcp = 0

[[listen]]
quic = "127.0.0.1:0"

[[node]]
name = "east-a1"
address = "127.0.0.1:9"
region = "east"
zone = "a"
driver = "plain"
probe = "none"
capacity = "400 Mbit/s"
"#;

/// It ends with the test.
pub(crate) struct Gateway {
    process: Child,
    folder: tempfile::TempDir,
}

impl Gateway {
    pub(crate) fn start() -> Gateway {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("evenkeel.toml");
        fs::write(&config, CONFIG).unwrap();
        fs::write(folder.path().join("cluster.secret"), [b'x'; 32]).unwrap();
        let mut process = Command::new(evenkeel())
            .args(["run", "--json", "--config"])
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("\"socket\""), "the gateway does not start: {line}");
        let gateway = Gateway { process, folder };
        while gateway.ask("GET", "/readyz", "").status != 200 {
            std::thread::yield_now();
        }
        gateway
    }

    /// The description of its API.
    pub(crate) fn description(&self) -> ApiDescription {
        ApiDescription(serde_json::from_str(&self.ask("GET", "/openapi.json", "").body).unwrap())
    }

    /// Reloads the configuration with one more key.
    pub(crate) fn reload_with(&self, table: &str, key: &str) -> HttpAnswer {
        let head = format!("[{table}]\n");
        let config = match CONFIG.split_once(&head) {
            Some((before, after)) => format!("{before}{head}{key}\n{after}"),
            None => format!("{CONFIG}\n{head}{key}\n"),
        };
        fs::write(self.folder.path().join("evenkeel.toml"), config).unwrap();
        self.ask("POST", "/v1/configuration:reload", "")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("evenkeel.sock")
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> HttpAnswer {
        let stream = UnixStream::connect(self.socket()).unwrap();
        let answer =
            HttpClient::over(stream).ask(&format!("{method} {path}"), &[], body.as_bytes());
        answer.expect("an answer of HTTP")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
