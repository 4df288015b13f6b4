use std::fmt::Debug;
use std::net::UdpSocket;

use evenkeel_core::{Gateway, GatewayEffect};
use evenkeel_instant as instant;
use evenkeel_media::continuity::FILLED_WITHIN;
use evenkeel_media::{rtcp, rtp};
use evenkeel_model::{
    AcceptedOffer, AdmitOnFault, Board, CapBounds, ClientIdentity, CoreSettings, DropReason,
    FailureScope, FeedbackSupport as Takes, FlowCounts, GatewayLimits, HopGrant, Incarnation,
    IngressProtocol, LeftHop, MediaStream, NodeId, NodeSettings, Offer, OfferId, PayloadType,
    RedundancyMode, RegionId, Route, RtcpPort, Scenario, Srtp, Timings, Zone, ZoneId,
};
use evenkeel_nodes::{NodeEffect, NodeEvidence};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::super::early::EarlyLimits;
use super::super::egress::DscpMarks;
use super::super::report::WorkerStats;
use super::super::sockets::{ListenerPort, SessionPorts};
use super::*;

mod continued;
mod estimate;
mod fec;
mod hitless;
mod key_frames;
mod layers;
mod leg_srtp;
mod loss;
mod pacing;
mod parking;
mod policing;
mod reachability;
mod redundancy;
mod replay;
mod reports;
mod retransmission;
mod signs;
mod srtp;
mod thinning;
mod validation;

/// Returns the part of the state that another process reads.
fn recorded<T: Serialize + DeserializeOwned>(state: &T) -> T {
    instant::relative_to(Instant::now(), || {
        rmp_serde::from_slice(&rmp_serde::to_vec_named(state).unwrap()).unwrap()
    })
}

/// Returns the state as another process reads it, which must be the same.
pub(in crate::worker) fn handed_over<T: Serialize + DeserializeOwned + Debug>(state: &T) -> T {
    let read = recorded(state);
    assert_eq!(format!("{read:?}"), format!("{state:?}"));
    read
}

/// A session whose client is a socket of the test.
struct Bench {
    session: WorkerSession,
    egress: Egress,
    board: Arc<Board>,
    start: Instant,
    client: UdpSocket,
    reports: mpsc::Receiver<WorkerReport>,
}

/// Egress with a listener and no node.
pub(in crate::worker) fn egress(start: Instant) -> (Egress, mpsc::Receiver<WorkerReport>) {
    let (reports, received) = mpsc::channel(16);
    let stats = Arc::new(WorkerStats::new(start, 1));
    let early_limits = EarlyLimits { packets: 16, wait: Duration::from_millis(200) };
    let mut egress = Egress::new(reports, stats, early_limits);
    let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
    egress.listeners.push((ListenerPort::new(listener).unwrap(), None));
    (egress, received)
}

/// A session with video in this slot.
pub(in crate::worker) fn install(client: ClientAddressing, srtp: Srtp, slot: u32) -> Install {
    let vp8 = PayloadType::new(96, "VP8", 90_000);
    let video = MediaStream {
        kind: StreamKind::Video,
        payload_types: vec![vp8],
        feedback: Takes { pli: true, remb: true, ..Takes::default() },
        bitrate_kbps: None,
    };
    Install {
        home: Home { worker: 0, slot, generation: 1 },
        session: SessionId(1),
        media: Arc::new(MediaDescription::new(vec![video], RtcpPort::Mux, srtp)),
        client,
        route: Arc::new(RouteCell::default()),
        limits: MediaLimits::default(),
        dscp: DscpMarks::default(),
        replay: ReplayedMedia::Off,
        srtp: None,
        ports: None,
        await_first_packet: false,
        await_report: false,
        seed: 7,
        state: None,
    }
}

impl Bench {
    fn new(client: fn(SocketAddr) -> ClientAddressing, srtp: Srtp) -> Bench {
        let start = Instant::now();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let (egress, received) = egress(start);
        let install = install(client(socket.local_addr().unwrap()), srtp, 0);
        let session = WorkerSession::new(install);
        let board = Arc::new(Board::new(1));
        Bench { session, egress, board, start, client: socket, reports: received }
    }

    fn stun(srtp: Srtp) -> Bench {
        Bench::new(|_| ClientAddressing::Stun, srtp)
    }

