//! Reports and feedback of a client, beside those of other tests: extended reports, selections of pictures, and frozen pictures.

use evenkeel_model::Metric;

use super::key_frames::{INTER, KEY, vp8};
use super::signs::hop;
use super::*;

/// An extended report (RFC 3611) of the SSRC 5 with these words of blocks.
pub(super) fn extended(words: &[u32]) -> Vec<u8> {
    let header = [0x80cf_0001 + words.len() as u32, 5];
    header.iter().chain(words).flat_map(|word| word.to_be_bytes()).collect()
}

/// Delivers RTCP of the client. Returns what the node gets.
fn report(bench: &mut Bench, node: &UdpSocket, ms: u64, compound: &[u8]) -> Option<Vec<u8>> {
    bench.at(ms, |session, cx| {
        session.handle_client_rtcp(compound, cx);
        flush_ports(session, cx);
    });
    let mut packet = [0; 256];
    node.recv(&mut packet).ok().map(|length| packet[..length].to_vec())
}

fn measured(bench: &mut Bench, ms: u64, metric: Metric) -> Option<u32> {
    let now = bench.start + Duration::from_millis(ms);
    bench.session.summary(now).unwrap().measures.measured(metric)
}

#[test]
fn runs_of_lost_packets_are_measured() {
    let (mut bench, node, hop) = at_node(Srtp::Plain);
    for number in 1..=20 {
        let packet = video(number, 9);
        bench.at(0, |session, cx| session.handle_node_packet(hop, &packet, cx));
    }
    // Of 1 to 20, three in a row are lost.
    let runs = extended(&[0x0100_0004, 9, 0x0001_0015, 0x4008_0003, 0x4009_0000]);
    // The report beside them is about the same packets, and less exact.
    let block = rtcp::ReportBlock {
        ssrc: 9,
        fraction_lost: 39,
        lost: 3,
        sequence_max: 20,
        ..rtcp::ReportBlock::default()
    };
    let mut compound = Vec::new();
    rtcp::write_receiver_report(5, &[block], &mut compound);
    compound.extend(&runs);
    let passed = report(&mut bench, &node, 0, &compound);
    assert_eq!(passed, Some(compound), "the node sends these numbers");
    assert_eq!(measured(&mut bench, 0, Metric::LossDown), Some(150_000));
    assert_eq!(measured(&mut bench, 0, Metric::BurstDown), Some(300));
}

#[test]
fn loss_after_repair_is_that_of_the_report_about_it() {
    let (mut bench, node, hop) = at_node(Srtp::Plain);
    for number in 1..=20 {
        let packet = video(number, 9);
        bench.at(0, |session, cx| session.handle_node_packet(hop, &packet, cx));
        // As for a client with parity.
        bench.session.state().measurements.down(Some(9)).losses.note_sent(number);
    }
    // Of 1 to 20, three are lost, and one after repair (RFC 5725).
    let lost = [0x0100_0004, 9, 0x0001_0015, 0x4008_0003, 0x4009_0000];
    let left = [0x0a00_0003, 9, 0x0001_0015, 0x4013_0001];
    report(&mut bench, &node, 0, &extended(&[&lost[..], &left].concat()));
    assert_eq!(measured(&mut bench, 0, Metric::LossDown), Some(150_000));
    assert_eq!(measured(&mut bench, 0, Metric::LossDownAfterRepair), Some(50_000));
}

#[test]
fn answer_to_a_reference_time_gives_the_round_trip() {
    let (mut bench, node, hop) = at_node(Srtp::Plain);
    let question = extended(&[0x0400_0002, 0x1234_5678, 0x9abc_def0]);
    bench.at(0, |session, cx| session.handle_node_packet(hop, &question, cx));
    let mut packet = [0; 256];
    let length = bench.client.recv(&mut packet).unwrap();
    assert_eq!(packet[..length], question);
    let answer = |reference| extended(&[0x0500_0003, 7, reference, 65_536]);
    assert_eq!(report(&mut bench, &node, 1_010, &answer(0x5678_9abd)), None, "never asked");
    assert_eq!(measured(&mut bench, 1_010, Metric::RttClient), None);
    let known = answer(0x5678_9abc);
    assert_eq!(report(&mut bench, &node, 1_040, &known), Some(known.clone()));
    assert_eq!(measured(&mut bench, 1_040, Metric::RttClient), Some(40_000));
    bench.session.state().set_current_hop(hop);
    assert_eq!(report(&mut bench, &node, 1_050, &known), None, "another hop knows no such time");
}

#[test]
fn picture_selections_pass_after_a_key_frame_of_the_next_hop() {
    let (mut bench, _node, first) = at_node(Srtp::Plain);
    let selection = |media: u32| -> Vec<u8> {
        [0x83ce_0003, 5, media, 0x0060_8001].into_iter().flat_map(u32::to_be_bytes).collect()
    };
    bench.at(0, |session, cx| session.handle_node_packet(first, &vp8(1, 9, KEY), cx));
    let next = UdpSocket::bind("127.0.0.1:0").unwrap();
    next.set_nonblocking(true).unwrap();
    bench.session.attach(hop(1), port_leg(next.local_addr().unwrap()));
    bench.board = Arc::new(Board::new(2));
    let route = Route::new(2, RedundancyMode::Hot, [(hop(1), HopGrant::Admitted)]);
    bench.session.route = Arc::new(RouteCell::holding(route));
    let hear = |bench: &mut Bench, number, frame| {
        let packet = vp8(number, 77, frame);
        bench.at(20, |session, cx| {
            session.handle_node_packet(hop(1), &packet, cx);
            flush_ports(session, cx);
        });
    };
    hear(&mut bench, 9_000, INTER);
    assert!(next.recv(&mut [0; 256]).is_ok(), "a request for a key frame");
    assert_eq!(report(&mut bench, &next, 30, &selection(9)), None, "a picture of the first hop");
    assert_eq!(bench.drops(DropReason::Feedback), 1);
    hear(&mut bench, 9_001, KEY);
    assert_eq!(report(&mut bench, &next, 50, &selection(9)), Some(selection(77)));
}

#[test]
fn picture_that_lacks_packets_is_frozen() {
    let (mut bench, node, hop) = at_node(Srtp::Plain);
    for number in 0..50_u16 {
        let mut packet = vp8(number, 9, INTER);
        rtp::set_timestamp(&mut packet, 3_600 * u32::from(number));
        let ms = 40 * u64::from(number);
        bench.at(ms, |session, cx| session.handle_node_packet(hop, &packet, cx));
    }
    assert_eq!(measured(&mut bench, 2_000, Metric::FreezeDown), Some(0));
    let block = rtcp::ReportBlock {
        ssrc: 9,
        fraction_lost: 26,
        sequence_max: 49,
        ..rtcp::ReportBlock::default()
    };
    let mut compound = Vec::new();
    rtcp::write_receiver_report(5, &[block], &mut compound);
    report(&mut bench, &node, 2_010, &compound);
    // A tenth of the pictures stands for 100 ms, of one each 40 ms.
    let frozen = measured(&mut bench, 2_020, Metric::FreezeDown).unwrap();
    assert!((200_000..=205_000).contains(&frozen), "{frozen}");
    assert_eq!(measured(&mut bench, 12_000, Metric::FreezeDown), None, "the video ended");
}
