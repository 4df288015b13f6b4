//! The subset of SDP (RFC 8866) that the NG protocol needs.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use evenkeel_model::{MediaDescription, MediaStream, PayloadType, StreamKind};
use zeroize::Zeroizing;

/// Placeholder port (RFC 863) of an empty side.
const DISCARD: u16 = 9;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SdpPorts {
    pub(super) rtp: u16,
    pub(super) rtcp: Option<u16>,
}

/// The SDP of a session. All streams are one medium, because they share a port; rtpengine passes on packets of any
/// kind. The profile is RTP/AVP, or RTP/SAVP with a value of `a=crypto`: between them and their forms with feedback rtpengine would
/// withhold feedback.
pub(super) fn party(
    ip: IpAddr,
    ports: SdpPorts,
    media: &MediaDescription,
    crypto: Option<&str>,
) -> Zeroizing<String> {
    write(ip, ports, media, crypto, "sendrecv")
}

/// The SDP of an empty side: inactive.
pub(super) fn nobody(
    ip: IpAddr,
    media: &MediaDescription,
    crypto: Option<&str>,
) -> Zeroizing<String> {
    write(ip, SdpPorts { rtp: DISCARD, rtcp: Some(DISCARD + 1) }, media, crypto, "inactive")
}

fn write(
    ip: IpAddr,
    ports: SdpPorts,
    media: &MediaDescription,
    crypto: Option<&str>,
    direction: &str,
) -> Zeroizing<String> {
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    let is_voice = |stream: &MediaStream| stream.kind == StreamKind::Audio;
    let kind = if media.streams.iter().any(is_voice) { "audio" } else { "video" };
    let payloads = || media.streams.iter().flat_map(|stream| &stream.payload_types);
    let profile = if crypto.is_some() { "RTP/SAVP" } else { "RTP/AVP" };
    let mut sdp = format!(
        "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\nm={kind} {} {profile}",
        ports.rtp
    );
    // Writing to a `String` does not fail.
    payloads().for_each(|payload| _ = write!(sdp, " {}", payload.number));
    sdp.push_str("\r\n");
    payloads().filter(|payload| is_named(payload)).for_each(|payload| {
        let PayloadType { number, codec, clock_rate, repairs } = payload;
        // RFC 7587, 7: Opus always has two channels.
        let channels = if codec.eq_ignore_ascii_case("opus") { "/2" } else { "" };
        _ = write!(sdp, "a=rtpmap:{number} {codec}/{clock_rate}{channels}\r\n");
        match repairs {
            // RFC 2198, 5: the types of the blocks; RFC 4588, 8: that of the original.
            Some(block) if payload.is_red() => {
                _ = write!(sdp, "a=fmtp:{number} {block}/{block}\r\n");
            }
            Some(apt) => _ = write!(sdp, "a=fmtp:{number} apt={apt}\r\n"),
            None => {}
        }
    });
    match ports.rtcp {
        None => sdp.push_str("a=rtcp-mux\r\n"),
        Some(port) => _ = write!(sdp, "a=rtcp:{port}\r\n"),
    }
    // Once it has the key, the text does not grow: that would leave a copy.
    sdp.reserve(crypto.map_or(0, str::len) + "a=crypto:\r\na=\r\n".len() + direction.len());
    if let Some(crypto) = crypto {
        _ = write!(sdp, "a=crypto:{crypto}\r\n");
    }
    _ = write!(sdp, "a={direction}\r\n");
    Zeroizing::new(sdp)
}

/// Returns true if the codec's name is a valid SDP token (RFC 8866, section 9). Sessions opened by a first packet have
/// no codec name.
fn is_named(payload: &PayloadType) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._+".contains(c);
    !payload.codec.is_empty() && payload.codec.chars().all(is_plain) && &*payload.codec != "unknown"
}

/// rtpengine's address for a session's packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Taken {
    pub(super) rtp: SocketAddr,
    /// The RTCP port: that of `a=rtcp` (RFC 3605), else the RTP port plus one.
    pub(super) rtcp_port: u16,
}

/// Reads the address of the first medium; `None` if it is rejected.
pub(super) fn read(sdp: &str) -> Option<Taken> {
    let (mut ip, mut rtp_port, mut rtcp_port) = (None, None, None);
    for line in sdp.lines() {
        let Some(split) = line.split_at_checked(2) else { continue };
        match split {
            ("m=", _) if rtp_port.is_some() => break,
            ("m=", medium) => rtp_port = Some(medium.split(' ').nth(1)?.parse::<u16>().ok()?),
            // The media-level address overrides the session-level one.
            ("c=", connection) => ip = Some(connection.split(' ').nth(2)?.parse::<IpAddr>().ok()?),
            ("a=", attribute) => {
                if let Some(port) = attribute.strip_prefix("rtcp:") {
                    rtcp_port = Some(port.split(' ').next()?.parse::<u16>().ok()?);
                }
            }
            _ => {}
        }
    }
    let (ip, rtp_port) = (ip?, rtp_port.filter(|port| *port != 0)?);
    let rtcp_port = rtcp_port.filter(|port| *port != 0).or_else(|| rtp_port.checked_add(1))?;
    Some(Taken { rtp: SocketAddr::new(ip, rtp_port), rtcp_port })
}

/// The values of the `a=crypto` lines of the first medium (RFC 4568, section 9.1).
pub(super) fn crypto(sdp: &str) -> impl Iterator<Item = &str> {
    let media = sdp.lines().skip_while(|line| !line.starts_with("m="));
    let first =
        media.enumerate().take_while(|(place, line)| *place == 0 || !line.starts_with("m="));
    first.filter_map(|(_, line)| line.strip_prefix("a=crypto:"))
}

#[cfg(test)]
mod tests;
