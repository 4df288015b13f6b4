//! The segment of the path that impairs a session, found by faults of one segment each.

use std::cell::RefCell;
use std::rc::Rc;

use evenkeel_model::{
    Advice, AdviceKind, Ask, CoreEvent, Decider, FlowCounts, Hook, HookAnswer, Impairment,
    ImpairmentSign, Measures, Metric, Op, PathSegment, Policing, PolicingStep, PolicyQuestion,
    RedundancyMode, ServiceObjective, SessionId, StreamKind,
};

use super::*;

/// Packets of voice in 100 ms.
const PACKETS: u32 = 5;

/// Faults of the path of both sessions, as one packet lost of this number; 0: none.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// On the uplink of the first session.
    uplink: u32,
    /// Between node and gateway.
    from_node: u32,
    /// Loss by the node's receiver reports about the first session, in ppm.
    to_node_ppm: Option<u32>,
    /// Loss by the receiver reports of both clients, in ppm.
    client_ppm: Option<u32>,
    /// Packets that the gateway dropped in 100 ms.
    dropped: u32,
    /// Jitter of the first session's uplink and between node and gateway, in milliseconds.
    uplink_jitter: u32,
    leg_jitter: u32,
    /// Jitter and round trip by the receiver reports of both clients, in milliseconds.
    client_jitter: u32,
    round_trip: u32,
    /// The voice of the first session never had any sound.
    is_silent: bool,
    /// Time since a key frame of the first session was requested and did not come, in milliseconds.
    key_frame_missing: u32,
}

impl Faults {
    /// The second session hears the uplink of the first.
    fn jitter_heard(&self, is_first: bool) -> u32 {
        self.leg_jitter + if is_first { 0 } else { self.uplink_jitter }
    }

    /// The client of the first session does not hear its own uplink.
    fn reported_jitter(&self, is_first: bool) -> u32 {
        self.client_jitter - if is_first { self.uplink_jitter.min(self.client_jitter) } else { 0 }
    }
}

/// A call of two sessions with voice and video, reported every 100 ms.
struct Call {
    world: World,
    sessions: [SessionId; 2],
    faults: Faults,
    /// Video frames of the first session in 100 ms.
    frames: u32,
    /// The measures of both sessions.
    measures: Measures,
    /// The policing of the first session.
    policing: Option<Policing>,
    packets: u32,
    dropped: u64,
}

impl Call {
    fn new() -> Call {
        Call::in_world(World::new(settings()))
    }

    fn in_world(mut world: World) -> Call {
        world.takes_remb = true;
        let sessions = [world.open("r"), world.open("r")];
        let faults = Faults::default();
        let measures = Measures::default();
        let (policing, frames) = (None, 3);
        let mut call =
            Call { world, sessions, faults, frames, measures, policing, packets: 0, dropped: 0 };
        call.goes_on(5_000);
        call.world.outputs.clear();
        call
    }

    fn goes_on(&mut self, ms_: u64) {
        for _ in 0..ms_ / 100 {
            self.world.pass(ms(100));
            self.report();
        }
    }

    /// The first session sends a sixth of its usual frames for 5 s.
    fn sends_few_frames(&mut self) {
        for _ in 0..5 {
            self.frames = 1;
            self.goes_on(500);
            self.frames = 0;
            self.goes_on(500);
        }
    }

