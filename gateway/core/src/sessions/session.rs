//! A session's life, and what it gets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::capacity::Judged;
use crate::few::FewMap;
use crate::flow::Track;
use crate::rollout::Memory;
use crate::{
    Bounds, Decider, Hop, Kind, Labels, Measures, Media, Metric, Offer, Plan, RegionId, RoomId,
    SessionId, Transport,
};

/// What a voice stream needs where nobody said, kbit/s: Opus at 40, headers included.
const VOICE_KBPS: u32 = 64;

/// All of what a session needs, thousandths.
pub(crate) const WHOLE: u16 = 1_000;

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) room: RoomId,
    pub(crate) wanted: Arc<Wanted>,
    pub(crate) transport: Transport,
    /// Whether its first packet, on a listener for trusted networks, asked for it: nobody is asked then.
    pub(crate) of_first_packet: bool,
    /// Until it is live.
    pub(crate) opening: Option<Box<Opening>>,
    pub(crate) offered: Instant,
    pub(crate) phase: Phase,
    pub(crate) bounds: Bounds,
    pub(crate) close_after: Duration,
    /// As policies want it.
    pub(crate) plan: Plan,
    /// The version of that: how often somebody changed it since the session is live.
    pub(crate) plans: u32,
    /// How much of what it needs above its floor it gets, thousandths: less than all where not all fits.
    pub(crate) share: u16,
    /// When its media was judged last.
    pub(crate) judged: Judged,
    pub(crate) admitted_by: Arc<Decider>,
    /// Hops where the driver was told to open it, and not yet to close it.
    pub(crate) legs: FewMap<Hop, Leg>,
    /// As workers measured it last, if they did.
    pub(crate) measures: Option<Box<Measures>>,
    pub(crate) last_heard: Instant,
    /// What goes between it and its node, once something does.
    pub(crate) track: Option<Box<Track>>,
    /// What the degradation policy wrote about it.
    pub(crate) memory: Memory,
}

/// What a session wants, as many others do.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Wanted {
    pub(crate) scenario: Arc<str>,
    pub(crate) labels: Labels,
    pub(crate) media: Arc<Media>,
}

/// What is known of a session that is not live yet.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) offer: Arc<Offer>,
    /// It is refused if it is not live by then; none before its room has a route.
    pub(crate) by: Option<Instant>,
}

/// How far the driver is with a hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leg {
    /// Not told of it yet: the node opens as many as it can already.
    Waiting,
    /// Opens it; past this time it counts as not opened.
    Opening(Instant),
    /// It is open.
    Open,
}

/// Where it is in its life. A session that ended is gone.
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
    /// Packets flow.
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

    /// When the next thing of its opening is late; `None` where nothing is awaited.
    pub(crate) fn next_late(&self) -> Option<Instant> {
        let opening = self.opening.as_ref().and_then(|opening| opening.by);
        let legs = self.legs.values().filter_map(|leg| match leg {
            Leg::Opening(until) => Some(*until),
            Leg::Open | Leg::Waiting => None,
        });
        legs.chain(opening).min()
    }

    /// What it counts for against capacity: its share of what it needs.
    pub(crate) fn kbps(&self) -> u64 {
        let need = self.need_kbps();
        let floor = u64::from(self.bounds.floor_kbps).min(need);
        floor + (need - floor) * u64::from(self.share) / u64::from(WHOLE)
    }

    /// Whether it could do with less: its endpoint obeys caps, and its scenario allows one.
    pub(crate) fn can_do_with_less(&self) -> bool {
        self.wanted.media.takes_remb() && self.need_kbps() > u64::from(self.bounds.floor_kbps)
    }

    /// What it gets: what policies want, within its share.
    pub(crate) fn plan_now(&self) -> Plan {
        let share = if self.share < WHOLE { self.kbps() as u32 } else { 0 };
        let cap_kbps = match (self.plan.cap_kbps, share) {
            (0, cap) | (cap, 0) => cap,
            (policy, share) => policy.min(share),
        };
        Plan { cap_kbps, ..self.plan }
    }

    /// What its streams need, within the scenario's bounds.
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

    /// Whether nothing came from it for as long as its scenario bears, though what came would have been told by now.
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

    /// What policies may read of it.
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
