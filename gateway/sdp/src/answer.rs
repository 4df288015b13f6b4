//! The text of an answer.

use std::fmt::{self, Write as _};
use std::iter;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use evenkeel_media::fingerprint::CertificateFingerprint;
use sdp_types::{Direction, Rid, RidDirection};
use zeroize::Zeroizing;

use crate::codec::Codec;
use crate::ice::{IceCredentials, candidate_value};
use crate::negotiation::{
    AcceptedMedia, Keying, NegotiatedSection, Negotiation, PeerPath, PeerTransport,
};
use crate::offer::SdpOffer;
use crate::section::{HeaderExtension, MediaFormat, OfferedSection, SimulcastLayer};

/// The port of m-lines without an address (RFC 863).
const DISCARD: u16 = 9;

/// The gateway's side of a session.
#[derive(Clone, Copy, Debug)]
pub struct LocalTransport<'a> {
    /// The number of the session in the `o=` line.
    pub session_id: u64,
    /// The advertised addresses, the preferred one first; at least one.
    pub addresses: &'a [SocketAddr],
    /// The port of RTCP beside the preferred address, for phones that do not multiplex; `None` for the next one (RFC 3550, section 11).
    pub rtcp_port: Option<u16>,
    /// The ICE credentials of this session; new ones if the client's are new (RFC 8839, section 4.4.1.1.1).
    pub ice: &'a IceCredentials,
    /// SHA-256 of the certificate.
    pub fingerprint: &'a [u8; 32],
    /// The streams that the gateway sends, as far as they are known; others are told apart by payload type.
    pub sources: &'a [SentStream<'a>],
}

/// A stream that the gateway sends.
#[derive(Clone, Copy, Debug)]
pub struct SentStream<'a> {
    /// The m-line, such as one of [`SdpOffer::receiving_mids`].
    pub mid: &'a str,
    /// The id of the `MediaStream` at the client, a token; streams of one id are played in sync.
    pub stream: &'a str,
    /// The canonical name of the sender (RFC 3550, section 6.5.1).
    pub cname: &'a str,
    pub ssrc: u32,
    /// The SSRC of retransmissions, if there are any.
    pub retransmission: Option<u32>,
    /// The SSRC of parity, if there may be any.
    pub parity: Option<u32>,
}

/// A text that contains keys or passwords: absent from `Debug`, and wiped when it is dropped or grows.
#[derive(Clone, Default)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Returns the text. It must go to the client alone.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Appends a line. Characters that would end it are left out.
    pub(crate) fn line(&mut self, line: fmt::Arguments<'_>) {
        self.write_fmt(line).expect("writing to a String does not fail");
        self.push("\r\n");
    }

    fn push(&mut self, text: &str) {
        let length = self.0.len() + text.len();
        if length > self.0.capacity() {
            // A String that grows by itself would leave a copy behind.
            let mut larger = Zeroizing::new(String::with_capacity(2 * length));
            larger.push_str(&self.0);
            self.0 = larger;
        }
        self.0.push_str(text);
    }
}

impl fmt::Write for SecretText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.split(['\0', '\r', '\n']).for_each(|part| self.push(part));
        Ok(())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretText({} bytes)", self.0.len())
    }
}

