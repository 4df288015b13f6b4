//! WHIP (RFC 9725) and WHEP over HTTP, and the tokens of their clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use evenkeel_control::Inherited;
use evenkeel_handover::RequestGate;
use ring::hmac;
use serde_json::{Value, json};

use super::{Gateway, Phone, SECRET, TIMEOUT, talk};

/// Follows the lines of `[admin]`.
pub(crate) const WEBRTC: &str = "[webrtc]\nlisten = \"127.0.0.1:0\"\ntoken_key_file = \"secret\"\n";

const SDP: &str = "content-type: application/sdp";

/// The address of WHIP and WHEP of a gateway.
pub(crate) struct Whip {
    address: SocketAddr,
    /// `None` for a gateway in a process of its own.
    _api: Option<evenkeel_api::ApiThread>,
}

impl Whip {
    pub(crate) fn of(gateway: &Gateway) -> Whip {
        let settings = &gateway.settings;
        let (admin, webrtc) = (settings.admin.clone(), settings.webrtc.clone());
        let api = evenkeel_api::bind(admin, webrtc, &mut Inherited::default()).unwrap();
        let api = api.serve(gateway.handle.clone(), Box::new(|_| String::new())).unwrap();
        api.open();
        Whip { address: api.webrtc.unwrap(), _api: Some(api) }
    }

    /// That of a gateway in a process of its own.
    pub(crate) fn at(address: SocketAddr) -> Whip {
        Whip { address, _api: None }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    /// Sends a request on a connection of its own, which stays open.
    pub(crate) fn hold(&self, line: &str, token: &str) -> TcpStream {
        let mut stream = self.connect();
        let head = format!("{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}");
        // The gateway may have closed the connection.
        let _ = write!(stream, "{head}\r\ncontent-length: 0\r\n\r\n");
        stream
    }

    /// Status and text of an answer.
    pub(crate) fn ask(&self, line: &str, token: &str, body: &str) -> (u16, String) {
        let mut stream = self.connect();
        let length = body.len();
        let head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{SDP}");
        let head = format!("{head}\r\nauthorization: Bearer {token}\r\ncontent-length: {length}");
        write!(stream, "{head}\r\n\r\n").unwrap();
        // A body that is refused before it is read may end with a broken pipe.
        let _ = stream.write_all(body.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("no answer: {answer}")), answer)
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
