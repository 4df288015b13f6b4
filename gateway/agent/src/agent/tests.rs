mod encryption;
mod groups;
mod repair;

use evenkeel_fuzz::Corpus;
use evenkeel_media::trunk::message::{ClockRefusal, NodeLoad, ProcessReport};
use evenkeel_media::trunk::{Bundle, REPAIR_EXCESS, entries};

use super::*;

const START_US: u64 = 1_700_000_000_000_000;

/// Records the agent's side effects.
#[derive(Default)]
struct Fake {
    sent: Vec<(u16, Vec<u8>)>,
    forwarded: Vec<(SessionSlot, MediaPacket, Vec<u8>)>,
    opened: Vec<(SessionSlot, u64, u64)>,
    closed: Vec<SessionSlot>,
    signals: Vec<NodeFault>,
    starts: u32,
    log: Vec<String>,
    opening: Option<OpeningState>,
    has_process: bool,
    report: Option<ProcessReport>,
}

impl Io for Fake {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.sent.push((to.port(), datagram.to_vec()));
    }

    fn forward(&mut self, slot: SessionSlot, kind: MediaPacket, packet: &[u8]) -> bool {
        self.forwarded.push((slot, kind, packet.to_vec()));
        true
    }

    fn open(&mut self, slot: SessionSlot, room: u64, session: u64) -> OpeningState {
        self.opened.push((slot, room, session));
        self.opening.unwrap_or(OpeningState::Open)
    }

    fn close(&mut self, slot: SessionSlot) {
        self.closed.push(slot);
    }

    fn start(&mut self, _: Instant) -> bool {
        self.starts += 1;
        self.has_process
    }

    fn signal(&mut self, how: NodeFault) -> bool {
        self.signals.push(how);
        self.has_process
    }

    fn process_report(&self) -> Option<ProcessReport> {
        self.report
    }

    fn log(&mut self, line: &str) {
        self.log.push(line.to_owned());
    }
}

struct Scene {
    agent: AgentMachine,
    io: Fake,
    now: BatchTime,
    nonce: u64,
}

fn secret() -> NodeSecret {
    NodeSecret::new(b"a secret of many bytes", "east-a1").unwrap()
}

fn gateway(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

fn voice(number: u8) -> Vec<u8> {
    [&[0x80, 111, 0, number][..], &[0; 8], b"voice"].concat()
}

/// A receiver report without a block.
const REPORT: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 7];

impl Scene {
    /// An agent with trunk legs, a running process, and drills allowed.
    fn new() -> Scene {
        let mut scene = Scene::with(|_| {});
        scene.agent.handle_process(true, scene.now, &mut scene.io);
        scene
    }

    fn with(twist: impl FnOnce(&mut AgentSettings)) -> Scene {
        let now = BatchTime { instant: Instant::now(), unix_us: START_US };
        let mut settings = AgentSettings {
            secret: secret(),
            salt: None,
            instance: 77,
            drills: true,
            drill_timeout: Duration::from_secs(60),
            sessions_max: 3,
            has_process: true,
            has_check: false,
        };
        twist(&mut settings);
        let io = Fake { has_process: true, ..Fake::default() };
        Scene { agent: AgentMachine::new(settings, now.instant), io, now, nonce: 0 }
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.unix_us += time.as_micros() as u64;
        self.agent.handle_timeout(self.now, &mut self.io);
    }

    fn receive(&mut self, bytes: &[u8], from: u16) {
        self.agent.handle_datagram(&mut bytes.to_vec(), gateway(from), self.now, &mut self.io);
    }

    fn ask_from(&mut self, question: &TrunkQuestion, from: u16) -> Option<TrunkAnswer> {
        self.nonce += 1;
        self.ask_as(question, self.nonce, from)
    }

    fn ask_as(&mut self, question: &TrunkQuestion, nonce: u64, from: u16) -> Option<TrunkAnswer> {
        self.now.unix_us += 1;
        let mut bytes = Vec::new();
        question.write(&secret(), nonce, self.now.unix_us, &mut bytes);
        self.io.sent.clear();
        self.receive(&bytes, from);
        let own = self
            .answers()
            .into_iter()
            .filter(|(to, answered, _)| (*to, *answered) == (from, nonce));
        let mut answers = own.map(|(_, _, answer)| answer);
        answers.rfind(|answer| !matches!(answer, TrunkAnswer::Notice { .. }))
    }

