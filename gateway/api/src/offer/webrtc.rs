//! SDP offers of WebRTC clients (RFC 8829), and the answers.

use std::net::SocketAddr;
use std::sync::Arc;

use evenkeel_control::IceAnswer;
use evenkeel_dataplane::worker::SrtpKeying;
use evenkeel_media::fingerprint::CertificateFingerprint;
use evenkeel_model::{
    ClientIdentity, FeedbackSupport, IngressProtocol, MediaDescription, MediaStream, PayloadType,
    RtcpPort, SessionId, Srtp, StreamKind,
};
use evenkeel_process::random::fill;
use evenkeel_sdp::{
    AcceptedMedia, AnswerPolicy, CodecKind, IceCredentials, Keying, LocalTransport, MediaFormat,
    Negotiation, PeerPath, PeerTransport, SdpError, SdpOffer, SecretText,
};

use super::client_media::ClientMedia;
use crate::error::ApiError;

/// An SDP offer that the gateway can accept.
#[derive(Debug)]
pub(super) struct WebrtcOffer {
    offer: SdpOffer,
    negotiation: Negotiation,
    fingerprints: Arc<[CertificateFingerprint]>,
}

impl WebrtcOffer {
    pub(super) fn parse(text: &str) -> Result<WebrtcOffer, ApiError> {
        let refused = |error: SdpError| ApiError::field("webrtc.offer", error.to_string());
        let offer = SdpOffer::parse(text.as_bytes()).map_err(refused)?;
        let policy =
            AnswerPolicy { sends: true, receives: true, has_rtcp_port: false, random: fill };
        let negotiation = offer.negotiate(&policy, None).map_err(refused)?;
        match &negotiation.transport {
            PeerTransport { path: PeerPath::Ice(_), keying: Keying::Dtls { fingerprints } } => {
                let fingerprints = fingerprints.as_slice().into();
                Ok(WebrtcOffer { offer, negotiation, fingerprints })
            }
            PeerTransport { .. } => {
                let wrong = "has no ICE credentials or no fingerprint; expected both, as of a WebRTC client, or the \
                             fields `ingress`, `media` and `srtp`";
                Err(ApiError::field("webrtc.offer", wrong))
            }
        }
    }

    /// The client that the offer describes.
    pub(super) fn client(&self) -> ClientMedia {
        let mut streams: Vec<MediaStream> = Vec::new();
        for media in self.negotiation.accepted() {
            let kind = stream_kind(media.kind);
            // M-lines of one kind may share payload types.
            let place = streams.iter().position(|stream| stream.kind == kind);
            let place = place.unwrap_or_else(|| {
                streams.push(MediaStream {
                    kind,
                    payload_types: Vec::new(),
                    feedback: FeedbackSupport::default(),
                    bitrate_kbps: None,
                });
                streams.len() - 1
            });
            add(&mut streams[place], media);
        }
        let media = MediaDescription { streams, rtcp: RtcpPort::Mux, srtp: Srtp::Terminated };
        let fingerprints = Arc::clone(&self.fingerprints);
        ClientMedia {
            ingress: IngressProtocol::Udp(ClientIdentity::Stun),
            media,
            keying: Some(SrtpKeying::Dtls { fingerprints, keys: None }),
        }
    }

    /// The answer of a session with these addresses, best first.
    pub(super) fn answer(
        &self,
        session: SessionId,
        addresses: &[SocketAddr],
        ice: &IceAnswer,
    ) -> SecretText {
        let credentials = IceCredentials::new(&ice.ufrag, &ice.password);
        let local = LocalTransport {
            session_id: session.0,
            addresses,
            rtcp_port: None,
            ice: &credentials.expect("control draws ICE characters (RFC 8839, section 5.4)"),
            fingerprint: &ice.certificate_sha256,
            sources: &[],
        };
        self.offer.answer(&self.negotiation, &local)
    }
}

/// Adds the formats of an m-line to the stream of its kind.
fn add(stream: &mut MediaStream, media: &AcceptedMedia) {
    for MediaFormat { number, format, feedback, .. } in &media.formats {
        if stream.payload_types.iter().any(|known| known.number == *number) {
            continue;
        }
        let (codec, clock_rate) = (format.name().into(), format.codec().clock_rate());
        stream.payload_types.push(PayloadType { number: *number, codec, clock_rate });
        stream.feedback.pli |= feedback.pli;
        stream.feedback.fir |= feedback.fir;
        stream.feedback.remb |= feedback.remb;
        stream.feedback.tmmbr |= feedback.tmmbr;
    }
}

fn stream_kind(kind: CodecKind) -> StreamKind {
    match kind {
        CodecKind::Audio => StreamKind::Audio,
        CodecKind::Video => StreamKind::Video,
    }
}

#[cfg(test)]
mod tests;
