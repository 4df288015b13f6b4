//! JSON requests to webhooks and their responses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use evenkeel_config::address;
use evenkeel_dataplane::worker::NodePort;
use evenkeel_http::Posted;
use evenkeel_model::{
    FeedbackSupport, HeaderExtension, MediaStream, PayloadType, RtcpPort, SessionId, Srtp,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::session::{SessionFacts, plain_reason};

/// `{"verb":"open","node":"east-a1","room":"studio","session":"…","nonce":"…","labels":{…},"media":[…],"extensions":[…],"rtcp":"mux",
/// "srtp":false,"gateway":{"address":"10.0.0.1:40000"},"lease_s":30}`; `gateway.rtcp` is present if `rtcp` is `own`.
pub(super) fn open(
    node: &str,
    session: SessionId,
    nonce: u64,
    facts: &SessionFacts,
    own: IpAddr,
    lease: Duration,
) -> Vec<u8> {
    let SessionFacts { room, labels, media, ports: (rtp, rtcp) } = facts;
    let labels: Map<String, Value> =
        labels.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
    let mut gateway = json!({"address": SocketAddr::new(own, *rtp)});
    if let Some(rtcp) = rtcp {
        gateway["rtcp"] = json!(rtcp);
    }
    let rtcp = match media.rtcp {
        RtcpPort::Mux => "mux",
        RtcpPort::Own => "own",
    };
    json!({
        "verb": "open",
        "node": node,
        "room": room,
        "session": session.to_string(),
        "nonce": word(nonce),
        "labels": labels,
        "media": media.streams.iter().map(stream).collect::<Vec<_>>(),
        "extensions": media.extensions.iter().map(extension).collect::<Vec<_>>(),
        "rtcp": rtcp,
        "srtp": media.srtp == Srtp::Opaque,
        "gateway": gateway,
        "lease_s": lease.as_secs(),
    })
    .to_string()
    .into()
}

fn stream(stream: &MediaStream) -> Value {
    let MediaStream { kind, payload_types, feedback, bitrate_kbps } = stream;
    let kind = kind.name();
    let payload_types: Vec<Value> = payload_types
        .iter()
        .map(|payload| {
            let PayloadType { number, codec, clock_rate, repairs } = payload;
            let mut payload =
                json!({"payload_type": number, "codec": codec, "clock_rate": clock_rate});
            if let Some(apt) = repairs {
                payload["apt"] = json!(apt);
            }
            payload
        })
        .collect();
    let FeedbackSupport { pli, fir, remb, tmmbr, nack, transport_cc, ccfb } = *feedback;
    let words = [
        ("pli", pli),
        ("fir", fir),
        ("remb", remb),
        ("tmmbr", tmmbr),
        ("nack", nack),
        ("transport-cc", transport_cc),
        ("ccfb", ccfb),
    ];
    let feedback: Vec<&str> = words.iter().filter(|(_, is)| *is).map(|(word, _)| *word).collect();
    let mut stream = json!({"kind": kind, "payload_types": payload_types, "feedback": feedback});
    if let Some(kbps) = bitrate_kbps {
        stream["bitrate_kbps"] = json!(kbps);
    }
    stream
}

fn extension(extension: &HeaderExtension) -> Value {
    let HeaderExtension { id, uri } = extension;
    json!({"id": id, "uri": uri.as_str()})
}

/// `{"verb":"refresh","node":"east-a1","sessions":[{"session":"…","nonce":"…"}],"lease_s":30}`.
pub(super) fn refresh(node: &str, sessions: &[(SessionId, u64)], lease: Duration) -> Vec<u8> {
    let sessions: Vec<Value> = sessions
        .iter()
        .map(|(session, nonce)| json!({"session": session.to_string(), "nonce": word(*nonce)}))
        .collect();
    let lease_s = lease.as_secs();
    json!({"verb": "refresh", "node": node, "sessions": sessions, "lease_s": lease_s})
        .to_string()
        .into()
}

/// `{"verb":"close","node":"east-a1","session":"…","nonce":"…"}`.
pub(super) fn close(node: &str, session: SessionId, nonce: u64) -> Vec<u8> {
    let (session, nonce) = (session.to_string(), word(nonce));
    json!({"verb": "close", "node": node, "session": session, "nonce": nonce}).to_string().into()
}

fn word(nonce: u64) -> String {
    format!("{nonce:016x}")
}

#[derive(PartialEq, Eq, Debug)]
pub(super) enum WebhookAnswer {
    At(NodePort),
    Refused(String),
    /// The session was refused, and the server accepts no other sessions for now.
    Unwilling(String),
    /// There was no response, or an invalid one.
    Unanswered(String),
}

#[derive(Deserialize)]
struct LegAddress {
    address: SocketAddr,
    /// The RTCP port; default: the RTP port plus one.
    rtcp: Option<u16>,
}

pub(super) fn opened(posted: Posted, rtcp_apart: bool) -> WebhookAnswer {
    let answer = match posted {
        Ok(answer) => answer,
        Err(failed) => return WebhookAnswer::Unanswered(failed),
    };
    match answer.status {
        200..300 => match serde_json::from_slice(&answer.body) {
            Ok(named) => match port(&named, rtcp_apart) {
                Ok(port) => WebhookAnswer::At(port),
                Err(wrong) => WebhookAnswer::Refused(wrong),
            },
            Err(error) => {
                let reason = format!("response without an address: {error}");
                WebhookAnswer::Refused(plain_reason(&reason))
            }
        },
        502 | 504 => WebhookAnswer::Unanswered(format!("HTTP status {}", answer.status)),
        503 => WebhookAnswer::Unwilling(reason(503, &answer.body)),
        status => WebhookAnswer::Refused(reason(status, &answer.body)),
    }
}

/// The media server's port; the error names the field of the answer.
fn port(named: &LegAddress, rtcp_apart: bool) -> Result<NodePort, String> {
    let address = address::checked(named.address).map_err(|wrong| format!("`address`: {wrong}"))?;
    let rtcp_port = match (rtcp_apart, named.rtcp) {
        (false, _) => Some(address.port()),
        (true, Some(port)) => Some(port).filter(|port| *port != 0),
        (true, None) => address.port().checked_add(1),
    };
    let rtcp_port = rtcp_port.ok_or_else(|| match named.rtcp {
        Some(port) => format!("`rtcp`: found {port}, expected 1 to 65535"),
        None => "`rtcp`: is missing, and no port follows that of `address`; expected 1 to 65535"
            .to_owned(),
    })?;
    Ok(NodePort { address, rtcp_port })
}

/// `{"error":"…"}`, or the body as text.
fn reason(status: u16, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct ErrorMessage {
        error: String,
    }
    let text = serde_json::from_slice(body).map(|ErrorMessage { error }| error);
    let text = text.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned());
    let text = plain_reason(&text);
    if text.is_empty() {
        format!("HTTP status {status}")
    } else {
        format!("HTTP status {status}: {text}")
    }
}

/// The nonces that the server does not know. Without a valid response the list is empty.
pub(super) fn unknown(posted: Posted) -> Vec<u64> {
    #[derive(Deserialize)]
    struct Unknown {
        unknown: Vec<String>,
    }
    let Some(answer) = posted.ok().filter(|answer| (200..300).contains(&answer.status)) else {
        return Vec::new();
    };
    let Ok(Unknown { unknown }) = serde_json::from_slice(&answer.body) else {
        return Vec::new();
    };
    unknown.iter().filter_map(|nonce| u64::from_str_radix(nonce, 16).ok()).collect()
}