    fn at<T>(
        &mut self,
        ms: u64,
        act: impl FnOnce(&mut WorkerSession, &mut PacketContext<'_>) -> T,
    ) -> T {
        let now = self.start + Duration::from_millis(ms);
        self.egress.stats.pass_begins(now);
        let done = act(
            &mut self.session,
            &mut PacketContext { egress: &mut self.egress, board: &self.board, now },
        );
        self.egress.flush(now);
        done
    }

    fn source(&self) -> SourceKey {
        SourceKey { listener: 0, address: self.client.local_addr().unwrap() }
    }

    /// A check of the client, which receives at its address.
    fn check(&mut self, ms: u64) {
        self.check_from(self.source(), true, ms);
    }

    fn check_from(&mut self, from: SourceKey, nominated: bool, ms: u64) {
        self.at(ms, |session, cx| session.checked(from.path(), nominated, cx));
        self.session.client.address_mut().prove(from);
    }

    /// Returns whether a packet sent at this time reaches the client.
    fn reaches(&mut self, ms: u64) -> bool {
        self.at(ms, |session, cx| {
            session.send_to_client(RtpSide::Rtcp, StreamKind::Audio, b"anything", cx, |_| {});
        });
        self.client.recv(&mut [0; 64]).is_ok()
    }

    fn hop_at(&mut self, address: SocketAddr) -> Option<Hop> {
        self.at(0, |session, cx| session.hop_at(address, cx))
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.egress.stats.drops(reason)
    }
}

#[test]
fn consent_expires_after_thirty_seconds() {
    let mut bench = Bench::stun(Srtp::Plain);
    assert!(!bench.reaches(0), "no check yet");
    bench.check(1_000);
    assert!(bench.reaches(30_999));
    assert!(!bench.reaches(31_000));
    assert_eq!(bench.drops(DropReason::NoAddress), 2);
    bench.check(40_000);
    assert!(bench.reaches(40_000), "until the next check");
}

#[test]
fn media_follows_checks_after_lost_consent() {
    let mut bench = Bench::stun(Srtp::Plain);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = SourceKey { listener: 0, address: socket.local_addr().unwrap() };
    bench.check(0);
    let check = |bench: &mut Bench, from, ms| bench.check_from(from, false, ms);
    check(&mut bench, other, 29_999);
    assert!(bench.reaches(29_999), "checks of another address neither move media");
    assert!(!bench.reaches(30_000), "nor prolong consent");
    check(&mut bench, other, 30_000);
    assert!(!bench.reaches(30_001));
    assert_eq!(bench.drops(DropReason::NoAddress), 1, "media goes to the other address");
    let own = SourceKey { listener: 0, address: bench.client.local_addr().unwrap() };
    check(&mut bench, own, 60_000);
    assert!(bench.reaches(60_001));
}

#[test]
fn media_leaves_from_the_nominated_local_address() {
    let mut bench = Bench::stun(Srtp::Plain);
    let source = SourceKey { listener: 0, address: bench.client.local_addr().unwrap() };
    let path = |last| ClientPath { source, local: Some([10, 0, 0, last].into()) };
    let check = |bench: &mut Bench, path, nominated, ms| {
        bench.at(ms, |session, cx| session.checked(path, nominated, cx));
        bench.session.client.address().local()
    };
    assert_eq!(check(&mut bench, source.path(), false, 0), None);
    assert_eq!(check(&mut bench, path(1), false, 1), path(1).local, "none was known");
    assert_eq!(check(&mut bench, path(2), false, 2), path(1).local, "another pair of ICE");
    assert_eq!(check(&mut bench, path(2), true, 3), path(2).local);
    assert_eq!(check(&mut bench, path(1), false, 4), path(2).local);
    assert_eq!(check(&mut bench, source.path(), true, 5), path(2).local, "unknown here");
    bench.session.client.admit(path(3), b"");
    assert_eq!(
        bench.session.client.address().local(),
        path(3).local,
        "media uses the client's pair"
    );
}

#[test]
fn declared_address_needs_no_consent() {
    let declared = |address| ClientAddressing::Declared { listener: 0, address, rtcp: address };
    assert!(Bench::new(declared, Srtp::Plain).reaches(1_000_000));
}

#[test]
fn declared_address_awaits_the_first_packet() {
    let declared = |address| ClientAddressing::Declared { listener: 0, address, rtcp: address };
    let mut bench = Bench::new(declared, Srtp::Plain);
    let address = bench.client.local_addr().unwrap();
    let install = install(declared(address), Srtp::Plain, 0);
    bench.session = WorkerSession::new(Install { await_first_packet: true, ..install });
    assert!(!bench.reaches(0));
    assert_eq!(bench.drops(DropReason::NoAddress), 1);
    bench.session.client.admit(SourceKey { listener: 0, address }.path(), b"");
    assert!(bench.reaches(1));
    assert_eq!(bench.session.client.address().rtcp(), Some(SourceKey { listener: 0, address }));
}

#[test]
fn oldest_checked_address_is_replaced() {
    let mut bench = Bench::stun(Srtp::Plain);
    let address =
        |port| SourceKey { listener: 0, address: SocketAddr::from(([10, 0, 0, 1], port)) };
    let mut gone = Vec::new();
    for port in [1, 2, 3, 1, 4, 5, 6] {
        gone.extend(bench.at(0, |session, cx| session.checked(address(port).path(), false, cx)));
    }
    assert_eq!(gone, [address(2), address(3)]);
    assert_eq!(bench.session.client.learned(), [1, 4, 5, 6].map(address));
}

/// Builds a receiver report with a loss of one half.
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
fn summary_counts_packets_between_client_and_node() {
    let declared = |address| ClientAddressing::Declared { listener: 0, address, rtcp: address };
    let mut bench = Bench::new(declared, Srtp::Plain);
    let hop = |incarnation| Hop { node: NodeId(0), incarnation: Incarnation(incarnation) };
    let route = Route::new(1, RedundancyMode::Hot, [(hop(1), HopGrant::Admitted)]);
    bench.session.route = Arc::new(RouteCell::holding(route));
    let packet = |sequence: u16| {
        let marker = sequence.is_multiple_of(2);
        let fields = rtp::Fields { payload_type: 96, marker, sequence, timestamp: 1, ssrc: 9 };
        let mut packet = Vec::new();
        rtp::write(&fields, b"frame", &mut packet);
        packet
    };
    for sequence in [1, 2, 4, 5] {
        bench.at(20, |session, cx| session.handle_client_rtp(&packet(sequence), cx));
    }
    for sequence in [1, 2, 5] {
        bench.at(20, |session, cx| session.handle_node_packet(hop(1), &packet(sequence), cx));
    }
    bench.at(20, |session, cx| session.handle_node_packet(hop(1), &half_lost(), cx));
    // Packets of other hops are not counted.
    bench.at(20, |session, cx| session.handle_node_packet(hop(2), &packet(6), cx));
    let told = |bench: &mut Bench| bench.session.summary(bench.start).unwrap().flow;
    let flow = FlowCounts {
        sent: [0, 4],
        received: [0, 3],
        hears: Some(hop(1)),
        expected: 5,
        lost: 2,
        missed: 0,
        reported_ppm: Some(500_000),
        client_ppm: None,
        lost_up: 1,
        frames: 2,
        ..FlowCounts::default()
    };
    assert_eq!(told(&mut bench), flow);
    assert_eq!(
        told(&mut bench),
        FlowCounts { hears: Some(hop(1)), ..FlowCounts::default() },
        "reported once"
    );
}

#[test]
fn flow_counts_start_anew_with_each_hop() {
    let declared = |address| ClientAddressing::Declared { listener: 0, address, rtcp: address };
    let mut bench = Bench::new(declared, Srtp::Plain);
    bench.board = Arc::new(Board::new(2));
    let hop = |node| Hop { node: NodeId(node), incarnation: Incarnation(1) };
    let route = |at: u32, left: Option<LeftHop>| {
        let hops = [(hop(at), HopGrant::Admitted)];
        let route = Route::new(u64::from(at) + 1, RedundancyMode::Hot, hops);
        Arc::new(RouteCell::holding(Route { left: left.map(Box::new), ..route }))
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
        bench.at(20, |session, cx| session.handle_node_packet(hop(0), &packet, cx));
    }
    let until = bench.start + Duration::from_secs(1);
    bench.session.route = route(1, Some(LeftHop { hop: hop(0), until, lead: Duration::ZERO }));
    // The hop continues its numbering: packets sent while no session received are not lost.
    bench.at(40, |session, cx| session.handle_node_packet(hop(1), &packet(9), cx));
    bench.at(40, |session, cx| session.handle_node_packet(hop(0), &half_lost(), cx));
    let flow = FlowCounts { received: [0, 1], hears: Some(hop(1)), ..FlowCounts::default() };
    assert_eq!(bench.session.summary(bench.start).unwrap().flow, flow);
    bench.at(60, |session, cx| session.handle_node_packet(hop(1), &half_lost(), cx));
    let flow = bench.session.summary(bench.start).unwrap().flow;
    assert_eq!(flow.reported_ppm, Some(500_000), "its own reports are");
}

/// A session at a hop, and the socket of the hop's node.
fn at_node(srtp: Srtp) -> (Bench, UdpSocket, Hop) {
    let declared = |address| ClientAddressing::Declared { listener: 0, address, rtcp: address };
    let mut bench = Bench::new(declared, srtp);
    let hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };
    let route = Route::new(1, RedundancyMode::Hot, [(hop, HopGrant::Admitted)]);
    bench.session.route = Arc::new(RouteCell::holding(route));
    let [node, port] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    node.set_nonblocking(true).unwrap();
    bench.session.attach(hop, port_leg(node.local_addr().unwrap()));
    bench.session.nodes.set_ports(SessionPorts::new(port, None).unwrap());
    (bench, node, hop)
}