    fn report(&mut self) {
        let before = self.packets;
        self.packets += PACKETS;
        let lost = |of: u32| match of {
            0 => 0,
            of => self.packets / of - before / of,
        };
        let (lost_up, from_node) = (lost(self.faults.uplink), lost(self.faults.from_node));
        // Receiver reports come once a second.
        let reports = self.packets.is_multiple_of(10 * PACKETS);
        let hears = self.world.stands("r").map(|node| self.world.hop(node));
        let now = self.world.now;
        self.dropped += u64::from(self.faults.dropped);
        self.world.gateway.handle_own_drops(self.dropped, now);
        for (at, session) in self.sessions.into_iter().enumerate() {
            let is_first = at == 0;
            let lost_up = if is_first { lost_up } else { 0 };
            // The second hears what the first sends.
            let lost = from_node + if is_first { 0 } else { lost(self.faults.uplink) };
            let flow = FlowCounts {
                sent: [PACKETS - lost_up, 0],
                received: [PACKETS - lost, 0],
                hears,
                expected: PACKETS,
                lost,
                lost_up,
                reported_ppm: self.faults.to_node_ppm.filter(|_| is_first && reports),
                client_ppm: self.faults.client_ppm.filter(|_| reports),
                frames: if is_first { self.frames } else { 3 },
                jitter_up_us: Some(if is_first { 1_000 * self.faults.uplink_jitter } else { 0 }),
                jitter_us: Some(1_000 * self.faults.jitter_heard(is_first)),
                client_jitter_us: reports.then_some(1_000 * self.faults.reported_jitter(is_first)),
                round_trip_us: reports.then_some(1_000 * self.faults.round_trip),
                silent_voice: if self.faults.is_silent && is_first { self.packets } else { 0 },
                key_frame_missing_ms: if is_first { self.faults.key_frame_missing } else { 0 },
                policing: self.policing.filter(|_| is_first),
                ..FlowCounts::default()
            };
            self.world.gateway.handle_summary(session, self.measures, Some(now));
            self.world.gateway.handle_flow(session, &flow, now);
        }
        self.world.settle();
    }

    fn impairment(&self, at: usize) -> Option<Impairment> {
        let session = self.world.gateway.views().session(self.sessions[at], self.world.now);
        session.unwrap().impairment
    }

    fn advice(&self, at: usize) -> Option<Advice> {
        let session = self.world.gateway.views().session(self.sessions[at], self.world.now);
        session.unwrap().advice
    }

    /// The advice of the events.
    fn advised(&self, at: usize) -> Vec<Advice> {
        let advised = |event: &CoreEvent| match event {
            CoreEvent::Advised { session, advice, .. } if *session == self.sessions[at] => {
                Some(*advice)
            }
            _ => None,
        };
        self.world.events().filter_map(advised).collect()
    }

    /// The segments that the events named, with the session they are at; `None` for an end.
    fn named(&self, at: usize) -> Vec<Option<(PathSegment, usize)>> {
        let place = |id: SessionId| self.sessions.iter().position(|session| *session == id);
        let named = |event: &CoreEvent| match event {
            CoreEvent::Impaired { session, impairment, .. } if *session == self.sessions[at] => {
                Some(impairment.as_ref().map(|it| (it.segment, place(it.at).unwrap())))
            }
            _ => None,
        };
        self.world.events().filter_map(named).collect()
    }
}

#[test]
fn uplink_loss_is_named_at_both_sessions() {
    let mut call = Call::new();
    call.faults.uplink = 10;
    call.goes_on(4_500);
    let uplink = Some((PathSegment::Uplink, 0));
    assert_eq!([call.named(0), call.named(1)], [[uplink], [uplink]]);
    let counts = |at: usize| call.world.gateway.diagnosis.loses_by_client(call.sessions[at]);
    assert_eq!([0, 1].map(counts), [Some(true), Some(false)], "for its group of clients");
    let impairment = call.impairment(0).unwrap();
    assert!((90_000..=110_000).contains(&impairment.loss_ppm), "{impairment:?}");
    assert!(impairment.confidence >= 95, "{impairment:?}");
    assert_eq!(call.impairment(1).unwrap().evidence.from_node_ppm, Some(100_000));
}