    fn ask(&mut self, question: &TrunkQuestion) -> Option<TrunkAnswer> {
        self.ask_from(question, 1)
    }

    /// Takes the answers sent to gateways: port, nonce, answer.
    fn answers(&mut self) -> Vec<(u16, u64, TrunkAnswer)> {
        let read = |(to, bytes): &(u16, Vec<u8>)| {
            let answer = TrunkAnswer::read(bytes, &secret(), self.now.unix_us).ok()?;
            Some((*to, answer.nonce, answer.message))
        };
        self.io.sent.iter().filter_map(read).collect()
    }

    /// Takes the notices sent so far: port and state.
    fn notices(&mut self) -> Vec<(u16, ServingState)> {
        let notice = |(to, _, answer)| match answer {
            TrunkAnswer::Notice { load, .. } => Some((to, load.state)),
            _ => None,
        };
        self.answers().into_iter().filter_map(notice).collect()
    }

    fn open(&mut self, tag: u64) -> Option<OpenStatus> {
        self.open_in(1, tag)
    }

    fn open_in(&mut self, room: u64, tag: u64) -> Option<OpenStatus> {
        let open =
            TrunkQuestion::Open { room, session: tag, tag: Tag(tag), lease_s: 30, numbered: false };
        match self.ask(&open)? {
            TrunkAnswer::Open { status, .. } => Some(status),
            other => panic!("{other:?}"),
        }
    }

    fn probe(&mut self) -> Option<NodeLoad> {
        match self.ask(&TrunkQuestion::Probe)? {
            TrunkAnswer::Probe(load) => Some(load),
            other => panic!("{other:?}"),
        }
    }

    fn bundle(&mut self, tag: u64, packet: &[u8], from: u16) {
        let mut bundle = Bundle::new(1_472);
        assert!(bundle.push(Tag(tag), packet));
        self.receive(bundle.as_bytes(), from);
    }
}

#[test]
fn rtp_and_rtcp_are_forwarded_both_ways() {
    let mut scene = Scene::new();
    assert_eq!(scene.open(7), Some(OpenStatus::Ok));
    assert_eq!(scene.io.opened, [(0, 1, 7)]);
    scene.bundle(7, &voice(1), 1);
    scene.bundle(7, &REPORT, 1);
    let handed: Vec<_> = scene.io.forwarded.iter().map(|(_, kind, bytes)| (*kind, bytes)).collect();
    assert_eq!(handed, [(MediaPacket::Rtp, &voice(1)), (MediaPacket::Rtcp, &REPORT.to_vec())]);

    scene.io.sent.clear();
    for packet in [&voice(2)[..], &REPORT] {
        scene.agent.handle_from_server(0, packet, &mut scene.io);
    }
    assert!(scene.io.sent.is_empty(), "bundled until the flush");
    scene.agent.flush(&mut scene.io);
    let [(to, bundle)] = &scene.io.sent[..] else { panic!("one bundle") };
    let packets: Vec<_> = entries(bundle).map(Result::unwrap).collect();
    assert_eq!((*to, packets), (1, vec![(Tag(7), &voice(2)[..]), (Tag(7), &REPORT[..])]));
    let counters = scene.agent.counters;
    assert_eq!((counters.packets_to_server, counters.packets_to_gateway), (2, 2));
}

#[test]
fn packets_go_to_the_last_signed_source() {
    let mut scene = Scene::new();
    scene.open(7);
    let to = |scene: &mut Scene| {
        scene.io.sent.clear();
        scene.agent.handle_from_server(0, &voice(2), &mut scene.io);
        scene.agent.flush(&mut scene.io);
        scene.io.sent[0].0
    };
    assert_eq!(to(&mut scene), 1);
    scene.bundle(7, &voice(1), 2);
    assert_eq!(to(&mut scene), 1, "a bundle is not signed");
    assert_eq!((scene.io.forwarded.len(), scene.agent.counters.unknown_source), (0, 1));
    scene.ask_from(&TrunkQuestion::Keep { lease_s: 30, numbered: false, tags: [Tag(7)].into() }, 3);
    assert_eq!(to(&mut scene), 3);
}

