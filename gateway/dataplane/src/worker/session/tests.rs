use std::net::UdpSocket;

use evenkeel_core::forward::Reason;
use evenkeel_core::{
    Accepted, AdmitOnFault, Bounds, Feedback as Takes, Gateway, Grant, Identity, Incarnation,
    Ingress, Limits, Mode, NodeId, NodeSettings, Offer, OfferId, Output, PayloadType, Probed,
    RegionId, Route, RtcpPort, Scenario, Settings, Stream, Timings, Zone, ZoneId,
};
use evenkeel_media::{rtcp, rtp};
use tokio::sync::mpsc;

use super::super::command::NodePort;
use super::super::early::Patience;
use super::super::egress::Port;
use super::super::stats::Stamps;
use super::*;

mod hitless;

/// A session with ways that lead to a socket of ours.
struct Bench {
    session: Session,
    ways: Ways,
    board: Arc<Board>,
    start: Instant,
    client: UdpSocket,
    reports: mpsc::Receiver<Report>,
}

/// Ways with a listener and no node.
pub(in crate::worker) fn ways(start: Instant) -> (Ways, mpsc::Receiver<Report>) {
    let (reports, received) = mpsc::channel(16);
    let stamps = Arc::new(Stamps::new(start, 1));
    let patience = Patience { packets: 16, wait: Duration::from_millis(200) };
    let mut ways = Ways::new(reports, stamps, patience);
    let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
    ways.listeners.push((Port::new(listener).unwrap(), None));
    (ways, received)
}

/// A session with video at that slot.
pub(in crate::worker) fn install(client: Client, srtp: Srtp, slot: u32) -> Install {
    let vp8 = PayloadType { number: 96, codec: "VP8".into(), clock_rate: 90_000 };
    let video = Stream {
        kind: Kind::Video,
        payload_types: vec![vp8],
        feedback: Takes { pli: true, remb: true, ..Takes::default() },
        bitrate_kbps: None,
    };
    Install {
        home: Home { worker: 0, slot, generation: 1 },
        session: SessionId(1),
        media: Arc::new(Media { streams: vec![video], rtcp: RtcpPort::Mux, srtp }),
        client,
        route: Arc::new(RouteCell::default()),
        plan: Plan::default(),
        dscp: Dscp::default(),
        ports: None,
        seed: 7,
    }
}

impl Bench {
    fn new(client: fn(SocketAddr) -> Client, srtp: Srtp) -> Bench {
        let start = Instant::now();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let (ways, received) = ways(start);
        let install = install(client(socket.local_addr().unwrap()), srtp, 0);
        let session = Session::new(install);
        let board = Arc::new(Board::new(1));
        Bench { session, ways, board, start, client: socket, reports: received }
    }

    fn stun(srtp: Srtp) -> Bench {
        Bench::new(|_| Client::Stun, srtp)
    }