#[test]
fn policy_reads_the_verdict_of_the_diagnosis() {
    let verdicts = Rc::new(RefCell::new(Vec::new()));
    let asked = Rc::clone(&verdicts);
    let policy = move |ask: &Ask| {
        if let PolicyQuestion::Tick { sessions, .. } = &ask.question {
            let of_row = |metric| sessions.first().map(|it| it.row.measures.value(metric));
            asked.borrow_mut().push([Metric::ImpairedSegment, Metric::FewFrames].map(of_row));
        }
        Some(Ok(HookAnswer::Actions { actions: Vec::new(), states: Vec::new(), memo: None }))
    };
    let last = |call: &mut Call| {
        verdicts.borrow_mut().clear();
        call.goes_on(400);
        verdicts.borrow().last().copied().expect("a tick each 200 ms")
    };
    let mut call = Call::in_world(World::with_policy(settings(), &[Hook::Degradation], policy));
    assert_eq!(last(&mut call), [Some(0), Some(0)]);
    call.sends_few_frames();
    let device = Metric::ImpairedSegment.values().iter().position(|name| *name == "device");
    assert_eq!(last(&mut call), [device.map(|place| place as u32), Some(1)]);
}

#[test]
fn loss_below_three_per_cent_impairs_no_session() {
    for one_of in [50, 40] {
        let mut call = Call::new();
        (call.faults.uplink, call.faults.from_node) = (one_of, one_of);
        call.goes_on(20_000);
        assert_eq!([call.named(0), call.named(1)], [[], []], "1 of {one_of}");
    }
}

#[test]
fn probes_tell_leg_from_node() {
    for (lost_probes, segment) in [(0, PathSegment::Node), (10, PathSegment::Leg)] {
        let mut call = Call::new();
        call.world.lose_probes(call.world.stands("r").unwrap(), lost_probes);
        call.faults.from_node = 10;
        call.goes_on(5_000);
        for at in [0, 1] {
            assert_eq!(call.named(at), [Some((segment, at))], "{lost_probes} %");
        }
    }
}

#[test]
fn receiver_reports_of_node_name_way_to_it() {
    let mut call = Call::new();
    call.faults.to_node_ppm = Some(100_000);
    call.goes_on(1_000);
    call.faults.to_node_ppm = Some(0);
    call.goes_on(3_000);
    assert_eq!(call.named(0), [], "one report may be chance");
    call.faults.to_node_ppm = Some(100_000);
    call.goes_on(3_500);
    assert_eq!(call.named(0), [Some((PathSegment::Node, 0))]);
    assert_eq!(call.named(1), []);
}

#[test]
fn uplink_loss_in_reports_of_node_is_no_leg() {
    let mut call = Call::new();
    call.faults = Faults { uplink: 10, to_node_ppm: Some(100_000), ..Faults::default() };
    call.goes_on(10_000);
    assert_eq!(call.named(0), [Some((PathSegment::Uplink, 0))]);
}

#[test]
fn loss_that_only_client_reports_is_downlink() {
    let mut call = Call::new();
    call.faults.client_ppm = Some(100_000);
    call.goes_on(3_500);
    let at = |at| [Some((PathSegment::Downlink, at))];
    assert_eq!([call.named(0), call.named(1)], [at(0), at(1)]);
}

#[test]
fn late_report_of_ended_uplink_loss_is_no_downlink() {
    let mut call = Call::new();
    call.faults = Faults { uplink: 10, client_ppm: Some(100_000), ..Faults::default() };
    call.goes_on(6_000);
    call.faults.uplink = 0;
    call.goes_on(6_000);
    call.faults.client_ppm = Some(0);
    call.goes_on(6_000);
    assert_eq!(call.named(1), [Some((PathSegment::Uplink, 0)), None]);
}

#[test]
fn loss_while_gateway_drops_packets_is_its_own() {
    let mut call = Call::new();
    call.faults = Faults { from_node: 10, dropped: 2, ..Faults::default() };
    call.goes_on(5_000);
    assert_eq!(call.impairment(0).map(|it| it.segment), Some(PathSegment::Gateway));
    assert!(call.impairment(0).unwrap().evidence.dropped_ppm >= 30_000);
}

