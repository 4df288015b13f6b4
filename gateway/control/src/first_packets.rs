//! Sessions opened by a first packet, on listeners for trusted networks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    ClientIdentity, FeedbackSupport, IngressProtocol, MediaDescription, MediaStream, PayloadType,
    RtcpPort, Srtp, StreamKind,
};

use super::messages::OfferedSession;

const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Limit of remembered sources. When it is reached, packets of new sources are ignored until entries expire.
const KNOCKS_MAX: usize = 4_096;

/// Sources that are ignored, and until when.
#[derive(Default, Debug)]
pub(super) struct FirstPackets(BTreeMap<(u8, SocketAddr), Instant>);

impl FirstPackets {
    /// Returns false if packets of this source are ignored.
    pub(super) fn is_new(&mut self, listener: u8, source: SocketAddr, now: Instant) -> bool {
        if self.0.len() >= KNOCKS_MAX {
            self.0.retain(|_, until| *until > now);
        }
        let known = self.0.get(&(listener, source)).is_some_and(|until| *until > now);
        if known || self.0.len() >= KNOCKS_MAX {
            return false;
        }
        self.0.insert((listener, source), now + AGAIN_AFTER);
        true
    }

    /// Records that the session of the source was opened or refused.
    pub(super) fn finished(
        &mut self,
        listener: u8,
        source: SocketAddr,
        opened: bool,
        now: Instant,
    ) {
        if opened {
            self.0.remove(&(listener, source));
        } else {
            self.0.insert((listener, source), now + AGAIN_AFTER);
        }
    }
}

/// The session request for a first packet. The payload type and RFC 3551 determine the kind of media.
pub(super) fn wanted(
    scenario: Arc<str>,
    listener: u8,
    source: SocketAddr,
    payload_type: u8,
) -> OfferedSession {
    let (kind, clock_rate) = match payload_type {
        26 | 28 | 31..=34 => (StreamKind::Video, 90_000),
        0..=23 => (StreamKind::Audio, 8_000),
        _ => (StreamKind::Audio, 48_000),
    };
    let payload = |number| PayloadType { number, codec: "unknown".into(), clock_rate };
    let stream = MediaStream {
        kind,
        payload_types: vec![payload(payload_type)],
        feedback: FeedbackSupport::default(),
        bitrate_kbps: None,
    };
    OfferedSession {
        scenario,
        room: format!("open-{listener}-{source}").into(),
        labels: Arc::default(),
        ingress: IngressProtocol::Udp(ClientIdentity::Open { address: source, listener }),
        media: Arc::new(MediaDescription {
            streams: vec![stream],
            rtcp: RtcpPort::Mux,
            srtp: Srtp::Plain,
        }),
        nodes: Vec::new(),
        traceparent: None,
    }
}

#[cfg(test)]
mod tests;
