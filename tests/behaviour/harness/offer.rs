//! Session requests.

use std::net::SocketAddr;
use std::sync::Arc;

use evenkeel_control::{IngressAnswer, OfferedSession, SessionAnswer};
use evenkeel_lab::client::QuicProtocol;
use evenkeel_model::{
    ClientIdentity, FeedbackSupport, IngressProtocol, MediaDescription, MediaStream, PayloadType,
    RtcpPort, Srtp, StreamKind,
};

use super::Phone;

/// A call with audio (111), video (96) and muxed RTCP.
pub(crate) fn offer(room: &str, ingress: IngressProtocol) -> OfferedSession {
    let stream = |kind, number, codec: &str, clock_rate, feedback| MediaStream {
        kind,
        payload_types: vec![PayloadType::new(number, codec, clock_rate)],
        feedback,
        bitrate_kbps: None,
    };
    let feedback = FeedbackSupport { pli: true, remb: true, ..FeedbackSupport::default() };
    OfferedSession {
        scenario: "call".into(),
        room: room.into(),
        labels: Arc::new([]),
        ingress,
        media: Arc::new(MediaDescription::new(
            vec![
                stream(StreamKind::Audio, 111, "opus", 48_000, FeedbackSupport::default()),
                stream(StreamKind::Video, 96, "VP8", 90_000, feedback),
            ],
            RtcpPort::Mux,
            Srtp::Plain,
        )),
        srtp: None,
        nodes: Vec::new(),
        caller: None,
    }
}

pub(crate) fn declared(phone: &Phone) -> IngressProtocol {
    IngressProtocol::Udp(ClientIdentity::Declared { address: phone.address(), rtcp: None })
}

pub(crate) fn udp_of(opened: &SessionAnswer) -> SocketAddr {
    match &opened.ingress {
        IngressAnswer::Udp { addresses, .. } => addresses[0],
        IngressAnswer::Quic { .. } => panic!("{opened:?}"),
    }
}

pub(crate) fn quic_of(opened: &SessionAnswer) -> evenkeel_lab::client::QuicWay {
    match &opened.ingress {
        IngressAnswer::Quic {
            addresses,
            certificate_sha256,
            flow_to_gateway,
            flow_from_gateway,
            ..
        } => evenkeel_lab::client::QuicWay {
            protocol: QuicProtocol::Roq,
            gateway: addresses[0],
            certificate_sha256: *certificate_sha256,
            flow_to_gateway: *flow_to_gateway,
            flow_from_gateway: *flow_from_gateway,
        },
        IngressAnswer::Udp { .. } => panic!("{opened:?}"),
    }
}
