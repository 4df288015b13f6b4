//! A session that another worker continues, compared with one that is not interrupted.

use std::hash::RandomState;

use evenkeel_fuzz::Corpus;
use evenkeel_media::stun;
use evenkeel_media::trunk::Tag;
use evenkeel_model::{Incarnation, Metric};

use super::*;
use crate::flows::Flows;
use crate::worker::egress::{Trunk, TrunkSocket};
use crate::worker::report::MediaCounts;

const VOICE: u8 = 0;
const PICTURE: u8 = 96;
const REPAIR: u8 = 97;
const UNDECLARED: u8 = 5;

/// Acts, by their number in the input. All others are a packet of a node.
const COPIES: u8 = 1;
const CLIENT_RTP: u8 = 2;
const NODE_RTCP: u8 = 3;
const CLIENT_RTCP: u8 = 4;
const NODE_BYTES: u8 = 5;
const CLIENT_BYTES: u8 = 6;
const MOVE: u8 = 7;
const TWINS: u8 = 8;
const DEATH: u8 = 9;
const PLAN: u8 = 10;
const SUMMARY: u8 = 11;
const CHECK: u8 = 12;
const KEY_FRAME: u8 = 13;

/// Acts of one input at most.
const ACTS_MAX: usize = 500;

/// An act with its arguments.
#[derive(Clone, Copy)]
struct Act {
    act: u8,
    pause_ms: u8,
    /// The node, of three.
    node: u8,
    payload: u8,
    ssrc: u8,
    sequence: u16,
    timestamp: u32,
}

impl Act {
    const LENGTH: usize = 11;

    fn read(&[act, pause_ms, node, payload, ssrc, s0, s1, t0, t1, t2, t3]: &[u8; 11]) -> Act {
        Act {
            act: act & 0xf,
            pause_ms,
            node: node % 3,
            payload: payload & 3,
            ssrc: ssrc & 3,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
        }
    }

    fn write(self) -> [u8; 11] {
        let ([s0, s1], [t0, t1, t2, t3]) =
            (self.sequence.to_be_bytes(), self.timestamp.to_be_bytes());
        let Act { act, pause_ms, node, payload, ssrc, .. } = self;
        [act, pause_ms, node, payload, ssrc, s0, s1, t0, t1, t2, t3]
    }

    fn hop(self) -> Hop {
        hop(self.node)
    }

    fn rtp(self) -> Vec<u8> {
        let payload_type = [VOICE, PICTURE, REPAIR, UNDECLARED][usize::from(self.payload)];
        let Act { sequence, timestamp, ssrc, .. } = self;
        let fields = rtp::Fields {
            payload_type,
            marker: timestamp & 1 == 1,
            sequence,
            timestamp,
            ssrc: u32::from(ssrc) + 1,
        };
        let mut packet = Vec::new();
        rtp::write(&fields, &sequence.to_be_bytes().repeat(8), &mut packet);
        packet
    }

    /// Reports, feedback and BYE that refer to these numbers.
    fn rtcp(self) -> Vec<u8> {
        let (mut packet, ssrc) = (Vec::new(), u32::from(self.ssrc) + 1);
        let block = rtcp::ReportBlock {
            ssrc,
            fraction_lost: self.payload * 60,
            lost: i32::from(self.pause_ms),
            sequence_max: self.sequence.into(),
            jitter: 100,
            last_sr: self.timestamp,
            delay_since_last_sr: 6_553,
        };
        let info = rtcp::SenderInfo {
            ssrc,
            ntp: u64::from(self.timestamp) << 16,
            timestamp: self.timestamp,
            packets: 10,
            octets: 1_000,
        };
        match self.payload {
            0 => rtcp::write_sender_report(&info, &[block], &mut packet),
            _ => rtcp::write_receiver_report(ssrc, &[block], &mut packet),
        }
        rtcp::write_cname(ssrc, b"name", &mut packet);
        match self.pause_ms % 5 {
            0 => rtcp::write_pli(rtcp::Pli { sender: ssrc, media: ssrc }, &mut packet),
            1 => rtcp::write_remb(ssrc, 500_000, &[ssrc], &mut packet),
            2 => {
                // A NACK of this packet and the third after it.
                packet.extend([0x81, rtcp::TRANSPORT_FEEDBACK, 0, 3]);
                packet.extend([ssrc.to_be_bytes(), ssrc.to_be_bytes()].concat());
                packet.extend([self.sequence.to_be_bytes(), [0, 4]].concat());
            }
            // A BYE.
            3 if self.timestamp.is_multiple_of(7) => {
                packet.extend([[0x81, 203, 0, 1], ssrc.to_be_bytes()].concat());
            }
            _ => {}
        }
        packet
    }
}

