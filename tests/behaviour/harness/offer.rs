//! Session requests.

use std::net::SocketAddr;
use std::sync::Arc;

use evenkeel_core::{
    Feedback, Identity, Ingress, Kind, Media, PayloadType, RtcpPort, Srtp, Stream,
};
use evenkeel_server::control::{IngressAnswer, SessionAnswer, SessionRequest};

use super::Phone;

/// A call with audio (111), video (96) and muxed RTCP.
pub(crate) fn offer(room: &str, ingress: Ingress) -> SessionRequest {
    let stream = |kind, number, codec: &str, clock_rate, feedback| Stream {
        kind,
        payload_types: vec![PayloadType { number, codec: codec.into(), clock_rate }],
        feedback,
        bitrate_kbps: None,
    };
    let feedback = Feedback { pli: true, fir: false, remb: true, tmmbr: false };
    SessionRequest {
        scenario: "call".into(),
        room: room.into(),
        labels: Arc::new([]),
        ingress,
        media: Arc::new(Media {
            streams: vec![
                stream(Kind::Audio, 111, "opus", 48_000, Feedback::default()),
                stream(Kind::Video, 96, "VP8", 90_000, feedback),
            ],
            rtcp: RtcpPort::Mux,
            srtp: Srtp::Plain,
        }),
        nodes: Vec::new(),
        traceparent: None,
    }
}

pub(crate) fn declared(phone: &Phone) -> Ingress {
    Ingress::Udp(Identity::Declared { address: phone.address(), rtcp: None })
}

pub(crate) fn udp_of(opened: &SessionAnswer) -> SocketAddr {
    match &opened.ingress {
        IngressAnswer::Udp { address, .. } => *address,
        IngressAnswer::Quic { .. } => panic!("{opened:?}"),
    }
}

pub(crate) fn quic_of(opened: &SessionAnswer) -> evenkeel_lab::client::QuicWay {
    match opened.ingress {
        IngressAnswer::Quic { address, certificate_sha256, flow_to_gateway, flow_from_gateway } => {
            evenkeel_lab::client::QuicWay {
                gateway: address,
                certificate_sha256,
                flow_to_gateway,
                flow_from_gateway,
            }
        }
        IngressAnswer::Udp { .. } => panic!("{opened:?}"),
    }
}