impl SdpOffer {
    /// Writes the answer (RFC 8829, section 5.3.1). `negotiation` is the result of [`SdpOffer::negotiate`] for this offer.
    ///
    /// The text repeats the client's own numbers, its order of codecs and its `sess-version`. It may contain a key: it must go to the client alone.
    ///
    /// ICE credentials and the fingerprint stand at the session level, as that section permits: bundled m-lines must not repeat them,
    /// but aiortc and GStreamer look for them on rejected m-lines too. `a=setup` stands on each m-line: GStreamer and Pion do not
    /// inherit it.
    pub fn answer(&self, negotiation: &Negotiation, local: &LocalTransport<'_>) -> SecretText {
        let Negotiation { transport: peer, sections, .. } = negotiation;
        let mut text = SecretText::default();
        let origin = internet_address(local.first_address().ip());
        text.line(format_args!("v=0"));
        text.line(format_args!("o=- {} {} {origin}", local.session_id, self.version));
        text.line(format_args!("s=-"));
        text.line(format_args!("t=0 0"));
        if peer.path.has_ice() {
            write_ice(&mut text, local.ice);
        }
        let is_dtls = matches!(peer.keying, Keying::Dtls { .. });
        if is_dtls {
            let fingerprint = CertificateFingerprint::Sha256(*local.fingerprint);
            text.line(format_args!("a=fingerprint:{fingerprint}"));
        }
        let mids = accepted_mids(self, sections);
        if !mids.is_empty() {
            text.line(format_args!("a=group:BUNDLE {}", mids.join(" ")));
        }
        if self.extmap_allow_mixed {
            text.line(format_args!("a=extmap-allow-mixed"));
        }
        let is_muxed = !matches!(peer.path, PeerPath::Address { rtcp: Some(_), .. });
        let tag = self.tag(sections);
        for (index, (offered, section)) in self.sections.iter().zip(sections).enumerate() {
            match &section.outcome {
                Ok(media) => {
                    write_accepted(&mut text, offered, media, local);
                    if is_muxed {
                        text.line(format_args!("a=rtcp-mux"));
                    } else if let Some(port) = local.rtcp_port {
                        text.line(format_args!("a=rtcp:{port}"));
                    }
                }
                Err(_) => write_rejected(&mut text, offered),
            }
            if is_dtls {
                text.line(format_args!("a=setup:passive"));
            }
            if Some(index) == tag {
                write_tagged(&mut text, local, peer);
            }
        }
        text
    }
}

impl LocalTransport<'_> {
    fn first_address(&self) -> SocketAddr {
        let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, DISCARD));
        self.addresses.first().copied().unwrap_or(unspecified)
    }
}

/// Returns the end of `o=` and `c=` lines.
fn internet_address(ip: IpAddr) -> String {
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    format!("IN {family} {ip}")
}

/// Returns the `mid`s of the accepted m-lines in the order of the offer's group; empty without a group.
fn accepted_mids<'a>(offer: &'a SdpOffer, sections: &[NegotiatedSection]) -> Vec<&'a str> {
    let accepted = sections.iter().filter_map(|section| section.outcome.as_ref().ok());
    let accepted: Vec<&str> = accepted.filter_map(|media| media.mid.as_deref()).collect();
    let mids = offer.bundle.iter().flatten().map(String::as_str);
    mids.filter(|mid| accepted.contains(mid)).collect()
}

fn write_head(text: &mut SecretText, offered: &OfferedSection, address: SocketAddr, formats: &str) {
    let (media, port, profile) = (&offered.media, address.port(), &offered.profile);
    text.line(format_args!("m={media} {port} {profile} {formats}"));
    text.line(format_args!("c={}", internet_address(address.ip())));
    if let Some(mid) = &offered.mid {
        text.line(format_args!("a=mid:{mid}"));
    }
}

/// An m-line with port 0 repeats the formats of the offer, of which one is mandatory. Clients compare its `mid`.
fn write_rejected(text: &mut SecretText, offered: &OfferedSection) {
    let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    write_head(text, offered, unspecified, &offered.format_list);
    text.line(format_args!("a={}", Direction::Inactive));
}

fn write_accepted(
    text: &mut SecretText,
    offered: &OfferedSection,
    accepted: &AcceptedMedia,
    local: &LocalTransport<'_>,
) {
    let numbers = accepted.formats.iter().map(|format| format.number.to_string());
    write_head(text, offered, local.first_address(), &numbers.collect::<Vec<_>>().join(" "));
    for extension in &accepted.extensions {
        let HeaderExtension { id, uri, direction, .. } = extension;
        match direction {
            Some(direction) => text.line(format_args!("a=extmap:{id}/{direction} {uri}")),
            None => text.line(format_args!("a=extmap:{id} {uri}")),
        }
    }
    text.line(format_args!("a={}", accepted.direction));
    if offered.rtcp_reduced_size {
        text.line(format_args!("a=rtcp-rsize"));
    }
    accepted.formats.iter().for_each(|format| write_format(text, format));
    accepted.layers.iter().for_each(|layer| write_layer(text, layer));
    if !accepted.layers.is_empty() {
        let rids: Vec<&str> = accepted.layers.iter().map(|layer| layer.rid.as_str()).collect();
        text.line(format_args!("a=simulcast:recv {}", rids.join(";")));
    }
    if accepted.direction.has_send() {
        let is_of = |source: &&SentStream<'_>| Some(source.mid) == offered.mid.as_deref();
        local.sources.iter().filter(is_of).for_each(|source| write_source(text, source));
    }
}