fn hop(node: u8) -> Hop {
    Hop { node: NodeId(node.into()), incarnation: Incarnation(1) }
}

/// A session with three nodes, the last without a leg, and all that it sends.
struct Stage {
    bench: Bench,
    client: ClientAddressing,
    gateway: Gateway,
    nodes: Vec<UdpSocket>,
    flows: Flows,
    ms: u64,
    carries: Vec<Hop>,
    out: Vec<String>,
}

impl Stage {
    fn new(kind: usize, srtp: Srtp, start: Instant) -> Stage {
        let mut bench = Bench::new(|_| ClientAddressing::Stun, srtp);
        bench.start = start;
        let address = bench.client.local_addr().unwrap();
        let client = match kind % 3 {
            0 => ClientAddressing::Declared { listener: 0, address, rtcp: address },
            1 => ClientAddressing::Stun,
            _ => ClientAddressing::DeclaredIp { listener: 0 },
        };
        let payload = |number, codec: &str, clock_rate| PayloadType::new(number, codec, clock_rate);
        let feedback = Takes { pli: true, remb: true, ..Takes::default() };
        let stream =
            |kind, payload_types| MediaStream { kind, payload_types, feedback, bitrate_kbps: None };
        let voice = stream(StreamKind::Audio, vec![payload(VOICE, "PCMU", 8_000)]);
        let picture = vec![payload(PICTURE, "VP8", 90_000), payload(REPAIR, "rtx", 90_000)];
        let streams = vec![voice, stream(StreamKind::Video, picture)];
        let media = Arc::new(MediaDescription::new(streams, RtcpPort::Mux, srtp));
        let gateway = gateway(&[1, 1, 1], start);
        bench.board = gateway.board();
        let await_first_packet = kind % 2 == 1;
        let fresh = install(client.clone(), srtp, 0);
        bench.session =
            WorkerSession::new(Install { media, await_first_packet, await_report: true, ..fresh });
        let nodes = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect::<Vec<_>>();
        for (number, node) in (0..).zip(&nodes) {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(node.local_addr().unwrap()).unwrap();
            node.set_nonblocking(true).unwrap();
            let trunk = Trunk::new(TrunkSocket { socket, seal: None, first_number: 0 }).unwrap();
            bench.egress.trunks.push(Some(trunk));
            if number < 2 {
                bench.session.attach(hop(number), NodeLeg::Trunk(Tag(number.into())));
            }
        }
        let (flows, carries) = (Flows::new(10), vec![hop(0)]);
        let mut stage =
            Stage { bench, client, gateway, nodes, flows, ms: 0, carries, out: Vec::new() };
        stage.route(RedundancyMode::Hot, vec![hop(0)], None);
        stage
    }

    fn route(&mut self, mode: RedundancyMode, carries: Vec<Hop>, leaving: Option<(Hop, Instant)>) {
        let hops: Vec<_> = carries.iter().map(|hop| (*hop, HopGrant::Admitted)).collect();
        let lead = Duration::from_millis(self.ms % 30);
        let left = leaving.map(|(hop, until)| Box::new(LeftHop { hop, until, lead }));
        let route = Route { left, ..Route::new(1, mode, hops) };
        self.bench.session.route = Arc::new(RouteCell::holding(route));
        self.carries = carries;
    }