#[test]
fn bundle_size_is_limited_by_the_path() {
    let mut scene = Scene::new();
    scene.open(7);
    let sent = |scene: &mut Scene| {
        scene.io.sent.clear();
        for _ in 0..8 {
            scene.agent.handle_from_server(0, &voice(2), &mut scene.io);
        }
        scene.agent.flush(&mut scene.io);
        scene.io.sent.len()
    };
    assert_eq!(sent(&mut scene), 1);
    let room = 1 + 4 * (10 + voice(2).len()) + REPAIR_EXCESS;
    let path = TrunkQuestion::Path { bundle_max: u16::try_from(room).unwrap(), padding: 100 };
    assert_eq!(scene.ask(&path), Some(TrunkAnswer::Path { padding: 100 }));
    assert_eq!(sent(&mut scene), 2);
}

#[test]
fn other_packets_and_unknown_tags_are_dropped() {
    let mut scene = Scene::new();
    scene.open(7);
    scene.io.sent.clear();
    scene.bundle(8, &voice(1), 1);
    scene.bundle(7, b"\x16dtls, or whatever it is", 1);
    scene.agent.handle_from_server(0, b"\x00\x01 a check", &mut scene.io);
    scene.agent.handle_from_server(9, &voice(1), &mut scene.io);
    let mut cut = Bundle::new(1_472);
    assert!(cut.push(Tag(7), &voice(1)));
    scene.receive(&cut.as_bytes()[..20], 1);
    for stranger in [&b""[..], b"x", &voice(1), &[0xE2, 1, 2], &[0; 100]] {
        scene.receive(stranger, 9);
    }
    scene.agent.flush(&mut scene.io);
    assert!(scene.io.forwarded.is_empty() && scene.io.sent.is_empty());
    let counters = scene.agent.counters;
    assert_eq!((counters.unknown_tag, counters.malformed), (1, 8));
}

#[test]
fn fuzz_agent() {
    let mut probe = Vec::new();
    TrunkQuestion::Probe.write(&secret(), 1, START_US, &mut probe);
    let mut bundle = Bundle::new(1_472);
    assert!(bundle.push(Tag(7), &voice(1)) && bundle.push(Tag(7), &REPORT));
    let corpus = Corpus::of("agent").with(probe).with(bundle.as_bytes());
    corpus.with(voice(1)).with(REPORT).check(|bytes| {
        let mut scene = Scene::new();
        scene.open(7);
        scene.io.sent.clear();
        scene.receive(bytes, 9);
        scene.agent.flush(&mut scene.io);
        let sent: usize = scene.io.sent.iter().map(|(_, datagram)| datagram.len()).sum();
        let forwarded: usize = scene.io.forwarded.iter().map(|(_, _, packet)| packet.len()).sum();
        assert!(sent <= bytes.len() && forwarded <= bytes.len(), "{sent} and {forwarded} bytes");
        scene.agent.handle_from_server(0, bytes, &mut scene.io);
        scene.agent.flush(&mut scene.io);
    });
}

#[test]
fn sessions_are_bounded_renewed_and_expire() {
    let mut scene = Scene::new();
    assert_eq!(
        [1, 2, 3, 4].map(|tag| scene.open(tag)).map(Option::unwrap),
        [OpenStatus::Ok, OpenStatus::Ok, OpenStatus::Ok, OpenStatus::Full]
    );
    assert_eq!(scene.open(3), Some(OpenStatus::Ok), "retransmitted");
    assert_eq!(scene.io.opened.len(), 3);
    scene.pass(Duration::from_secs(20));
    let keep = TrunkQuestion::Keep { lease_s: 30, numbered: false, tags: [Tag(1), Tag(9)].into() };
    assert_eq!(scene.ask(&keep), Some(TrunkAnswer::Keep { unknown: [Tag(9)].into() }));
    scene.pass(Duration::from_secs(11));
    assert_eq!((scene.io.closed.len(), scene.agent.counters.expired), (2, 2));
    assert_eq!(scene.probe().unwrap().sessions, 1);
    let close = TrunkQuestion::Close { tag: Tag(1) };
    assert_eq!(scene.ask(&close), Some(TrunkAnswer::Close { tag: Tag(1), status: OpenStatus::Ok }));
    let again = TrunkAnswer::Close { tag: Tag(1), status: OpenStatus::UnknownTag };
    assert_eq!(scene.ask(&close), Some(again));
    assert_eq!(scene.io.closed.len(), 3);
}