#[test]
fn loss_while_gateway_was_late_is_its_own() {
    for (late, segment) in [(ms(90), PathSegment::Node), (ms(110), PathSegment::Gateway)] {
        let mut call = Call::new();
        call.faults.from_node = 10;
        for _ in 0..5 {
            call.goes_on(900);
            call.world.stamp(late);
            call.goes_on(100);
        }
        assert_eq!(call.impairment(0).map(|it| it.segment), Some(segment), "{late:?}");
    }
}

#[test]
fn fewer_frames_without_loss_name_device() {
    let mut call = Call::new();
    call.frames = 1;
    call.goes_on(5_000);
    assert_eq!(call.named(0), [], "a third of the usual frames");
    let mut call = Call::new();
    call.frames = 0;
    call.goes_on(5_000);
    assert_eq!(call.named(0), [], "the camera is off");
    let mut call = Call::new();
    call.sends_few_frames();
    assert_eq!(call.named(0), [Some((PathSegment::Device, 0))]);
    assert_eq!(call.named(1), []);
}

#[test]
fn camera_that_started_within_a_slot_is_named() {
    let mut call = Call::new();
    call.frames = 0;
    call.goes_on(2_900);
    call.frames = 3;
    call.goes_on(5_000);
    call.sends_few_frames();
    assert_eq!(call.named(0), [Some((PathSegment::Device, 0))]);
}

#[test]
fn camera_whose_cap_ended_within_a_slot_is_named() {
    let mut call = Call::new();
    call.world.gateway.degrade(call.sessions[0], Op::Cap, 100);
    for rest in [900, 900, 600] {
        call.frames = 1;
        call.goes_on(100);
        call.frames = 0;
        call.goes_on(rest);
    }
    call.world.gateway.degrade(call.sessions[0], Op::Cap, 0);
    call.frames = 3;
    call.goes_on(2_300);
    call.sends_few_frames();
    assert_eq!(call.named(0), [Some((PathSegment::Device, 0))]);
}

#[test]
fn fewer_frames_under_cap_name_no_device() {
    let mut call = Call::new();
    call.world.gateway.degrade(call.sessions[0], Op::Cap, 100);
    call.world.settle();
    call.world.outputs.clear();
    call.sends_few_frames();
    assert_eq!(call.named(0), []);
}

#[test]
fn impairment_ends_three_slots_after_its_cause() {
    let mut call = Call::new();
    call.faults.client_ppm = Some(100_000);
    call.goes_on(4_000);
    call.faults.client_ppm = Some(0);
    call.goes_on(2_500);
    assert!(call.impairment(0).is_some());
    call.goes_on(2_500);
    assert_eq!(call.impairment(0), None);
    assert_eq!(call.named(0), [Some((PathSegment::Downlink, 0)), None]);
}

#[test]
fn impairment_of_silent_or_closed_session_ends() {
    let mut call = Call::new();
    call.faults.client_ppm = Some(100_000);
    call.goes_on(4_000);
    call.world.pass(ms(7_000));
    call.world.settle();
    let downlink = |at| [Some((PathSegment::Downlink, at)), None];
    assert_eq!([call.named(0), call.named(1)], [downlink(0), downlink(1)]);
    assert_eq!(call.world.gateway.diagnosis.len(), 0, "idle sessions take no memory");
    call.goes_on(4_000);
    call.world.outputs.clear();
    call.world.close(call.sessions[0]);
    assert_eq!(call.named(0), [None]);
    assert_eq!(call.named(1), []);
    let ends = |event: &CoreEvent| match event {
        CoreEvent::Impaired { .. } => Some("impaired"),
        CoreEvent::Closed { .. } => Some("closed"),
        _ => None,
    };
    let ends: Vec<&str> = call.world.events().filter_map(ends).collect();
    assert_eq!(ends, ["impaired", "closed"], "its span has a parent");
}