    fn at<T>(&mut self, ms: u64, act: impl FnOnce(&mut Session, &mut Loan<'_>) -> T) -> T {
        let now = self.start + Duration::from_millis(ms);
        let done =
            act(&mut self.session, &mut Loan { ways: &mut self.ways, board: &self.board, now });
        self.ways.flush(now);
        done
    }

    fn check(&mut self, ms: u64) {
        let from = (0, self.client.local_addr().unwrap());
        self.at(ms, |session, loan| session.checked(from, true, loan));
    }

    /// Whether something that is sent now reaches the client.
    fn reaches(&mut self, ms: u64) -> bool {
        self.at(ms, |session, loan| {
            session.send_to_client(Side::Rtcp, Kind::Audio, b"anything", loan, |_| {});
        });
        self.client.recv(&mut [0; 64]).is_ok()
    }

    fn hop_at(&mut self, address: SocketAddr) -> Option<Hop> {
        self.at(0, |session, loan| session.hop_at(address, loan))
    }

    fn drops(&self, reason: Reason) -> u64 {
        self.ways.stamps.drops(reason)
    }
}

#[test]
fn without_a_check_for_thirty_seconds_nothing_is_sent() {
    let mut bench = Bench::stun(Srtp::Plain);
    assert!(!bench.reaches(0), "nobody proved anything yet");
    bench.check(1_000);
    assert!(bench.reaches(30_999));
    assert!(!bench.reaches(31_000));
    assert_eq!(bench.drops(Reason::NoAddress), 2);
    bench.check(40_000);
    assert!(bench.reaches(40_000), "until the next check");
}

#[test]
fn a_declared_address_needs_no_consent() {
    let declared = |address| Client::Declared { listener: 0, address, rtcp: address };
    assert!(Bench::new(declared, Srtp::Plain).reaches(1_000_000));
}

#[test]
fn of_many_addresses_that_passed_the_oldest_gives_way() {
    let mut bench = Bench::stun(Srtp::Plain);
    let address = |port| (0, SocketAddr::from(([10, 0, 0, 1], port)));
    let mut gone = Vec::new();
    for port in [1, 2, 3, 1, 4, 5, 6] {
        gone.extend(bench.at(0, |session, loan| session.checked(address(port), false, loan)));
    }
    assert_eq!(gone, [address(2), address(3)]);
    assert_eq!(bench.session.learned(), [1, 4, 5, 6].map(address));
}

/// A report that half of the packets were lost.
fn half_lost() -> Vec<u8> {
    let mut report = Vec::new();
    let block = rtcp::ReportBlock {
        ssrc: 9,
        fraction_lost: 128,
        lost: 0,
        sequence_max: 1,
        jitter: 0,
        last_sr: 0,
        delay_since_last_sr: 0,
    };
    rtcp::write_receiver_report(5, &[block], &mut report);
    report
}

#[test]
fn a_summary_tells_what_went_between_a_session_and_its_node() {
    let declared = |address| Client::Declared { listener: 0, address, rtcp: address };
    let mut bench = Bench::new(declared, Srtp::Plain);
    let hop = |incarnation| Hop { node: NodeId(0), incarnation: Incarnation(incarnation) };
    let hops = vec![(hop(1), Grant::Admitted)];
    let route = Route { version: 1, mode: Mode::Hot, hops, leaving: None, lead: Duration::ZERO };
    bench.session.route = Arc::new(RouteCell::holding(route));
    let packet = |sequence| {
        let fields =
            rtp::Fields { payload_type: 96, marker: false, sequence, timestamp: 1, ssrc: 9 };
        let mut packet = Vec::new();
        rtp::write(&fields, b"frame", &mut packet);
        packet
    };
    for sequence in 1..=4 {
        bench.at(20, |session, loan| session.handle_client_packet(&packet(sequence), loan));
    }
    for sequence in [1, 2, 5] {
        bench.at(20, |session, loan| session.handle_node_packet(hop(1), &packet(sequence), loan));
    }
    bench.at(20, |session, loan| session.handle_node_packet(hop(1), &half_lost(), loan));
    // What another hop still sends is nothing that it hears.
    bench.at(20, |session, loan| session.handle_node_packet(hop(2), &packet(6), loan));
    let told = |bench: &mut Bench| bench.session.summary(bench.start).unwrap().flow;
    let flow = Flow {
        sent: [0, 4],
        came: [0, 3],
        hears: Some(hop(1)),
        expected: 5,
        lost: 2,
        missed: 0,
        reported_ppm: Some(500_000),
    };
    assert_eq!(told(&mut bench), flow);
    assert_eq!(told(&mut bench), Flow { hears: Some(hop(1)), ..Flow::default() }, "told once");
}

#[test]
fn what_a_hop_delivered_and_reported_before_is_not_told_of_the_next_one() {
    let declared = |address| Client::Declared { listener: 0, address, rtcp: address };
    let mut bench = Bench::new(declared, Srtp::Plain);
    bench.board = Arc::new(Board::new(2));
    let hop = |node| Hop { node: NodeId(node), incarnation: Incarnation(1) };
    let route = |at: u32, leaving| {
        let (version, hops) = (u64::from(at) + 1, vec![(hop(at), Grant::Admitted)]);
        let route = Route { version, mode: Mode::Hot, hops, leaving, lead: Duration::ZERO };
        Arc::new(RouteCell::holding(route))
    };
    let packet = |sequence| {
        let fields =
            rtp::Fields { payload_type: 96, marker: false, sequence, timestamp: 1, ssrc: 9 };
        let mut packet = Vec::new();
        rtp::write(&fields, b"frame", &mut packet);
        packet
    };
    bench.session.route = route(0, None);
    for packet in [packet(1), packet(4), half_lost()] {
        bench.at(20, |session, loan| session.handle_node_packet(hop(0), &packet, loan));
    }
    let until = bench.start + Duration::from_secs(1);
    bench.session.route = route(1, Some((hop(0), until)));
    // It keeps numbers: what came to nobody in between is no loss of its own.
    bench.at(40, |session, loan| session.handle_node_packet(hop(1), &packet(9), loan));
    bench.at(40, |session, loan| session.handle_node_packet(hop(0), &half_lost(), loan));
    let flow = Flow { came: [0, 1], hears: Some(hop(1)), ..Flow::default() };
    assert_eq!(bench.session.summary(bench.start).unwrap().flow, flow);
    bench.at(60, |session, loan| session.handle_node_packet(hop(1), &half_lost(), loan));
    let flow = bench.session.summary(bench.start).unwrap().flow;
    assert_eq!(flow.reported_ppm, Some(500_000), "its own reports are");
}

#[test]
fn reports_that_are_encrypted_say_nothing() {
    let report = half_lost();
    for (srtp, told) in [(Srtp::Plain, true), (Srtp::Opaque, false)] {
        let mut bench = Bench::stun(srtp);
        bench.at(0, |session, loan| session.handle_client_packet(&report, loan));
        let measures = bench.session.summary(bench.start).unwrap().measures;
        assert_eq!(measures.measured(evenkeel_core::Metric::LossDown).is_some(), told, "{srtp:?}");
    }
}

fn port_leg(address: SocketAddr) -> Leg {
    Leg::Port(Box::new(NodePort { address, rtcp_port: address.port() }))
}

#[test]
fn packets_come_by_the_newest_incarnation_of_an_address() {
    let mut bench = Bench::stun(Srtp::Plain);
    let address = SocketAddr::from(([10, 0, 0, 1], 4_000));
    let hop = |incarnation| Hop { node: NodeId(0), incarnation: Incarnation(incarnation) };
    for incarnation in [2, 1] {
        bench.session.attach(hop(incarnation), port_leg(address));
    }
    assert_eq!(bench.hop_at(address), Some(hop(2)));
    bench.session.detach(hop(2));
    assert_eq!(bench.hop_at(address), Some(hop(1)));
}

#[test]
fn packets_come_by_the_node_that_the_room_is_on_where_two_have_the_address() {
    let mut bench = Bench::stun(Srtp::Plain);
    bench.board = Arc::new(Board::new(3));
    let address = SocketAddr::from(([10, 0, 0, 1], 4_000));
    let hop = |node, incarnation| Hop { node: NodeId(node), incarnation: Incarnation(incarnation) };
    let (old, new, dead) = (hop(0, 1), hop(1, 1), hop(2, 7));
    let until = bench.start + Duration::from_secs(1);
    let mut comes_by = |on, leaving: Option<Hop>| {
        let (hops, lead) = (vec![(on, Grant::Admitted)], Duration::ZERO);
        let leaving = leaving.map(|hop| (hop, until));
        let route = Route { version: 1, mode: Mode::Hot, hops, leaving, lead };
        bench.session.route = Arc::new(RouteCell::holding(route));
        for order in [[old, new, dead], [dead, new, old]] {
            for hop in order {
                bench.session.attach(hop, port_leg(address));
            }
            assert_eq!(bench.hop_at(address), Some(on), "{order:?}");
        }
        bench.session.detach(on);
        bench.hop_at(address)
    };
    assert_eq!(comes_by(new, Some(old)), Some(old), "then the one that it leaves");
    assert_eq!(comes_by(old, None), Some(dead), "then the newest");
}

#[test]
fn only_a_port_where_nobody_listens_accuses_the_node() {
    let mut bench = Bench::stun(Srtp::Plain);
    let address = SocketAddr::from(([10, 0, 0, 1], 4_000));
    let hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };
    bench.session.attach(hop, port_leg(address));
    let mut accused = |errno| {
        let error = io::Error::from_raw_os_error(errno);
        bench.at(0, |session, loan| session.accused(address, &error, loan));
        bench.reports.try_recv().is_ok()
    };
    assert!(!accused(libc::EMSGSIZE), "the path is narrower than what was sent");
    assert!(!accused(libc::EHOSTUNREACH), "a way there is missing, at this moment");
    assert!(accused(libc::ECONNREFUSED));
    assert_eq!([Reason::Oversize, Reason::SendFailed].map(|reason| bench.drops(reason)), [1, 1]);
}

