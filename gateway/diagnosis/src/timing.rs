//! Jitter and delay of the segments of a path.

use evenkeel_model::{PathEvidence, PathSegment, SessionId};

use crate::loss::{CERTAIN, certainty};
use crate::uplinks::SenderUplink;

/// Interarrival jitter (RFC 3550, 6.4.1) of a segment that impairs a session. It is a mean deviation: if packets of 20 ms keep
/// their order, random delays of up to 150 ms show as 23 ms. Some devices send two packets every 40 ms, which show as 20 ms and
/// do no harm.
pub(crate) const JITTER_IMPAIRS_US: u32 = 22_000;

/// Everyday jitter. A higher jitter needs the certainty [`CERTAIN`].
const JITTER_EVERYDAY_US: f64 = 10_000.0;

/// The relative standard error of a jitter that is smoothed over 16 packets.
const JITTER_ERROR: f64 = 0.15;

/// A segment adds its jitter to probes if their round trip varies by this part of it at least.
const PROBES_PART: u32 = 4;

/// One-way delay between client and node that impairs a session: people interrupt each other from 177 ms (G.107).
const DELAY_IMPAIRS_US: u32 = 200_000;

/// The mean of a jitter within a slot.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct MeanJitter {
    sum_us: u64,
    of: u32,
}

impl MeanJitter {
    pub(crate) fn add(&mut self, us: Option<u32>) {
        if let Some(us) = us {
            self.sum_us += u64::from(us);
            self.of += 1;
        }
    }

    pub(crate) fn us(self) -> Option<u32> {
        self.sum_us.checked_div(self.of.into()).map(|us| us as u32)
    }
}

/// The jitter or delay of a segment, and the certainty of its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnTiming {
    pub(crate) segment: PathSegment,
    pub(crate) at: SessionId,
    us: u32,
    pub(crate) certainty: f64,
}

/// The jitter beyond that of the segments before this one, with its certainty, if it impairs a session.
fn beyond(us: u32, before: u32) -> Option<(u32, f64)> {
    let own = us.saturating_sub(before);
    let error = f64::from(us).hypot(f64::from(before)) * JITTER_ERROR;
    let certainty = certainty((f64::from(own) - JITTER_EVERYDAY_US) / error.max(1.0));
    (own >= JITTER_IMPAIRS_US && certainty >= CERTAIN).then_some((own, certainty))
}

/// The segment with the most jitter of its own. `before_client_us` is the worst jitter of the last slots from the
/// node and of a sender.
pub(crate) fn jittery_segment(
    id: SessionId,
    jittery: Option<SenderUplink>,
    before_client_us: u32,
    evidence: &PathEvidence,
) -> Option<OwnTiming> {
    let found =
        |segment, at| move |(us, certainty): (u32, f64)| OwnTiming { segment, at, us, certainty };
    let leg_or_node = |us: u32| match evidence.probes_jitter_us {
        Some(probes) if probes < us / PROBES_PART => PathSegment::Node,
        _ => PathSegment::Leg,
    };
    let senders_us = jittery.map_or(0, |sender| sender.jitter_us);
    let uplink = evidence.uplink_jitter_us.and_then(|us| beyond(us, 0));
    let heard = evidence.from_node_jitter_us;
    let of_node = heard.filter(|_| jittery.is_some()).and_then(|us| beyond(us, senders_us));
    // Without numbers of the hop, the jitter before the client is unknown.
    let down = heard.and(evidence.client_jitter_us);
    let down = down.and_then(|us| beyond(us, before_client_us));
    let named = [
        uplink.map(found(PathSegment::Uplink, id)),
        of_node.map(|(us, certainty)| OwnTiming {
            segment: leg_or_node(us),
            at: id,
            us,
            certainty,
        }),
        down.map(found(PathSegment::Downlink, id)),
    ];
    let named = named.into_iter().flatten().max_by_key(|timing| timing.us);
    // The sender's own jitter, or that of several segments together.
    named.or_else(|| {
        let heard = beyond(heard?, 0)?;
        let of_sender = jittery.filter(|sender| sender.jitter_us >= JITTER_IMPAIRS_US);
        Some(match of_sender {
            Some(sender) => found(PathSegment::Uplink, sender.session)(heard),
            None => found(PathSegment::Unknown, id)(heard),
        })
    })
}

/// The segment with the larger part of a delay that impairs the session. The certainty is this part.
pub(crate) fn slow_segment(id: SessionId, evidence: &PathEvidence) -> Option<OwnTiming> {
    // Each direction of a call passes the leg both ways.
    let client_us = evidence.client_round_trip_us.unwrap_or(0) / 2;
    let leg_us = evidence.node_round_trip_us.unwrap_or(0);
    let us = client_us.saturating_add(leg_us);
    let (segment, larger) = match leg_us > client_us {
        true => (PathSegment::Leg, leg_us),
        false => (PathSegment::Unknown, client_us),
    };
    let certainty = f64::from(larger) / f64::from(us.max(1));
    (us >= DELAY_IMPAIRS_US).then_some(OwnTiming { segment, at: id, us, certainty })
}

#[cfg(test)]
mod tests;