fn flush_ports(session: &mut WorkerSession, cx: &mut PacketContext<'_>) {
    session.nodes.flush(&cx.egress.stats, cx.now);
}

#[test]
fn node_hears_at_most_the_limit_of_the_device() {
    let word = |bps| {
        let mut compound = Vec::new();
        rtcp::write_receiver_report(5, &[], &mut compound);
        rtcp::write_remb(5, bps, &[9], &mut compound);
        compound
    };
    for (srtp, limit_kbps, says, arrives) in [
        (Srtp::Plain, 500, 500_000, 500_000),
        (Srtp::Plain, 500, 501_000, 500_000),
        (Srtp::Plain, 500, 80_000, 80_000),
        (Srtp::Plain, 0, 2_000_000, 2_000_000),
        (Srtp::Opaque, 500, 2_000_000, 2_000_000),
    ] {
        let (mut bench, node, _) = at_node(srtp);
        bench.session.limits.receive_kbps = limit_kbps;
        bench.at(0, |session, cx| {
            session.handle_client_rtcp(&word(says), cx);
            flush_ports(session, cx);
        });
        let mut packet = [0; 64];
        let length = node.recv(&mut packet).unwrap();
        assert_eq!(packet[..length], word(arrives), "{srtp:?} {limit_kbps} {says}");
    }
}

