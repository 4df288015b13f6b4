//! The packets of a session's path, by slot, and the segment that loses them.

use std::time::{Duration, Instant};

use evenkeel_model::{FlowCounts, Hop, Impairment, PathEvidence, PathSegment, SessionId};

/// Loss of a segment that impairs a session, in ppm. By G.113, 3 % cost voice with concealment 10 points of R.
const IMPAIRS_PPM: u32 = 30_000;

/// Everyday loss. A higher loss needs this certainty.
const EVERYDAY: f64 = 0.01;
const CERTAIN: f64 = 0.95;

/// Fewer packets than this prove nothing: 800 ms of voice.
const PACKETS_MIN: u32 = 40;

/// Slots for which loss is recalled: two intervals of receiver reports (RFC 3550, 6.2: 5 s).
const RECALLED: usize = 12;

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

/// Usual video frames per second from which a fall is noticed. Shared screens have fewer, and vary.
const FRAMES_USUAL: f32 = 15.0;

/// A device is named if it sends less than this share of its usual frames.
const FRAMES_LEFT: f32 = 1.0 / 3.0;

/// Part by which a slot changes the usual number of frames.
const FRAMES_WEIGHT: f32 = 0.125;

#[derive(Clone, Copy, Debug)]
pub(super) struct StandingImpairment {
    pub(super) impairment: Impairment,
    pub(super) since: Instant,
    /// Slots since it was last found.
    clean: u8,
    /// The last finding, if it is of another place, and how often it was found.
    other: Option<(ImpairedPlace, u8)>,
}

type ImpairedPlace = (PathSegment, SessionId);

fn place(impairment: &Impairment) -> ImpairedPlace {
    (impairment.segment, impairment.at)
}

/// Another segment impairs a session, or none.
#[derive(Clone, Copy, Debug)]
pub(super) struct ImpairmentChange {
    pub(super) ended: Option<StandingImpairment>,
    pub(super) now: Option<Impairment>,
}

/// Packets of one slot.
#[derive(Clone, Copy, Default, Debug)]
struct SlotCounts {
    sent: u32,
    lost_up: u32,
    received: u32,
    expected: u32,
    lost: u32,
    frames: u32,
}

impl SlotCounts {
    fn add(&mut self, flow: &FlowCounts) {
        let add = |sum: &mut u32, more: u32| *sum = sum.saturating_add(more);
        add(&mut self.sent, flow.sent.iter().sum());
        add(&mut self.lost_up, flow.lost_up);
        add(&mut self.received, flow.received.iter().sum());
        add(&mut self.expected, flow.expected);
        add(&mut self.lost, flow.lost);
        add(&mut self.frames, flow.frames);
    }
}

/// Counts of a session's packets: those of the current slot, and of three slots before it.
#[derive(Default, Debug)]
pub(super) struct SessionPath {
    /// The number of the current slot; 0 before the first.
    pub(super) slot: u64,
    /// The hop that the client hears.
    hop: Option<Hop>,
    counts: [SlotCounts; 4],
    /// The last two receiver reports of the node and of the client.
    node_reports: LastReports,
    client_reports: LastReports,
    /// Loss of the last slots from the client and from the node.
    from_client: Recalled,
    from_node: Recalled,
    /// Video frames per second; 0 if they are limited, or before the first.
    frames_usual: f32,
    /// The frames of the last slot were limited.
    was_limited: bool,
    pub(super) impairment: Option<StandingImpairment>,
}

/// Facts about a session's path from outside of it.
pub(super) struct PathContext {
    pub(super) id: SessionId,
    pub(super) slot_length: Duration,
    pub(super) sender: Option<SenderUplink>,
    pub(super) probes_ppm: Option<u32>,
    pub(super) own: OwnFault,
}

impl SessionPath {
    /// Counts packets. If the client hears another hop, the counts of the previous one are dropped, and an impairment by
    /// its leg or node ends.
    pub(super) fn add(&mut self, flow: &FlowCounts) -> Option<ImpairmentChange> {
        let mut change = None;
        if flow.hears.is_some() && flow.hears != self.hop {
            if self.hop.is_some() {
                for counts in &mut self.counts {
                    (counts.received, counts.expected, counts.lost) = (0, 0, 0);
                }
                (self.node_reports, self.client_reports) = Default::default();
                self.from_node = Recalled::default();
                let of_hop = |standing: &mut StandingImpairment| {
                    matches!(standing.impairment.segment, PathSegment::Leg | PathSegment::Node)
                };
                let ended = self.impairment.take_if(of_hop);
                change = ended.map(|ended| ImpairmentChange { ended: Some(ended), now: None });
            }
            self.hop = flow.hears;
        }
        self.counts[0].add(flow);
        self.node_reports.add(self.slot, flow.reported_ppm);
        self.client_reports.add(self.slot, flow.client_ppm);
        change
    }

