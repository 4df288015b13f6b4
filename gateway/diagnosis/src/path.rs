//! The packets of a session's path, by slot, and the segment that impairs them.

use std::time::{Duration, Instant};

use evenkeel_model::{
    FlowCounts, Hop, Impairment, ImpairmentSign, NodeId, PathEvidence, PathSegment, SessionId,
};

use crate::device::{DeviceCounts, FrameRate, KEY_FRAME_LATE, device_fault};
use crate::load::DeviceSlot;
use crate::loss::{EVERYDAY, IMPAIRS_PPM, LossShare, OwnLoss, per_cent};
use crate::own::OwnFault;
use crate::reports::{LastReports, Recalled};
use crate::timing::{JITTER_IMPAIRS_US, MeanJitter, jittery_segment, slow_segment};
use crate::uplinks::{HeardUplinks, SenderUplink};

/// An impairment ends after this many slots without it, and another segment is named after as many findings.
const ENDS_AFTER: u8 = 3;
const CHANGES_AFTER: u8 = 2;

/// Probes that are lost at less than this part of the media's rate clear the leg. Their loss is smoothed over 5 s, so it
/// has reached a third after 2 s.
const PROBES_PART: u64 = 8;

/// Lateness of the gateway per slot to which loss is attributed: sockets hold the packets of less.
const LATE: Duration = Duration::from_millis(100);

/// Lateness of the gateway per slot that impairs sessions without loss: packets come in bursts after long gaps.
const STALLED: Duration = Duration::from_millis(250);

/// An impairment of a session.
#[derive(Clone, Copy, Debug)]
pub struct StandingImpairment {
    /// The newest finding of it.
    pub impairment: Impairment,
    /// The time of its first finding.
    pub since: Instant,
    /// Slots since it was last found.
    clean: u8,
    /// The last finding, if it is of another place, and how often it was found.
    other: Option<(ImpairedPlace, u8)>,
}

impl StandingImpairment {
    /// The hop that the client hears impairs it: the node, or the leg to it.
    fn is_of_hop(&self) -> bool {
        matches!(self.impairment.segment, PathSegment::Leg | PathSegment::Node)
    }
}

type ImpairedPlace = (PathSegment, SessionId);

fn place(impairment: &Impairment) -> ImpairedPlace {
    (impairment.segment, impairment.at)
}

/// A change of the segment that impairs a session.
#[derive(Clone, Copy, Debug)]
pub struct ImpairmentChange {
    /// The impairment until now; `None`: no segment impaired the session.
    pub ended: Option<StandingImpairment>,
    /// The impairment from now on; `None`: no segment impairs it.
    pub now: Option<Impairment>,
}

/// Packets of one slot.
#[derive(Clone, Copy, Default, Debug)]
struct SlotCounts {
    sent: u32,
    lost_up: u32,
    received: u32,
    expected: u32,
    lost: u32,
    /// Jitter from the client, and from the node.
    jitter_up: MeanJitter,
    jitter: MeanJitter,
    /// The shortest round trip of the client.
    round_trip_us: Option<u32>,
    device: DeviceCounts,
}

impl SlotCounts {
    fn add(&mut self, flow: &FlowCounts) {
        let add = |sum: &mut u32, more: u32| *sum = sum.saturating_add(more);
        add(&mut self.sent, flow.sent.iter().sum());
        add(&mut self.lost_up, flow.lost_up);
        add(&mut self.received, flow.received.iter().sum());
        add(&mut self.expected, flow.expected);
        add(&mut self.lost, flow.lost);
        self.jitter_up.add(flow.jitter_up_us);
        self.jitter.add(flow.jitter_us);
        self.round_trip_us = [self.round_trip_us, flow.round_trip_us].into_iter().flatten().min();
        self.device.add(flow);
    }
}

/// Counts of a session's packets: those of the current slot, and of three slots before it.
#[derive(Default, Debug)]
pub struct SessionPath {
    /// The number of the current slot; 0 before the first.
    pub slot: u64,
    /// The hop that the client hears.
    hop: Option<Hop>,
    counts: [SlotCounts; 4],
    /// The last two receiver reports of the node and of the client.
    node_reports: LastReports,
    client_reports: LastReports,
    client_jitter: LastReports,
    /// Round trips of the client, one of each slot.
    round_trips: LastReports,
    /// Loss of the last slots from the client and from the node.
    from_client: Recalled,
    from_node: Recalled,
    /// Jitter of the last slots from the node.
    jitter_from_node: Recalled,
    /// The worst loss and jitter of a sender, of the last slots.
    senders_loss: Recalled,
    senders_jitter: Recalled,
    /// The round trip of the node's probes a slot ago.
    leg_before: Option<Duration>,
    frame_rate: FrameRate,
    /// The impairment of the session, if any.
    pub impairment: Option<StandingImpairment>,
}

