//! SDP offers of WebRTC clients (RFC 8829), and the answers.

use std::net::SocketAddr;
use std::sync::Arc;

use evenkeel_config::token::ClientDirection;
use evenkeel_control::IceAnswer;
use evenkeel_dataplane::worker::{AnsweredMedia, ClientPassword, ClientStream, SrtpKeying};
use evenkeel_media::continuity::{AnnouncedSection, AnnouncedStreams};
use evenkeel_media::fingerprint::CertificateFingerprint;
use evenkeel_media::numbering::ClientNumbers;
use evenkeel_model::{
    ClientIdentity, ExtensionUri, FeedbackSupport, HeaderExtension, IngressProtocol,
    MediaDescription, MediaStream, OfferedLayer, PayloadType, RtcpPort, SessionId, Srtp,
    StreamKind,
};
use evenkeel_process::random::fill;
use evenkeel_sdp::{
    AcceptedMedia, AnswerPolicy, CodecKind, Direction, Format, IceCredentials, Keying,
    LocalTransport, MediaFormat, Negotiation, PeerPath, PeerTransport, SdpError, SdpOffer,
    SecretText, SentStream,
};

use super::client_media::ClientMedia;
use crate::error::ApiError;

/// An SDP offer that the gateway can accept.
#[derive(Debug)]
pub(crate) struct WebrtcOffer {
    offer: SdpOffer,
    negotiation: Negotiation,
    /// The client's.
    pub(crate) ice: IceCredentials,
    fingerprints: Arc<[CertificateFingerprint]>,
    announced: Arc<AnnouncedStreams>,
}

impl WebrtcOffer {
    /// Parses an offer. `direction`: the client may use this one only.
    pub(crate) fn parse(
        text: &str,
        direction: Option<ClientDirection>,
    ) -> Result<WebrtcOffer, ApiError> {
        let wrong = |message: String| ApiError::field("webrtc.offer", message);
        let refused = |error: SdpError| wrong(error.to_string());
        let offer = SdpOffer::parse(text.as_bytes()).map_err(refused)?;
        let policy = AnswerPolicy {
            sends: direction != Some(ClientDirection::Publish),
            receives: direction != Some(ClientDirection::View),
            has_rtcp_port: false,
            random: fill,
        };
        let negotiation = offer.negotiate(&policy).map_err(refused)?;
        let has = |holds: fn(Direction) -> bool| {
            negotiation.accepted().any(|media| holds(media.direction))
        };
        let missing = match direction {
            Some(ClientDirection::Publish) if !has(Direction::has_recv) => Some("sendonly"),
            Some(ClientDirection::View) if !has(Direction::has_send) => Some("recvonly"),
            _ => None,
        };
        if let Some(missing) = missing {
            let message = format!(
                "found no m-line in this direction, expected a={missing} or a=sendrecv on one"
            );
            return Err(wrong(message));
        }
        match &negotiation.transport {
            PeerTransport { path: PeerPath::Ice(ice), keying: Keying::Dtls { fingerprints } } => {
                let (ice, fingerprints) = (ice.clone(), fingerprints.as_slice().into());
                let announced = Arc::new(announced(&negotiation));
                Ok(WebrtcOffer { offer, negotiation, ice, fingerprints, announced })
            }
            PeerTransport { .. } => {
                let expected = "has no ICE credentials or no fingerprint; expected both, as of a WebRTC client, or the \
                                fields `ingress`, `media` and `srtp`";
                Err(wrong(expected.to_owned()))
            }
        }
    }

    /// The client that the offer describes.
    pub(super) fn client(&self) -> ClientMedia {
        ClientMedia {
            ingress: IngressProtocol::Udp(ClientIdentity::Stun),
            media: self.media(),
            keying: Some(self.keying()),
        }
    }

    pub(super) fn media(&self) -> MediaDescription {
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
        for stream in &mut streams {
            stream.feedback.transport_cc = self.numbers(stream.kind);
        }
        let media = MediaDescription::new(streams, RtcpPort::Mux, Srtp::Terminated);
        MediaDescription { extensions: self.extensions(), simulcast: self.simulcast(), ..media }
    }