#[test]
fn impairment_by_node_ends_when_room_leaves_it() {
    let mut call = Call::new();
    call.faults.from_node = 10;
    call.goes_on(4_000);
    let node = call.world.stands("r").unwrap();
    call.world.kill(node);
    call.faults.from_node = 0;
    call.goes_on(300);
    assert_ne!(call.world.stands("r"), Some(node));
    assert_eq!(call.named(0), [Some((PathSegment::Node, 0)), None]);
    call.goes_on(6_000);
    assert_eq!(call.named(0).len(), 2, "packets of the dead node say nothing about the next one");
}

#[test]
fn stalls_of_gateway_impair_without_loss() {
    for (late, named) in [(ms(120), 0), (ms(130), 1)] {
        let mut call = Call::new();
        for _ in 0..8 {
            call.goes_on(500);
            call.world.stamp(late);
        }
        assert_eq!(call.named(0).len(), named, "{late:?} twice a second");
    }
}

#[test]
fn slots_follow_number_of_sessions() {
    let mut call = Call::new();
    let mut lengths = Vec::new();
    for within in [200, 251, 500, 501, 260, 240, 100, 60] {
        call.world.gateway.diagnosis.note_reports_within(ms(within));
        lengths.push(call.world.gateway.diagnosis.slot_length().as_secs());
    }
    assert_eq!(lengths, [1, 2, 2, 4, 4, 2, 1, 1]);
}

#[test]
fn uplink_jitter_is_named_at_both_sessions() {
    let mut call = Call::new();
    // The client of the second session hears it as well.
    call.faults = Faults { uplink_jitter: 50, client_jitter: 50, ..Faults::default() };
    call.goes_on(5_000);
    let uplink = Some((PathSegment::Uplink, 0));
    assert_eq!(call.named(1), [uplink]);
    assert_eq!(call.impairment(1).unwrap().sign, ImpairmentSign::Jitter);
    assert_eq!(call.impairment(1).unwrap().evidence.senders_jitter_us, Some(50_000));
    assert_eq!(call.named(0)[0], uplink);
    assert_eq!(call.world.gateway.diagnosis.loses_by_client(call.sessions[0]), Some(false));
}

#[test]
fn jitter_from_node_without_that_of_probes_is_its_own() {
    for (jitter, segment) in [(21, None), (22, Some(PathSegment::Node))] {
        let mut call = Call::new();
        call.faults.leg_jitter = jitter;
        call.goes_on(5_000);
        let named = call.impairment(0).map(|impairment| impairment.segment);
        assert_eq!(named, segment, "{jitter} ms");
    }
}

#[test]
fn jitter_of_one_slot_is_not_named() {
    let mut call = Call::new();
    call.faults.leg_jitter = 200;
    call.goes_on(900);
    call.faults.leg_jitter = 0;
    call.goes_on(5_000);
    assert_eq!(call.named(0), [], "a step of the sender's clock");
}

#[test]
fn jitter_that_only_client_reports_is_downlink() {
    let mut call = Call::new();
    call.faults.client_jitter = 50;
    call.goes_on(3_500);
    let at = |at| [Some((PathSegment::Downlink, at))];
    assert_eq!([call.named(0), call.named(1)], [at(0), at(1)]);
    let mut call = Call::new();
    call.faults = Faults { leg_jitter: 50, client_jitter: 50, ..Faults::default() };
    call.goes_on(5_000);
    call.faults.leg_jitter = 0;
    call.goes_on(6_000);
    assert_eq!(call.named(0)[0], Some((PathSegment::Node, 0)));
    assert!(!call.named(0).contains(&at(0)[0]), "late reports of jitter before the client");
}

#[test]
fn jitter_while_gateway_was_late_is_its_own() {
    let mut call = Call::new();
    call.faults.leg_jitter = 50;
    for _ in 0..5 {
        call.goes_on(900);
        call.world.stamp(ms(110));
        call.goes_on(100);
    }
    let impairment = call.impairment(0).unwrap();
    assert_eq!(
        (impairment.segment, impairment.sign),
        (PathSegment::Gateway, ImpairmentSign::Jitter)
    );
}

