//! Probes of a client's path to the gateway, before the client joins.

use std::fmt;
use std::net::SocketAddr;

#[cfg(feature = "openapi")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The body of `POST /v1/probes`, which may be left out.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ProbeRequest {
    /// The listener that answers the packets. Default: `udp`.
    pub ingress: ProbeIngress,
}

/// The listener that answers the packets of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ProbeIngress {
    /// A UDP listener.
    #[default]
    Udp,
    /// The QUIC listener, for a page of a browser.
    Webtransport,
}

/// The body of the answer 201 to `POST /v1/probes`.
///
/// By UDP the client sends the packets of the trains to the first address that it reaches, each a STUN binding request (RFC 8489) with the
/// username `ID:` and any fragment of its own, MESSAGE-INTEGRITY by the password, and PADDING (RFC 5780) up to the train's size. The
/// first two bytes of the transaction identifier are the packet's number, in network order from 0 over all trains; the others are random. Each
/// is answered once, in its own size.
///
/// By WebTransport the page opens a session at the first URL, and sends each packet in a DATAGRAM of the train's size that begins with the
/// packet's number. Each is answered once, by a DATAGRAM with the same bytes.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ProbeAnswer {
    /// The probe's id, which is also its user fragment.
    pub id: String,
    /// The password of its packets.
    pub password: String,
    /// Destinations of its packets: the gateway's UDP listeners. Empty by WebTransport.
    pub addresses: Vec<SocketAddr>,
    /// Left out by UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webtransport: Option<ProbeWebtransport>,
    /// The packets to send, one train after the other.
    pub trains: Vec<ProbeTrain>,
    /// Time in which the result can be asked for.
    pub ends_ms: u64,
}

/// The way of a probe's packets by WebTransport.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ProbeWebtransport {
    /// URLs of the probe, with its password. One of them opens one session.
    pub urls: Vec<String>,
    /// SHA-256 (hexadecimal) of the certificate in use, and of the next one. Empty with a configured certificate.
    pub certificates_sha256: Vec<String>,
}

/// Packets of one size at one interval.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ProbeTrain {
    /// Number of packets.
    pub packets: u16,
    /// Time from one packet to the next.
    pub interval_us: u64,
    /// Bytes of each UDP payload or DATAGRAM.
    pub bytes: u16,
}

/// The body of `PUT /v1/probes/ID`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ProbeRoundTrips {
    /// The time from each packet to its answer, by number; null: none came.
    pub round_trips_us: Vec<Option<u32>>,
}

/// The answer to `PUT /v1/probes/ID`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ProbeReport {
    /// The probe's id.
    pub id: String,
    /// The forecast for a user: `voice good, video 360p; try Wi-Fi`.
    pub verdict: String,
    /// Expected R-factor of voice, in hundredths; the other client's path is taken as perfect.
    pub r_factor: u32,
    /// Lines of the picture that the path carries; 0: none.
    pub video_lines: u16,
    /// Median round trip of voice packets.
    pub round_trip_us: u32,
    /// Jitter of these round trips.
    pub jitter_us: u32,
    /// Loss of voice packets to the gateway.
    pub loss_up_ppm: u32,
    /// Loss of their answers; an answer that is 150 ms later than the fastest one is lost.
    pub loss_down_ppm: u32,
    /// The highest rate that passed in both directions at the same time, at most 4,000.
    pub rate_kbps: u32,
    /// Bytes of the largest IP packet that passed in both directions, at most 1,500 with IPv4; 0: none. By WebTransport a packet has a few bytes
    /// more.
    pub mtu: u16,
    /// Packets that the gateway did not answer, because they were repeated or had another size than planned.
    pub refused: u32,
    /// The result for `probe` of one offer.
    pub signed: String,
    /// Time in which the offer may come.
    pub valid_ms: u64,
}

/// Omits the password.
impl fmt::Debug for ProbeAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeAnswer")
            .field("id", &self.id)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_password() {
        let answer =
            ProbeAnswer { id: "shown".into(), password: "hush".into(), ..ProbeAnswer::default() };
        let shown = format!("{answer:?}");
        assert!(shown.contains("shown") && !shown.contains("hush"), "{shown}");
    }
}