    /// The layers of the client's video. If several m-lines have layers, names may be equal, and no layer is chosen.
    fn simulcast(&self) -> Vec<OfferedLayer> {
        let is_sent =
            |media: &&AcceptedMedia| media.kind == CodecKind::Video && media.direction.has_recv();
        let sending = self.negotiation.accepted().filter(is_sent);
        let layers = sending.map(offered_layers).filter(|layers| !layers.is_empty());
        let layers: Vec<_> = layers.collect();
        match <[Vec<OfferedLayer>; 1]>::try_from(layers) {
            Ok([layers]) => layers,
            Err(_) => Vec::new(),
        }
    }

    /// Returns whether the client takes transport-wide numbers on each m-line of this kind on which it receives: packets of a kind do not tell
    /// their m-line.
    fn numbers(&self, kind: StreamKind) -> bool {
        let receives =
            |media: &&AcceptedMedia| stream_kind(media.kind) == kind && media.direction.has_send();
        let mut receiving = self.negotiation.accepted().filter(receives).peekable();
        let takes = |format: &MediaFormat| format.feedback.transport_cc;
        receiving.peek().is_some() && receiving.all(|media| media.formats.iter().any(takes))
    }

    /// The header extensions of all m-lines, with the ids of the room.
    fn extensions(&self) -> Vec<HeaderExtension> {
        let mut extensions: Vec<HeaderExtension> = Vec::new();
        for accepted in self.negotiation.accepted().flat_map(|media| &media.extensions) {
            if extensions.iter().all(|known| known.id != accepted.room) {
                let uri = ExtensionUri::from(Box::<str>::from(accepted.uri));
                extensions.push(HeaderExtension { id: accepted.room, uri });
            }
        }
        extensions
    }

    pub(super) fn keying(&self) -> SrtpKeying {
        SrtpKeying::Dtls {
            fingerprints: Arc::clone(&self.fingerprints),
            keys: None,
            answered: Arc::new(self.answered()),
        }
    }

    fn answered(&self) -> AnsweredMedia {
        let Negotiation { payload_types, extensions, .. } = &self.negotiation;
        let formats = self.negotiation.accepted().flat_map(|media| &media.formats);
        let mut blocks = formats.filter(|it| matches!(it.format, Format::Redundancy(_)));
        AnsweredMedia {
            ufrag: self.ice.ufrag.as_str().into(),
            password: ClientPassword(self.ice.password().into()),
            may_send: self.negotiation.accepted().any(|media| media.direction.has_recv()),
            may_receive: self.negotiation.accepted().any(|media| media.direction.has_send()),
            sends: self.sends(),
            numbers: ClientNumbers::new(
                payload_types,
                extensions,
                blocks.next().map(|format| format.room),
            ),
            announced: Arc::clone(&self.announced),
        }
    }

    fn sends(&self) -> Vec<ClientStream> {
        let sending = self.negotiation.accepted().filter(|media| media.direction.has_recv());
        let stream = |media: &AcceptedMedia| ClientStream {
            kind: stream_kind(media.kind),
            ssrcs: media.sources.iter().map(|source| source.ssrc).collect(),
        };
        sending.map(stream).collect()
    }

    /// The answer of a session with these addresses, best first.
    pub(super) fn answer(
        &self,
        session: SessionId,
        addresses: &[SocketAddr],
        ice: &IceAnswer,
    ) -> SecretText {
        let credentials = IceCredentials::new(&ice.ufrag, &ice.password);
        let announced = ice.announced.as_ref().unwrap_or(&self.announced);
        let name = session.to_string();
        // The client plays streams of one id in sync. Without a sender, the id is the receiver's.
        let ids = announced.sections.iter().map(|section| match &section.sender {
            Some(sender) => (String::from(&*sender.stream), &*sender.stream),
            None if announced.in_sync.contains(&section.index) => (name.clone(), &*name),
            None => (format!("{name}-{}", section.index), &*name),
        });
        let ids: Vec<(String, &str)> = ids.collect();
        let sources =
            announced.sections.iter().zip(&ids).filter_map(|(section, (stream, cname))| {
                let index = section.index;
                let media =
                    self.negotiation.sections.get(usize::from(index))?.outcome.as_ref().ok()?;
                let retransmission = announced.retransmission_ssrc(index);
                Some(SentStream {
                    mid: media.mid.as_deref()?,
                    stream,
                    cname,
                    ssrc: announced.ssrc(index),
                    retransmission: section.has_retransmissions.then_some(retransmission),
                    parity: has_parity(media).then(|| announced.parity_ssrc(index)),
                })
            });
        let sources: Vec<SentStream<'_>> = sources.collect();
        let local = LocalTransport {
            session_id: session.0,
            addresses,
            rtcp_port: None,
            ice: &credentials.expect("control draws ICE characters (RFC 8839, section 5.4)"),
            fingerprint: &ice.certificate_sha256,
            sources: &sources,
        };
        self.offer.answer(&self.negotiation, &local)
    }
}

