//! Addresses of checks at which the client has not proved to receive.

use evenkeel_media::stun::{self, StunKey, Transaction, Username};

use super::*;
use crate::flows::{CHECKED_FOR, Flows};
use crate::worker::session::address::CONSENT;

const HOP: Hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };

/// The time of the node's sender report.
const NTP: u64 = 0xe000_0000_8000_0000;
const MIDDLE: u32 = (NTP >> 16) as u32;

/// A session after a check of 100 bytes, which a sender that forged the client's address may have sent.
fn checked(srtp: Srtp) -> Bench {
    let mut bench = Bench::stun(srtp);
    let route = Route::new(1, RedundancyMode::Hot, [(HOP, HopGrant::Admitted)]);
    bench.session.route = Arc::new(RouteCell::holding(route));
    let source = bench.source();
    bench.at(0, |session, cx| session.checked(source.path(), true, cx));
    bench.session.client.count_received(source, &[0; 100]);
    bench
}

/// Bytes of the node's packets that reach the client.
fn reaching(bench: &mut Bench, ms: u64, sequences: std::ops::Range<u16>) -> usize {
    for sequence in sequences {
        let packet = video(sequence, 9);
        bench.at(ms, |session, cx| session.handle_node_packet(HOP, &packet, cx));
    }
    received(bench).iter().map(Vec::len).sum()
}

fn received(bench: &Bench) -> Vec<Vec<u8>> {
    let mut buffer = [0; 2_048];
    let next = || bench.client.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec());
    std::iter::from_fn(next).collect()
}

/// The node sends a report. Returns the middle of its time as the client gets it.
fn report_of_node(bench: &mut Bench, ms: u64) -> Option<u32> {
    let info = rtcp::SenderInfo { ssrc: 9, ntp: NTP, timestamp: 1, packets: 1, octets: 5 };
    let mut report = Vec::new();
    rtcp::write_sender_report(&info, &[], &mut report);
    bench.at(ms, |session, cx| session.handle_node_packet(HOP, &report, cx));
    let datagrams = received(bench);
    let packets = datagrams.iter().flat_map(|datagram| rtcp::packets(datagram));
    let mut times = packets.filter_map(|packet| match packet {
        Ok(rtcp::RtcpPacket::SenderReport(report)) => Some((report.info.ntp >> 16) as u32),
        _ => None,
    });
    times.next()
}

fn report_of_client(last_sr: u32) -> Vec<u8> {
    let block = rtcp::ReportBlock { ssrc: 9, last_sr, sequence_max: 1, ..Default::default() };
    let mut report = Vec::new();
    rtcp::write_receiver_report(5, &[block], &mut report);
    report
}

fn answer(transaction: Transaction) -> Vec<u8> {
    let mut answer = Vec::new();
    stun::write_success(transaction, ([127, 0, 0, 1], 1).into(), None, &mut answer);
    answer
}

#[test]
fn unproved_address_gets_three_times_what_came() {
    let mut bench = checked(Srtp::Plain);
    // Each packet has 17 bytes, and RTP leaves 200 bytes to RTCP.
    assert_eq!(reaching(&mut bench, 1, 0..100), 85);
    assert_eq!(bench.drops(DropReason::Unvalidated), 95);
    let source = bench.source();
    bench.session.client.count_received(source, &[0; 1_000]);
    assert_eq!(reaching(&mut bench, 2, 100..400), 177 * 17);
    let mut rtcp = 0;
    while bench.reaches(3) {
        rtcp += b"anything".len();
    }
    let all = 85 + 177 * 17 + rtcp;
    assert!((3_293..=3_300).contains(&all), "{all}");
    assert_eq!(reaching(&mut bench, 60_000, 400..500), 0);
}

#[test]
fn answer_to_the_gateways_check_ends_the_limit() {
    let mut bench = checked(Srtp::Plain);
    let source = bench.source();
    let username = Username { server_ufrag: "gate", client_ufrag: "phone" };
    let (mut check, key) = (Vec::new(), StunKey::new("the password of the session"));
    assert!(bench.session.write_check(source, username, key.clone(), &mut check));
    let request = stun::BindingRequest::parse(&check).unwrap();
    request.message.verify(&key).unwrap();
    let swapped = Username { server_ufrag: "phone", client_ufrag: "gate" };
    assert_eq!(request.username(), Some(swapped));
    let transaction = request.message.transaction();

    let elsewhere = SourceKey { listener: 0, address: ([10, 0, 0, 1], 5_000).into() };
    let mut take = |from, transaction| {
        let answer = answer(transaction);
        bench.at(1, |session, cx| session.handle_check_answer(from, &answer, cx))
    };
    assert!(!take(source, Transaction([7; 12])), "a guess");
    assert!(!take(elsewhere, transaction), "from an address without a check");
    assert!(take(source, transaction));
    assert!(!take(source, transaction), "a retransmission");
    assert_eq!(bench.drops(DropReason::BadIntegrity), 1);
    assert_eq!(reaching(&mut bench, 2, 0..100), 1_700);
    assert!(!bench.session.write_check(source, username, key, &mut check), "it is proved");
}

