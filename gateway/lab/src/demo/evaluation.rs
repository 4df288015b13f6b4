//! Computes the report from the ledger and the records.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use super::report::{
    ControlFigures, DegradationFigures, DemoReport, DetectionFigures, FailoverFigures, GapFigures,
    PacketFigures, ReloadFigures, RoomFigures, SessionFigures, StrangerFigures, check,
};
use super::sessions::{rooms_of, sessions_by};
use super::steps::{DemoFault, DemoPush, DemoRecord};

use crate::clock::nanoseconds;
use crate::crowd::PlannedTransport;
use crate::ledger::{
    Account, Death, DuePacket, ExcusedLosses, GapSpread, NodeSwitch, PacketLedger, StreamPath,
};
use crate::sample_node::number_of;
use crate::stranger;
use crate::watch::{at_ns, is_node};
use evenkeel_client::ServerEvent;
use evenkeel_contract::Word;
use evenkeel_contract::events::{Closed, Degraded, NodeHealth, PacketsShed};

/// Maximum time in which the two ends of a call may receive from different nodes during a make-before-break move.
const SPLIT_MAX: Duration = Duration::from_millis(500);
/// Every receiver must have got a packet within this time before the end.
const LAST_HEARD: Duration = Duration::from_millis(1_500);

pub(super) fn evaluate(record: &DemoRecord, ledger: &PacketLedger) -> DemoReport {
    Evaluation::new(record, ledger).report()
}

/// Details for debugging: unexplained losses, discontinuities, splits and events. Times are milliseconds since the
/// measurement began.
pub(super) fn notes(record: &DemoRecord, ledger: &PacketLedger) -> String {
    let evaluation = Evaluation::new(record, ledger);
    let ms = |at_ns: u64| (at_ns as f64 - record.span.start as f64) / 1e6;
    let mut lines: Vec<String> = Vec::new();
    for DuePacket { path, number, sent_ns } in &evaluation.account.lost {
        let StreamPath { receiver, sender, stream } = path;
        lines.push(format!(
            "{:9.1} lost: {sender}/{stream} to {receiver}, number {number}",
            ms(*sent_ns)
        ));
    }
    lines.extend(ledger.continuity_breaks().iter().map(|found| format!("{found:?}")));
    lines.extend(ledger.splits(SPLIT_MAX).iter().map(|found| format!("{found:?}")));
    for event in &record.events {
        lines.push(format!("{:9.1} {}: {}", ms(at_ns(event)), event.name, event.data));
    }
    lines.push(format!("spans received: {:?}", record.spans));
    lines.join("\n")
}

struct Evaluation<'a> {
    record: &'a DemoRecord,
    ledger: &'a PacketLedger,
    account: Account,
    switches: Vec<NodeSwitch>,
    udp: BTreeSet<u64>,
}