/// The streams that the answer announces, on m-lines with an identification (RFC 5888).
fn announced(negotiation: &Negotiation) -> AnnouncedStreams {
    let mut seed = [0; 4];
    fill(&mut seed);
    let receiving = (0..).zip(&negotiation.sections).filter_map(|(index, section)| {
        let media = section.outcome.as_ref().ok()?;
        (media.mid.is_some() && media.direction.has_send()).then_some((index, media))
    });
    let receiving: Vec<(u8, &AcceptedMedia)> = receiving.take(AnnouncedStreams::MAX).collect();
    let repairs = |format: &&MediaFormat| matches!(format.format, Format::Retransmission(_));
    let is_apart = |it: &&MediaFormat| repairs(it) || it.format == Format::Parity;
    let sections = receiving.iter().map(|(index, media)| AnnouncedSection {
        index: *index,
        payload_types: media.formats.iter().filter(|it| !is_apart(it)).map(|it| it.room).collect(),
        has_retransmissions: media.formats.iter().any(|format| repairs(&format)),
        sender: None,
    });
    let sections = sections.collect();
    // Voice and pictures of one sender. With several m-lines of a kind the senders differ.
    let of = |kind| receiving.iter().filter(|(_, media)| media.kind == kind).count();
    let is_one_per_kind = of(CodecKind::Audio) <= 1 && of(CodecKind::Video) <= 1;
    let indices = receiving.iter().map(|(index, _)| *index);
    let in_sync = indices.filter(|_| is_one_per_kind).collect();
    AnnouncedStreams { seed: u32::from_ne_bytes(seed), in_sync, sections }
}

fn has_parity(media: &AcceptedMedia) -> bool {
    media.formats.iter().any(|format| format.format == Format::Parity)
}

/// Adds the formats of an m-line to the stream of its kind, with the payload types of the room.
fn add(stream: &mut MediaStream, media: &AcceptedMedia) {
    for MediaFormat { room, format, repairs, feedback, .. } in &media.formats {
        if stream.payload_types.iter().any(|known| known.number == *room) {
            continue;
        }
        let (codec, clock_rate) = (format.name().into(), format.clock_rate());
        let repairs = repairs.and_then(|base| media.payload_types.room_number(base));
        stream.payload_types.push(PayloadType { number: *room, codec, clock_rate, repairs });
        stream.feedback.pli |= feedback.pli;
        stream.feedback.fir |= feedback.fir;
        stream.feedback.remb |= feedback.remb;
        stream.feedback.tmmbr |= feedback.tmmbr;
        stream.feedback.nack |= feedback.nack;
    }
}

/// The layers that a client sends on an m-line: by names, or else by SSRCs, which get names.
fn offered_layers(media: &AcceptedMedia) -> Vec<OfferedLayer> {
    if !media.layers.is_empty() {
        let named = media.layers.iter().map(|layer| layer.rid.as_str().into());
        return named.map(|rid| OfferedLayer { rid, ssrc: None, rtx_ssrc: None }).collect();
    }
    let numbered = media.layer_ssrcs.iter().enumerate().map(|(number, &ssrc)| {
        let source = media.sources.iter().find(|source| source.ssrc == ssrc);
        let rtx_ssrc = source.and_then(|source| source.retransmission);
        OfferedLayer { rid: number.to_string().into(), ssrc: Some(ssrc), rtx_ssrc }
    });
    numbered.collect()
}

fn stream_kind(kind: CodecKind) -> StreamKind {
    match kind {
        CodecKind::Audio => StreamKind::Audio,
        CodecKind::Video => StreamKind::Video,
    }
}

#[cfg(test)]
mod tests;