#[test]
fn a_tag_in_another_room_is_another_session() {
    let mut scene = Scene::new();
    scene.open_in(1, 7);
    assert_eq!(scene.open_in(2, 7), Some(OpenStatus::Ok));
    assert_eq!((scene.io.opened.len(), scene.io.closed.len()), (2, 1));
}

#[test]
fn open_is_answered_once_the_server_accepted() {
    let mut scene = Scene::new();
    scene.io.opening = Some(OpeningState::Pending);
    let open = |tag: u64| TrunkQuestion::Open {
        room: 1,
        session: 1,
        tag: Tag(tag),
        lease_s: 30,
        numbered: false,
    };
    assert_eq!(scene.ask_as(&open(7), 70, 1), None);
    assert_eq!(scene.ask_as(&open(7), 71, 2), None, "retransmitted, still pending");
    assert_eq!(scene.io.opened.len(), 1);
    scene.bundle(7, &voice(1), 1);
    assert!(scene.io.forwarded.is_empty(), "not open yet");
    scene.io.sent.clear();
    scene.agent.handle_opened(0, true, scene.now, &mut scene.io);
    let ok = TrunkAnswer::Open { tag: Tag(7), status: OpenStatus::Ok };
    assert_eq!(scene.answers(), [(2, 71, ok)]);
    scene.bundle(7, &voice(1), 2);
    assert_eq!(scene.io.forwarded.len(), 1);

    scene.ask_as(&open(8), 80, 1);
    scene.io.sent.clear();
    scene.agent.handle_opened(1, false, scene.now, &mut scene.io);
    let failed = TrunkAnswer::Open { tag: Tag(8), status: OpenStatus::Failed };
    assert_eq!(scene.answers(), [(1, 80, failed)]);
    assert_eq!((scene.io.closed.clone(), scene.agent.sessions.len()), (vec![1], 1));
}

#[test]
fn process_exit_and_restart_notify_recent_probers() {
    let mut scene = Scene::new();
    scene.ask_from(&TrunkQuestion::Probe, 1);
    scene.ask_from(&TrunkQuestion::Probe, 2);
    scene.ask_from(&TrunkQuestion::Drain, 3);
    scene.agent.handle_drain(false, scene.now, &mut scene.io);
    scene.io.sent.clear();
    scene.agent.handle_process(false, scene.now, &mut scene.io);
    assert_eq!(
        scene.notices(),
        [(1, ServingState::Gone), (2, ServingState::Gone)],
        "an order does not subscribe"
    );
    assert_eq!(scene.probe().unwrap().state, ServingState::Gone);
    scene.io.sent.clear();
    scene.agent.handle_process(true, scene.now, &mut scene.io);
    assert_eq!(scene.notices(), [(1, ServingState::Serving), (2, ServingState::Serving)]);
}

#[test]
fn notice_is_retransmitted_until_acknowledged() {
    let mut scene = Scene::new();
    scene.probe();
    scene.io.sent.clear();
    scene.agent.handle_process(false, scene.now, &mut scene.io);
    scene.pass(Duration::from_millis(10));
    assert_eq!(scene.notices().len(), 2);
    let number = scene.answers().into_iter().find_map(|(_, _, answer)| match answer {
        TrunkAnswer::Notice { number, .. } => Some(number),
        _ => None,
    });
    let noted = TrunkQuestion::Noted { number: number.unwrap() };
    assert_eq!(scene.ask(&noted), None, "an acknowledgement gets no answer");
    scene.pass(Duration::from_millis(10));
    assert!(scene.notices().is_empty());
    assert_eq!((scene.agent.counters.notices, scene.agent.counters.noted), (2, 1));
}

