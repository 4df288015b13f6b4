//! Calls at an rtpengine, as another process continues them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use evenkeel_dataplane::worker::{NodeLeg, NodePort};
use evenkeel_model::{Hop, RoomId, SessionId};
use serde::{Deserialize, Serialize};

use super::call::{CallLeg, RtpengineCall};
use super::keys::{CallSrtp, CallSrtpRecord};

/// A call, as another process continues it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CallRecord {
    pub(crate) number: u64,
    pub(super) room: RoomId,
    pub(super) places: [Option<PlaceRecord>; 2],
    pub(super) own: Option<IpAddr>,
    #[serde(with = "evenkeel_instant::option")]
    pub(crate) refresh: Option<Instant>,
    /// Set if the sessions' legs have SRTP.
    #[serde(default)]
    pub(super) srtp: Option<CallSrtpRecord>,
}

impl CallRecord {
    /// `None` without sessions.
    pub(super) fn of(number: u64, call: &RtpengineCall) -> Option<CallRecord> {
        let places = call.places.each_ref().map(|place| {
            let CallLeg { session, hop, leg, .. } = place.as_ref()?;
            let taken = leg.as_ref().and_then(NodeLeg::port);
            Some(PlaceRecord { session: *session, hop: *hop, taken })
        });
        let (room, _) = call.room;
        let srtp = call.srtp.as_ref().map(CallSrtp::record);
        let record =
            CallRecord { number, room, places, own: call.own, refresh: call.refresh, srtp };
        (!call.is_empty()).then_some(record)
    }

    /// Notes that other sessions than these have other ports.
    pub(crate) fn lose_ports(&mut self, keeps: impl Fn(SessionId) -> bool) {
        for place in self.places.iter_mut().flatten().filter(|place| !keeps(place.session)) {
            (place.taken, self.own) = (None, None);
        }
    }

    /// Leaves the core time to open the sessions again if none is open. A call that stays empty is deleted then.
    pub(super) fn await_openings(&mut self, refresh_every: Duration, now: Instant) {
        if self.places.iter().flatten().all(|place| place.taken.is_none()) {
            self.refresh = Some(now + refresh_every);
        }
    }

    pub(crate) fn leave(&mut self, session: SessionId) {
        self.places.iter_mut().for_each(|place| _ = place.take_if(|it| it.session == session));
    }

    pub(crate) fn hops(&self) -> impl Iterator<Item = (SessionId, Hop)> {
        self.places.iter().flatten().map(|place| (place.session, place.hop))
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct PlaceRecord {
    pub(super) session: SessionId,
    pub(super) hop: Hop,
    /// `None` if the core opens the session again. rtpengine has the call and keeps its ports, if it is signalled under the
    /// same number; under another one it would have both calls for a minute, and might run out of ports.
    pub(super) taken: Option<NodePort>,
}