    fn play(&mut self, act: Act) {
        self.ms += u64::from(act.pause_ms);
        let (ms, now) = (self.ms, self.bench.start + Duration::from_millis(self.ms));
        let from_node = |bench: &mut Bench, hop, packet: &[u8]| {
            bench.at(ms, |session, cx| session.handle_node_packet(hop, packet, cx));
        };
        match act.act {
            COPIES => [0, 1].map(hop).into_iter().for_each(|hop| {
                from_node(&mut self.bench, hop, &act.rtp());
            }),
            CLIENT_RTP => self.take_from_client(&act.rtp(), WorkerSession::handle_client_rtp),
            CLIENT_RTCP => self.take_from_client(&act.rtcp(), WorkerSession::handle_client_rtcp),
            CLIENT_BYTES => self.take_from_client(&act.write(), WorkerSession::handle_client_rtp),
            NODE_RTCP => from_node(&mut self.bench, act.hop(), &act.rtcp()),
            NODE_BYTES => from_node(&mut self.bench, act.hop(), &act.write()),
            MOVE => {
                let until = now + FILLED_WITHIN;
                let left = self.carries.first().filter(|_| act.payload > 0);
                let leaving = left.map(|left| (*left, until));
                self.route(RedundancyMode::Hot, vec![act.hop()], leaving);
            }
            TWINS => {
                let twin = hop((act.node + 1) % 3);
                self.route(RedundancyMode::Hitless, vec![act.hop(), twin], None);
            }
            // Refused for the last node.
            DEATH => drop(
                self.gateway.change_nodes(now, |nodes| nodes.handle_eject(act.hop().node, now)),
            ),
            PLAN => {
                let withheld =
                    [0, 1 << PICTURE | 1 << REPAIR, 1 << VOICE, 0][usize::from(act.payload)];
                let send_kbps = u32::from(act.ssrc) * 100;
                let limits = MediaLimits { send_kbps, withheld, ..MediaLimits::default() };
                self.bench.at(ms, |session, cx| session.set_limits(limits, cx));
            }
            SUMMARY => {
                self.bench.at(ms, WorkerSession::tick);
                let session = &mut self.bench.session;
                let mut summary = session.summary(now);
                // They begin anew in another process.
                if let Some(summary) = &mut summary {
                    summary.counts = MediaCounts::default();
                    summary.measures.set(Metric::FreezeDown, 0);
                    summary.flow.jitter_us = None;
                    summary.measures.set(Metric::AvailableDown, 0);
                }
                self.out.push(format!("{summary:?} {}", session.went_idle(now)));
            }
            CHECK => self.check(act.sequence, act.payload > 0, now),
            KEY_FRAME => self.bench.at(ms, WorkerSession::request_client_key_frame),
            _ => from_node(&mut self.bench, act.hop(), &act.rtp()),
        }
        self.hear();
    }

    fn source(&self) -> SourceKey {
        SourceKey { listener: 0, address: self.bench.client.local_addr().unwrap() }
    }