    /// Forgets the counts, which are of slots of another length.
    pub(super) fn reset_counts(&mut self) {
        *self =
            SessionPath { impairment: self.impairment, hop: self.hop, ..SessionPath::default() };
    }

    /// Updates the impairment by a finding. Returns a change of its place.
    pub(super) fn take_finding(
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

    pub(super) fn begin_slot(&mut self, slot: u64) {
        let turned = usize::try_from(slot - self.slot).unwrap_or(usize::MAX).min(self.counts.len());
        self.counts.rotate_right(turned);
        self.counts[..turned].fill(SlotCounts::default());
        self.slot = slot;
        let worse = |share: fn(&[SlotCounts]) -> LossShare| {
            share(&self.counts[1..2]).ppm().max(share(&self.counts[1..=2]).ppm())
        };
        let (up, down) = (worse(LossShare::from_client), worse(LossShare::from_node));
        self.from_client.push(up);
        self.from_node.push(down);
    }

    /// Loss from the client in the slot that ended.
    pub(super) fn uplink(&self) -> LossShare {
        LossShare::from_client(&self.counts[1..2])
    }

    /// Loss from the node in the slots for which the uplinks of all senders are known.
    fn compared(&self) -> LossShare {
        LossShare::from_node(&self.counts[2..])
    }

    /// Adapts the usual frame rate, unless the device is to blame for this one.
    pub(super) fn note_frames(&mut self, slot_length: Duration, is_limited: bool) {
        let frames = self.counts[1].frames as f32 / slot_length.as_secs_f32();
        let was_limited = std::mem::replace(&mut self.was_limited, is_limited);
        if is_limited || frames == 0.0 {
            self.frames_usual = 0.0;
        } else if self.frames_usual == 0.0 {
            // A camera that starts, or loses its cap, within a slot fills only a part of it; the next slot shows its rate.
            let is_whole = self.counts[2].frames > 0 && !was_limited;
            self.frames_usual = if is_whole { frames } else { 0.0 };
        } else if self.impairment.is_none_or(|it| it.impairment.segment != PathSegment::Device) {
            self.frames_usual += (frames - self.frames_usual) * FRAMES_WEIGHT;
        }
    }

    /// The segment that impairs the session, by the slots that ended.
    pub(super) fn judge(&self, context: &PathContext) -> Option<Impairment> {
        let evidence = self.evidence(context);
        let PathContext { id, own, .. } = *context;
        if let Some((segment, at, loss)) = self.losing_segment(context, &evidence) {
            let is_own = own.late >= LATE || own.dropped.ppm() >= IMPAIRS_PPM;
            let (segment, at) = if is_own { (PathSegment::Gateway, id) } else { (segment, at) };
            let (loss_ppm, confidence) = (loss.ppm, per_cent(loss.certainty));
            return Some(Impairment { segment, at, loss_ppm, confidence, evidence });
        }
        let (segment, confidence) = if own.late >= STALLED {
            (PathSegment::Gateway, 100)
        } else {
            (PathSegment::Device, per_cent(self.frame_drop(context.slot_length)?))
        };
        Some(Impairment { segment, at: id, loss_ppm: 0, confidence, evidence })
    }

    fn evidence(&self, context: &PathContext) -> PathEvidence {
        let PathContext { slot_length, sender, probes_ppm, own, .. } = *context;
        PathEvidence {
            uplink_ppm: LossShare::from_client(&self.counts[1..=2]).measured(),
            senders_ppm: sender.and_then(|sender| sender.loss.measured()),
            to_node_ppm: self.node_reports.ppm(self.slot),
            from_node_ppm: self.compared().measured(),
            probes_ppm,
            client_ppm: self.client_reports.ppm(self.slot),
            frames: (self.frames_usual >= FRAMES_USUAL).then(|| {
                let frames = self.counts[1].frames as f32 / slot_length.as_secs_f32();
                [frames as u32, self.frames_usual as u32]
            }),
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
        let PathContext { id, sender, probes_ppm, .. } = *context;
        let leg_or_node = |loss: OwnLoss| match probes_ppm {
            Some(probes) if u64::from(probes) * PROBES_PART < u64::from(loss.ppm) => {
                PathSegment::Node
            }
            _ => PathSegment::Leg,
        };
        let reported = |ppm: Option<u32>, before: &Recalled, of: u32| {
            LossShare::of_ppm(ppm?, of).beyond(LossShare::of_ppm(before.worst(), of))
        };
        let (sent, compared) = (LossShare::from_client(&self.counts[1..=2]), self.compared());
        let of_node = sender.and_then(|sender| compared.beyond(sender.loss));
        let of_sender = sender.filter(|_| of_node.is_none()).and_then(|sender| {
            sender.loss.beyond(LossShare::default())?;
            Some((PathSegment::Uplink, sender.session, compared.beyond(LossShare::default())?))
        });
        let to_node = reported(evidence.to_node_ppm, &self.from_client, sent.of);
        // Without numbers of one hop the loss before the client is unknown.
        let received = self.counts[1..=2].iter().map(|counts| counts.received).sum();
        let known = evidence.client_ppm.filter(|_| compared.of > 0);
        let down = reported(known, &self.from_node, received);
        let found = [
            sent.beyond(LossShare::default()).map(|loss| (PathSegment::Uplink, id, loss)),
            to_node.map(|loss| (leg_or_node(loss), id, loss)),
            of_node.map(|loss| (leg_or_node(loss), id, loss)),
            of_sender,
            down.map(|loss| (PathSegment::Downlink, id, loss)),
        ];
        found.into_iter().flatten().max_by_key(|(_, _, loss)| loss.ppm)
    }

    /// The certainty that the client sends less than half of its usual frames, if it sends less than a third.
    fn frame_drop(&self, slot_length: Duration) -> Option<f64> {
        let slots = &self.counts[1..=2];
        let frames: u32 = slots.iter().map(|counts| counts.frames).sum();
        let usual = self.frames_usual * slot_length.as_secs_f32() * slots.len() as f32;
        let fell = slots.iter().all(|counts| counts.frames > 0)
            && self.frames_usual >= FRAMES_USUAL
            && (frames as f32) < usual * FRAMES_LEFT
            && LossShare::from_client(slots).share() < EVERYDAY;
        let half = f64::from(usual) / 2.0;
        let certainty = certainty((half - f64::from(frames)) / half.sqrt());
        (fell && certainty >= CERTAIN).then_some(certainty)
    }
}

/// The last two receiver reports about a stream, with their slots, in ppm.
#[derive(Clone, Copy, Default, Debug)]
struct LastReports([Option<(u64, u32)>; 2]);

impl LastReports {
    fn add(&mut self, slot: u64, ppm: Option<u32>) {
        if let Some(ppm) = ppm {
            self.0 = [Some((slot, ppm)), self.0[0]];
        }
    }

    /// The lower one: one report of few packets may be chance.
    fn ppm(&self, slot: u64) -> Option<u32> {
        let recent = |(at, _): &(u64, u32)| at + RECALLED as u64 >= slot;
        let [last, before] = self.0.map(|report| report.filter(recent));
        last.zip(before).map(|((_, last), (_, before))| last.min(before))
    }
}

/// The loss of the last slots, in ppm.
#[derive(Clone, Copy, Default, Debug)]
struct Recalled {
    ppm: [u32; RECALLED],
    next: usize,
}

impl Recalled {
    fn push(&mut self, ppm: u32) {
        self.ppm[self.next] = ppm;
        self.next = (self.next + 1) % RECALLED;
    }

    fn worst(&self) -> u32 {
        self.ppm.into_iter().max().unwrap_or(0)
    }
}

/// The uplink of a room's sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct SenderUplink {
    pub(super) session: SessionId,
    pub(super) loss: LossShare,
}

/// The two worst uplinks of a room's senders, by slot: a sender does not hear its own.
#[derive(Default, Debug)]
pub(super) struct RoomUplinks(Slots<[Option<SenderUplink>; 2]>);

impl RoomUplinks {
    pub(super) fn note(&mut self, slot: u64, sender: SenderUplink) {
        let [worst, second] = self.0.at(slot);
        let is_worse =
            |than: &Option<SenderUplink>| than.is_none_or(|than| than.loss.lost < sender.loss.lost);
        if is_worse(worst) {
            (*worst, *second) = (Some(sender), *worst);
        } else if is_worse(second) {
            *second = Some(sender);
        }
    }