#[test]
fn addresses_have_different_transactions() {
    let mut bench = checked(Srtp::Plain);
    let (source, other) = (bench.source(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let other = SourceKey { listener: 0, address: other.local_addr().unwrap() };
    bench.at(1, |session, cx| session.checked(other.path(), true, cx));
    let transaction = bench.session.client.address().secret(source).transaction;
    let answer = answer(transaction);
    assert!(!bench.at(1, |session, cx| session.handle_check_answer(other, &answer, cx)));
    assert!(bench.session.client.address().is_unproved(other));
}

#[test]
fn answered_report_ends_the_limit() {
    let mut bench = checked(Srtp::Plain);
    assert!(reaching(&mut bench, 1, 0..100) < 300);
    let sent = report_of_node(&mut bench, 2).expect("RTP leaves room for reports");
    let source = bench.source();
    let mut take = |last_sr| {
        let report = report_of_client(last_sr);
        bench.at(3, |session, cx| session.read_reports(source, &report, cx))
    };
    assert!(!take(MIDDLE), "another receiver knows the node's time");
    assert!(!take(0));
    assert!(take(sent));
    assert_eq!(reaching(&mut bench, 4, 100..200), 1_700);
    assert_eq!(report_of_node(&mut bench, 5), Some(MIDDLE), "later times are those of the node");

    let answer = report_of_client(sent);
    let mut restored = answer.clone();
    bench.session.client.restore_reports(&mut restored);
    assert_eq!(restored, report_of_client(MIDDLE), "the node reads its own time");
}

#[test]
fn encrypted_reports_prove_nothing() {
    let mut bench = checked(Srtp::Opaque);
    let sent = report_of_node(&mut bench, 1);
    assert_eq!(sent, Some(MIDDLE), "it may be encrypted");
    let (source, report) = (bench.source(), report_of_client(MIDDLE));
    assert!(!bench.at(2, |session, cx| session.read_reports(source, &report, cx)));
    assert!(reaching(&mut bench, 3, 0..100) < 300);
}

#[test]
fn srtp_renews_consent_of_a_proved_address_only() {
    for proved in [false, true] {
        let mut bench = checked(Srtp::Terminated);
        let (source, start) = (bench.source(), bench.start);
        if proved {
            bench.session.client.address_mut().prove(source);
        }
        let mut renewed = |ms| {
            let now = start + Duration::from_millis(ms);
            bench.session.client.renew_consent(source, now)
        };
        let all = [999, 20_000, 20_001, 40_000].map(&mut renewed);
        assert_eq!(all, [false, proved, false, proved], "at most once a second");
        let now = start + Duration::from_millis(45_000);
        assert_eq!(bench.session.client.address().has_consent(now), proved);
        let held = if proved { CONSENT } else { CHECKED_FOR };
        assert_eq!(bench.session.client.holds_until(source, now), now + held);
    }
}

#[test]
fn dtls_of_an_unproved_address_is_limited() {
    let mut bench = checked(Srtp::Terminated);
    let source = bench.source();
    let flight = [22; 140];
    for _ in 0..7 {
        bench.at(1, |session, cx| session.send_dtls(source.path(), &flight, cx));
    }
    assert_eq!(received(&bench).len(), 2);
    assert_eq!(bench.drops(DropReason::Unvalidated), 5);
}

#[test]
fn limit_goes_on_in_another_process() {
    for proved in [false, true] {
        let mut bench = checked(Srtp::Plain);
        assert_eq!(reaching(&mut bench, 1, 0..100), 85);
        let source = bench.source();
        if proved {
            bench.session.client.address_mut().prove(source);
        }
        let flows = Flows::new(4);
        let home = bench.session.home;
        let until = bench.session.client.holds_until(source, bench.start);
        flows.check(source.key(), home, until, bench.start).unwrap();
        let state = Some(Box::new(handed_over(&bench.session.hand_out(&flows))));
        let route = Arc::clone(&bench.session.route);
        let install = install(ClientAddressing::Stun, Srtp::Plain, 0);
        bench.session = WorkerSession::new(Install { state, route, ..install });
        assert_eq!(reaching(&mut bench, 2, 100..200) > 0, proved);
    }
}

#[test]
fn forgotten_address_is_unproved_again() {
    let mut bench = checked(Srtp::Plain);
    let first = bench.source();
    bench.session.client.address_mut().prove(first);
    bench.at(1, |session, cx| session.checked(first.path(), true, cx));
    assert!(!bench.session.client.address().is_unproved(first), "another check changes nothing");
    for port in 1..=5 {
        let other = SourceKey { listener: 0, address: ([10, 0, 0, 1], port).into() };
        bench.at(2, |session, cx| session.checked(other.path(), true, cx));
    }
    bench.at(3, |session, cx| session.checked(first.path(), true, cx));
    assert!(bench.session.client.address().is_unproved(first));
}

#[test]
fn checks_of_others_do_not_lift_the_limit() {
    let mut bench = checked(Srtp::Plain);
    let before = reaching(&mut bench, 1, 0..100);
    for port in 1..=5 {
        let other = SourceKey { listener: 0, address: ([10, 0, 0, 1], port).into() };
        bench.at(2, |session, cx| session.checked(other.path(), false, cx));
    }
    assert!(bench.session.client.address().is_unproved(bench.source()));
    let after = reaching(&mut bench, 3, 100..200);
    assert_eq!(after, 0, "{before} packets came before");
}
