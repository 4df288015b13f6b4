//! A room at one rtpengine: two places, and how far rtpengine knows who has them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{Hop, Incarnation, Media, RoomId, SessionId};
use evenkeel_dataplane::worker::NodePort;

use super::bencode::Value;
use super::sdp::{self, Ports, Taken};

/// Who answers and who offers are told apart by these.
const TAGS: [&str; 2] = ["one", "two"];

/// Ports are told exactly, so nothing is learned from packets, and nobody else's are taken; and ports that rtpengine
/// chose stay, whoever takes a place.
const FLAGS: [&str; 4] = ["asymmetric", "port-latching", "strict-source", "trust-address"];

/// A session that is not open after this is not opened: before the core stops to wait.
pub(super) const OPEN_WITHIN: Duration = Duration::from_millis(1_800);

/// A session in a call.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) session: SessionId,
    pub(super) hop: Hop,
    pub(super) ports: Ports,
    pub(super) media: Arc<Media>,
    /// Since when it is being opened.
    pub(super) since: Instant,
    /// Where rtpengine takes its packets, once that is known.
    pub(super) taken: Option<NodePort>,
}

/// How far a call is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Nothing is asked.
    Resting,
    /// It waits for its turn to be told.
    Waiting,
    /// Its first side was told.
    Offered,
    /// Its second side was told; where rtpengine takes that side's packets.
    Answered(Taken),
    /// It is being ended.
    Ending,
}

/// A call.
#[derive(Debug)]
pub(super) struct Call {
    /// Its room, and the life of the node in which it was begun.
    pub(super) room: (RoomId, Incarnation),
    pub(super) places: [Option<Place>; 2],
    pub(super) stage: Stage,
    /// Whether rtpengine was ever told of it.
    pub(super) is_known: bool,
    /// Who had the places when rtpengine was told last.
    pub(super) told: [Option<SessionId>; 2],
    /// The address that their media leaves from.
    pub(super) own: Option<IpAddr>,
    /// Something changed since then.
    pub(super) stale: bool,
    /// When it is to be told again, though nothing changes; what is due at another time is not.
    pub(super) refresh: Option<Instant>,
}

impl Call {
    pub(super) fn new(room: (RoomId, Incarnation)) -> Call {
        Call {
            room,
            places: [None, None],
            stage: Stage::Resting,
            is_known: false,
            told: [None, None],
            own: None,
            stale: false,
            refresh: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.iter().all(Option::is_none)
    }

    /// A place for this session: its own, or a free one.
    pub(super) fn place_for(&mut self, session: SessionId) -> Option<&mut Option<Place>> {
        let is_its =
            |place: &Option<Place>| place.as_ref().is_some_and(|place| place.session == session);
        let at = self.places.iter().position(is_its);
        let at = at.or_else(|| self.places.iter().position(Option::is_none))?;
        Some(&mut self.places[at])
    }

    /// Takes the session out. Whether it was there.
    pub(super) fn leave(&mut self, session: SessionId) -> bool {
        let is_its = |place: &mut Place| place.session == session;
        self.places.iter_mut().any(|place| place.take_if(is_its).is_some())
    }

    /// Those that wait to be open and will not be, out of their places: they were told of, or their time is up.
    pub(super) fn take_failed(&mut self, now: Instant) -> impl Iterator<Item = Place> {
        let told = self.told;
        let failed = move |place: &mut Place| {
            let is_over = told.contains(&Some(place.session)) || place.since + OPEN_WITHIN <= now;
            place.taken.is_none() && is_over
        };
        self.places.iter_mut().filter_map(move |place| place.take_if(failed))
    }

    /// Since when somebody waits to be open.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        let opening = self.places.iter().flatten().filter(|place| place.taken.is_none());
        opening.map(|place| place.since).min()
    }

    /// Tells one side, as it stands.
    pub(super) fn question<'a>(&self, side: usize, id: &'a str, sdp: &'a str) -> Value<'a> {
        let mut entries = vec![
            ("ICE", "remove".into()),
            ("call-id", id.into()),
            ("command", if side == 0 { "offer".into() } else { "answer".into() }),
            ("flags", Value::words(&FLAGS)),
            ("from-tag", TAGS[0].into()),
            ("rtcp-mux", Value::words(self.rtcp_mux())),
            ("sdp", sdp.into()),
        ];
        if side == 1 {
            entries.push(("to-tag", TAGS[1].into()));
        }
        Value::dictionary(entries)
    }

    /// The first side is told that RTCP may share its port wherever it says that it does. The second is offered as
    /// much where it wants it; a place that is empty does not, or it would be too late for who takes it.
    fn rtcp_mux(&self) -> &'static [&'static str] {
        let shares = self.places[1].as_ref().is_some_and(|place| place.ports.rtcp.is_none());
        if shares { &["offer", "accept"] } else { &["demux"] }
    }

    /// What is said of a side: who was there when this telling began, if there still, else nobody.
    pub(super) fn sdp(&self, side: usize, own: IpAddr) -> String {
        let there = self.places[side].as_ref();
        match there.filter(|place| self.told[side] == Some(place.session)) {
            Some(place) => sdp::party(own, place.ports, &place.media),
            None => {
                let other = self.places.iter().flatten().next().map(|place| &*place.media);
                sdp::nobody(own, other.unwrap_or(&NO_MEDIA))
            }
        }
    }
}

/// Of a call that everybody left while it was told.
static NO_MEDIA: Media = Media {
    streams: Vec::new(),
    rtcp: evenkeel_core::RtcpPort::Mux,
    srtp: evenkeel_core::Srtp::Plain,
};