    /// The worst uplink that this session hears, in the two slots that are compared at the start of this one.
    pub(super) fn heard_by(&self, session: SessionId, slot: u64) -> Option<SenderUplink> {
        let heard = |before: u64| {
            let senders = self.0.get(slot.checked_sub(before)?)?;
            let other = senders.iter().flatten().find(|sender| sender.session != session);
            // A session alone in its room may hear itself.
            other.or(senders[0].as_ref()).copied()
        };
        match (heard(3), heard(2)) {
            (Some(first), Some(second)) => {
                let worse = if first.loss.lost > second.loss.lost { first } else { second };
                let LossShare { lost, of } = second.loss;
                let loss = LossShare { lost: lost + first.loss.lost, of: of + first.loss.of };
                Some(SenderUplink { session: worse.session, loss })
            }
            (one, other) => one.or(other),
        }
    }

    /// No sender was noted since this slot.
    pub(super) fn is_idle_since(&self, slot: u64) -> bool {
        self.0.0.iter().all(|(at, _)| *at < slot)
    }
}

/// Values of the last slots.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Slots<T>([(u64, T); 4]);

impl<T: Copy + Default> Slots<T> {
    pub(super) fn at(&mut self, slot: u64) -> &mut T {
        let place = &mut self.0[slot as usize % 4];
        if place.0 != slot {
            *place = (slot, T::default());
        }
        &mut place.1
    }