#[test]
fn who_is_learned_by_its_port_sends_rtcp_from_the_next_one() {
    let mut bench = Bench::new(|_| Client::DeclaredIp { listener: 0 }, Srtp::Plain);
    let mut media = (*bench.session.media).clone();
    media.rtcp = RtcpPort::Own;
    bench.session.media = Arc::new(media);
    let from = |port| (0, SocketAddr::from(([10, 0, 0, 1], port)));
    let packet = |payload_type| {
        let fields =
            rtp::Fields { payload_type, marker: false, sequence: 1, timestamp: 1, ssrc: 1 };
        let mut packet = Vec::new();
        rtp::write(&fields, b"frame", &mut packet);
        packet
    };
    assert!(!bench.session.learn(from(4_000), &packet(5)), "not declared");
    assert!(bench.session.learns());
    assert!(bench.session.learn(from(4_000), &packet(96)));
    assert!(!bench.session.learns());
    let taken = |port| bench.session.takes_from(from(port));
    assert_eq!([3_999, 4_000, 4_001, 4_002].map(taken), [false, true, true, false]);
    assert_eq!(bench.session.address.rtcp(), Some(from(4_001)));
}

/// A gateway with a node for each of these round trips, in milliseconds.
fn gateway(round_trips_ms: &[u64], now: Instant) -> Gateway {
    let scenario = Scenario {
        set: "call".into(),
        bound: [false; 4],
        bounds: Bounds { floor_kbps: 24, ceiling_kbps: 2_000 },
        mode: Mode::Hot,
        affinity: evenkeel_core::Affinity::Room,
        regions: Vec::new(),
        spares: 1,
        close_after: Duration::from_secs(30),
        priority: 0,
        on_admission_fault: AdmitOnFault::Admit,
        on_degradation_fault: evenkeel_core::DegradeOnFault::Hold,
    };
    let node = |_| NodeSettings {
        name: "n".into(),
        zone: ZoneId(0),
        capacity_kbps: 1_000,
        probed: Probed::Yes,
        role: evenkeel_core::Role::Active,
        starts: evenkeel_core::Starts::ByItself,
        canary: false,
    };
    let settings = Settings {
        home: RegionId(0),
        regions: vec!["home".into()],
        zones: vec![Zone { name: "a".into(), region: RegionId(0) }],
        nodes: round_trips_ms.iter().map(node).collect(),
        scenarios: [("call".into(), scenario)].into(),
        timings: Timings::default(),
        limits: Limits::default(),
    };
    let mut gateway = Gateway::new(settings, now);
    gateway.handle_timeout(now);
    while let Some(output) = gateway.poll_output() {
        let Output::Probe { node, sequence } = output else { continue };
        let after = Duration::from_millis(round_trips_ms[node.0 as usize]);
        gateway.handle_probe_answered(node, sequence, now + after);
    }
    gateway
}

