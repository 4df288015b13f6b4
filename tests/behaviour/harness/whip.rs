//! WHIP (RFC 9725) and WHEP over HTTP, and the tokens of their clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use evenkeel_control::Inherited;
use evenkeel_handover::RequestGate;
use evenkeel_testkit::http::HttpClient;
use ring::hmac;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use super::{Gateway, GatewayProcess, Node, Phone, SECRET, TIMEOUT, World, talk};

/// Follows the lines of `[admin]`.
pub(crate) const WEBRTC: &str = "[webrtc]\nlisten = \"127.0.0.1:0\"\ntoken_key_file = \"secret\"\n";

pub(crate) const SDP: &str = "content-type: application/sdp";
/// The headers of candidates, or of a restart of ICE.
pub(crate) const FRAGMENT: &str = "content-type: application/trickle-ice-sdpfrag\r\nif-match: *";

/// The address of WHIP and WHEP of a gateway.
pub(crate) struct Whip {
    address: SocketAddr,
    /// `None` for plain HTTP.
    tls: Option<Arc<ClientConfig>>,
    /// `None` for a gateway in a process of its own.
    _api: Option<evenkeel_api::ApiThread>,
}

/// A connection over HTTP or HTTPS.
pub(crate) trait Connection: Read + Write + Send {}

impl<C: Read + Write + Send> Connection for C {}

/// Writes a certificate and its key to the folder. Returns the certificate, and the lines of `[webrtc]` that name the files.
pub(crate) fn certificate(folder: &Path) -> (CertificateDer<'static>, String) {
    let made = rcgen::generate_simple_self_signed(["evenkeel".to_owned()]).unwrap();
    let [certificate, key] = ["whip.pem", "whip.key"].map(|name| folder.join(name));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let lines = format!("certificate = {certificate:?}\nkey = {key:?}\n");
    (made.cert.der().clone(), lines)
}

impl Whip {
    pub(crate) fn of(gateway: &Gateway) -> Whip {
        let settings = &gateway.settings;
        let (admin, webrtc) = (settings.admin.clone(), settings.webrtc.clone());
        let api = evenkeel_api::bind(admin, webrtc, &mut Inherited::default()).unwrap();
        let api =
            api.serve(gateway.handle.clone(), Box::new(|_| String::new()), Vec::new()).unwrap();
        api.open();
        Whip { address: api.webrtc.unwrap(), tls: None, _api: Some(api) }
    }

    /// That of a gateway in a process of its own.
    pub(crate) fn at(address: SocketAddr) -> Whip {
        Whip { address, tls: None, _api: None }
    }

    /// Starts a gateway in a process of its own, for clients behind a proxy on its host.
    pub(crate) fn of_process(node: &Node) -> (GatewayProcess, Whip) {
        let mut world = World::of(&[node]).with_identities("[\"declared\", \"stun\"]");
        // Free until the gateway binds it.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        world.admin = WEBRTC.replace("127.0.0.1:0", &address.to_string());
        (GatewayProcess::start(&world), Whip::at(address))
    }

    /// That of a gateway in a process of its own with this certificate.
    pub(crate) fn secure(address: SocketAddr, certificate: CertificateDer<'static>) -> Whip {
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Whip { tls: Some(Arc::new(config)), ..Whip::at(address) }
    }

    pub(crate) fn connect(&self) -> Box<dyn Connection> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let Some(config) = &self.tls else { return Box::new(stream) };
        let name = ServerName::try_from("evenkeel").unwrap();
        let client = ClientConnection::new(Arc::clone(config), name).unwrap();
        Box::new(StreamOwned::new(client, stream))
    }

    /// Sends the head of a request with a body of this length on a connection of its own, which stays open.
    pub(crate) fn hold(
        &self,
        line: &str,
        kind: &str,
        token: &str,
        length: usize,
    ) -> Box<dyn Connection> {
        let mut stream = self.connect();
        let token = format!("authorization: Bearer {token}");
        HttpClient::over(&mut stream).send_head(line, &[kind, &token], length);
        stream
    }

    /// Status and text of an answer.
    pub(crate) fn ask(&self, line: &str, token: &str, body: &str) -> (u16, String) {
        self.ask_of(line, SDP, token, body)
    }

    /// Status and text of the answer to a request with these headers about its content.
    pub(crate) fn ask_of(&self, line: &str, kind: &str, token: &str, body: &str) -> (u16, String) {
        self.try_ask_of(line, kind, token, body).expect("no answer")
    }

    /// As [`Whip::ask`]; `None` if the connection ends without an answer.
    pub(crate) fn try_ask(&self, line: &str, token: &str, body: &str) -> Option<(u16, String)> {
        self.try_ask_of(line, SDP, token, body)
    }

    fn try_ask_of(&self, line: &str, kind: &str, token: &str, body: &str) -> Option<(u16, String)> {
        let token = format!("authorization: Bearer {token}");
        let headers = ["connection: close", kind, &token];
        let answer = HttpClient::over(self.connect()).ask(line, &headers, body.as_bytes())?;
        Some((answer.status, answer.to_string()))
    }
}

pub(crate) fn claims(id: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    json!({"scenario": "call", "room": "room", "direction": "publish", "jti": id, "exp": now + 60})
}

pub(crate) fn signed(header: &str, claims: &Value, secret: &[u8]) -> String {
    let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let message = format!("{}.{}", part(header), part(&claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

pub(crate) fn token(claims: &Value) -> String {
    signed("{\"alg\":\"HS256\"}", claims, SECRET)
}

/// The URL of the session that an answer names.
pub(crate) fn location(answer: &str) -> &str {
    answer.lines().find_map(|line| line.strip_prefix("location: ")).expect("a session's URL")
}

/// The viewer hears the publisher.
pub(crate) fn hears_on(publisher: &mut Phone, viewer: &mut Phone) {
    let goal = viewer.heard.len() + 25;
    talk(&mut [publisher, viewer], "he hears her", |phones| phones[1].heard.len() >= goal);
}