#[test]
fn restored_part_of_video_asks_for_key_frame() {
    let (vp8, h264) = (1 << 96, 1 << 97);
    for (withheld, asks) in [(0, true), (h264, true), (vp8 | h264, false)] {
        let (mut bench, node, hop) = at_node(Srtp::Plain);
        let all = MediaLimits { withheld: vp8 | h264, ..MediaLimits::default() };
        bench.at(0, |session, cx| session.set_limits(all, cx));
        bench.at(20, |session, cx| {
            session.set_limits(MediaLimits { withheld, ..MediaLimits::default() }, cx);
            session.handle_node_packet(hop, &video(1, 9), cx);
            flush_ports(session, cx);
        });
        assert_eq!(node.recv(&mut [0; 128]).is_ok(), asks, "{withheld:x}");
    }
}

#[test]
fn encrypted_reports_are_not_read() {
    let report = half_lost();
    for (srtp, told) in [(Srtp::Plain, true), (Srtp::Opaque, false)] {
        let mut bench = Bench::stun(srtp);
        bench.at(0, |session, cx| session.handle_client_rtcp(&report, cx));
        let measures = bench.session.summary(bench.start).unwrap().measures;
        assert_eq!(measures.measured(evenkeel_model::Metric::LossDown).is_some(), told, "{srtp:?}");
    }
}

fn port_leg(address: SocketAddr) -> NodeLeg {
    NodeLeg::Port(Box::new(NodePort { address, rtcp_port: address.port() }))
}