/// Whatever is to be opened is open at once. The reply, if there is one.
fn settle(gateway: &mut Gateway, now: Instant) -> Option<Accepted> {
    let mut accepted = None;
    while let Some(output) = gateway.poll_output() {
        match output {
            Output::Open { session, hop, .. } => gateway.handle_opened(session, hop, Ok(()), now),
            Output::Reply { result, .. } => accepted = result.ok(),
            _ => {}
        }
    }
    accepted
}

#[test]
fn a_planned_move_to_a_nearer_node_keeps_numbers_for_what_is_on_its_way() {
    const TURN_MS: u64 = 40;
    let declared = |address| Client::Declared { listener: 0, address, rtcp: address };
    let mut bench = Bench::new(declared, Srtp::Plain);
    let voice = PayloadType { number: 0, codec: "PCMU".into(), clock_rate: 8_000 };
    let stream = Stream {
        kind: Kind::Audio,
        payload_types: vec![voice],
        feedback: Takes::default(),
        bitrate_kbps: None,
    };
    let media = Arc::new(Media { streams: vec![stream], rtcp: RtcpPort::Mux, srtp: Srtp::Plain });
    let mut gateway = gateway(&[TURN_MS, 2], bench.start);
    let address = bench.client.local_addr().unwrap();
    let offer = Offer {
        id: OfferId(1),
        scenario: "call".into(),
        room: "r".into(),
        labels: Vec::new().into(),
        ingress: Ingress::Udp(Identity::Declared { address, rtcp: None }),
        media: media.clone(),
    };
    gateway.handle_offer(offer, bench.start);
    let route = settle(&mut gateway, bench.start).unwrap().route;
    bench.session.media = media;
    bench.session.route = Arc::clone(&route);
    bench.board = gateway.board();

    // One packet every 20 ms; each comes back with numbers of the node it was sent to.
    let hop = |node| Hop { node: NodeId(node), incarnation: Incarnation(1) };
    let of = |number: u64, old: bool| {
        let (at, hop, ssrc, first) = if old {
            (20 * number + TURN_MS, hop(0), 0xa, 1_000)
        } else {
            (20 * number + 2, hop(1), 0xb, 50_000)
        };
        let fields = rtp::Fields {
            payload_type: 0,
            marker: false,
            sequence: first + number as u16,
            timestamp: u32::from(first) * 7 + 160 * number as u32,
            ssrc,
        };
        let mut packet = Vec::new();
        rtp::write(&fields, &number.to_be_bytes(), &mut packet);
        (at, hop, packet)
    };
    let mut packets: Vec<_> = (0..80).map(|number| of(number, number < 40)).collect();
    packets.sort_by_key(|(at, ..)| *at);
    let mut numbers = Vec::new();
    for (at, hop, packet) in packets {
        if at >= 800 && route.load().leaving.is_none() {
            let now = bench.start + Duration::from_millis(800);
            gateway.handle_move(&"r".into(), NodeId(1), now).unwrap();
            settle(&mut gateway, now);
        }
        bench.at(at, |session, loan| session.handle_node_packet(hop, &packet, loan));
        let mut got = [0; 64];
        let length = bench.client.recv(&mut got).expect("every packet passes");
        let header = rtp::Header::parse(&got[..length]).unwrap();
        numbers.push((header.ssrc, header.sequence));
    }
    numbers.sort_unstable();
    let expected: Vec<_> = (0..80).map(|number| (0xa, 1_000 + number)).collect();
    assert_eq!(numbers, expected, "none lost, none twice");
}

