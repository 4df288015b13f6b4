//! A gateway with any number of sessions. Clients are recognised by source addresses in 127/8, which need no
//! descriptors, and are opened over the HTTP API.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::agents::{Agents, SECRET, node_name, zone};
use crate::process;
use crate::relay::{self, Places};
use evenkeel_client::{ApiClient, ApiEndpoint};
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::http::HttpClient;
use serde_json::Value;

/// Nodes of the home region.
const NODES: usize = 6;

/// Connections for offers, with one offer at a time each.
const CONNECTIONS: u32 = 32;

const JSON: &str = "content-type: application/json";

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
    let mut client = HttpClient::over(UnixStream::connect(socket).map_err(failed)?);
    for number in (line..sessions).step_by(CONNECTIONS as usize) {
        let body = offer_body(first + number);
        match client.ask("POST /v1/sessions", &[JSON], body.as_bytes()) {
            Some(answer) if answer.status == 201 => {}
            Some(answer) => return Err(format!("an offer was refused: {answer}")),
            None => return Err("the API hung up".to_owned()),
        }
    }
    Ok(())
}

/// Writes an offer with minimal work, so that the measurement shows the gateway.
fn offer_body(number: u32) -> String {
    let (room, address) = (number / TOGETHER, client(number));
    format!(
        "{{\"scenario\":\"call\",\"room\":\"room-{room}\",\"labels\":{{\"region\":\"east\"}},\
         \"ingress\":{{\"udp\":{{\"identity\":\"declared\",\"address\":\"{address}:{CLIENT_PORT}\"}}}},\
         \"media\":[{{\"kind\":\"audio\",\"payload_types\":[{{\"payload_type\":111,\
         \"codec\":\"opus\",\"clock_rate\":48000}}]}}]}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_clients_stay() {
        assert_eq!(call().matches("close_after = \"1h\"").count(), 2);
    }

    #[test]
    fn offer_is_json() {
        let offer: Value = serde_json::from_str(&offer_body(7)).expect("the body is JSON");
        assert_eq!(offer["room"], "room-3");
    }

    #[test]
    fn each_client_has_an_address_of_its_own() {
        assert_eq!(client(0), Ipv4Addr::new(127, 1, 0, 0));
        assert_eq!(client(100_000), Ipv4Addr::new(127, 2, 134, 160));
    }
}