fn write_format(text: &mut SecretText, format: &MediaFormat) {
    let (number, name, rate) = (format.number, format.format.name(), format.format.clock_rate());
    // Opus always has two channels (RFC 7587, section 7).
    let channels = if format.format.codec() == Some(Codec::Opus) { "/2" } else { "" };
    text.line(format_args!("a=rtpmap:{number} {name}/{rate}{channels}"));
    for feedback in format.feedback.names() {
        text.line(format_args!("a=rtcp-fb:{number} {feedback}"));
    }
    if !format.parameters.is_empty() {
        text.line(format_args!("a=fmtp:{number} {}", format.parameters));
    }
}

/// Writes the restrictions of a layer as the client announced them (RFC 8851, section 6.2).
fn write_layer(text: &mut SecretText, layer: &SimulcastLayer) {
    let mut rid = Rid::with_params(&layer.rid, RidDirection::Recv, &layer.restrictions);
    if !layer.payload_types.is_empty() {
        let numbers: Vec<_> = layer.payload_types.iter().map(u8::to_string).collect();
        rid.params.insert(0, format!("pt={}", numbers.join(",")));
    }
    text.line(format_args!("a=rid:{rid}"));
}

/// Names a stream of the gateway (RFC 8830, RFC 5576) with those that repair it (RFC 4588, section 8.3, and RFC 5956, section 4.3).
fn write_source(text: &mut SecretText, source: &SentStream<'_>) {
    let SentStream { mid, stream, cname, ssrc, retransmission, parity } = source;
    text.line(format_args!("a=msid:{stream} {mid}"));
    if let Some(retransmission) = retransmission {
        text.line(format_args!("a=ssrc-group:FID {ssrc} {retransmission}"));
    }
    if let Some(parity) = parity {
        text.line(format_args!("a=ssrc-group:FEC-FR {ssrc} {parity}"));
    }
    for ssrc in iter::once(ssrc).chain(retransmission).chain(parity) {
        text.line(format_args!("a=ssrc:{ssrc} cname:{cname}"));
    }
}

/// Writes the lines of the m-line that has the transport of its group (RFC 9143, section 7.3.1).
fn write_tagged(text: &mut SecretText, local: &LocalTransport<'_>, peer: &PeerTransport) {
    if let Keying::Sdes(keys) = &peer.keying
        && let Some(answer) = keys.answer()
    {
        text.line(format_args!("a=crypto:{}", *answer.to_value()));
    }
    if peer.path.has_ice() {
        write_candidates(text, local.addresses);
    }
}

/// Writes the attributes of ICE at the session level.
pub(crate) fn write_ice(text: &mut SecretText, ice: &IceCredentials) {
    text.line(format_args!("a=ice-lite"));
    text.line(format_args!("a=ice-options:trickle ice2"));
    text.line(format_args!("a=ice-ufrag:{}", ice.ufrag));
    text.line(format_args!("a=ice-pwd:{}", ice.password()));
}

/// Writes all candidates of the gateway: it has no others later (RFC 8840).
pub(crate) fn write_candidates(text: &mut SecretText, addresses: &[SocketAddr]) {
    for (index, address) in addresses.iter().enumerate() {
        text.line(format_args!("a=candidate:{}", candidate_value(index, *address)));
    }
    text.line(format_args!("a=end-of-candidates"));
}