#[test]
fn shared_address_is_the_newest_incarnation() {
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
fn shared_address_is_the_node_of_the_room() {
    let mut bench = Bench::stun(Srtp::Plain);
    bench.board = Arc::new(Board::new(3));
    let address = SocketAddr::from(([10, 0, 0, 1], 4_000));
    let hop = |node, incarnation| Hop { node: NodeId(node), incarnation: Incarnation(incarnation) };
    let (old, new, dead) = (hop(0, 1), hop(1, 1), hop(2, 7));
    let until = bench.start + Duration::from_secs(1);
    let mut comes_by = |on, leaving: Option<Hop>| {
        let left = leaving.map(|hop| Box::new(LeftHop { hop, until, lead: Duration::ZERO }));
        let route = Route::new(1, RedundancyMode::Hot, [(on, HopGrant::Admitted)]);
        bench.session.route = Arc::new(RouteCell::holding(Route { left, ..route }));
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
fn only_connection_refused_is_reported() {
    let mut bench = Bench::stun(Srtp::Plain);
    let address = SocketAddr::from(([10, 0, 0, 1], 4_000));
    let hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };
    bench.session.attach(hop, port_leg(address));
    let packet = video(1, 5);
    bench.at(0, |session, cx| session.handle_client_rtp(&packet, cx));
    let mut accused = |errno| {
        let error = io::Error::from_raw_os_error(errno);
        bench.at(0, |session, cx| session.send_failed(address, &error, &packet, cx));
        bench.reports.try_recv().is_ok()
    };
    assert!(!accused(libc::EMSGSIZE), "the path is narrower than what was sent");
    assert!(!accused(libc::EHOSTUNREACH), "a way there is missing, at this moment");
    assert!(accused(libc::ECONNREFUSED));
    assert_eq!(
        [DropReason::Oversize, DropReason::SendFailed].map(|reason| bench.drops(reason)),
        [1, 1]
    );
}

/// RTP with the payload type of the session.
fn video(sequence: u16, ssrc: u32) -> Vec<u8> {
    let fields = rtp::Fields { payload_type: 96, marker: false, sequence, timestamp: 1, ssrc };
    let mut packet = Vec::new();
    rtp::write(&fields, b"frame", &mut packet);
    packet
}

#[test]
fn refusal_must_quote_forwarded_rtp() {
    let mut bench = Bench::stun(Srtp::Plain);
    let address = SocketAddr::from(([10, 0, 0, 1], 4_000));
    bench.session.attach(Hop { node: NodeId(0), incarnation: Incarnation(1) }, port_leg(address));
    for sequence in [65_534, 65_535, 0] {
        bench.at(0, |session, cx| session.handle_client_rtp(&video(sequence, 5), cx));
    }
    let mut accused = |quoted: &[u8]| {
        let error = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        bench.at(0, |session, cx| session.send_failed(address, &error, quoted, cx));
        bench.reports.try_recv().is_ok()
    };
    assert!(accused(&video(65_535, 5)) && accused(&video(0, 5)[..rtp::HEADER_LEN]));
    assert!(!accused(&video(1, 5)), "not sent yet");
    assert!(!accused(&video(0, 6)), "another source");
    assert!(!accused(&video(0u16.wrapping_sub(4_001), 5)), "too long ago");
    assert!(!accused(&video(0, 5)[..11]) && !accused(&[]), "a short quote");
}

#[test]
fn learned_port_takes_rtcp_from_the_next_port() {
    let mut bench = Bench::new(|_| ClientAddressing::DeclaredIp { listener: 0 }, Srtp::Plain);
    let mut media = (*bench.session.media).clone();
    media.rtcp = RtcpPort::Own;
    bench.session.media = Arc::new(media);
    let from = |port| SourceKey { listener: 0, address: SocketAddr::from(([10, 0, 0, 1], port)) };
    let packet = |payload_type| {
        let fields =
            rtp::Fields { payload_type, marker: false, sequence: 1, timestamp: 1, ssrc: 1 };
        let mut packet = Vec::new();
        rtp::write(&fields, b"frame", &mut packet);
        packet
    };
    assert!(!bench.session.learn(from(4_000).path(), &packet(5)), "not declared");
    assert_eq!(bench.session.client.admit(from(4_000).path(), b""), Admission::Learns);
    assert!(bench.session.learn(from(4_000).path(), &packet(96)));
    assert_eq!(bench.session.client.admit(from(4_000).path(), b""), Admission::Accepted);
    let taken = |port| bench.session.client.takes_from(from(port));
    assert_eq!([3_999, 4_000, 4_001, 4_002].map(taken), [false, true, true, false]);
    assert_eq!(bench.session.client.address().rtcp(), Some(from(4_001)));
}

/// Creates a gateway with a node for each of these round-trip times in milliseconds.
fn gateway(round_trips_ms: &[u64], now: Instant) -> Gateway {
    let scenario = Scenario {
        set: "call".into(),
        bound: [false; 4],
        bounds: CapBounds { floor_kbps: 24, ceiling_kbps: 2_000 },
        mode: RedundancyMode::Hot,
        affinity: evenkeel_model::Affinity::Room,
        regions: Vec::new(),
        spares: 1,
        reserve: Some(FailureScope::Node),
        spares_outside: FailureScope::Node,
        close_after: Duration::from_secs(30),
        priority: 0,
        slo: None,
        on_admission_fault: AdmitOnFault::Admit,
        on_degradation_fault: evenkeel_model::DegradeOnFault::Hold,
    };
    let node = |_| NodeSettings::new("n", ZoneId(0), 1_000);
    let settings = CoreSettings {
        home: RegionId(0),
        regions: vec!["home".into()],
        carriers: Vec::new(),
        zones: vec![Zone { name: "a".into(), region: RegionId(0) }],
        nodes: round_trips_ms.iter().map(node).collect(),
        scenarios: [("call".into(), scenario)].into(),
        timings: Timings::default(),
        limits: GatewayLimits::default(),
    };
    let mut gateway = Gateway::new(settings, now);
    gateway.handle_timeout(now);
    while let Some(output) = gateway.poll_output() {
        let GatewayEffect::Node(NodeEffect::Probe { node, sequence }) = output else { continue };
        let after = Duration::from_millis(round_trips_ms[node.0 as usize]);
        gateway.handle_evidence(node, NodeEvidence::ProbeAnswered(sequence), now + after);
    }
    gateway
}

/// Opens every requested session and returns the reply to the offer, if any.
fn settle(gateway: &mut Gateway, now: Instant) -> Option<AcceptedOffer> {
    let mut accepted = None;
    while let Some(output) = gateway.poll_output() {
        match output {
            GatewayEffect::Open { session, hop, .. } => {
                gateway.handle_opened(session, hop, Ok(()), now);
            }
            GatewayEffect::Reply { result, .. } => accepted = result.ok(),
            _ => {}
        }
    }
    accepted
}

#[test]
fn planned_move_keeps_numbers_for_packets_in_flight() {
    const TURN_MS: u64 = 40;
    let declared = |address| ClientAddressing::Declared { listener: 0, address, rtcp: address };
    let mut bench = Bench::new(declared, Srtp::Plain);
    let voice = PayloadType::new(0, "PCMU", 8_000);
    let stream = MediaStream {
        kind: StreamKind::Audio,
        payload_types: vec![voice],
        feedback: Takes::default(),
        bitrate_kbps: None,
    };
    let media = Arc::new(MediaDescription::new(vec![stream], RtcpPort::Mux, Srtp::Plain));
    let mut gateway = gateway(&[TURN_MS, 2], bench.start);
    let address = bench.client.local_addr().unwrap();
    let offer = Offer {
        id: OfferId(1),
        scenario: "call".into(),
        room: "r".into(),
        labels: Vec::new().into(),
        ingress: IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp: None }),
        media: media.clone(),
    };
    gateway.handle_offer(offer, bench.start);
    let route = settle(&mut gateway, bench.start).unwrap().route;
    bench.session.media = media;
    bench.session.route = Arc::clone(&route);
    bench.board = gateway.board();

    // One packet every 20 ms; each returns with the numbering of its node.
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
        if at >= 800 && route.load().left.is_none() {
            let now = bench.start + Duration::from_millis(800);
            gateway.handle_move(&"r".into(), NodeId(1), now).unwrap();
            settle(&mut gateway, now);
        }
        bench.at(at, |session, cx| session.handle_node_packet(hop, &packet, cx));
        let mut got = [0; 64];
        let length = bench.client.recv(&mut got).expect("every packet passes");
        let header = rtp::RtpHeader::parse(&got[..length]).unwrap();
        numbers.push((header.ssrc, header.sequence));
    }
    numbers.sort_unstable();
    let expected: Vec<_> = (0..80).map(|number| (0xa, 1_000 + number)).collect();
    assert_eq!(numbers, expected, "none lost, none twice");
}

