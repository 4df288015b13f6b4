//! Third-party clients and servers that are installed on this machine.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    GStreamer,
    Webrtcbin,
    Pion,
    Ffmpeg,
    Aioquic,
    Aiortc,
    Libwebrtc,
    Chromium,
    Firefox,
    PageTools,
    Rtpengine,
    Janus,
    Prometheus,
    Alertmanager,
    Pylibsrtp,
    Registry,
}

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// GStreamer elements that the pipelines use: at least one of each package that `install` sets up.
const ELEMENTS: [&str; 10] = [
    "videotestsrc",
    "audiotestsrc",
    "x264enc",
    "opusenc",
    "opusdec",
    "rtpbin",
    "rtph264pay",
    "udpsrc",
    "h264parse",
    "avdec_h264",
];

/// True if the client is installed. Otherwise the skipped test is counted and reported on standard error directly,
/// because the test harness hides the output of passing tests.
///
/// # Panics
/// The client is absent, and clients are required.
pub fn present(test: &str, client: Client) -> bool {
    if client.is_here() {
        return true;
    }
    let name = client.name();
    assert!(
        env::var_os("EVENKEEL_CLIENTS").is_none_or(|wish| wish != "required"),
        "{test}: {name} is not installed (run make clients), and clients are required"
    );
    let skipped = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let line = format!(
        "skipped: {test}: {name} is not installed (run make clients); {skipped} skipped so far\n"
    );
    let _closed = std::io::stderr().write_all(line.as_bytes());
    false
}

/// The Python interpreter with aioquic, aiortc, libwebrtc and pylibsrtp.
pub fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/interop-venv/bin/python")
}

/// The Python interpreter of the system, with the bindings of GStreamer.
pub const SYSTEM_PYTHON: &str = "/usr/bin/python3";

/// A certificate with its key, for ECDSA, as PEM.
///
/// # Panics
/// The system has no randomness.
pub fn ecdsa_certificate() -> String {
    let made = rcgen::generate_simple_self_signed(["client".to_owned()]).expect("a valid name");
    made.cert.pem() + &made.signing_key.serialize_pem()
}

/// Imports of a script that calls with GStreamer.
const WEBRTCBIN: &str = "import gi
gi.require_version('Gst', '1.0')
gi.require_version('GstWebRTC', '1.0')
from gi.repository import Gst, GstWebRTC
Gst.init(None)
exit(not all(Gst.ElementFactory.find(name) for name in ['webrtcbin', 'nicesrc', 'dtlssrtpdec', 'vp8enc', 'opusenc']))";

/// The program of `tests/interop/pion`.
pub fn pion_call() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/interop-pion/call")
}

/// The folder of the packages of `tests/interop/browser`.
pub fn browser_packages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/interop-browser")
}

/// The folder of the packages of `gateway/web`.
pub fn page_packages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/page")
}

impl Client {
    /// # Errors
    /// The client is not installed.
    pub fn require(self) -> Result<(), String> {
        if self.is_here() {
            return Ok(());
        }
        Err(format!("{} is not installed (run make clients)", self.name()))
    }

    fn name(self) -> &'static str {
        match self {
            Client::GStreamer => "GStreamer",
            Client::Webrtcbin => "GStreamer's webrtcbin with PyGObject",
            Client::Pion => "Pion",
            Client::Ffmpeg => "ffmpeg",
            Client::Aioquic => "aioquic",
            Client::Aiortc => "aiortc",
            Client::Libwebrtc => "libwebrtc",
            Client::Chromium => "Chromium with playwright-core",
            Client::Firefox => "Firefox ESR with playwright-core",
            Client::PageTools => "TypeScript with Vite",
            Client::Rtpengine => "rtpengine",
            Client::Janus => "Janus",
            Client::Prometheus => "Prometheus",
            Client::Alertmanager => "Alertmanager",
            Client::Pylibsrtp => "pylibsrtp",
            Client::Registry => "docker-registry",
        }
    }

    fn is_here(self) -> bool {
        match self {
            Client::GStreamer => ELEMENTS
                .iter()
                .all(|element| runs(Command::new("gst-inspect-1.0").args(["--exists", element]))),
            Client::Webrtcbin => runs(Command::new(SYSTEM_PYTHON).args(["-c", WEBRTCBIN])),
            Client::Pion => pion_call().is_file(),
            Client::Ffmpeg => runs(Command::new("ffmpeg").arg("-version")),
            Client::Rtpengine => runs(Command::new("rtpengine").arg("--version")),
            // It has no option that only prints its version.
            Client::Janus => runs(Command::new("janus").arg("--help")),
            Client::Prometheus => ["prometheus", "promtool"]
                .iter()
                .all(|program| runs(Command::new(program).arg("--version"))),
            Client::Alertmanager => ["prometheus-alertmanager", "amtool"]
                .iter()
                .all(|program| runs(Command::new(program).arg("--version"))),
            Client::Registry => runs(Command::new("docker-registry").arg("--version")),
            Client::Pylibsrtp => runs(Command::new(python()).args(["-c", "import pylibsrtp"])),
            Client::Aioquic => runs(Command::new(python()).args(["-c", "import aioquic"])),
            Client::Aiortc => runs(Command::new(python()).args(["-c", "import aiortc"])),
            Client::Libwebrtc => runs(Command::new(python()).args(["-c", "import webrtc"])),
            Client::PageTools => page_packages().join("node_modules/vite").is_dir(),
            Client::Chromium => is_driven("chromium"),
            Client::Firefox => is_driven("firefox-esr"),
        }
    }
}

fn is_driven(browser: &str) -> bool {
    runs(Command::new("node").arg("--version"))
        && runs(Command::new(browser).arg("--version"))
        && browser_packages().join("node_modules/playwright-core").is_dir()
}

fn runs(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
