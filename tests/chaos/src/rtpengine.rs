//! rtpengine as a node: in user space, with ports of its own.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::process;
use crate::stage::Places;
use evenkeel_lab::process::ChildProcess;

/// Media ports of each daemon, outside the ephemeral range.
const PORTS: u16 = 2_000;
const FIRST_PORT: u16 = 10_000;
/// After this many daemons port ranges are reused; the earlier daemons have ended.
const DAEMONS: u16 = 10;
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// Starts a daemon with this control port, or with a free port for 0, and waits until the daemon answers.
///
/// # Errors
/// rtpengine is not installed, or does not answer.
pub(crate) fn start(
    places: &Places,
    name: &str,
    listen: &str,
) -> Result<(ChildProcess, Option<SocketAddr>), String> {
    static STARTED: AtomicU16 = AtomicU16::new(0);
    let ng = UdpSocket::bind(listen).and_then(|socket| socket.local_addr());
    let ng = ng.map_err(|error| format!("no control port for {name} at {listen}: {error}"))?;
    let first = FIRST_PORT + STARTED.fetch_add(1, Ordering::Relaxed) % DAEMONS * PORTS;
    let words = [
        // With the system's configuration file, two daemons would use the same ports.
        "--config-file=none".to_owned(),
        format!("--interface={}", ng.ip()),
        "--table=-1".to_owned(),
        "--num-threads=1".to_owned(),
        "--foreground".to_owned(),
        "--log-stderr".to_owned(),
        "--log-level=4".to_owned(),
        format!("--listen-ng={ng}"),
        format!("--port-min={first}"),
        format!("--port-max={}", first + PORTS - 1),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut process = process::start(name, Path::new("rtpengine"), &words, &places.folder)?;
    let until = Instant::now() + ANSWERS_WITHIN;
    while !answers(ng).unwrap_or_default() {
        if Instant::now() > until || !process.is_running() {
            return Err(process.error(format!("does not answer at {ng}")).into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok((process, Some(ng)))
}

fn answers(ng: SocketAddr) -> std::io::Result<bool> {
    let socket = UdpSocket::bind((ng.ip(), 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    socket.connect(ng)?;
    socket.send(b"1 d7:command4:pinge")?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    Ok(&answer[..length] == b"1 d6:result4:ponge")
}