#[test]
fn sessions_end_with_the_process_and_can_be_reopened() {
    let mut scene = Scene::new();
    scene.open(7);
    scene.agent.handle_process(false, scene.now, &mut scene.io);
    assert_eq!(scene.io.closed, [0]);
    assert_eq!(scene.open(7), Some(OpenStatus::Failed), "no process");
    scene.agent.handle_process(true, scene.now, &mut scene.io);
    let keep = TrunkQuestion::Keep { lease_s: 30, numbered: false, tags: [Tag(7)].into() };
    assert_eq!(scene.ask(&keep), Some(TrunkAnswer::Keep { unknown: [Tag(7)].into() }));
    assert_eq!(scene.open(7), Some(OpenStatus::Ok));
}

#[test]
fn agent_vouches_for_checked_port_silent_if_port_is() {
    let mut scene = Scene::new();
    assert!(!scene.probe().unwrap().vouched, "no check configured");

    let mut scene =
        Scene::with(|settings| (settings.has_check, settings.has_process) = (true, false));
    assert_eq!(scene.probe(), None, "not checked yet");
    for (port, answered) in [
        (PortState::Up, Some((ServingState::Serving, true))),
        (PortState::Silent, None),
        (PortState::Closed, Some((ServingState::Gone, false))),
        (PortState::Up, Some((ServingState::Serving, true))),
    ] {
        scene.agent.handle_port(port, scene.now, &mut scene.io);
        let load = scene.probe().map(|load| (load.state, load.vouched));
        assert_eq!(load, answered, "{port:?}");
    }
    scene.io.sent.clear();
    scene.agent.handle_port(PortState::Silent, scene.now, &mut scene.io);
    assert!(scene.notices().is_empty(), "a silent port may recover");
    scene.agent.handle_port(PortState::Closed, scene.now, &mut scene.io);
    assert_eq!(scene.notices(), [(1, ServingState::Gone)]);
}

#[test]
fn closed_port_counts_as_silent_while_process_runs() {
    let mut scene = Scene::with(|settings| settings.has_check = true);
    scene.agent.handle_process(true, scene.now, &mut scene.io);
    scene.agent.handle_port(PortState::Up, scene.now, &mut scene.io);
    assert_eq!((scene.probe().unwrap().vouched, scene.open(7)), (true, Some(OpenStatus::Ok)));
    scene.io.sent.clear();
    scene.agent.handle_port(PortState::Closed, scene.now, &mut scene.io);
    assert!(scene.notices().is_empty() && scene.io.closed.is_empty(), "it runs");
    assert_eq!(scene.probe(), None, "the port is closed");
    scene.agent.handle_port(PortState::Up, scene.now, &mut scene.io);
    assert_eq!(scene.probe().unwrap().sessions, 1);
    scene.agent.handle_port(PortState::Closed, scene.now, &mut scene.io);
    scene.agent.handle_process(false, scene.now, &mut scene.io);
    assert_eq!(scene.notices().last(), Some(&(1, ServingState::Gone)));
}

#[test]
fn exited_process_is_reported_despite_silent_port() {
    let mut scene = Scene::with(|settings| settings.has_check = true);
    assert_eq!(scene.probe().unwrap().state, ServingState::Gone);
}

#[test]
fn draining_node_refuses_new_sessions() {
    let mut scene = Scene::new();
    scene.open(1);
    scene.probe();
    scene.io.sent.clear();
    scene.agent.handle_drain(true, scene.now, &mut scene.io);
    assert_eq!(scene.notices(), [(1, ServingState::Draining)]);
    assert_eq!((scene.open(2), scene.open(1)), (Some(OpenStatus::Draining), Some(OpenStatus::Ok)));
    assert_eq!(scene.probe().unwrap().state, ServingState::Draining);
    scene.agent.handle_drain(false, scene.now, &mut scene.io);
    assert_eq!(scene.open(2), Some(OpenStatus::Ok));
    let Some(TrunkAnswer::Drain(load)) = scene.ask(&TrunkQuestion::Drain) else { panic!() };
    assert_eq!(load.state, ServingState::Draining);
}

