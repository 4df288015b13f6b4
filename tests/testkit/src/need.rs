//! Programs and rights that tests need and a machine may lack, and where they are. `std` alone: the build script of the macros
//! includes this file.

use std::env;
use std::fs;
use std::net::{Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The Python interpreter of the system, with the bindings of GStreamer.
pub const SYSTEM_PYTHON: &str = "/usr/bin/python3";

macro_rules! needs {
    ($($need:ident = $name:literal,)*) => {
        /// A program or a right that a machine may lack.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Need {
            $($need,)*
        }

        impl Need {
            pub const ALL: &[Need] = &[$(Need::$need,)*];

            /// Its name, with what installs it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Need::$need => $name,)*
                }
            }
        }
    };
}

needs! {
    Root = "root",
    Namespaces = "root with network namespaces (util-linux, iproute2)",
    Mounts = "root with mount namespaces (util-linux)",
    UserNamespaces = "user namespaces (util-linux)",
    RawSockets = "raw sockets (root or CAP_NET_RAW)",
    Ipv6 = "IPv6 at loopback",
    RealTime = "real-time scheduling (root or CAP_SYS_NICE)",
    Ptrace = "ptrace of a child",
    OpenMemory = "ptrace of any own process (kernel.yama.ptrace_scope = 0)",
    Setpriv = "setpriv (util-linux)",
    Prlimit = "prlimit (util-linux)",
    Nft = "nft (nftables)",
    Valgrind = "valgrind (tests/bench/install count)",
    Clang = "clang and wasm-ld (make clients)",
    Componentize = "node and componentize-js (make clients)",
    PageTools = "npm, TypeScript and Vite (make clients)",
    Nats = "nats-server (tests/nats/install)",
    Registry = "docker-registry (tests/registry/install)",
    TraceBackends = "Phoenix and rotel (tests/telemetry/install)",
    Prometheus = "Prometheus (make clients)",
    Alertmanager = "Alertmanager (make clients)",
    Administration = "curl, openssl and systemd-analyze (make clients)",
    Rtpengine = "rtpengine (make clients)",
    Janus = "Janus (make clients)",
    Baresip = "baresip (make clients)",
    Coturn = "coturn (make clients)",
    GStreamer = "GStreamer (make clients)",
    Webrtcbin = "GStreamer's webrtcbin with PyGObject (make clients)",
    Ffmpeg = "ffmpeg (make clients)",
    Pion = "Pion (make clients)",
    Aioquic = "aioquic (make clients)",
    Aiortc = "aiortc (make clients)",
    Libwebrtc = "libwebrtc (make clients)",
    Pylibsrtp = "pylibsrtp (make clients)",
    Chromium = "Chromium with playwright-core (make clients)",
    WhipWhep = "Chromium with playwright-core and whip-whep (make clients)",
    Firefox = "Firefox ESR with playwright-core (make clients)",
}

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

/// Imports of a script that calls with GStreamer.
const WEBRTCBIN: &str = "import gi
gi.require_version('Gst', '1.0')
gi.require_version('GstWebRTC', '1.0')
from gi.repository import Gst, GstWebRTC
Gst.init(None)
exit(not all(Gst.ElementFactory.find(name) for name in ['webrtcbin', 'nicesrc', 'dtlssrtpdec', 'vp8enc', 'opusenc']))";

/// A bridge, and a pair of interfaces at it.
const NETWORK: &str = "ip link set lo up && ip link add bridge type bridge && \
    ip link add port type veth peer name eth0 && ip link set port master bridge up";

/// Number of the capability to open raw sockets (capabilities(7)).
const CAP_NET_RAW: u32 = 13;

/// The build folder, where `make clients` installs what no system package has.
pub fn target() -> PathBuf {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let root = folders.find(|folder| folder.join("Cargo.lock").is_file());
    root.expect("a crate of this workspace").join("target")
}

/// The Python interpreter with aioquic, aiortc, libwebrtc and pylibsrtp.
pub fn python() -> PathBuf {
    target().join("interop-venv/bin/python")
}

/// The program of `tests/interop/pion`.
pub fn pion_call() -> PathBuf {
    target().join("interop-pion/call")
}

/// The folder of the packages of `tests/interop/browser`.
pub fn browser_packages() -> PathBuf {
    target().join("interop-browser")
}

/// The folder of the packages of `gateway/web`.
pub fn page_packages() -> PathBuf {
    target().join("page")
}

/// The folder in which policies in JavaScript are built.
pub fn policy_packages() -> PathBuf {
    target().join("policy-js")
}

/// The path of `nats-server`, if it is installed.
pub fn nats_server() -> Option<PathBuf> {
    let installed = target().join("nats-venv/bin/nats-server");
    let all = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&all).map(|folder| folder.join("nats-server"));
    [installed].into_iter().chain(found).find(|program| program.is_file())
}

/// The path of Phoenix, if it is installed.
pub fn phoenix() -> Option<PathBuf> {
    Some(target().join("telemetry-venv/bin/phoenix")).filter(|program| program.is_file())
}