/// Measurements of the leg by probes of the node.
#[derive(Clone, Copy, Debug)]
pub struct ProbedLeg {
    /// Unanswered probes, in ppm.
    pub loss_ppm: u32,
    /// The smoothed round trip and its mean deviation.
    pub round_trip: Option<(Duration, Duration)>,
}

/// Measurements that several sessions share.
#[derive(Clone, Copy, Debug)]
pub struct PathContext {
    pub id: SessionId,
    pub slot_length: Duration,
    /// The worst uplinks that the session hears, if its room has senders.
    pub senders: Option<HeardUplinks>,
    /// `None` if the node is not probed.
    pub probes: Option<ProbedLeg>,
    /// Faults of this gateway.
    pub own: OwnFault,
    /// The room has at most two sessions.
    pub is_call: bool,
}

impl SessionPath {
    /// Counts packets. If the client hears another hop, the counts of the previous one are dropped, and an impairment by
    /// its leg or node ends.
    pub fn add(&mut self, flow: &FlowCounts) -> Option<ImpairmentChange> {
        let mut change = None;
        if flow.hears.is_some() && flow.hears != self.hop {
            if self.hop.is_some() {
                for counts in &mut self.counts {
                    (counts.received, counts.expected, counts.lost) = (0, 0, 0);
                    counts.jitter = MeanJitter::default();
                }
                (self.node_reports, self.client_reports) = Default::default();
                (self.client_jitter, self.leg_before) = Default::default();
                (self.from_node, self.jitter_from_node) = Default::default();
                let ended = self.impairment.take_if(|standing| standing.is_of_hop());
                change = ended.map(|ended| ImpairmentChange { ended: Some(ended), now: None });
            }
            self.hop = flow.hears;
        }
        self.counts[0].add(flow);
        self.node_reports.add(self.slot, flow.reported_ppm);
        self.client_reports.add(self.slot, flow.client_ppm);
        self.client_jitter.add(self.slot, flow.client_jitter_us);
        change
    }

    /// The node that impairs the session, by itself or by the leg to it.
    pub fn impairing_node(&self) -> Option<NodeId> {
        self.impairment.filter(StandingImpairment::is_of_hop)?;
        Some(self.hop?.node)
    }

    /// Forgets the counts, which are of slots of another length.
    pub fn reset_counts(&mut self) {
        *self =
            SessionPath { impairment: self.impairment, hop: self.hop, ..SessionPath::default() };
    }

    /// Updates the impairment by a finding. Returns a change of its place.
    pub fn take_finding(
        &mut self,
        found: Option<Impairment>,
        now: Instant,
    ) -> Option<ImpairmentChange> {
        let before = self.impairment;
        let begun =
            |impairment| StandingImpairment { impairment, since: now, clean: 0, other: None };
        self.impairment = match (found, before) {
            (Some(found), None) => Some(begun(found)),
            (Some(found), Some(before)) if place(&before.impairment) == place(&found) => {
                Some(StandingImpairment { since: before.since, ..begun(found) })
            }
            (Some(found), Some(before)) => {
                let same = before.other.filter(|(other, _)| *other == place(&found));
                let times = same.map_or(0, |(_, times)| times) + 1;
                let other = Some((place(&found), times));
                let stays = StandingImpairment { other, clean: 0, ..before };
                Some(if times < CHANGES_AFTER { stays } else { begun(found) })
            }
            (None, Some(before)) if before.clean + 1 < ENDS_AFTER => {
                Some(StandingImpairment { clean: before.clean + 1, ..before })
            }
            (None, _) => None,
        };
        let after = self.impairment.map(|standing| standing.impairment);
        let was = before.as_ref().map(|before| place(&before.impairment));
        (was != after.as_ref().map(place)).then_some(ImpairmentChange { ended: before, now: after })
    }

    /// Ends the current slot, and those without packets after it.
    pub fn begin_slot(&mut self, slot: u64) {
        self.round_trips.add(self.slot, self.counts[0].round_trip_us);
        let turned = usize::try_from(slot - self.slot).unwrap_or(usize::MAX).min(self.counts.len());
        self.counts.rotate_right(turned);
        self.counts[..turned].fill(SlotCounts::default());
        self.slot = slot;
        let worse = |share: fn(&[SlotCounts]) -> LossShare| {
            share(&self.counts[1..2]).ppm().max(share(&self.counts[1..=2]).ppm())
        };
        let (up, down) = (worse(from_client), worse(from_node));
        self.from_client.push(up);
        self.from_node.push(down);
        self.jitter_from_node.push(self.counts[1].jitter.us().unwrap_or(0));
    }