#[test]
fn load_is_the_highest_figure() {
    let mut scene = Scene::new();
    scene.open(1);
    assert_eq!(scene.probe().unwrap().permille, 333);
    scene.agent.measured = 700;
    assert_eq!(scene.probe().unwrap().permille, 700);
    scene.agent.measured = 10;
    assert_eq!(scene.probe().unwrap().permille, 333);
}

#[test]
fn agent_without_trunk_legs_cannot_open_or_cut() {
    let mut scene =
        Scene::with(|settings| (settings.sessions_max, settings.has_process) = (0, false));
    assert_eq!(scene.open(1), Some(OpenStatus::Failed));
    assert_eq!(scene.probe().unwrap().permille, 0);
    let cut = scene.ask(&TrunkQuestion::Break(NodeFault::Cut));
    assert_eq!(cut, Some(TrunkAnswer::Break(OrderOutcome::Unable)));
}

#[test]
fn drills_are_forbidden_unless_configured() {
    let mut scene = Scene::with(|settings| settings.drills = false);
    for how in NodeFault::ALL {
        let forbidden = Some(TrunkAnswer::Break(OrderOutcome::Forbidden));
        assert_eq!(scene.ask(&TrunkQuestion::Break(how)), forbidden);
    }
    assert!(scene.io.signals.is_empty());

    let mut scene = Scene::new();
    for how in [NodeFault::Kill, NodeFault::Hang, NodeFault::Wake] {
        assert_eq!(
            scene.ask(&TrunkQuestion::Break(how)),
            Some(TrunkAnswer::Break(OrderOutcome::Done))
        );
    }
    assert_eq!(scene.io.signals, [NodeFault::Kill, NodeFault::Hang, NodeFault::Wake]);
    scene.io.has_process = false;
    let unable = Some(TrunkAnswer::Break(OrderOutcome::Unable));
    assert_eq!(scene.ask(&TrunkQuestion::Break(NodeFault::Kill)), unable);
}

#[test]
fn cut_link_carries_nothing_until_healed() {
    let mut scene = Scene::new();
    scene.open(7);
    scene.probe();
    assert_eq!(
        scene.ask(&TrunkQuestion::Break(NodeFault::Cut)),
        Some(TrunkAnswer::Break(OrderOutcome::Done))
    );
    assert_eq!(scene.probe(), None);
    assert_eq!(scene.open(8), None);
    scene.io.sent.clear();
    scene.bundle(7, &voice(1), 1);
    scene.agent.handle_from_server(0, &voice(1), &mut scene.io);
    scene.agent.handle_process(false, scene.now, &mut scene.io);
    scene.agent.handle_process(true, scene.now, &mut scene.io);
    scene.agent.flush(&mut scene.io);
    assert!(scene.io.sent.is_empty() && scene.io.forwarded.is_empty());
    assert_eq!(
        scene.ask(&TrunkQuestion::Break(NodeFault::Heal)),
        Some(TrunkAnswer::Break(OrderOutcome::Done))
    );
    assert!(scene.probe().is_some());
    assert_eq!(scene.open(7), Some(OpenStatus::Ok));
}

#[test]
fn retransmitted_order_is_executed_once() {
    let mut scene = Scene::new();
    for _ in 0..3 {
        let done = scene.ask_as(&TrunkQuestion::Break(NodeFault::Kill), 700, 1);
        assert_eq!(done, Some(TrunkAnswer::Break(OrderOutcome::Done)));
    }
    assert_eq!(scene.io.signals.len(), 1);
    scene.ask_as(&TrunkQuestion::Break(NodeFault::Kill), 701, 1);
    assert_eq!(scene.io.signals.len(), 2);
}