#[test]
fn round_trip_of_client_is_no_known_segment() {
    for (round_trip, sign) in [(340, None), (420, Some(ImpairmentSign::Delay))] {
        let mut call = Call::new();
        call.faults.round_trip = round_trip;
        call.goes_on(3_500);
        assert_eq!(call.impairment(0).map(|it| it.sign), sign, "{round_trip} ms");
        let unknown = sign.map(|_| PathSegment::Unknown);
        assert_eq!(call.impairment(0).map(|it| it.segment), unknown);
    }
}

#[test]
fn delay_while_gateway_was_late_is_not_its_own() {
    let mut call = Call::new();
    call.faults.round_trip = 420;
    for _ in 0..5 {
        call.goes_on(900);
        call.world.stamp(ms(110));
        call.goes_on(100);
    }
    assert_eq!(call.named(0), [Some((PathSegment::Unknown, 0))]);
}

#[test]
fn voice_without_sound_names_device_of_a_call() {
    let mut call = Call::new();
    call.faults.is_silent = true;
    call.goes_on(4_500);
    assert_eq!(call.named(0), [], "a sound may come");
    call.goes_on(4_000);
    assert_eq!(call.named(0), [Some((PathSegment::Device, 0))]);
    assert_eq!(call.impairment(0).unwrap().sign, ImpairmentSign::Silence);
    assert_eq!(call.named(1), []);
    let mut call = Call::new();
    call.world.open("r");
    call.faults.is_silent = true;
    call.goes_on(8_500);
    assert_eq!(call.named(0), [], "muted in a meeting");
}

#[test]
fn requested_key_frames_that_do_not_come_name_device() {
    for (missing, sign) in [(1_999, None), (2_000, Some(ImpairmentSign::NoKeyFrame))] {
        let mut call = Call::new();
        call.faults.key_frame_missing = missing;
        call.goes_on(2_500);
        assert_eq!(call.impairment(0).map(|it| it.sign), sign, "{missing} ms");
    }
    let mut call = Call::new();
    (call.faults.key_frame_missing, call.faults.uplink) = (5_000, 40);
    call.goes_on(5_000);
    assert_eq!(call.named(0), [], "lost on the uplink");
}

#[test]
fn loss_after_copies_are_merged_is_named() {
    let hitless = || modes::in_mode(RedundancyMode::Hitless, settings());
    let mut call = Call::in_world(World::new(hitless()));
    call.faults.from_node = 10;
    call.goes_on(5_000);
    assert_eq!(call.impairment(0).map(|it| it.segment), Some(PathSegment::Node));
    let mut call = Call::in_world(World::new(hitless()));
    call.faults.client_ppm = Some(100_000);
    call.goes_on(3_500);
    assert_eq!(call.named(0), [Some((PathSegment::Downlink, 0))]);
}

#[test]
fn node_counts_the_sessions_that_it_impairs() {
    let mut call = Call::new();
    let on = call.world.stands("r").unwrap();
    let impaired = |call: &Call| {
        let all = call.world.gateway.views().nodes();
        let counts = all.filter(|node| node.impaired_sessions > 0);
        counts.map(|node| (node.hop.node, node.impaired_sessions)).collect::<Vec<_>>()
    };
    call.faults.uplink = 10;
    call.goes_on(5_000);
    assert!(call.impairment(0).is_some());
    assert_eq!(impaired(&call), [], "a client's uplink");
    (call.faults.uplink, call.faults.from_node) = (0, 10);
    call.goes_on(9_000);
    assert_eq!(call.impairment(0).unwrap().segment, PathSegment::Node);
    assert_eq!(impaired(&call), [(on, 2)]);
    let now = call.world.now;
    call.world.gateway.handle_close(call.sessions[1], now).unwrap();
    call.world.settle();
    assert_eq!(impaired(&call), [(on, 1)]);
    // A path without packets is forgotten.
    call.world.pass(ms(60_000));
    assert_eq!(impaired(&call), []);
}