#[test]
fn padding_is_read_in_plain_rtp_only() {
    // The last byte is a number of padding bytes, or a part of SRTP's tag.
    for (srtp, last, passes) in [
        (Srtp::Plain, 1, true),
        (Srtp::Plain, 0, false),
        (Srtp::Plain, 255, false),
        (Srtp::Opaque, 1, true),
        (Srtp::Opaque, 0, true),
        (Srtp::Opaque, 255, true),
    ] {
        let (mut bench, node, hop) = at_node(srtp);
        let mut packet = video(1, 9);
        packet[0] |= 0x20;
        *packet.last_mut().unwrap() = last;
        bench.at(0, |session, cx| {
            session.handle_client_rtp(&packet, cx);
            session.handle_node_packet(hop, &packet, cx);
            flush_ports(session, cx);
        });
        let mut got = [0; 64];
        for socket in [&node, &bench.client] {
            let received = socket.recv(&mut got).ok().map(|length| &got[..length]);
            assert_eq!(received, passes.then_some(&packet[..]), "{srtp:?} {last}");
        }
        assert_eq!(bench.drops(DropReason::Malformed), if passes { 0 } else { 2 });
    }
}

#[test]
fn idle_session_leaves_the_active_sessions() {
    let mut bench = Bench::new(
        |address| ClientAddressing::Declared { listener: 0, address, rtcp: address },
        Srtp::Plain,
    );
    assert!(!bench.session.is_active() && bench.session.summary(bench.start).is_none());
    let packet = |sequence| {
        let fields =
            rtp::Fields { payload_type: 96, marker: false, sequence, timestamp: 1, ssrc: 1 };
        let mut packet = Vec::new();
        rtp::write(&fields, &[0; 88], &mut packet);
        packet
    };
    let at = |ms| bench.start + Duration::from_millis(ms);
    let times = [at(1_000), at(1_100), at(1_200), at(3_300), at(10_100)];
    bench.at(1_000, |session, cx| session.handle_client_rtp(&packet(1), cx));
    bench.at(1_000, |session, cx| session.handle_client_rtp(&packet(2), cx));
    assert_eq!(bench.egress.active.len(), 1, "once");
    assert!(bench.session.summary(times[1]).is_some());
    assert!(!bench.session.went_idle(times[1]), "something happened");
    bench.session.summary(times[2]);
    assert!(!bench.session.went_idle(times[2]), "its loss is reported for a while");
    let last = bench.session.summary(times[3]).unwrap().measures;
    assert!(bench.session.went_idle(times[3]));
    assert_eq!(last.measured(evenkeel_model::Metric::BitrateUp), Some(0));
    assert_eq!(last.measured(evenkeel_model::Metric::LossUp), None);
    // The interval starts at the first packet after the pause.
    bench.at(10_000, |session, cx| session.handle_client_rtp(&packet(3), cx));
    assert_eq!(bench.egress.active.len(), 2);
    let measures = bench.session.summary(times[4]).unwrap().measures;
    assert_eq!(measures.measured(evenkeel_model::Metric::BitrateUp), Some(8));
}

