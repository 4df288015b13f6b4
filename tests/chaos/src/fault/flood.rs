//! A flood of ClientHellos: half from an address that passed a check of a session, half from a stranger.

use std::net::{IpAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel_contract::offers::{
    OfferMedia, OfferPayloadType, OfferRequest, OfferSdp, OfferStreamKind,
};
use evenkeel_dtls::DtlsClient;
use evenkeel_lab::client::{AnswerTransport, WebrtcIdentity};
use evenkeel_media::stun::{BindingBuilder, StunKey, Transaction, Username};
use serde_json::Value;

use crate::stage::Stage;

/// 5,000 ClientHellos a second from each address.
const BURST: u32 = 50;
const EVERY: Duration = Duration::from_millis(10);
/// Checks until one is answered, and the wait for each answer.
const CHECKS: usize = 20;
const ANSWERED_WITHIN: Duration = Duration::from_millis(100);

/// Floods the gateway for this long. Returns the part of the stranger's ClientHellos that the gateway read and refused, per cent: its socket drops
/// others while its buffer is full.
///
/// # Errors
/// No check was answered.
pub(super) async fn flood(stage: &Stage, long: Duration) -> Result<f64, String> {
    let mut admin = stage.admin();
    let identity = WebrtcIdentity::generate(0).map_err(|error| error.to_string())?;
    let opus = OfferPayloadType::new(111, "opus", 48_000);
    let voice = OfferMedia {
        kind: OfferStreamKind::Audio,
        payload_types: vec![opus],
        feedback: Vec::new(),
        bitrate: None,
    };
    let offer = OfferRequest {
        scenario: stage.layout.scenario.to_owned(),
        room: "flood".to_owned(),
        labels: [("region", stage.layout.carrying())].into_iter().collect(),
        webrtc: Some(OfferSdp { offer: identity.sdp(&[voice]), direction: None }),
        ..OfferRequest::default()
    };
    let opened = admin.open(&offer).await.map_err(|error| error.to_string())?;
    let sdp = opened.webrtc.ok_or("an answer without SDP")?.answer;
    let answer = AnswerTransport::parse(&sdp).ok_or_else(|| format!("incomplete SDP: {sdp}"))?;
    let checked = check(&identity, &answer, stage.clients_at())?;
    let stranger = socket(&answer, stage.clients_at())?;
    let (mut hello, now) = (Vec::new(), Instant::now());
    DtlsClient::new(&identity.certificate, now)
        .handle_timeout(now, &mut |datagram: &[u8]| hello = datagram.to_vec())
        .map_err(|failure| failure.to_string())?;
    let before = refused(&admin.read("/v1/status").await.map_err(|error| error.to_string())?);
    let senders = [checked, stranger].map(|socket| {
        let hello = hello.clone();
        thread::spawn(move || send(&socket, &hello, long))
    });
    tokio::time::sleep(long).await;
    for sender in senders {
        sender.join().map_err(|_panic| "a sender panicked")?;
    }
    let after = refused(&admin.read("/v1/status").await.map_err(|error| error.to_string())?);
    admin.close(&opened.id).await.map_err(|error| error.to_string())?;
    let sent = long.as_secs_f64() / EVERY.as_secs_f64() * f64::from(BURST);
    Ok((after - before) as f64 * 100.0 / sent)
}

/// A socket to the gateway.
fn socket(answer: &AnswerTransport, at: IpAddr) -> Result<UdpSocket, String> {
    let open = || {
        let socket = UdpSocket::bind((at, 0))?;
        socket.connect(answer.gateway)?;
        socket.set_read_timeout(Some(ANSWERED_WITHIN))?;
        Ok(socket)
    };
    open().map_err(|error: std::io::Error| format!("a socket to {}: {error}", answer.gateway))
}

/// The socket of a client with an answered check (RFC 8445, section 7.2.2).
fn check(
    identity: &WebrtcIdentity,
    answer: &AnswerTransport,
    at: IpAddr,
) -> Result<UdpSocket, String> {
    let socket = socket(answer, at)?;
    let (mut check, key) = (Vec::new(), StunKey::new(&answer.ice.password));
    let username = Username { server_ufrag: &answer.ice.ufrag, client_ufrag: identity.ufrag() };
    BindingBuilder {
        transaction: Transaction([1; 12]),
        username: Some(username),
        key: Some(&key),
        priority: Some(1),
        controlling: Some(1),
        use_candidate: true,
    }
    .write(&mut check);
    for _ in 0..CHECKS {
        let is_sent = socket.send(&check).is_ok();
        if is_sent && socket.recv(&mut [0; 1_500]).is_ok() {
            return Ok(socket);
        }
    }
    Err(format!("{} answered no check", answer.gateway))
}

/// A datagram that the sender's buffer has no space for is not sent.
fn send(socket: &UdpSocket, hello: &[u8], long: Duration) {
    let began = Instant::now();
    let mut due = Duration::ZERO;
    while due < long {
        thread::sleep(due.saturating_sub(began.elapsed()));
        for _ in 0..BURST {
            let _sent = socket.send(hello);
        }
        due += EVERY;
    }
}

/// The packets of strangers that the gateway has refused.
fn refused(status: &Value) -> u64 {
    let drops = |reason: &str| status["drops"][reason].as_u64().unwrap_or(0);
    drops("unknown-source") + drops("limited")
}
