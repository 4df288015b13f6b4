//! The state of spans that are created later: when they end, or when their parent is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_control::CallerSpan;
use evenkeel_model::{
    Arm, ClientGroup, DecisionNote, DecisionOutcome, EvidenceSource, Hop, NodeId, OfferRefusal, Op,
    PolicyName, RegionId, RoomId, SessionId,
};
use opentelemetry::trace::Link;

/// Maximum sessions that are affected or degraded at a time; about 1 MiB. Of more, the oldest are forgotten: their ends may have been
/// missed.
pub(super) const SESSIONS_MAX: usize = 10_000;

/// Maximum sessions with a trusted caller, as many as a gateway admits by default; about 6 MiB.
const CALLERS_MAX: usize = 100_000;

/// Maximum sessions that become affected within a second: packets need the processor after a failure.
const AFFECTED_PER_SECOND: usize = 1_000;

/// Maximum links of one span: a limit that receivers accept.
pub(super) const LINKS_MAX: usize = 128;

/// The sessions that an operation or a failure touched.
#[derive(Default, Debug)]
pub(super) struct TouchedSessions {
    pub(super) sessions: usize,
    /// To those that are sampled, at most [`LINKS_MAX`].
    pub(super) links: Vec<Link>,
}

impl TouchedSessions {
    pub(super) fn add(&mut self, sessions: usize, links: impl IntoIterator<Item = Link>) {
        let left = LINKS_MAX - self.links.len();
        self.links.extend(links.into_iter().take(left));
        self.sessions += sessions;
    }
}

/// A rollout, until it ends.
#[derive(Debug)]
pub(super) struct RolloutTrack {
    pub(super) start: SystemTime,
    pub(super) revision: Option<Arc<str>>,
    pub(super) steps: Vec<(SystemTime, String)>,
    /// Those that the revision moved or degraded.
    pub(super) touched: TouchedSessions,
}

/// The fault of a drill at a node, until it is repaired.
#[derive(Debug)]
pub(super) struct DrillTrack {
    pub(super) fault: &'static str,
    pub(super) start: SystemTime,
    /// The agent said so.
    pub(super) is_injected: bool,
    /// Those that left the node.
    pub(super) touched: TouchedSessions,
}

/// A breaker, until it is closed.
#[derive(Debug)]
pub(super) struct BreakerTrack {
    pub(super) start: SystemTime,
    pub(super) touched: TouchedSessions,
}

impl BreakerTrack {
    pub(super) fn new(start: SystemTime) -> BreakerTrack {
        BreakerTrack { start, touched: TouchedSessions::default() }
    }
}

/// What operators and breakers do.
#[derive(Default, Debug)]
pub(super) struct OperationTracks {
    /// Sessions that left each node that is drained.
    pub(super) drains: BTreeMap<NodeId, TouchedSessions>,
    pub(super) drills: BTreeMap<NodeId, DrillTrack>,
    pub(super) rollouts: BTreeMap<PolicyName, RolloutTrack>,
    /// With the offers that each refused.
    pub(super) client_breakers: BTreeMap<ClientGroup, BreakerTrack>,
    /// Of regions and of their zones, with the newcomers and leavers of each, and the offers that found no node.
    pub(super) region_breakers: BTreeMap<(RegionId, Option<Arc<str>>), BreakerTrack>,
}

#[derive(Clone, Debug)]
pub(crate) struct DecisionSpan {
    pub(crate) policy: PolicyName,
    pub(crate) arm: Arm,
    pub(crate) session: Option<SessionId>,
    pub(crate) room: Option<RoomId>,
    pub(crate) revision: Option<Arc<str>>,
    pub(crate) outcome: DecisionOutcome,
    pub(crate) reason: Option<Arc<str>>,
    pub(crate) rows: u32,
    pub(crate) started: Instant,
    pub(crate) concluded: Instant,
    pub(crate) took: Duration,
    pub(crate) notes: Vec<DecisionNote>,
    /// Names of the native default's nodes for a placement.
    pub(crate) native: Vec<Arc<str>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum DecisionSubject {
    Session(SessionId),
    Room(RoomId),
}

/// A decision about many rows, until the events of its changes have come.
#[derive(Debug)]
pub(super) struct DecisionBatch {
    pub(super) decision: DecisionSpan,
    pub(super) touched: TouchedSessions,
}

/// Sessions that continue a caller's trace, that a failure affected, or without full quality.
#[derive(Default, Debug)]
pub(super) struct SessionSpans {
    /// The spans of trusted callers.
    pub(super) callers: BTreeMap<SessionId, CallerSpan>,
    /// Sessions that a failure or a degradation affected. Their spans are sent.
    pub(super) affected: BTreeSet<SessionId>,
    /// The start of the current second, and the sessions that became affected in it.
    newly_affected: Option<(Instant, usize)>,
    pub(super) degraded: BTreeMap<SessionId, Degradation>,
}

impl SessionSpans {
    /// Tells if the session became affected now.
    pub(super) fn affect(&mut self, session: SessionId, now: Instant) -> bool {
        let recent = self
            .newly_affected
            .filter(|(since, _)| now.saturating_duration_since(*since) < Duration::from_secs(1));
        let (since, count) = recent.unwrap_or((now, 0));
        let is_new = count < AFFECTED_PER_SECOND && self.affected.insert(session);
        if is_new {
            self.newly_affected = Some((since, count + 1));
        }
        if self.affected.len() > SESSIONS_MAX {
            self.affected.pop_first();
        }
        is_new
    }

    pub(super) fn note_callers(
        &mut self,
        callers: impl IntoIterator<Item = (SessionId, CallerSpan)>,
    ) {
        self.callers.extend(callers);
        while self.callers.len() > CALLERS_MAX {
            self.callers.pop_first();
        }
    }
}

/// A session without full quality.
#[derive(Debug)]
pub(super) struct Degradation {
    pub(super) room_name: Arc<str>,
    pub(super) op: Op,
    pub(super) by: String,
    pub(super) since: SystemTime,
    pub(super) steps: Vec<(SystemTime, String)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RefusedOffer<'a> {
    pub(crate) scenario: &'a str,
    pub(crate) word: &'static str,
    /// The core's reason, if it refused the offer.
    pub(crate) reason: Option<&'a OfferRefusal>,
    /// Ids of the refused session and its room, if they got ids.
    pub(crate) session: Option<(SessionId, RoomId)>,
}

/// The failure of a node, until all its rooms have moved.
#[derive(Debug)]
pub(super) struct FailoverSpan {
    pub(super) hop: Hop,
    pub(super) started: Instant,
    pub(super) down_at: Instant,
    pub(super) witnesses: Vec<EvidenceSource>,
    pub(super) rooms: u32,
    pub(super) rooms_left: u32,
    pub(super) touched: TouchedSessions,
}
