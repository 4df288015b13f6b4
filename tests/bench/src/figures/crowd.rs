//! A gateway with any number of sessions. Clients are recognised by source addresses in 127/8, which need no
//! descriptors, and are opened over the HTTP API.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::agents::{Agents, SECRET, node_name, zone};
use crate::process;
use crate::relay::{self, Places};
use evenkeel_client::{ApiClient, ApiEndpoint};
use evenkeel_lab::process::ChildProcess;
use serde_json::Value;

/// Nodes of the home region.
const NODES: usize = 6;

/// Connections for offers, with one offer at a time each.
const CONNECTIONS: u32 = 32;

pub(super) const CLIENT_PORT: u16 = 5_004;

/// Sessions of a room, as in a call.
const TOGETHER: u32 = 2;

const CALL: &str = include_str!("../../../../policies/call.toml");

/// The shipped set `call`, but silent clients are not closed for an hour: neither those with parameters from the plugin, nor
/// others.
fn call() -> String {
    let call = CALL.replace("\"30s\"", "\"1h\"");
    call.replace("priority = 20 }", "priority = 20, close_after = \"1h\" }")
}

/// A running gateway and its nodes.
pub(super) struct Crowd {
    pub(super) process: ChildProcess,
    pub(super) agents: Agents,
    /// The address of the gateway's listener.
    pub(super) udp: SocketAddr,
    pub(super) socket: PathBuf,
    sessions: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Listener {
    /// For clients that are announced by their address.
    Declared,
    /// For clients that prove themselves by STUN checks.
    Stun,
    /// For clients without an offer.
    Open,
}

impl Crowd {
    /// Starts a gateway with the shipped policies and no sessions.
    ///
    /// # Errors
    /// The gateway cannot be started.
    pub(super) fn start(name: &str, listener: Listener, places: &Places) -> Result<Crowd, String> {
        Crowd::start_with(name, listener, "", places)
    }

    /// Like [`start`](Crowd::start), with these tables in the configuration.
    ///
    /// # Errors
    /// The gateway cannot be started.
    pub(super) fn start_with(
        name: &str,
        listener: Listener,
        tables: &str,
        places: &Places,
    ) -> Result<Crowd, String> {
        let agents = Agents::start(NODES)?;
        let folder = places.folder.join(name);
        let config = configure(&folder, listener, tables, &agents.addresses)
            .map_err(|error| format!("cannot configure {name}: {error}"))?;
        let words = ["run", "--config", &config.display().to_string(), "--json"].map(str::to_owned);
        let mut process = process::start(name, &places.evenkeel, &words, b"", &folder)?;
        let listening = process.json_line(process::FIRST_LINE_WITHIN)?;
        let udp = listening["udp"][0].as_str().and_then(|udp| udp.parse().ok());
        let socket = listening["socket"].as_str().map(PathBuf::from);
        let (Some(udp), Some(socket)) = (udp, socket) else {
            return Err(process.error(format!("said {listening}")).into());
        };
        Ok(Crowd { process, agents, udp, socket, sessions: 0 })
    }

    /// Opens this many more sessions, two per room, and returns the time taken.
    ///
    /// # Errors
    /// An offer was refused.
    pub(super) fn grow(&mut self, sessions: u32) -> Result<Duration, String> {
        let (first, socket) = (self.sessions, &self.socket);
        if first == 0 {
            relay::runtime()?.block_on(relay::ready(socket))?;
        }
        self.sessions += sessions;
        let before = Instant::now();
        std::thread::scope(|scope| {
            let lines: Vec<_> = (0..CONNECTIONS)
                .map(|line| scope.spawn(move || offer_all(socket, first, line, sessions)))
                .collect();
            let outcomes = lines.into_iter().map(|line| {
                line.join().unwrap_or_else(|_| Err("a connection's thread ended".to_owned()))
            });
            outcomes.fold(Ok(()), Result::and)
        })?;
        Ok(before.elapsed())
    }

    /// A client of the API.
    pub(super) fn admin(&self) -> ApiClient {
        ApiClient::new(ApiEndpoint::Unix(self.socket.clone()))
    }

    /// An offer of a session that the crowd does not have.
    pub(super) fn offer_beyond(&self, number: u32) -> Value {
        serde_json::from_str(&offer_body(self.sessions + number)).unwrap_or_default()
    }
}

pub(super) fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x7f01_0000 + number)
}

