use super::*;
use crate::flows::Flows;

const SSRC: u32 = 9;

/// The highest number that the node sent.
const HIGHEST: u16 = 500;

/// A session whose client sent its first packet at 0 ms, and whose node sent one packet to it.
fn first_packet(client: fn(SocketAddr) -> ClientAddressing, srtp: Srtp, awaits: bool) -> Bench {
    let mut bench = Bench::new(client, srtp);
    let address = bench.client.local_addr().unwrap();
    let install = install(client(address), srtp, 0);
    bench.session = WorkerSession::new(Install { await_first_packet: awaits, ..install });
    let hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };
    let hops = vec![(hop, HopGrant::Admitted)];
    let route =
        Route { version: 1, mode: RedundancyMode::Hot, hops, leaving: None, lead: Duration::ZERO };
    bench.session.route = Arc::new(RouteCell::holding(route));
    let (source, packet) = (SourceKey { listener: 0, address }, video(1));
    bench.at(0, |session, cx| {
        assert!(!session.learns() || session.learn(source, &packet, cx.now));
        session.heard_from(source, cx.now);
        session.handle_client_rtp(&packet, cx);
        session.handle_node_packet(hop, &video(HIGHEST), cx);
    });
    assert!(bench.client.recv(&mut [0; 64]).is_ok());
    bench
}

fn video(sequence: u16) -> Vec<u8> {
    let fields =
        rtp::Fields { payload_type: 96, marker: false, sequence, timestamp: 1, ssrc: SSRC };
    let mut packet = Vec::new();
    rtp::write(&fields, b"frame", &mut packet);
    packet
}

fn declared(address: SocketAddr) -> ClientAddressing {
    ClientAddressing::Declared { listener: 0, address, rtcp: address }
}

fn report(bench: &mut Bench, ms: u64, ssrc: u32, sequence_max: u32) {
    let block = rtcp::ReportBlock {
        ssrc,
        fraction_lost: 0,
        lost: 0,
        sequence_max,
        jitter: 0,
        last_sr: 0,
        delay_since_last_sr: 0,
    };
    let mut report = Vec::new();
    rtcp::write_receiver_report(5, &[block], &mut report);
    bench.at(ms, |session, cx| session.handle_client_rtcp(&report, cx));
}

/// Packets that reach the client until one is dropped; 100 if none is.
fn reaching(bench: &mut Bench, ms: u64) -> usize {
    (0..100).take_while(|_| bench.reaches(ms)).count()
}

#[test]
fn unconfirmed_address_is_sent_three_times_the_bytes_received() {
    for client in [declared, |_| ClientAddressing::DeclaredIp { listener: 0 }] {
        let mut bench = first_packet(client, Srtp::Plain, true);
        assert_eq!(reaching(&mut bench, 6_999), 100, "the client may still report");
        // 17 bytes came, and each packet has 8.
        assert_eq!(reaching(&mut bench, 7_000), 6);
        assert_eq!(bench.drops(DropReason::Unconfirmed), 1);
        bench.at(8_000, |session, cx| session.handle_client_rtp(&video(2), cx));
        assert_eq!(reaching(&mut bench, 8_000), 6);
    }
}

#[test]
fn report_of_a_sent_packet_confirms_the_address() {
    let highest = u32::from(HIGHEST);
    for (ms, ssrc, sequence_max, confirms) in [
        (100, SSRC, highest, true),
        (8_000, SSRC, highest, true),
        (100, SSRC, highest | 3 << 16, true),
        (100, SSRC, highest - 400, true),
        (100, SSRC, highest + 1, false),
        (100, SSRC, highest + 61_000, false),
        (100, SSRC + 1, highest, false),
    ] {
        let mut bench = first_packet(declared, Srtp::Plain, true);
        report(&mut bench, ms, ssrc, sequence_max);
        assert_eq!(reaching(&mut bench, 9_000) == 100, confirms, "{ssrc} {sequence_max}");
    }
}

#[test]
fn address_without_a_first_packet_or_readable_reports_has_no_limit() {
    for (srtp, awaits) in [(Srtp::Opaque, true), (Srtp::Plain, false)] {
        let mut bench = first_packet(declared, srtp, awaits);
        assert_eq!(reaching(&mut bench, 9_000), 100);
    }
}

#[test]
fn another_process_continues_the_limit() {
    for confirmed in [false, true] {
        let mut bench = first_packet(declared, Srtp::Plain, true);
        if confirmed {
            report(&mut bench, 100, SSRC, HIGHEST.into());
        }
        let state = Some(Box::new(handed_over(&bench.session.hand_out(&Flows::new(1)))));
        let address = bench.client.local_addr().unwrap();
        let install = install(declared(address), Srtp::Plain, 0);
        bench.session = WorkerSession::new(Install { await_first_packet: true, state, ..install });
        assert_eq!(reaching(&mut bench, 9_000), if confirmed { 100 } else { 6 });
    }
}