#[test]
fn a_session_is_summed_up_while_something_happens_to_it_and_costs_nothing_else() {
    let mut bench =
        Bench::new(|address| Client::Declared { listener: 0, address, rtcp: address }, Srtp::Plain);
    assert!(!bench.session.is_awake() && bench.session.summary(bench.start).is_none());
    let packet = |sequence| {
        let fields =
            rtp::Fields { payload_type: 96, marker: false, sequence, timestamp: 1, ssrc: 1 };
        let mut packet = Vec::new();
        rtp::write(&fields, &[0; 88], &mut packet);
        packet
    };
    let at = |ms| bench.start + Duration::from_millis(ms);
    let times = [at(1_000), at(1_100), at(1_200), at(3_300), at(10_100)];
    bench.at(1_000, |session, loan| session.handle_client_packet(&packet(1), loan));
    bench.at(1_000, |session, loan| session.handle_client_packet(&packet(2), loan));
    assert_eq!(bench.ways.awake.len(), 1, "once");
    assert!(bench.session.summary(times[1]).is_some());
    assert!(!bench.session.rests(times[1]), "something happened");
    bench.session.summary(times[2]);
    assert!(!bench.session.rests(times[2]), "what it lost is told on for a while");
    let last = bench.session.summary(times[3]).unwrap().measures;
    assert!(bench.session.rests(times[3]));
    assert_eq!(last.measured(evenkeel_core::Metric::BitrateUp), Some(0));
    assert_eq!(last.measured(evenkeel_core::Metric::LossUp), None);
    // What it says after its rest is measured from there.
    bench.at(10_000, |session, loan| session.handle_client_packet(&packet(3), loan));
    assert_eq!(bench.ways.awake.len(), 2);
    let measures = bench.session.summary(times[4]).unwrap().measures;
    assert_eq!(measures.measured(evenkeel_core::Metric::BitrateUp), Some(8));
}

#[test]
fn a_session_with_a_cap_does_not_rest() {
    let mut bench =
        Bench::new(|address| Client::Declared { listener: 0, address, rtcp: address }, Srtp::Plain);
    let capped = Plan { cap_kbps: 300, ..Plan::default() };
    bench.at(0, |session, loan| session.set_plan(capped, loan));
    assert_eq!(bench.ways.awake.len(), 1);
    for second in 1..10 {
        assert!(!bench.session.rests(bench.start + Duration::from_secs(second)));
        bench.at(second * 1_000, Session::tick);
        assert!(bench.client.recv(&mut [0; 64]).is_ok(), "it is told again");
    }
    bench.at(10_000, |session, loan| session.set_plan(Plan::default(), loan));
    bench.session.rests(bench.start + Duration::from_secs(10));
    assert!(
        !bench.session.rests(bench.start + Duration::from_secs(11)),
        "nor while that is lifted"
    );
    assert!(bench.session.rests(bench.start + Duration::from_secs(16)));
}