#[test]
fn lossy_downlink_advises_until_it_is_restored() {
    let mut call = Call::new();
    call.faults.client_ppm = Some(100_000);
    call.measures.set(Metric::RFactor, 8_000);
    call.goes_on(10_000);
    assert_eq!((call.advised(0), call.advice(0)), (Vec::new(), None), "repair holds the floor");
    call.measures.set(Metric::RFactor, 6_900);
    call.goes_on(3_000);
    let switch = Advice { kind: AdviceKind::SwitchNetwork, cause: PathSegment::Downlink };
    assert_eq!((call.advised(0), call.advice(0)), (vec![switch], Some(switch)));
    call.faults.client_ppm = Some(0);
    call.measures.set(Metric::RFactor, 9_000);
    call.goes_on(25_000);
    let restored = Advice { kind: AdviceKind::Restored, ..switch };
    assert_eq!((call.advised(0), call.advice(0)), (vec![switch, restored], None));
    assert_eq!(call.world.gateway.advice.len(), 0, "sessions without fault take no memory");
}

#[test]
fn suspended_session_is_advised_until_it_goes_on() {
    let mut call = Call::new();
    let first = call.sessions[0];
    call.world.gateway.degrade(first, Op::Park, 1);
    call.goes_on(3_000);
    let suspended = Advice { kind: AdviceKind::Suspended, cause: PathSegment::Unknown };
    assert_eq!((call.advice(0), call.advice(1)), (Some(suspended), None));
    call.world.gateway.degrade(first, Op::Park, 0);
    call.goes_on(20_000);
    let restored = Advice { kind: AdviceKind::Restored, ..suspended };
    assert_eq!((call.advised(0), call.advice(0)), (vec![suspended, restored], None));
}

#[test]
fn advice_follows_the_objective_of_the_scenario() {
    for (floor, advised) in [(8_000, false), (8_001, true)] {
        let mut settings = settings();
        let slo = ServiceObjective {
            objective: 0.99,
            refusals: false,
            set_up: None,
            gap: None,
            r_factor_centi: Some(floor),
        };
        settings.scenarios.values_mut().for_each(|scenario| scenario.slo = Some(slo));
        let mut call = Call::in_world(World::new(settings));
        call.faults.client_ppm = Some(100_000);
        call.measures.set(Metric::RFactor, 8_000);
        call.goes_on(10_000);
        assert_eq!(call.advice(0).is_some(), advised, "{floor}");
    }
}

#[test]
fn loss_that_repair_left_counts_and_not_the_rest() {
    for (left_ppm, advised) in [(49_999, false), (50_000, true)] {
        let mut call = Call::new();
        call.faults.client_ppm = Some(100_000);
        call.measures.set(Metric::LossDown, 100_000).set(Metric::LossDownAfterRepair, left_ppm);
        call.goes_on(10_000);
        assert_eq!(call.advice(0).is_some(), advised, "{left_ppm} ppm");
    }
}

#[test]
fn cap_of_a_direction_at_the_floor_is_advised() {
    for op in [Op::Cap, Op::CapUp, Op::CapDown] {
        for (kbps, advised) in [(24, true), (25, false)] {
            let mut call = Call::new();
            let first = call.sessions[0];
            let session = call.world.gateway.tables.sessions.get_mut(&first).unwrap();
            session.media_mut().streams[0].kind = StreamKind::Video;
            call.world.gateway.degrade(first, op, kbps);
            call.faults.client_ppm = Some(100_000);
            call.measures.set(Metric::RFactor, 8_000);
            call.goes_on(10_000);
            assert_eq!(call.advice(0).is_some(), advised, "{op:?} {kbps}");
        }
    }
}