#[test]
fn session_with_a_cap_stays_active() {
    let mut bench = Bench::new(
        |address| ClientAddressing::Declared { listener: 0, address, rtcp: address },
        Srtp::Plain,
    );
    let capped = MediaLimits { send_kbps: 300, ..MediaLimits::default() };
    bench.at(0, |session, cx| session.set_limits(capped, cx));
    assert_eq!(bench.egress.active.len(), 1);
    for second in 1..10 {
        assert!(!bench.session.went_idle(bench.start + Duration::from_secs(second)));
        bench.at(second * 1_000, WorkerSession::tick);
        assert!(bench.client.recv(&mut [0; 64]).is_ok(), "repeated");
    }
    bench.at(10_000, |session, cx| session.set_limits(MediaLimits::default(), cx));
    bench.session.went_idle(bench.start + Duration::from_secs(10));
    assert!(
        !bench.session.went_idle(bench.start + Duration::from_secs(11)),
        "nor while that is lifted"
    );
    assert!(bench.session.went_idle(bench.start + Duration::from_secs(16)));
}

#[test]
fn cap_of_a_client_that_obeys_none_allocates_no_media_state() {
    let declared = |address| ClientAddressing::Declared { listener: 0, address, rtcp: address };
    let mut bench = Bench::new(declared, Srtp::Opaque);
    let capped = MediaLimits { send_kbps: 300, ..MediaLimits::default() };
    bench.at(0, |session, cx| session.set_limits(capped, cx));
    bench.at(100, WorkerSession::tick);
    assert!(bench.session.running.is_none());
}