fn configure(
    folder: &Path,
    listener: Listener,
    tables: &str,
    nodes: &[SocketAddr],
) -> std::io::Result<PathBuf> {
    let policies = folder.join("policies");
    std::fs::create_dir_all(&policies)?;
    std::fs::write(policies.join("call.toml"), call())?;
    std::fs::write(folder.join("secret"), SECRET)?;
    let way_in = match listener {
        Listener::Declared => "identity = [\"declared\"]",
        Listener::Stun => "identity = [\"stun\"]",
        Listener::Open => "identity = [\"open\"]\nscenario = \"call\"",
    };
    let mut text = format!(
        "[gateway]\nregion = \"east\"\npolicies = \"policies\"\ncache = \"cache\"\ndrain_timeout = \"0s\"\n\n\
         [[listen]]\nudp = \"10.77.0.1:0\"\n{way_in}\n\n[admin]\nsocket = \"admin.sock\"\n\n\
         [limits]\nworkers = 1\nsessions = 200000\n"
    );
    for (number, address) in nodes.iter().enumerate() {
        let (name, zone) = (node_name(number), zone(number));
        let _never_fails = write!(
            text,
            "\n[[node]]\nname = \"{name}\"\naddress = \"{address}\"\n\
             region = \"east\"\nzone = \"{zone}\"\ndriver = \"agent\"\nsecret_file = \"secret\"\ncanary = false\n\
             capacity = \"1000 Gbit/s\"\n"
        );
    }
    text.push_str(tables);
    let config = folder.join("evenkeel.toml");
    std::fs::write(&config, text)?;
    Ok(config)
}

/// Sends all offers of one connection, one after another.
fn offer_all(socket: &Path, first: u32, line: u32, sessions: u32) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the API at {}: {error}", socket.display());
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    let mut answer = Vec::new();
    for number in (line..sessions).step_by(CONNECTIONS as usize) {
        stream.write_all(offer(first + number).as_bytes()).map_err(failed)?;
        answer.clear();
        let mut chunk = [0; 4_096];
        while !is_whole(&answer) {
            let length = stream.read(&mut chunk).map_err(failed)?;
            if length == 0 {
                return Err("the API hung up".to_owned());
            }
            answer.extend_from_slice(&chunk[..length]);
        }
        if !answer.starts_with(b"HTTP/1.1 201") {
            return Err(format!("an offer was refused: {}", String::from_utf8_lossy(&answer)));
        }
    }
    Ok(())
}

/// Writes an offer with minimal work, so that the measurement shows the gateway.
fn offer(number: u32) -> String {
    let body = offer_body(number);
    let length = body.len();
    format!(
        "POST /v1/sessions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

fn offer_body(number: u32) -> String {
    let (room, address) = (number / TOGETHER, client(number));
    format!(
        "{{\"scenario\":\"call\",\"room\":\"room-{room}\",\"labels\":{{\"region\":\"east\"}},\
         \"ingress\":{{\"udp\":{{\"identity\":\"declared\",\"address\":\"{address}:{CLIENT_PORT}\"}}}},\
         \"media\":[{{\"kind\":\"audio\",\"payload_types\":[{{\"payload_type\":111,\
         \"codec\":\"opus\",\"clock_rate\":48000}}]}}]}}"
    )
}

/// True if the answer has arrived with its whole body.
fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return false;
    };
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= head + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_ends_with_its_body() {
        let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nabc";
        assert!(is_whole(answer));
        for length in 0..answer.len() {
            assert!(!is_whole(&answer[..length]), "{length}");
        }
    }

    #[test]
    fn silent_clients_stay() {
        assert_eq!(call().matches("close_after = \"1h\"").count(), 2);
    }

    #[test]
    fn offer_is_json_of_the_announced_length() {
        let offer = offer(7);
        let (head, body) = offer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        let body: Value = serde_json::from_str(body).expect("the body is JSON");
        assert_eq!(body["room"], "room-3");
    }

    #[test]
    fn each_client_has_an_address_of_its_own() {
        assert_eq!(client(0), Ipv4Addr::new(127, 1, 0, 0));
        assert_eq!(client(100_000), Ipv4Addr::new(127, 2, 134, 160));
    }
}