    fn get(&self, slot: u64) -> Option<&T> {
        let (at, value) = &self.0[slot as usize % 4];
        (*at == slot).then_some(value)
    }
}

/// Faults of this gateway, by slot.
#[derive(Default, Debug)]
pub(super) struct OwnFaults {
    pub(super) late: Slots<Duration>,
    pub(super) dropped: Slots<u32>,
    pub(super) packets: Slots<u32>,
    pub(super) dropped_before: u64,
}

/// The worst fault of this gateway in the last slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnFault {
    pub(super) late: Duration,
    pub(super) dropped: LossShare,
}

impl OwnFaults {
    pub(super) fn lately(&self, slot: u64) -> OwnFault {
        let late = (0..4).filter_map(|before| self.late.get(slot.checked_sub(before)?));
        // The packets of the current slot are not counted yet.
        let dropped = (1..4).filter_map(|before| {
            let slot = slot.checked_sub(before)?;
            let lost = *self.dropped.get(slot)?;
            Some(LossShare { lost, of: lost + self.packets.get(slot).copied().unwrap_or(0) })
        });
        OwnFault {
            late: late.max().copied().unwrap_or_default(),
            dropped: dropped.max_by_key(LossShare::ppm).unwrap_or_default(),
        }
    }
}

/// Lost packets of a number of packets.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct LossShare {
    lost: u32,
    pub(super) of: u32,
}

/// The loss in a segment, and the certainty that it is more than everyday loss.
#[derive(Clone, Copy, Debug)]
struct OwnLoss {
    ppm: u32,
    certainty: f64,
}

impl LossShare {
    fn from_client(slots: &[SlotCounts]) -> LossShare {
        let lost = slots.iter().map(|counts| counts.lost_up).sum();
        LossShare { lost, of: lost + slots.iter().map(|counts| counts.sent).sum::<u32>() }
    }

    fn from_node(slots: &[SlotCounts]) -> LossShare {
        let sum = |count: fn(&SlotCounts) -> u32| slots.iter().map(count).sum();
        LossShare { lost: sum(|counts| counts.lost), of: sum(|counts| counts.expected) }
    }

    fn of_ppm(ppm: u32, of: u32) -> LossShare {
        LossShare { lost: (u64::from(of) * u64::from(ppm) / 1_000_000) as u32, of }
    }

    fn share(&self) -> f64 {
        f64::from(self.lost) / f64::from(self.of.max(1))
    }

    fn ppm(&self) -> u32 {
        (self.share() * 1e6) as u32
    }

    fn measured(&self) -> Option<u32> {
        (self.of > 0).then(|| self.ppm())
    }

    /// The square of the standard error.
    fn variance(&self) -> f64 {
        self.share() * (1.0 - self.share()) / f64::from(self.of.max(1))
    }

    /// The loss beyond that of the segments before this one, if it impairs a session.
    fn beyond(self, before: LossShare) -> Option<OwnLoss> {
        let own = self.share() - before.share();
        let ppm = (own.max(0.0) * 1e6) as u32;
        let error = (self.variance() + before.variance()).sqrt().max(f64::EPSILON);
        let certainty = certainty((own - EVERYDAY) / error);
        let impairs = self.of >= PACKETS_MIN && ppm >= IMPAIRS_PPM && certainty >= CERTAIN;
        impairs.then_some(OwnLoss { ppm, certainty })
    }
}

/// The probability of a normal deviate below this one, to 1 %, by the logistic distribution.
fn certainty(deviate: f64) -> f64 {
    1.0 / (1.0 + (-1.702 * deviate).exp())
}

fn per_cent(share: f64) -> u8 {
    (share * 100.0) as u8
}
