use super::*;
use crate::flows::Flows;

const SSRC: u32 = 9;

/// The highest number that the node sent.
const HIGHEST: u16 = 500;

const HOP: Hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };

/// A session with a first packet of the client at 0 ms, and one of the node at 1 s.
fn first_packet(client: fn(SocketAddr) -> ClientAddressing, install: Install) -> Bench {
    let mut bench = Bench::new(client, install.media.srtp);
    let address = bench.client.local_addr().unwrap();
    bench.session = WorkerSession::new(Install { client: client(address), ..install });
    let route = Route::new(1, RedundancyMode::Hot, [(HOP, HopGrant::Admitted)]);
    bench.session.route = Arc::new(RouteCell::holding(route));
    let (source, packet) = (SourceKey { listener: 0, address }, video(1));
    bench.at(0, |session, cx| {
        let admission = session.client.admit(source.path(), b"");
        assert!(admission == Admission::Accepted || session.learn(source.path(), &packet));
        session.handle_client_rtp(&packet, cx);
    });
    bench.at(1_000, |session, cx| session.handle_node_packet(HOP, &video(HIGHEST), cx));
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

fn awaiting(srtp: Srtp) -> Install {
    let client = ClientAddressing::DeclaredIp { listener: 0 };
    Install { await_report: true, ..install(client, srtp, 0) }
}

/// Packets that reach the client until one is dropped; 100 if none is.
fn reaching(bench: &mut Bench, ms: u64) -> usize {
    (0..100).take_while(|_| bench.reaches(ms)).count()
}

#[test]
fn silent_address_gets_three_times_what_it_sent() {
    for client in [declared, |_| ClientAddressing::DeclaredIp { listener: 0 }] {
        let mut bench = first_packet(client, awaiting(Srtp::Plain));
        assert_eq!(reaching(&mut bench, 14_999), 100, "the client may still report");
        // 17 bytes came, and each packet has 8.
        assert_eq!(reaching(&mut bench, 15_000), 6);
        assert_eq!(bench.drops(DropReason::Unvalidated), 1);
        bench.at(16_000, |session, cx| session.handle_client_rtp(&video(2), cx));
        assert_eq!(reaching(&mut bench, 16_000), 6);
    }
}

#[test]
fn report_of_a_sent_packet_validates_the_address() {
    let highest = u32::from(HIGHEST);
    for (ms, ssrc, sequence_max, validates) in [
        (2_000, SSRC, highest, true),
        (16_000, SSRC, highest, true),
        (2_000, SSRC, highest | 3 << 16, true),
        (2_000, SSRC, highest - 400, true),
        (2_000, SSRC, highest + 1, false),
        (2_000, SSRC, highest + 61_000, false),
        (2_000, SSRC + 1, highest, false),
    ] {
        let mut bench = first_packet(declared, awaiting(Srtp::Plain));
        report(&mut bench, ms, ssrc, sequence_max);
        assert_eq!(reaching(&mut bench, 17_000) == 100, validates, "{ssrc} {sequence_max}");
    }
}

#[test]
fn report_about_rtcp_proves_nothing() {
    // The gateway's RTCP, as RTP: the sender's SSRC or the NTP time for an SSRC, and the length for a number.
    let mut packets = Vec::new();
    for write in [
        |out: &mut Vec<u8>| rtcp::write_receiver_report(7, &[], out),
        |out: &mut Vec<u8>| rtcp::write_pli(rtcp::Pli { sender: 7, media: 77 }, out),
    ] {
        packets.push(Vec::new());
        write(packets.last_mut().unwrap());
    }
    let mut bench = first_packet(declared, awaiting(Srtp::Plain));
    for packet in packets {
        bench.at(2_000, |session, cx| session.handle_node_packet(HOP, &packet, cx));
        for (place, number) in [(4, 0), (8, 0), (4, packet.len() as u32 / 4 - 1)] {
            let ssrc = packet.get(place..place + 4).map(|it| it.try_into().unwrap());
            report(&mut bench, 2_000, ssrc.map_or(0, u32::from_be_bytes), number);
        }
    }
    assert!(bench.session.state().validation.is_some());
}

#[test]
fn report_after_many_dropped_packets_validates() {
    let mut bench = first_packet(declared, awaiting(Srtp::Plain));
    for number in 1..=5_000 {
        let packet = video(HIGHEST + number);
        bench.at(20_000, |session, cx| session.handle_node_packet(HOP, &packet, cx));
    }
    let sent = u32::from(HIGHEST) + 5_000 - bench.drops(DropReason::Unvalidated) as u32;
    assert!(sent < u32::from(HIGHEST) + 10);
    report(&mut bench, 21_000, SSRC, sent);
    while bench.client.recv(&mut [0; 64]).is_ok() {}
    assert_eq!(reaching(&mut bench, 21_000), 100);
}

#[test]
fn clients_that_cannot_report_have_no_limit() {
    let mut own = awaiting(Srtp::Plain);
    let media = MediaDescription { rtcp: RtcpPort::Own, ..(*own.media).clone() };
    own.media = Arc::new(media);
    let not_awaiting = Install { await_report: false, ..awaiting(Srtp::Plain) };
    for install in [awaiting(Srtp::Opaque), own, not_awaiting] {
        let client = |_| ClientAddressing::DeclaredIp { listener: 0 };
        let mut bench = first_packet(client, install);
        assert!(bench.session.state().validation.is_none());
    }
}

#[test]
fn validation_goes_on_in_another_process() {
    for (validated, await_report, reaches) in
        [(false, true, 6), (true, true, 100), (false, false, 100)]
    {
        let mut bench = first_packet(declared, awaiting(Srtp::Plain));
        if validated {
            report(&mut bench, 2_000, SSRC, HIGHEST.into());
        }
        let state = Some(Box::new(handed_over(&bench.session.hand_out(&Flows::new(1)))));
        let client = declared(bench.client.local_addr().unwrap());
        let install = Install { client, await_report, state, ..awaiting(Srtp::Plain) };
        bench.session = WorkerSession::new(install);
        assert_eq!(reaching(&mut bench, 17_000), reaches);
    }
}