#[test]
fn order_is_remembered_past_orders_of_other_gateways() {
    let mut scene = Scene::new();
    let (kill, wake) =
        (TrunkQuestion::Break(NodeFault::Kill), TrunkQuestion::Break(NodeFault::Wake));
    scene.ask_as(&kill, 700, 1);
    scene.ask_as(&wake, 800, 2);
    assert_eq!(scene.ask_as(&kill, 700, 1), Some(TrunkAnswer::Break(OrderOutcome::Done)));
    assert_eq!(scene.io.signals, [NodeFault::Kill, NodeFault::Wake], "its answer was lost");
    for nonce in 801..801 + ORDERS_REMEMBERED_MAX as u64 {
        scene.ask_as(&wake, nonce, 2);
    }
    assert_eq!(scene.agent.orders.len(), ORDERS_REMEMBERED_MAX);
    scene.pass(ORDERS_REMEMBERED_FOR);
    scene.ask_as(&wake, 900, 2);
    assert_eq!(scene.agent.orders.len(), 1, "the others expired");
}

#[test]
fn cut_and_stop_expire() {
    let last = Duration::from_secs(60);
    let mut scene = Scene::new();
    scene.ask(&TrunkQuestion::Break(NodeFault::Cut));
    scene.pass(Duration::from_secs(1));
    scene.ask(&TrunkQuestion::Break(NodeFault::Hang));
    scene.pass(last - Duration::from_secs(1) - Duration::from_millis(1));
    assert_eq!(scene.probe(), None, "not before");
    scene.pass(Duration::from_millis(1));
    assert!(scene.probe().is_some());
    assert_eq!(scene.io.signals, [NodeFault::Hang], "stopped later");
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.io.signals, [NodeFault::Hang, NodeFault::Wake]);
    assert_eq!(scene.io.log.len(), 2);

    // A repeated order restarts the time limit. A fault that was ended, or a fault of a dead process, has nothing to
    // end.
    scene.ask(&TrunkQuestion::Break(NodeFault::Hang));
    scene.pass(last / 2);
    scene.ask(&TrunkQuestion::Break(NodeFault::Hang));
    scene.pass(last / 2);
    assert_eq!(scene.io.signals.len(), 4);
    scene.ask(&TrunkQuestion::Break(NodeFault::Wake));
    scene.pass(last);
    assert_eq!(scene.io.signals.len(), 5);
    scene.ask(&TrunkQuestion::Break(NodeFault::Hang));
    scene.agent.handle_process(false, scene.now, &mut scene.io);
    scene.pass(last);
    assert_eq!(scene.io.signals.len(), 6);
}

#[test]
fn exiting_agent_wakes_a_stopped_process() {
    let mut scene = Scene::new();
    scene.agent.faults.end(&mut scene.io);
    assert!(scene.io.signals.is_empty(), "not stopped");
    scene.ask(&TrunkQuestion::Break(NodeFault::Hang));
    scene.agent.faults.end(&mut scene.io);
    assert_eq!(scene.io.signals, [NodeFault::Hang, NodeFault::Wake]);
}

#[test]
fn start_skips_running_process_and_reports_inability() {
    let mut scene = Scene::new();
    assert_eq!(scene.ask(&TrunkQuestion::Start), Some(TrunkAnswer::Start(OrderOutcome::Done)));
    assert_eq!(scene.io.starts, 0);
    scene.agent.handle_process(false, scene.now, &mut scene.io);
    assert_eq!(scene.ask(&TrunkQuestion::Start), Some(TrunkAnswer::Start(OrderOutcome::Done)));
    assert_eq!(scene.io.starts, 1);
    scene.io.has_process = false;
    assert_eq!(scene.ask(&TrunkQuestion::Start), Some(TrunkAnswer::Start(OrderOutcome::Unable)));
}