    /// The uplink of the session in the slot that ended, if it sent then.
    pub fn uplink(&self, session: SessionId) -> Option<SenderUplink> {
        let loss = from_client(&self.counts[1..2]);
        let jitter_us = self.counts[1].jitter_up.us().unwrap_or(0);
        (loss.of > 0).then_some(SenderUplink { session, loss, jitter_us })
    }

    /// The loss on the client's uplink, by its packets, or downlink, by its receiver reports, is known.
    pub fn measures_client(&self) -> bool {
        let reports = self.client_reports.lower(self.slot);
        from_client(&self.counts[1..=2]).of > 0 || reports.is_some() && self.compared().of > 0
    }

    /// Loss from the node in the slots for which the uplinks of all senders are known.
    fn compared(&self) -> LossShare {
        from_node(&self.counts[2..])
    }

    /// Returns the media of the session's device in the slot that ended, before [`note_frames`](Self::note_frames) adapts the usual rate.
    pub fn device_slot(&self, id: SessionId, slot_length: Duration) -> DeviceSlot {
        let last = self.counts[1].device;
        let missing = Duration::from_millis(last.key_frame_missing_ms().unwrap_or(0).into());
        let is_of_network = |it: StandingImpairment| {
            it.impairment.at == id && it.impairment.segment != PathSegment::Device
        };
        let jitter_us = self.counts[1].jitter_up.us().unwrap_or(0);
        DeviceSlot {
            frames: last.frames_per_second(slot_length),
            usual: self.frame_rate.usual(),
            lacks_key_frame: missing >= KEY_FRAME_LATE,
            is_network_fine: !self.impairment.is_some_and(is_of_network)
                && from_client(&self.counts[1..=2]).share() < EVERYDAY
                && jitter_us < JITTER_IMPAIRS_US,
        }
    }

    /// Adapts the usual frame rate, unless the device is to blame for this one.
    pub fn note_frames(&mut self, slot_length: Duration, is_limited: bool) {
        let slots = [self.counts[1].device, self.counts[2].device];
        let is_found = |it: StandingImpairment| it.impairment.sign == ImpairmentSign::FewFrames;
        let adapts = !self.impairment.is_some_and(is_found);
        self.frame_rate.note(slots, slot_length, is_limited, adapts);
    }

    /// The segment that impairs the session, by the slots that ended.
    pub fn judge(&mut self, context: &PathContext) -> Option<Impairment> {
        let worst = context.senders.map(|it| (it.worst_loss_ppm, it.jittery.jitter_us));
        let (loss_ppm, jitter_us) = worst.unwrap_or((0, 0));
        self.senders_loss.push(loss_ppm);
        self.senders_jitter.push(jitter_us);
        let evidence = self.evidence(context);
        let PathContext { id, own, slot_length, is_call, .. } = *context;
        let impairment = |sign, (segment, at), loss_ppm, certainty| {
            let confidence = per_cent(certainty);
            Impairment { segment, sign, at, loss_ppm, confidence, evidence }
        };
        let is_own = own.late >= LATE || own.dropped.ppm() >= IMPAIRS_PPM;
        let unless_own = |place| if is_own { (PathSegment::Gateway, id) } else { place };
        if let Some((segment, at, loss)) = self.losing_segment(context, &evidence) {
            let place = unless_own((segment, at));
            return Some(impairment(ImpairmentSign::Loss, place, loss.ppm, loss.certainty));
        }
        if own.late >= STALLED {
            return Some(impairment(ImpairmentSign::Stall, (PathSegment::Gateway, id), 0, 1.0));
        }
        let jittery = context.senders.map(|senders| senders.jittery);
        let before_client_us = self.jitter_from_node.worst().max(self.senders_jitter.worst());
        let jitter = jittery_segment(id, jittery, before_client_us, &evidence);
        let jitter = jitter.map(|timing| (ImpairmentSign::Jitter, timing));
        let timing = jitter.or_else(|| Some((ImpairmentSign::Delay, slow_segment(id, &evidence)?)));
        if let Some((sign, timing)) = timing {
            let place = (timing.segment, timing.at);
            // Lateness that delays a round trip this much is a stall.
            let place = if sign == ImpairmentSign::Jitter { unless_own(place) } else { place };
            return Some(impairment(sign, place, 0, timing.certainty));
        }
        if from_client(&self.counts[1..=2]).share() >= EVERYDAY {
            return None;
        }
        let slots = [self.counts[1].device, self.counts[2].device];
        let (sign, certainty) = device_fault(slots, &self.frame_rate, slot_length, is_call)?;
        Some(impairment(sign, (PathSegment::Device, id), 0, certainty))
    }