/// The path of the agent of rotel, which lies in its Python package, if it is installed.
pub fn rotel_agent() -> Option<PathBuf> {
    let pythons = fs::read_dir(target().join("telemetry-venv/lib")).ok()?.flatten();
    let mut agents = pythons.map(|python| python.path().join("site-packages/rotel/rotel-agent"));
    agents.find(|program| program.is_file())
}

impl Need {
    /// Looks at the machine, by running a program in most cases.
    pub fn is_met(self) -> bool {
        match self {
            Need::Root => status_field("Uid:").is_some_and(|ids| ids.starts_with("0\t")),
            Need::Namespaces => works("unshare", &["--net", "sh", "-c", NETWORK]),
            Need::Mounts => {
                let mount = "mount -t tmpfs -o size=1m,mode=700 tmpfs /tmp";
                works("unshare", &["--mount", "sh", "-c", mount])
            }
            Need::UserNamespaces => {
                let words = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
                works("unshare", &[&words[..], &["--kill-child", "true"]].concat())
            }
            Need::RawSockets => has_capability(CAP_NET_RAW),
            Need::Ipv6 => UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok(),
            Need::RealTime => works("chrt", &["--rr", "1", "true"]),
            Need::Ptrace => opens_memory_of_child(),
            Need::OpenMemory => fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
                .map_or(true, |scope| scope.trim() == "0"),
            Need::Setpriv => works("setpriv", &["--dump"]),
            Need::Prlimit => works("prlimit", &["--nofile"]),
            Need::Nft => works("unshare", &["--net", "nft", "add table ip test"]),
            Need::Valgrind => works("valgrind", &["--version"]),
            Need::Clang => ["clang", "wasm-ld"].iter().all(|name| works(name, &["--version"])),
            Need::Componentize => {
                let package = "js/node_modules/@bytecodealliance/componentize-js";
                works("node", &["--version"]) && policy_packages().join(package).is_dir()
            }
            Need::PageTools => {
                works("npm", &["--version"]) && page_packages().join("node_modules/vite").is_dir()
            }
            Need::Nats => nats_server().is_some(),
            Need::Registry => works("docker-registry", &["--version"]),
            Need::TraceBackends => phoenix().is_some() && rotel_agent().is_some(),
            Need::Prometheus => {
                ["prometheus", "promtool"].iter().all(|name| works(name, &["--version"]))
            }
            Need::Alertmanager => {
                ["prometheus-alertmanager", "amtool"].iter().all(|name| works(name, &["--version"]))
            }
            Need::Administration => {
                works("openssl", &["version"])
                    && ["curl", "systemd-analyze"].iter().all(|name| works(name, &["--version"]))
            }
            Need::Rtpengine => works("rtpengine", &["--version"]),
            // It has no option that only prints its version.
            Need::Janus => works("janus", &["--help"]),
            // Its help ends with a failure.
            Need::Baresip => works("sh", &["-c", "command -v baresip"]),
            Need::Coturn => works("sh", &["-c", "command -v turnserver"]),
            Need::GStreamer => {
                ELEMENTS.iter().all(|element| works("gst-inspect-1.0", &["--exists", element]))
            }
            Need::Webrtcbin => works(SYSTEM_PYTHON, &["-c", WEBRTCBIN]),
            Need::Ffmpeg => works("ffmpeg", &["-version"]),
            Need::Pion => pion_call().is_file(),
            Need::Aioquic => imports("aioquic"),
            Need::Aiortc => imports("aiortc"),
            Need::Libwebrtc => imports("webrtc"),
            Need::Pylibsrtp => imports("pylibsrtp"),
            Need::Chromium => is_driven("chromium"),
            Need::WhipWhep => {
                is_driven("chromium") && browser_packages().join("node_modules/whip-whep").is_dir()
            }
            Need::Firefox => is_driven("firefox-esr"),
        }
    }
}

/// The rest of a line of `/proc/self/status`.
fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let mut fields = status.lines().filter_map(|line| line.strip_prefix(name));
    fields.next().map(|rest| rest.trim().to_owned())
}

fn has_capability(number: u32) -> bool {
    let effective = status_field("CapEff:");
    let effective = effective.and_then(|digits| u64::from_str_radix(&digits, 16).ok());
    effective.is_some_and(|effective| effective & (1 << number) != 0)
}

/// The kernel asks for the rights of ptrace(2) before it opens another process's memory.
fn opens_memory_of_child() -> bool {
    let child = Command::new("sleep").arg("60").spawn();
    let opens = |mut child: Child| {
        let opened = fs::File::open(format!("/proc/{}/mem", child.id()));
        // Fails only if it has ended.
        let _ended = child.kill();
        let _ended = child.wait();
        opened.is_ok()
    };
    child.is_ok_and(opens)
}

fn is_driven(browser: &str) -> bool {
    works("node", &["--version"])
        && works(browser, &["--version"])
        && browser_packages().join("node_modules/playwright-core").is_dir()
}

fn imports(module: &str) -> bool {
    runs(Command::new(python()).args(["-c", &format!("import {module}")]))
}

fn works(program: &str, words: &[&str]) -> bool {
    runs(Command::new(program).args(words))
}

fn runs(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