    fn take_from_client(
        &mut self,
        packet: &[u8],
        handle: fn(&mut WorkerSession, &[u8], &mut PacketContext<'_>),
    ) {
        let (source, session) = (self.source(), &mut self.bench.session);
        let mut admission = session.client.admit(source.path(), b"");
        if admission == Admission::Learns && session.learn(source.path(), packet) {
            self.flows.insert(source.key(), FlowEntry::of(session.home)).unwrap();
            admission = session.client.admit(source.path(), b"");
        }
        if admission == Admission::Accepted {
            self.bench.at(self.ms, |session, cx| handle(session, packet, cx));
        }
    }

    fn check(&mut self, transaction: u16, nominated: bool, now: Instant) {
        if self.client != ClientAddressing::Stun {
            return;
        }
        let (source, home) = (self.source(), self.bench.session.home);
        let until = self.bench.session.client.holds_until(source, now);
        self.flows.check(source.key(), home, until, now).unwrap();
        self.bench.at(self.ms, |session, cx| session.checked(source.path(), nominated, cx));
        // Otherwise the times of reports depend on a secret.
        self.bench.session.client.address_mut().prove(source);
        let other = SourceKey { listener: 0, address: ([10, 0, 0, 1], 5_000).into() };
        let from = if nominated { source } else { other };
        let transaction = stun::Transaction([transaction as u8; 12]);
        let seen =
            self.bench.session.client.remember_check(transaction, from, &RandomState::new(), home);
        self.out.push(format!("{seen:?}"));
    }

    /// Notes what was sent and reported.
    fn hear(&mut self) {
        let mut bytes = [0; 2_048];
        for (number, socket) in [&self.bench.client].into_iter().chain(&self.nodes).enumerate() {
            while let Ok(length) = socket.recv(&mut bytes) {
                self.out.push(format!("{number} {:?}", &bytes[..length]));
            }
        }
        while let Ok(report) = self.bench.reports.try_recv() {
            self.out.push(format!("{report:?}"));
        }
    }

    /// Replaces the session by one that another worker installs.
    fn hand_over(&mut self) {
        let state = handed_over(&self.bench.session.hand_out(&self.flows));
        let session = &self.bench.session;
        let learned = state.clone().take_learned();
        let old = std::mem::replace(&mut self.flows, Flows::new(10));
        let fresh = install(self.client.clone(), session.media.srtp, 0);
        let mut continued = WorkerSession::new(Install {
            media: Arc::clone(&session.media),
            route: Arc::clone(&session.route),
            limits: session.limits,
            await_first_packet: true,
            await_report: true,
            seed: 99,
            state: Some(Box::new(state)),
            ..fresh
        });
        learned.into_iter().for_each(|learned| continued.relearn(learned, &self.flows));
        let entry = |flows: &Flows| flows.entry(&self.source().key());
        assert_eq!(entry(&self.flows), entry(&old));
        self.bench.session = continued;
    }

    fn end(mut self) -> Vec<String> {
        self.play(Act::read(&[SUMMARY, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        let drops = DropReason::ALL.map(|reason| self.bench.drops(reason));
        let now = self.bench.start + Duration::from_millis(self.ms);
        self.out.push(format!("{:?} {drops:?}", self.bench.session.totals(now + FILLED_WITHIN)));
        self.out
    }
}

fn play(bytes: &[u8], split: Option<usize>, start: Instant) -> Vec<String> {
    let srtp = if bytes.len() % 7 == 3 { Srtp::Opaque } else { Srtp::Plain };
    let mut stage = Stage::new(bytes.len() / Act::LENGTH, srtp, start);
    for (number, act) in bytes.as_chunks().0.iter().take(ACTS_MAX).enumerate() {
        if split == Some(number) {
            stage.hand_over();
        }
        stage.play(Act::read(act));
    }
    stage.end()
}

/// Voice and pictures of 20 ms from both nodes, with losses, reordering and the acts at their packets.
fn session(first: u16, twins: bool, acts: &[(u16, Act)]) -> Vec<u8> {
    let packet = Act {
        act: if twins { COPIES } else { 0 },
        pause_ms: 0,
        node: 0,
        payload: 0,
        ssrc: 0,
        sequence: 0,
        timestamp: 0,
    };
    let mut bytes = Act { act: CHECK, payload: 1, ..packet }.write().to_vec();
    let mut node = 0;
    for number in 0..60_u16 {
        for (_, act) in acts.iter().filter(|(at, _)| *at == number) {
            if matches!(act.act, MOVE | TWINS) {
                node = act.node;
            }
            bytes.extend(act.write());
        }
        let (sequence, timestamp) = (first.wrapping_add(number), u32::from(number) * 160);
        let own = u16::from(node) * 5_000;
        let voice = Act { sequence: sequence.wrapping_add(own), timestamp, node, ..packet };
        if number % 17 != 3 {
            bytes.extend(Act { pause_ms: 20, ..voice }.write());
        }
        if number % 11 == 7 {
            bytes.extend(Act { sequence: voice.sequence.wrapping_sub(1), ..voice }.write());
        }
        bytes.extend(Act { payload: 1, ssrc: 1, timestamp: timestamp * 11 + 1, ..voice }.write());
        bytes.extend(Act { act: CLIENT_RTP, sequence, timestamp, ..packet }.write());
        if number % 5 == 4 {
            for act in [NODE_RTCP, CLIENT_RTCP, SUMMARY] {
                bytes.extend(Act { act, pause_ms: number as u8 % 5, ..voice }.write());
            }
        }
    }
    bytes
}

#[test]
fn fuzz_continued_session() {
    let act = |act, node, payload| Act {
        act,
        pause_ms: 0,
        node,
        payload,
        ssrc: 1,
        sequence: 1,
        timestamp: 0,
    };
    let plain = session(65_500, false, &[]);
    let moves = [(20, act(MOVE, 1, 1)), (40, act(MOVE, 2, 1)), (50, act(KEY_FRAME, 0, 0))];
    let deaths = [(20, act(DEATH, 0, 0)), (22, act(MOVE, 1, 0)), (40, act(CHECK, 0, 0))];
    let sheds = [(10, act(PLAN, 0, 1)), (30, act(PLAN, 0, 2)), (45, act(PLAN, 0, 0))];
    let twins = [(0, act(TWINS, 0, 0)), (30, act(DEATH, 0, 0)), (32, act(MOVE, 1, 0))];
    let corpus = Corpus::of("continued_session").with(plain);
    let corpus = corpus.with(session(65_520, false, &moves)).with(session(9, false, &deaths));
    let corpus = corpus.with(session(65_520, false, &sheds)).with(session(65_500, true, &twins));
    let start = Instant::now();
    corpus.check(|bytes| {
        let acts = (bytes.len() / Act::LENGTH).clamp(1, ACTS_MAX);
        let sum = bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>();
        let whole = play(bytes, None, start);
        for split in [sum % acts, sum * 31 % acts] {
            assert_eq!(play(bytes, Some(split), start), whole, "handed over before act {split}");
        }
    });
}

#[test]
fn session_continues_from_any_packet() {
    let act = |act, node, payload| Act {
        act,
        pause_ms: 0,
        node,
        payload,
        ssrc: 0,
        sequence: 1,
        timestamp: 0,
    };
    let (moves, sheds) = ((20, act(MOVE, 1, 1)), (30, act(PLAN, 0, 2)));
    let twins = [(0, act(TWINS, 0, 0)), (30, act(DEATH, 0, 0))];
    let start = Instant::now();
    for bytes in [session(65_520, false, &[moves, sheds]), session(65_510, true, &twins)] {
        let whole = play(&bytes, None, start);
        for split in 0..bytes.len() / Act::LENGTH {
            assert_eq!(play(&bytes, Some(split), start), whole, "handed over before act {split}");
        }
    }
}

#[test]
fn hops_and_listeners_get_their_names_here() {
    let start = Instant::now();
    let mut stage = Stage::new(1, Srtp::Plain, start);
    stage.route(RedundancyMode::Hitless, vec![hop(0), hop(1)], None);
    stage.check(1, true, start);
    let act =
        Act { act: COPIES, pause_ms: 20, node: 0, payload: 0, ssrc: 0, sequence: 1, timestamp: 0 };
    (1..20).for_each(|sequence| stage.play(Act { sequence, ..act }));
    let state = stage.bench.session.hand_out(&stage.flows);
    let moved = |hop: Hop| Hop { node: NodeId(hop.node.0 + 5), ..hop };

    let mut all = state.clone();
    all.map_hops(|hop| Some(moved(hop)));
    all.map_listeners(|listener| Some(listener + 3));
    let media = all.media.as_deref().unwrap();
    assert_eq!(media.current_hop, Some(moved(hop(0))));
    assert_eq!(media.pair.as_deref().unwrap().hops(), [0, 1].map(|node| moved(hop(node))));
    let legs: Vec<_> = all.legs.iter().map(|(hop, _)| *hop).collect();
    assert_eq!(legs, [0, 1].map(|node| moved(hop(node))));
    assert!(all.has_address());
    assert_eq!(all.address.rtp(), Some(SourceKey { listener: 3, ..stage.source() }));
    assert_eq!((all.learned.len(), all.learned[0].source.listener), (1, 3));

    let mut less = state;
    less.map_hops(|of| (of == hop(1)).then_some(of));
    less.map_listeners(|_| None);
    let media = less.media.as_deref().unwrap();
    assert!(media.current_hop.is_none() && media.pair.is_none());
    assert_eq!((less.legs.len(), less.learned.len(), less.has_address()), (1, 0, false));
}

#[test]
fn address_of_another_session_is_not_handed_out() {
    let start = Instant::now();
    let mut stage = Stage::new(1, Srtp::Plain, start);
    stage.check(1, true, start);
    let (key, home) = (stage.source().key(), stage.bench.session.home);
    assert!(stage.flows.remove(&key, home));
    stage.flows.insert(key, FlowEntry::of(Home { slot: 9, ..home })).unwrap();
    let state = stage.bench.session.hand_out(&stage.flows);
    assert!(!state.has_address() && state.learned.is_empty());
    assert!(stage.bench.session.client.address().rtp().is_some(), "it continues here as before");
}

#[test]
fn awaited_packet_came_before_the_hand_over() {
    let [rtp, rtcp] = [5_000, 5_001].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
    let client = ClientAddressing::Declared { listener: 0, address: rtp, rtcp };
    let install =
        || Install { await_first_packet: true, ..install(client.clone(), Srtp::Plain, 0) };
    let [from, to] = [rtp, rtcp].map(|address| SourceKey { listener: 0, address });
    for heard in [false, true] {
        let mut session = WorkerSession::new(install());
        if heard {
            session.client.admit(from.path(), b"");
        }
        let state = Some(Box::new(handed_over(&session.hand_out(&Flows::new(1)))));
        let mut session = WorkerSession::new(Install { state, ..install() });
        assert_eq!(session.client.address().rtcp(), heard.then_some(to));
        session.client.admit(from.path(), b"");
        assert_eq!(session.client.address().rtcp(), Some(to));
    }
}