impl<'a> Evaluation<'a> {
    fn new(record: &'a DemoRecord, ledger: &'a PacketLedger) -> Evaluation<'a> {
        let switches = ledger.switches();
        let udp = sessions_by(&record.plan, PlannedTransport::Udp);
        let mut evaluation =
            Evaluation { record, ledger, account: Account::default(), switches, udp };
        evaluation.account = ledger.account(&evaluation.excuses());
        evaluation
    }

    fn excuses(&self) -> ExcusedLosses {
        let death = |fault: &DemoFault| Death {
            node: number_of(&fault.node),
            died_ns: fault.span.start,
            flipped_ns: self.flipped_ns(fault),
        };
        let deaths = self.record.faults.iter().map(death).collect();
        let mut excuses = ExcusedLosses { deaths, shed: self.shed(), ..ExcusedLosses::default() };
        excuses.add_relay(&self.record.dropped);
        excuses
    }

    /// The time at which the gateway marked the node down. Without an event it is the time of the first packet over
    /// another node. Without either, no loss is excused.
    fn flipped_ns(&self, fault: &DemoFault) -> u64 {
        if let Some(event) = self.marked_down(fault) {
            return at_ns(event);
        }
        let seen =
            self.switches_of(fault).filter(|_| fault.unattended).map(|switch| switch.first_ns);
        seen.min().unwrap_or(fault.span.start)
    }

    fn marked_down(&self, fault: &DemoFault) -> Option<&ServerEvent> {
        let mut events = self.record.events.iter().filter(|_| !fault.unattended);
        events
            .find(|event| fault.span.contains(&at_ns(event)) && is_node(event, &fault.node, "down"))
    }

    /// Switches of receivers that were on the dead node.
    fn switches_of<'b>(&'b self, fault: &'b DemoFault) -> impl Iterator<Item = &'b NodeSwitch> {
        let node = number_of(&fault.node);
        self.switches
            .iter()
            .filter(move |switch| switch.from == node && fault.span.contains(&switch.first_ns))
    }

    /// Packets that a rung dropped, as reported by the gateway, by the packet numbers of the senders.
    fn shed(&self) -> BTreeSet<(StreamPath, u64)> {
        let mut shed = BTreeSet::new();
        for run in self.record.events.iter().filter_map(ServerEvent::data_of::<PacketsShed>) {
            let Some(&receiver) = self.record.by_id.get(&run.session) else { continue };
            let at_ns = run.at_us * 1_000;
            let known = self.ledger.find_packet(receiver, run.ssrc, run.after, at_ns);
            let Some((path, last)) = known else { continue };
            let first = last + u64::from(run.first);
            let last = first + u64::from(run.packets);
            shed.extend((first..last).map(|number| (path, number)));
        }
        shed
    }

    fn report(&self) -> DemoReport {
        let record = self.record;
        let mut report = DemoReport {
            sessions: self.sessions(),
            rooms: self.rooms(),
            packets: self.packets(),
            failovers: self.failovers(),
            control: self.control(),
            takeover: record.takeover,
            skipped: record.skipped.clone(),
            continuity_breaks: self.ledger.continuity_breaks().len(),
            degradation: self.degradation(),
            reloads: record.pushes.iter().map(|push| self.reload(push)).collect(),
            policy_calls: record.calls.clone(),
            strangers: self.strangers(),
            spans_received: record.spans.clone(),
            machine: record.machine,
            checks: Vec::new(),
            ok: false,
        };
        report.checks = check(&report);
        report.ok = report.checks.iter().all(|check| check.kept != Some(false));
        report
    }

    fn sessions(&self) -> SessionFigures {
        let record = self.record;
        let closed = record.events.iter().filter_map(ServerEvent::data_of::<Closed>);
        let closed = closed.filter(|closed| closed.at_us * 1_000 < record.span.end);
        let closed = closed.filter_map(|closed| record.by_id.get(&closed.session));
        let until_ns = record.span.end;
        let silent = self.ledger.silent(until_ns - nanoseconds(LAST_HEARD), until_ns);
        let lost: BTreeSet<u64> =
            closed.copied().chain(silent).chain(record.failed.iter().copied()).collect();
        let udp = self.udp.len();
        SessionFigures { udp, quic: record.plan.len() - udp, lost: lost.len() }
    }

    fn rooms(&self) -> RoomFigures {
        let rooms = |scenario| rooms_of(&self.record.plan, scenario).len();
        let split: BTreeSet<u64> =
            self.ledger.splits(SPLIT_MAX).into_iter().map(|split| split.room).collect();
        RoomFigures { calls: rooms("call"), streams: rooms("live"), split: split.len() }
    }

    fn packets(&self) -> PacketFigures {
        PacketFigures {
            sent: self.ledger.sent_count(),
            received: self.ledger.arrived_count(),
            lost: self.account.lost.len(),
            lost_to_faults: self.account.lost_to_faults.len(),
            shed: self.account.shed.len(),
            twice: self.ledger.twice().len(),
            misdelivered: self.ledger.misdelivered().len(),
        }
    }

    fn control(&self) -> ControlFigures {
        let (mut udp, mut quic) = (Vec::new(), Vec::new());
        for &at_ns in &self.record.control_ns {
            for gap in self.ledger.gaps_at(at_ns) {
                if self.udp.contains(&gap.receiver) { &mut udp } else { &mut quic }
                    .push(gap.gap_ns);
            }
        }
        ControlFigures {
            gap_ms: gap(PlannedTransport::Udp, udp),
            gap_ms_quic: gap(PlannedTransport::Quic, quic),
        }
    }

    /// The failovers of each fault by transport, and the moves of the policy swap.
    fn failovers(&self) -> Vec<FailoverFigures> {
        let mut failovers = Vec::new();
        for transport in [PlannedTransport::Udp, PlannedTransport::Quic] {
            for fault in &self.record.faults {
                failovers.push(self.failover(fault, transport));
            }
            let swaps = self.record.pushes.iter().filter(|push| push.hostile.is_none());
            failovers.extend(swaps.map(|push| self.planned(push, transport)));
        }
        failovers
    }

    fn failover(&self, fault: &DemoFault, transport: PlannedTransport) -> FailoverFigures {
        let marked_down = self.marked_down(fault);
        let detected =
            marked_down.map(|event| at_ns(event).saturating_sub(fault.span.start) as f64 / 1e6);
        let switches: Vec<&NodeSwitch> = self
            .switches_of(fault)
            .filter(|switch| self.is_by(switch.receiver, transport))
            .collect();
        let witnesses = marked_down.and_then(ServerEvent::data_of::<NodeHealth>);
        let witnesses = witnesses.map(|change| change.witnesses).unwrap_or_default().into_iter();
        let witnesses = witnesses.map(|witness| witness.witness.into_owned());
        FailoverFigures {
            cause: "node-down",
            silent: fault.silent,
            unattended: fault.unattended,
            ingress: ingress(transport),
            node: fault.node.clone(),
            sessions: switches.len(),
            detect_ms: DetectionFigures { p50: detected, p99: detected, max: detected },
            gap_ms: gap(transport, switches.iter().map(|switch| switch.gap_ns()).collect()),
            packets_lost: self.lost_within(&self.account.lost_to_faults, &fault.span, transport),
            by_witness: witnesses.map(|witness| (witness, switches.len())).collect(),
        }
    }

    /// The moves by a policy, make-before-break.
    fn planned(&self, push: &DemoPush, transport: PlannedTransport) -> FailoverFigures {
        let switches = self.switches.iter().filter(|switch| {
            push.span.contains(&switch.first_ns) && self.is_by(switch.receiver, transport)
        });
        let gaps: Vec<u64> = switches.map(NodeSwitch::gap_ns).collect();
        FailoverFigures {
            cause: "quality",
            silent: false,
            unattended: false,
            ingress: ingress(transport),
            node: String::new(),
            sessions: gaps.len(),
            detect_ms: DetectionFigures::default(),
            gap_ms: gap(transport, gaps),
            packets_lost: self.lost_within(&self.account.lost, &push.span, transport),
            by_witness: BTreeMap::new(),
        }
    }

    fn is_by(&self, session: u64, transport: PlannedTransport) -> bool {
        self.udp.contains(&session) == (transport == PlannedTransport::Udp)
    }

    fn lost_within(
        &self,
        packets: &[DuePacket],
        span: &Range<u64>,
        transport: PlannedTransport,
    ) -> usize {
        let early = nanoseconds(Duration::from_millis(100));
        let span = span.start - early..span.end;
        packets
            .iter()
            .filter(|packet| {
                span.contains(&packet.sent_ns) && self.is_by(packet.path.receiver, transport)
            })
            .count()
    }

    fn degradation(&self) -> DegradationFigures {
        let record = self.record;
        let mut done: BTreeMap<(u64, Word), Vec<u64>> = BTreeMap::new();
        for it in record.events.iter().filter_map(ServerEvent::data_of::<Degraded>) {
            if let Some(&session) = record.by_id.get(&it.session) {
                done.entry((session, it.op)).or_default().push(it.arg);
            }
        }
        let sessions = |op: &str| -> BTreeSet<u64> {
            let with = done
                .iter()
                .filter(|((_, other), args)| other == op && args.iter().any(|&arg| arg > 0));
            with.map(|((session, _), _)| *session).collect()
        };
        let caps = ["cap", "cap-up", "cap-down"];
        let capped: BTreeSet<u64> = caps.into_iter().flat_map(sessions).collect();
        let voice_only = sessions("voice-only");
        let all: BTreeSet<u64> = capped.union(&voice_only).copied().collect();
        let is_restored = |session: &&u64| {
            let mut of_session = done.iter().filter(|((other, _), _)| other == *session);
            of_session.all(|(_, args)| args.last() == Some(&0))
        };
        DegradationFigures {
            behind_bad_network: record.lossy().count(),
            degraded: all.len(),
            capped: capped.len(),
            voice_only: voice_only.len(),
            restored: all.iter().filter(is_restored).count(),
        }
    }

    fn reload(&self, push: &DemoPush) -> ReloadFigures {
        let within = |transport| self.lost_within(&self.account.lost, &push.span, transport);
        ReloadFigures {
            policy: "call/routing",
            plugin: push.hostile.map_or("good", |hostile| hostile.name()),
            outcome: push.answer.outcome.to_string(),
            reason: push.answer.reason.as_deref().map(str::to_owned),
            activate_us: push.answer.activate_us,
            packets_lost: within(PlannedTransport::Udp) + within(PlannedTransport::Quic),
            rooms_moved: push.rooms_moved,
        }
    }

    fn strangers(&self) -> StrangerFigures {
        let misdelivered = self.ledger.misdelivered();
        let forwarded =
            misdelivered.iter().filter(|arrival| arrival.sender == stranger::SESSION).count();
        StrangerFigures { forwarded: forwarded as u64, ..self.record.strangers.clone() }
    }
}

fn ingress(transport: PlannedTransport) -> &'static str {
    match transport {
        PlannedTransport::Udp => "udp",
        PlannedTransport::Quic => "quic",
    }
}

fn gap(transport: PlannedTransport, gaps: Vec<u64>) -> GapFigures {
    let clock = match transport {
        PlannedTransport::Udp => "kernel",
        PlannedTransport::Quic => "reader",
    };
    GapFigures { spread: GapSpread::of_ns(gaps), clock }
}