    fn evidence(&mut self, context: &PathContext) -> PathEvidence {
        let PathContext { slot_length, senders, probes, own, .. } = *context;
        let us = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let round_trip = probes.and_then(|probes| probes.round_trip);
        let leg = round_trip.map(|(smoothed, _)| smoothed);
        let leg_before = std::mem::replace(&mut self.leg_before, leg);
        let last = self.counts[1].device;
        let ended = &self.counts[1..];
        let jittery = senders.map(|senders| senders.jittery.jitter_us);
        PathEvidence {
            uplink_ppm: from_client(&self.counts[1..=2]).measured(),
            senders_ppm: senders.and_then(|senders| senders.lossy.loss.measured()),
            to_node_ppm: self.node_reports.lower(self.slot),
            from_node_ppm: self.compared().measured(),
            probes_ppm: probes.map(|probes| probes.loss_ppm),
            client_ppm: self.client_reports.lower(self.slot),
            uplink_jitter_us: steady(ended, |counts| counts.jitter_up),
            senders_jitter_us: jittery,
            from_node_jitter_us: steady(ended, |counts| counts.jitter),
            probes_jitter_us: round_trip.map(|(_, deviation)| us(deviation)),
            client_jitter_us: self.client_jitter.lower(self.slot),
            client_round_trip_us: self.round_trips.lower(self.slot),
            // The lower one: a round trip of one slot may be chance.
            node_round_trip_us: leg.zip(leg_before).map(|(leg, before)| us(leg.min(before))),
            frames: self.frame_rate.evidence(last, slot_length),
            key_frame_missing_ms: last.key_frame_missing_ms(),
            silent_packets: last.silent_packets(),
            late: own.late,
            dropped_ppm: own.dropped.ppm(),
        }
    }

    /// The segment with the most loss of its own, and the session that it belongs to.
    fn losing_segment(
        &self,
        context: &PathContext,
        evidence: &PathEvidence,
    ) -> Option<(PathSegment, SessionId, OwnLoss)> {
        let PathContext { id, senders, probes, .. } = *context;
        let leg_or_node = |loss: OwnLoss| match probes {
            Some(probes) if u64::from(probes.loss_ppm) * PROBES_PART < u64::from(loss.ppm) => {
                PathSegment::Node
            }
            _ => PathSegment::Leg,
        };
        let reported = |ppm: Option<u32>, before_ppm: u32, of: u32| {
            LossShare::of_ppm(ppm?, of).beyond(LossShare::of_ppm(before_ppm, of))
        };
        let (sent, compared) = (from_client(&self.counts[1..=2]), self.compared());
        let sender = senders.map(|senders| senders.lossy);
        let of_node = sender.and_then(|sender| compared.beyond(sender.loss));
        let of_sender = sender.filter(|_| of_node.is_none()).and_then(|sender| {
            sender.loss.beyond(LossShare::default())?;
            Some((PathSegment::Uplink, sender.session, compared.beyond(LossShare::default())?))
        });
        let to_node = reported(evidence.to_node_ppm, self.from_client.worst(), sent.of);
        // Without numbers of one hop the loss before the client is unknown.
        let received = self.counts[1..=2].iter().map(|counts| counts.received).sum();
        let known = evidence.client_ppm.filter(|_| compared.of > 0);
        // A client reports its worst stream, which may lose more than all streams from the node together.
        let before_client_ppm = self.from_node.worst().max(self.senders_loss.worst());
        let down = reported(known, before_client_ppm, received);
        let found = [
            sent.beyond(LossShare::default()).map(|loss| (PathSegment::Uplink, id, loss)),
            to_node.map(|loss| (leg_or_node(loss), id, loss)),
            of_node.map(|loss| (leg_or_node(loss), id, loss)),
            of_sender,
            down.map(|loss| (PathSegment::Downlink, id, loss)),
        ];
        found.into_iter().flatten().max_by_key(|(_, _, loss)| loss.ppm)
    }
}

fn from_client(slots: &[SlotCounts]) -> LossShare {
    let lost = slots.iter().map(|counts| counts.lost_up).sum();
    LossShare { lost, of: lost + slots.iter().map(|counts| counts.sent).sum::<u32>() }
}

fn from_node(slots: &[SlotCounts]) -> LossShare {
    let sum = |count: fn(&SlotCounts) -> u32| slots.iter().map(count).sum();
    LossShare { lost: sum(|counts| counts.lost), of: sum(|counts| counts.expected) }
}

/// The lowest jitter of these slots: the step of a sender's clock is no jitter. `None` if that of one is not measured.
fn steady(slots: &[SlotCounts], of: fn(&SlotCounts) -> MeanJitter) -> Option<u32> {
    slots.iter().map(|counts| of(counts).us()).min().flatten()
}

#[cfg(test)]
mod tests;