#[test]
fn session_that_ends_leaves_no_advice() {
    let mut call = Call::new();
    call.faults.client_ppm = Some(100_000);
    call.measures.set(Metric::RFactor, 4_000);
    call.goes_on(10_000);
    assert!(call.advice(0).is_some());
    let now = call.world.now;
    for session in call.sessions {
        call.world.gateway.handle_close(session, now).unwrap();
    }
    call.world.settle();
    assert_eq!(call.world.gateway.advice.len(), 0);
}

#[test]
fn closed_session_has_its_mean_r_and_its_node() {
    let mut call = Call::new();
    for r_centi in [8_000, 6_000] {
        call.measures.set(Metric::RFactor, r_centi);
        call.goes_on(1_000);
    }
    let (on, now, first) = (call.world.stands("r"), call.world.now, call.sessions[0]);
    call.world.gateway.handle_close(first, now).unwrap();
    call.world.settle();
    let closed = call.world.events().find_map(|event| match event {
        CoreEvent::Closed { session, closed, .. } if *session == first => Some(closed.clone()),
        _ => None,
    });
    let closed = closed.unwrap();
    assert_eq!((closed.mean_r_centi, closed.node), (Some(7_000), on));
    assert_eq!(closed.routed_by, Decider::Native);
}

/// The caps that the first session's device was asked for, by the events and by the limits that its worker follows.
fn asked(call: &Call) -> (Vec<u64>, u32) {
    let first = call.sessions[0];
    let asked = call.world.events().filter_map(|event| match event {
        CoreEvent::Degraded { session, op: Op::CapUp, arg, .. } if *session == first => Some(*arg),
        _ => None,
    });
    let sessions = &call.world.gateway.tables.sessions;
    assert_eq!({ sessions[&call.sessions[1]].plan_in_force().limits.send_kbps }, 0);
    (asked.collect(), sessions[&first].plan_in_force().limits.send_kbps)
}

#[test]
fn device_that_cannot_keep_up_is_asked_for_less() {
    let mut call = Call::new();
    call.measures.set(Metric::BitrateUp, 900);
    call.goes_on(5_000);
    call.frames = 1;
    call.goes_on(2_000);
    assert_eq!(asked(&call), (vec![], 0), "for a moment");
    call.goes_on(3_000);
    assert_eq!(asked(&call), (vec![600], 600));
    call.frames = 3;
    call.goes_on(3_000);
    assert_eq!(asked(&call), (vec![600], 600));
    call.goes_on(5_000);
    assert_eq!(asked(&call), (vec![600, 0], 0), "its frames are back");
}

#[test]
fn few_frames_on_a_bad_path_are_no_load() {
    let mut call = Call::new();
    call.measures.set(Metric::BitrateUp, 900);
    call.faults.uplink = 10;
    call.goes_on(5_000);
    call.frames = 1;
    call.goes_on(10_000);
    assert_eq!(asked(&call), (vec![], 0));
}

#[test]
fn policing_is_told_when_its_step_changes() {
    let mut call = Call::new();
    let policing = |step, sent_kbps| Some(Policing { step, limit_kbps: 2_000, sent_kbps });
    let frames = policing(PolicingStep::Frames, 3_100);
    for reported in [
        policing(PolicingStep::Told, 2_100),
        policing(PolicingStep::Told, 2_200),
        frames,
        None,
        None,
    ] {
        call.policing = reported;
        call.goes_on(300);
        let view = call.world.gateway.views().session(call.sessions[0], call.world.now);
        assert_eq!(view.unwrap().policing, reported);
    }
    let told = call.world.events().filter_map(|event| match event {
        CoreEvent::Policed { session, policing, .. } if *session == call.sessions[0] => {
            Some(policing.map(|it| it.step))
        }
        _ => None,
    });
    let right = [Some(PolicingStep::Told), Some(PolicingStep::Frames), None];
    assert_eq!(told.collect::<Vec<_>>(), right);
}
