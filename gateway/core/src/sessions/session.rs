//! A session's life, and what it gets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::capacity::Judged;
use crate::flow::Track;
use crate::policy::Memory;
use crate::small::SmallMap;
use crate::{
    Bounds, Decider, Hop, Kind, Labels, Measures, Media, Metric, Offer, Plan, RegionId, RoomId,
    SessionId, Transport,
};

/// Bit rate of a voice stream that gives none, kbit/s: Opus at 40, headers included.
const VOICE_KBPS: u32 = 64;

/// All of what a session needs, thousandths.
pub(crate) const WHOLE: u16 = 1_000;

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) room: RoomId,
    /// The number by which nodes know its room.
    pub(crate) call: RoomId,
    pub(crate) wanted: Arc<Wanted>,
    pub(crate) transport: Transport,
    /// Its first packet, on a listener for trusted networks, asked for it: no policy is asked then.
    pub(crate) of_first_packet: bool,
    /// Until it is live.
    pub(crate) opening: Option<Box<Opening>>,
    pub(crate) offered: Instant,
    pub(crate) phase: Phase,
    pub(crate) bounds: Bounds,
    pub(crate) close_after: Duration,
    /// The wish of policies.
    pub(crate) plan: Plan,
    /// The version of the plan.
    pub(crate) plans: u32,
    /// Its share of its needs above its floor, thousandths: less than all if not all fits.
    pub(crate) share: u16,
    /// The last window of breakers in which it was counted.
    pub(crate) judged: Judged,
    pub(crate) admitted_by: Arc<Decider>,
    /// Hops where the driver was told to open it, and not yet to close it.
    pub(crate) legs: SmallMap<Hop, Leg>,
    /// The workers' last report.
    pub(crate) measures: Option<Box<Measures>>,
    pub(crate) last_heard: Instant,
    pub(crate) track: Option<Box<Track>>,
    /// State of the degradation policy.
    pub(crate) memory: Memory,
}

/// The request of a session; many have equal ones.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Wanted {
    pub(crate) scenario: Arc<str>,
    pub(crate) labels: Labels,
    pub(crate) media: Arc<Media>,
}

/// Facts about a session that is not live yet.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) offer: Arc<Offer>,
    /// It is refused if it is not live by then; none before its room has a route.
    pub(crate) by: Option<Instant>,
}

/// State of a session at a hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leg {
    /// Not told of it yet: the node opens as many as it can already.
    Waiting,
    /// Opens it; past this time it counts as not opened.
    Opening(Instant),
    Open,
}

/// The phase of its life. A session that ended is gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    /// Its scenario's parameters are asked for.
    Resolving,
    /// Admission is asked.
    Admitting,
    /// Its room is being placed.
    Placing,
    /// The driver opens it at the node that carries its room.
    Opening,
    Live,
}

impl Session {
    pub(crate) fn is_open_at(&self, hop: Hop) -> bool {
        self.legs.get(&hop) == Some(&Leg::Open)
    }

    /// Hops that the driver has not opened by their time.
    pub(crate) fn late_legs(&self, now: Instant) -> Vec<Hop> {
        let late = |leg: &Leg| matches!(leg, Leg::Opening(until) if *until <= now);
        self.legs.iter().filter(|(_, leg)| late(leg)).map(|(hop, _)| *hop).collect()
    }

    /// The time at which the next part of its opening is late; `None` if none is awaited.
    pub(crate) fn next_late(&self) -> Option<Instant> {
        let opening = self.opening.as_ref().and_then(|opening| opening.by);
        let legs = self.legs.values().filter_map(|leg| match leg {
            Leg::Opening(until) => Some(*until),
            Leg::Open | Leg::Waiting => None,
        });
        legs.chain(opening).min()
    }

    /// Its load: its share of its needs.
    pub(crate) fn kbps(&self) -> u64 {
        let need = self.need_kbps();
        let floor = u64::from(self.bounds.floor_kbps).min(need);
        floor + (need - floor) * u64::from(self.share) / u64::from(WHOLE)
    }

    /// It could do with less: its endpoint obeys caps, and its scenario allows one.
    pub(crate) fn can_do_with_less(&self) -> bool {
        self.wanted.media.takes_remb() && self.need_kbps() > u64::from(self.bounds.floor_kbps)
    }

    /// The wish of policies, within its share.
    pub(crate) fn plan_now(&self) -> Plan {
        let share = if self.share < WHOLE { self.kbps() as u32 } else { 0 };
        let cap_kbps = match (self.plan.cap_kbps, share) {
            (0, cap) | (cap, 0) => cap,
            (policy, share) => policy.min(share),
        };
        Plan { cap_kbps, ..self.plan }
    }

    /// The needs of its streams, within the scenario's bounds.
    fn need_kbps(&self) -> u64 {
        let need = |stream: &crate::Stream| {
            stream.bitrate_kbps.unwrap_or(match stream.kind {
                Kind::Audio => VOICE_KBPS,
                Kind::Video => self.bounds.ceiling_kbps,
            })
        };
        let sum: u32 = self.wanted.media.streams.iter().map(need).fold(0, u32::saturating_add);
        u64::from(sum.min(self.bounds.ceiling_kbps))
    }

    /// Silent for as long as its scenario bears, though a packet would have been reported by now.
    pub(crate) fn is_silent(&self, now: Instant, told_within: Duration) -> bool {
        self.phase == Phase::Live
            && now.saturating_duration_since(self.last_heard) >= self.close_after + told_within
    }

    /// The label `region`, if it names one.
    pub(crate) fn region(&self, regions: &[Box<str>]) -> Option<RegionId> {
        let (_, named) = self.wanted.labels.iter().find(|(key, _)| &**key == "region")?;
        let at = regions.iter().position(|region| region == named)?;
        Some(RegionId(at as u32))
    }

    pub(crate) fn measures(&self, now: Instant) -> Measures {
        let mut measures = self.measures.as_deref().copied().unwrap_or_default();
        measures
            .set(Metric::Rung, u64::from(self.plan_now().rung()))
            .set(Metric::Cap, u64::from(self.plan_now().cap_kbps))
            .set(Metric::Age, now.saturating_duration_since(self.offered).as_millis() as u64)
            .set(Metric::Video, u64::from(self.wanted.media.has_video()))
            .set(Metric::Floor, u64::from(self.bounds.floor_kbps))
            .set(Metric::Ceiling, u64::from(self.bounds.ceiling_kbps));
        measures
    }
}
