//! Calls of browsers behind a firewall that drops UDP, by coturn (TURN, RFC 8656).

use std::fs;
use std::net::TcpStream;

use data_encoding::BASE64;
use evenkeel_lab::network::Host;
use evenkeel_process::sha256;
use rcgen::PublicKeyData;

use super::*;

/// The ports of coturn for TCP and for TLS.
const PORTS: [u16; 2] = [3_478, 5_349];

/// coturn for clients over TCP and TLS, on the host that no member of the group uses.
struct TurnServer {
    _process: ChildProcess,
    host: String,
    /// The SHA-256 digest of the public key of its certificate, in Base64.
    key_sha256: String,
}

impl TurnServer {
    fn start(place: &Hosts, folder: &Path) -> TurnServer {
        let host = &place.gateways[2];
        let address = host.address();
        let made = rcgen::generate_simple_self_signed([address.to_string()]).unwrap();
        let [config, certificate, key, pid, users] =
            ["turn.conf", "turn.pem", "turn.key", "turn.pid", "turn.db"].map(|it| folder.join(it));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let ([tcp, tls], certificate, key) = (PORTS, certificate.display(), key.display());
        let text = format!(
            "listening-ip={address}\nrelay-ip={address}\nlistening-port={tcp}\ntls-listening-port={tls}\n\
             no-udp\nno-dtls\nno-cli\ncert={certificate}\npkey={key}\n\
             lt-cred-mech\nrealm=turn.example.org\nuser=viewer:secret\n\
             pidfile={}\nuserdb={}\nlog-file=stdout\n",
            pid.display(),
            users.display()
        );
        fs::write(&config, text).unwrap();
        let inside = host.enter().unwrap();
        let mut command = Command::new("turnserver");
        let process = ChildProcess::start("turnserver", command.arg("-c").arg(config), folder);
        drop(inside);
        let _inside = place.client.enter().unwrap();
        wait_until("coturn listens", || {
            PORTS.iter().all(|port| TcpStream::connect((address, *port)).is_ok())
        });
        TurnServer {
            _process: process.unwrap(),
            host: address.to_string(),
            key_sha256: BASE64.encode(&sha256(&made.signing_key.subject_public_key_info())),
        }
    }
}

/// The host sends and receives no UDP.
fn drop_udp(host: &Host) {
    let _inside = host.enter().unwrap();
    let rules: String = [("input", "iifname"), ("output", "oifname")]
        .map(|(hook, interface)| {
            format!(
                "add chain inet test {hook} {{ type filter hook {hook} priority 0; }}; \
                 add rule inet test {hook} {interface} != lo meta l4proto udp drop; "
            )
        })
        .concat();
    let words = format!("add table inet test; {rules}");
    assert!(Command::new("nft").arg(words).status().unwrap().success());
}

/// A call of pages through the deaths of a node and of a gateway. `transport`: by which they reach coturn.
fn call_survives(scheme: &str, port: u16, transport: &str) {
    let mut server = None;
    let mut call = ForeignCall::begin("stun", |place, owner| {
        let server = server.insert(TurnServer::start(place, owner.folder()));
        drop_udp(&place.client);
        let url = format!("{scheme}:{}:{port}?transport=tcp", server.host);
        let servers = json!([{"urls": url, "username": "viewer", "credential": "secret"}]);
        let mut command = Command::new("node");
        command.arg(script("browser/call.js")).arg(browser_packages()).args(["chromium"; 2]);
        command.arg(owner.folder().join("admin.sock")).arg(ROOM);
        command.env("ICE_SERVERS", servers.to_string()).env("TRUSTED_KEY", &server.key_sha256);
        command
    });
    call.survive_node_death();
    await_replica(&mut call.owner);
    call.survive_takeover();
    let line = call.line();
    assert!(ends(&line).iter().all(|end| end["relay"] == transport), "{line}");
    call.assert_stays_connected();
}

#[required(Namespaces, Chromium, Coturn, Nft)]
#[test]
fn call_without_udp_survives_by_turn_over_tcp() {
    call_survives("turn", PORTS[0], "tcp");
}

#[required(Namespaces, Chromium, Coturn, Nft)]
#[test]
fn call_without_udp_survives_by_turn_over_tls() {
    call_survives("turns", PORTS[1], "tls");
}
