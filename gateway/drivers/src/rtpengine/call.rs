//! A room at one rtpengine: two sides, and the state that rtpengine has of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_dataplane::worker::NodeLeg;
use evenkeel_model::{Hop, Incarnation, MediaDescription, RoomId, SessionId};
use zeroize::Zeroizing;

use super::bencode::Value;
use super::keys::CallSrtp;
use super::sdp::{self, SdpPorts, Taken};

/// SIP tags of the two sides.
const TAGS: [&str; 2] = ["one", "two"];

/// Ports are signalled exactly, so rtpengine learns no port from packets and accepts no other source. rtpengine's own
/// ports are kept when another session takes a side.
const FLAGS: [&str; 4] = ["asymmetric", "port-latching", "strict-source", "trust-address"];

/// Timeout of an opening, below the core's.
pub(super) const OPEN_WITHIN: Duration = Duration::from_millis(1_800);

#[derive(Debug)]
pub(super) struct CallLeg {
    pub(super) session: SessionId,
    pub(super) hop: Hop,
    pub(super) ports: SdpPorts,
    pub(super) media: Arc<MediaDescription>,
    pub(super) since: Instant,
    /// Set once the session is open.
    pub(super) leg: Option<NodeLeg>,
}

/// Progress of the exchange about a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CallStage {
    /// No exchange.
    Resting,
    Waiting,
    /// The first side was sent.
    Offered,
    /// The second side was sent; carries rtpengine's port for it.
    Answered(Taken),
    /// `delete` was sent.
    Ending,
}

#[derive(Debug)]
pub(super) struct RtpengineCall {
    pub(super) room: (RoomId, Incarnation),
    pub(super) places: [Option<CallLeg>; 2],
    pub(super) stage: CallStage,
    pub(super) is_known: bool,
    /// The sessions of the last signalling.
    pub(super) signalled: [Option<SessionId>; 2],
    /// The local address of the sessions' media.
    pub(super) own: Option<IpAddr>,
    /// Set if the call changed since the last signalling.
    pub(super) stale: bool,
    /// The time of the next refresh; queue entries with other times are outdated.
    pub(super) refresh: Option<Instant>,
    /// Set if the sessions' legs have SRTP.
    pub(super) srtp: Option<CallSrtp>,
    /// The last renewal of the keys that a session asked for.
    pub(super) renewed: Option<Instant>,
}

impl RtpengineCall {
    pub(super) fn new(room: (RoomId, Incarnation)) -> RtpengineCall {
        RtpengineCall {
            room,
            places: [None, None],
            stage: CallStage::Resting,
            is_known: false,
            signalled: [None, None],
            own: None,
            stale: false,
            refresh: None,
            srtp: None,
            renewed: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.iter().all(Option::is_none)
    }

    /// A side for this session: the one that it has, or a free one.
    pub(super) fn place_for(&mut self, session: SessionId) -> Option<&mut Option<CallLeg>> {
        let is_its =
            |place: &Option<CallLeg>| place.as_ref().is_some_and(|place| place.session == session);
        let at = self.places.iter().position(is_its);
        let at = at.or_else(|| self.places.iter().position(Option::is_none))?;
        Some(&mut self.places[at])
    }

    /// Returns true if the session was in the call.
    pub(super) fn leave(&mut self, session: SessionId) -> bool {
        let is_its = |place: &mut CallLeg| place.session == session;
        self.places.iter_mut().any(|place| place.take_if(is_its).is_some())
    }

    /// Removes sessions that will not be opened: sessions of the failed request, and sessions that have waited for
    /// [`OPEN_WITHIN`].
    pub(super) fn take_failed(&mut self, now: Instant) -> impl Iterator<Item = CallLeg> {
        let told = self.signalled;
        let failed = move |place: &mut CallLeg| {
            let is_over = told.contains(&Some(place.session)) || place.since + OPEN_WITHIN <= now;
            place.leg.is_none() && is_over
        };
        self.places.iter_mut().filter_map(move |place| place.take_if(failed))
    }

    /// The sessions of the sides. `None` if one is not open.
    pub(super) fn open_sessions(&self) -> Option<[Option<SessionId>; 2]> {
        let is_open = self.places.iter().flatten().all(|place| place.leg.is_some());
        is_open.then(|| self.places.each_ref().map(|place| Some(place.as_ref()?.session)))
    }

    /// The start of the longest wait of a session to be opened.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        let opening = self.places.iter().flatten().filter(|place| place.leg.is_none());
        opening.map(|place| place.since).min()
    }

    pub(super) fn question<'a>(&self, side: usize, id: &'a str, sdp: &'a str) -> Value<'a> {
        let mut entries = Vec::new();
        if self.srtp.is_some() {
            entries.push(("DTLS", "off".into()));
        }
        entries.extend([
            ("ICE", "remove".into()),
            ("call-id", id.into()),
            ("command", if side == 0 { "offer".into() } else { "answer".into() }),
            ("flags", Value::words(&FLAGS)),
            ("from-tag", TAGS[0].into()),
            ("rtcp-mux", Value::words(self.rtcp_mux())),
            ("sdp", sdp.into()),
        ]);
        if side == 1 {
            entries.push(("to-tag", TAGS[1].into()));
        }
        Value::dictionary(entries)
    }

    /// RTCP multiplexing for the exchange. The first side may multiplex RTCP whenever its client does. The second side
    /// is offered multiplexing if its session wants it. An empty second side is not offered it: a session that takes
    /// the side later could not change that.
    fn rtcp_mux(&self) -> &'static [&'static str] {
        let shares = self.places[1].as_ref().is_some_and(|place| place.ports.rtcp.is_none());
        if shares { &["offer", "accept"] } else { &["demux"] }
    }

    /// The SDP of a side: the session signalled at the start of the exchange, if still there, else inactive.
    pub(super) fn sdp(&mut self, side: usize, own: IpAddr) -> Zeroizing<String> {
        let keys = self.srtp.as_mut().and_then(CallSrtp::signalled);
        let crypto = keys.map(|keys| keys.attribute(side).to_value());
        let crypto = crypto.as_ref().map(|crypto| crypto.as_str());
        let there = self.places[side].as_ref();
        match there.filter(|place| self.signalled[side] == Some(place.session)) {
            Some(place) => sdp::party(own, place.ports, &place.media, crypto),
            None => {
                let other = self.places.iter().flatten().next().map(|place| &*place.media);
                sdp::nobody(own, other.unwrap_or(&NO_MEDIA), crypto)
            }
        }
    }
}

static NO_MEDIA: MediaDescription =
    MediaDescription::new(Vec::new(), evenkeel_model::RtcpPort::Mux, evenkeel_model::Srtp::Plain);