#[test]
fn first_refusal_of_each_reason_is_logged() {
    let mut scene = Scene::new();
    let renamed = NodeSecret::new(b"a secret of many bytes", "east-a2").unwrap();
    let secrets = [secret(), NodeSecret::new(&[7; 32], "east-a1").unwrap(), renamed];
    let ask = |scene: &mut Scene, secret: &NodeSecret, late_us: u64| {
        let (mut probe, now_us) = (Vec::new(), scene.now.unix_us);
        TrunkQuestion::Probe.write(secret, 5, now_us - late_us, &mut probe);
        scene.io.sent.clear();
        scene.receive(&probe, 1);
        let sent = scene.io.sent.iter();
        assert!(sent.clone().all(|(_, said)| said.len() < probe.len()));
        sent.filter_map(|(_, said)| ClockRefusal::read(said)).map(|said| said.nonce).next()
    };
    assert_eq!(ask(&mut scene, &secrets[1], 0), None, "another secret gets no refusal");
    assert_eq!(ask(&mut scene, &secrets[0], 6_200_000), Some(5));
    assert_eq!(ask(&mut scene, &secrets[0], 6_200_000), None, "rate limited");
    scene.pass(Duration::from_millis(100));
    assert_eq!(ask(&mut scene, &secrets[0], 6_200_000), Some(5));
    for _ in 0..9 {
        scene.pass(Duration::from_secs(1));
        ask(&mut scene, &secrets[1], 0);
        assert_eq!(ask(&mut scene, &secrets[2], 0), None, "another name gets no refusal");
    }
    let [secret_line, clock_line, name_line] = &scene.io.log[..] else {
        panic!("{:?}", scene.io.log)
    };
    assert!(name_line.contains("another node name"), "{name_line}");
    assert!(secret_line.contains("another secret") && secret_line.contains("192.0.2.1:1"));
    assert!(clock_line.contains("6.2 s before now"), "{clock_line}");
    scene.ask(&TrunkQuestion::Break(NodeFault::Cut));
    assert_eq!(ask(&mut scene, &secrets[0], 6_200_000), None, "the link is cut");
}

#[test]
fn refused_message_is_counted_and_unanswered() {
    let mut scene = Scene::new();
    let mut probe = Vec::new();
    TrunkQuestion::Probe.write(&secret(), 1, START_US - 6_000_000, &mut probe);
    scene.receive(&probe, 1);
    probe.clear();
    TrunkQuestion::Probe.write(&secret(), 1, START_US, &mut probe);
    let mut forged = probe.clone();
    forged[40] ^= 1;
    scene.receive(&forged, 2);
    scene.receive(&probe[..40], 3);
    let mut others = Vec::new();
    TrunkQuestion::Probe.write(
        &NodeSecret::new(&[7; 32], "east-a1").unwrap(),
        1,
        START_US,
        &mut others,
    );
    scene.receive(&others, 4);
    assert!(scene.answers().is_empty());
    let refusals = scene.io.sent.drain(..).filter(|(_, said)| ClockRefusal::read(said).is_some());
    assert_eq!(refusals.map(|(to, _)| to).collect::<Vec<_>>(), [1]);
    scene.receive(&probe, 5);
    // A replay from another address gets no answer and does not subscribe.
    scene.receive(&probe, 6);
    assert_eq!(scene.io.sent.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [5]);
    scene.io.sent.clear();
    scene.agent.handle_process(false, scene.now, &mut scene.io);
    assert_eq!(scene.notices(), [(5, ServingState::Gone)]);
    let AgentCounters { refused_forged, refused_time, refused_replayed, malformed, .. } =
        scene.agent.counters;
    assert_eq!((refused_forged, refused_time, refused_replayed, malformed), (2, 1, 1, 1));
}

#[test]
fn answer_is_never_longer_than_its_question() {
    let mut scene = Scene::new();
    scene.open(1);
    let mut probe = Vec::new();
    TrunkQuestion::Probe.write(&secret(), 1, START_US, &mut probe);
    for question in [
        TrunkQuestion::Probe,
        TrunkQuestion::Drain,
        TrunkQuestion::Start,
        TrunkQuestion::Break(NodeFault::Hang),
    ] {
        scene.ask(&question);
    }
    scene.agent.handle_process(false, scene.now, &mut scene.io);
    assert!(scene.io.sent.iter().all(|(_, said)| said.len() <= probe.len()));
}

#[test]
fn process_is_reported_while_it_runs() {
    let mut scene = Scene::new();
    assert_eq!(scene.ask(&TrunkQuestion::Process), None);
    let report = ProcessReport { memory_permille: 420, age_s: 7 };
    scene.io.report = Some(report);
    assert_eq!(scene.ask(&TrunkQuestion::Process), Some(TrunkAnswer::Process(report)));
}
