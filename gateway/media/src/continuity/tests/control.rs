//! RTCP rewritten by the mapping.

use super::*;
use crate::rtcp::tests::write_bye;
use crate::rtcp::xr::tests::{block, range, report};
use crate::rtcp::{
    FirEntry, Pli, ReportBlock, RtcpError, RtcpPacket, SenderInfo, packets, write_cname, write_fir,
    write_nack, write_pli, write_receiver_report, write_remb, write_sender_report,
};
use evenkeel_fuzz::Corpus;

const CLIENT: u32 = 0xc11e_0001;
const OTHER: u32 = 0x0000_0f0f;

fn old() -> Node {
    node(1, 0xa, 1_000, 50_000)
}

fn new() -> Node {
    node(2, 0xb, 40_000, 9_000_000)
}

/// Sends ten packets by the old node, loses three, and sends ten by the new one.
fn switched() -> Session {
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 10);
    session.voice_as(new(), old(), 13, 23);
    session
}

fn report_of(node: Node, number: u64) -> SenderInfo {
    SenderInfo {
        ssrc: node.ssrc,
        ntp: 0xe000_0001_8000_0000 + number,
        timestamp: numbers(node, voice(number)).2,
        packets: 7,
        octets: 700,
    }
}

fn compound(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    bytes
}

fn to_client(
    session: &mut Session,
    epoch: u64,
    mut bytes: Vec<u8>,
) -> Result<Vec<u8>, FeedbackDrop> {
    let length = session.0.rtcp_to_client(StreamEpoch(epoch), &mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

fn to_node(session: &mut Session, mut bytes: Vec<u8>) -> Result<Vec<u8>, FeedbackDrop> {
    let length = session.0.rtcp_to_node(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

fn sender_info_in(bytes: &[u8]) -> SenderInfo {
    match packets(bytes).next() {
        Some(Ok(RtcpPacket::SenderReport(report))) => report.info,
        other => panic!("{other:?}"),
    }
}

#[test]
fn reports_of_untouched_stream_are_unchanged() {
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 10);
    let report = compound(|out| {
        write_sender_report(
            &report_of(old(), 9),
            &[ReportBlock { ssrc: CLIENT, ..<_>::default() }],
            out,
        );
        write_cname(old().ssrc, b"node", out);
        write_cname(OTHER, b"reporter", out);
        write_bye(&[old().ssrc], out);
    });
    assert_eq!(to_client(&mut session, 1, report.clone()), Ok(report));
}

#[test]
fn sender_report_follows_its_stream() {
    let mut session = switched();
    let report = compound(|out| {
        write_sender_report(&report_of(new(), 22), &[], out);
        write_cname(new().ssrc, b"another name", out);
    });
    let info = sender_info_in(&to_client(&mut session, 2, report).unwrap());
    assert_eq!((info.ssrc, info.timestamp), (old().ssrc, numbers(old(), voice(22)).2));
    assert_eq!(info.ntp, report_of(new(), 22).ntp);
}

#[test]
fn cname_of_the_new_sender_is_removed() {
    let mut session = switched();
    let report = compound(|out| {
        write_sender_report(&report_of(new(), 22), &[], out);
        write_cname(new().ssrc, b"another name", out);
    });
    let passed = to_client(&mut session, 2, report).unwrap();
    assert_eq!(packets(&passed).count(), 1);
}

#[test]
fn reported_packet_counts_never_decrease() {
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 10);
    let before = SenderInfo { packets: 5_000, octets: 500_000, ..report_of(old(), 9) };
    let report = compound(|out| write_sender_report(&before, &[], out));
    assert_eq!(sender_info_in(&to_client(&mut session, 1, report).unwrap()), before);

    session.voice_as(new(), old(), 13, 23);
    let report = compound(|out| write_sender_report(&report_of(new(), 22), &[], out));
    let after = sender_info_in(&to_client(&mut session, 2, report).unwrap());
    assert_eq!((after.packets, after.octets), (5_010, 501_000));
}

#[test]
fn report_of_another_mapping_is_dropped() {
    let mut session = Session::new();
    let early = compound(|out| write_sender_report(&report_of(old(), 0), &[], out));
    assert_eq!(to_client(&mut session, 1, early), Err(FeedbackDrop::Empty), "no packet yet");

    session.voice_as(old(), old(), 0, 10);
    session.0.switched(StreamEpoch(2), SwitchCause::Failover);
    let report = |node| {
        compound(|out| {
            write_sender_report(&report_of(node, 9), &[], out);
            write_cname(node.ssrc, b"name", out);
        })
    };
    assert!(to_client(&mut session, 1, report(old())).is_ok(), "still the sender");
    assert_eq!(
        to_client(&mut session, 2, report(new())),
        Err(FeedbackDrop::Empty),
        "no packet yet"
    );
    session.voice_as(new(), old(), 13, 23);
    assert_eq!(to_client(&mut session, 1, report(old())), Err(FeedbackDrop::Empty), "replaced");
    assert!(to_client(&mut session, 2, report(new())).is_ok());
    session.0.close_previous();
    assert_eq!(to_client(&mut session, 1, report(old())), Err(FeedbackDrop::Stale));
}

#[test]
fn removed_packets_leave_the_rest() {
    let mut session = switched();
    let report = compound(|out| {
        write_sender_report(&SenderInfo { ssrc: 0x77, ..report_of(new(), 22) }, &[], out);
        write_sender_report(&report_of(new(), 22), &[], out);
        write_cname(0x77, b"unheard", out);
    });
    let passed = to_client(&mut session, 2, report).unwrap();
    assert_eq!(packets(&passed).count(), 1);
    assert_eq!(sender_info_in(&passed).ssrc, old().ssrc);
}

#[test]
fn bye_of_the_present_sender_only_passes() {
    let mut session = switched();
    let bye = |ssrc| compound(|out| write_bye(&[ssrc], out));
    assert_eq!(to_client(&mut session, 1, bye(old().ssrc)), Err(FeedbackDrop::Empty));
    assert_eq!(to_client(&mut session, 2, bye(0x77)), Err(FeedbackDrop::Empty), "unknown source");
    assert_eq!(to_client(&mut session, 2, bye(new().ssrc)), Ok(bye(old().ssrc)));
}

#[test]
fn left_hop_reports_no_more_about_the_client() {
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 10);
    session.0.switched(StreamEpoch(2), SwitchCause::Failover);
    let block = ReportBlock { ssrc: CLIENT, fraction_lost: 255, ..<_>::default() };
    let report = compound(|out| {
        write_sender_report(&report_of(old(), 9), &[block], out);
        write_pli(Pli { sender: old().ssrc, media: CLIENT }, out);
    });
    let expected = compound(|out| write_sender_report(&report_of(old(), 9), &[], out));
    assert_eq!(to_client(&mut session, 1, report), Ok(expected));
    let report = compound(|out| write_receiver_report(OTHER, &[block], out));
    assert_eq!(to_client(&mut session, 1, report.clone()), Err(FeedbackDrop::Empty));
    assert_eq!(to_client(&mut session, 2, report.clone()), Ok(report), "the new hop does");
}

#[test]
fn feedback_of_new_node_uses_the_known_ssrc() {
    let mut session = switched();
    let pli = |sender| compound(|out| write_pli(Pli { sender, media: CLIENT }, out));
    assert_eq!(to_client(&mut session, 2, pli(new().ssrc)), Ok(pli(old().ssrc)));
}

/// The client's report on its stream, with packet `number` as the highest.
fn block_at(number: u64) -> ReportBlock {
    let (ssrc, sequence, _) = numbers(old(), voice(number));
    ReportBlock { ssrc, sequence_max: sequence.into(), ..<_>::default() }
}

fn blocks_for_node(session: &mut Session, block: ReportBlock) -> Vec<ReportBlock> {
    let report = compound(|out| write_receiver_report(CLIENT, &[block], out));
    let passed = to_node(session, report).unwrap();
    match packets(&passed).next() {
        Some(Ok(packet @ RtcpPacket::ReceiverReport(_))) => packet.blocks().collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn client_reports_use_the_nodes_numbers() {
    let mut session = switched();
    for number in 13..23 {
        let block = blocks_for_node(&mut session, block_at(number))[0];
        assert_eq!(block.ssrc, new().ssrc);
        assert_eq!(block.sequence_max, u32::from(numbers(new(), voice(number)).1), "{number}");
    }
}

#[test]
fn reported_numbers_use_the_nodes_cycles() {
    let mut session = Session::new();
    let wrapping = node(2, 0xb, 65_510, 0);
    session.voice_as(old(), old(), 0, 10);
    session.voice_as(wrapping, old(), 10, 40);
    let block = blocks_for_node(&mut session, block_at(39))[0];
    assert_eq!(block.sequence_max, 65_510 + 39, "one cycle more than the sequence number");
}

#[test]
fn reports_on_old_packets_are_not_sent_to_new_node() {
    let mut session = switched();
    assert_eq!(blocks_for_node(&mut session, block_at(9)), []);
    assert_eq!(blocks_for_node(&mut session, block_at(12)), []);
    assert_eq!(blocks_for_node(&mut session, block_at(13)).len(), 1);
    session.0.switched(StreamEpoch(3), SwitchCause::Failover);
    assert_eq!(blocks_for_node(&mut session, block_at(20)), [], "not sent by the new hop");
    let other = ReportBlock { ssrc: OTHER, ..block_at(9) };
    assert_eq!(blocks_for_node(&mut session, other), [other], "not ours: left alone");
}

#[test]
fn losses_up_to_the_switch_are_subtracted() {
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 10);
    blocks_for_node(&mut session, ReportBlock { lost: 100, ..block_at(9) });
    session.voice_as(new(), old(), 13, 23);
    let block = blocks_for_node(&mut session, ReportBlock { lost: 104, ..block_at(22) })[0];
    assert_eq!(block.lost, 1, "100 before, 3 at the switch");
}

#[test]
fn round_trips_use_the_present_senders_reports() {
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 10);
    let of_old = SenderInfo { ntp: 0xe000_0000_8000_0000, ..report_of(old(), 9) };
    let report = compound(|out| write_sender_report(&of_old, &[], out));
    to_client(&mut session, 1, report).unwrap();
    session.voice_as(new(), old(), 13, 23);
    let report = compound(|out| write_sender_report(&report_of(new(), 22), &[], out));
    to_client(&mut session, 2, report).unwrap();
    let seen = (report_of(new(), 22).ntp >> 16) as u32;
    let seen_before = (of_old.ntp >> 16) as u32;
    for (last_sr, expected) in [(seen, (seen, 9)), (seen_before, (0, 0))] {
        let block = ReportBlock { last_sr, delay_since_last_sr: 9, ..block_at(22) };
        let block = blocks_for_node(&mut session, block)[0];
        assert_eq!((block.last_sr, block.delay_since_last_sr), expected);
    }
}

#[test]
fn nack_uses_the_senders_numbers() {
    let mut session = switched();
    let of = |node, missing: &[u64]| {
        let missing: Vec<_> =
            missing.iter().map(|number| numbers(node, voice(*number)).1).collect();
        compound(|out| write_nack(CLIENT, node.ssrc, &missing, out))
    };
    let passed = to_node(&mut session, of(old(), &[8, 9, 11, 13, 15, 20]));
    assert_eq!(passed, Ok(of(new(), &[13, 15, 20])));
    assert_eq!(to_node(&mut session, of(old(), &[8, 12])), Err(FeedbackDrop::Empty));
    session.0.switched(StreamEpoch(3), SwitchCause::Failover);
    assert_eq!(to_node(&mut session, of(old(), &[20])), Err(FeedbackDrop::Empty));
}

#[test]
fn nack_after_withholding_uses_the_nodes_numbers() {
    for kept_back in [3_000, 70_000] {
        let mut session = Session::new();
        session.voice_as(old(), old(), 0, 10);
        for number in 10..10 + kept_back {
            let header = old().header(voice(number));
            let _ = session.0.withhold(StreamEpoch(1), &header, VOICE_HZ, at(20.0 * number as f64));
        }
        // The client sees consecutive numbers even after withheld packets.
        for number in 10..20 {
            let sent = voice(number + kept_back);
            let got = session.got(old(), sent, 20.0 * sent.number as f64);
            assert_eq!(got.1, numbers(old(), voice(number)).1);
        }
        let missing = |number| {
            let number = numbers(old(), voice(number)).1;
            compound(|out| write_nack(CLIENT, old().ssrc, &[number], out))
        };
        let asked = to_node(&mut session, missing(15));
        assert_eq!(asked, Ok(missing(15 + kept_back)));
        assert_eq!(
            to_node(&mut session, missing(9)),
            Err(FeedbackDrop::Empty),
            "numbered otherwise"
        );
        let block = blocks_for_node(&mut session, block_at(15))[0];
        assert_eq!(u64::from(block.sequence_max), 1_000 + 15 + kept_back);
    }
}

#[test]
fn key_frame_and_bitrate_requests_use_node_ssrc() {
    let mut session = switched();
    let write = |media| {
        compound(|out| {
            write_pli(Pli { sender: CLIENT, media }, out);
            write_fir(CLIENT, &[FirEntry { media, number: 3 }], out);
            write_remb(CLIENT, 64_000, &[media, OTHER], out);
        })
    };
    assert_eq!(to_node(&mut session, write(old().ssrc)), Ok(write(new().ssrc)));
}

/// A loss notification (`goog-lntf`): the last decoded packet, and one received after three more.
fn notification(media: u32, decoded: u16) -> Vec<u8> {
    let words = [0x8fce_0004, CLIENT, media, 0x4c4e_5446, u32::from(decoded) << 16 | 3 << 1];
    words.map(u32::to_be_bytes).concat()
}

#[test]
fn loss_notifications_use_node_numbers() {
    let mut session = switched();
    let asked = to_node(&mut session, notification(old().ssrc, 1_015));
    assert_eq!(asked, Ok(notification(new().ssrc, 40_015)));
    let of_old = to_node(&mut session, notification(old().ssrc, 1_009));
    assert_eq!(of_old, Err(FeedbackDrop::Empty), "the old node's packet");
    assert_eq!(to_node(&mut session, notification(OTHER, 9)), Ok(notification(OTHER, 9)));
}

#[test]
fn picture_selections_wait_for_a_key_frame() {
    let selection = |media: u32| {
        let words = [0x83ce_0003, CLIENT, media, 0x0060_8001];
        words.map(u32::to_be_bytes).concat()
    };
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 10);
    assert_eq!(to_node(&mut session, selection(old().ssrc)), Ok(selection(old().ssrc)));
    session.voice_as(new(), old(), 13, 23);
    let selected = to_node(&mut session, selection(old().ssrc));
    assert_eq!(selected, Err(FeedbackDrop::Empty), "a picture of the old node");
    session.0.note_key_frame(old().ssrc);
    assert!(to_node(&mut session, selection(old().ssrc)).is_err(), "of another stream");
    session.0.note_key_frame(new().ssrc);
    assert_eq!(to_node(&mut session, selection(old().ssrc)), Ok(selection(new().ssrc)));
}

#[test]
fn extended_reports_use_node_numbers() {
    let mut session = switched();
    let runs =
        |ssrc, begin, thinning| block(1, thinning, &[ssrc, range(begin, begin + 6), 0x4003_0000]);
    let metrics = |ssrc| block(7, 0, &[ssrc, 0, 0, 0, 0, 0, 0, 0]);
    let mut statistics = vec![old().ssrc, range(1_014, 1_020)];
    statistics.resize(9, 0);
    let mut translated = statistics.clone();
    translated[..2].copy_from_slice(&[new().ssrc, range(40_014, 40_020)]);
    let asked = to_node(
        &mut session,
        report(&[
            runs(old().ssrc, 1_014, 0),
            runs(old().ssrc, 1_009, 0),
            runs(old().ssrc, 1_016, 3),
            runs(old().ssrc, 1_016, 4),
            runs(OTHER, 1_009, 0),
            block(6, 0x80, &statistics),
            metrics(old().ssrc),
            block(5, 0, &[old().ssrc, 1, 2, OTHER, 3, 4]),
        ]),
    );
    let expected = report(&[
        runs(new().ssrc, 40_014, 0),
        runs(new().ssrc, 40_016, 3),
        runs(OTHER, 1_009, 0),
        block(6, 0x80, &translated),
        block(5, 0, &[new().ssrc, 1, 2, OTHER, 3, 4]),
    ]);
    assert_eq!(asked, Ok(expected));
    let of_old = report(&[runs(old().ssrc, 1_009, 0)]);
    assert_eq!(to_node(&mut session, of_old), Err(FeedbackDrop::Empty));
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 10);
    let same = report(&[runs(old().ssrc, 1_003, 4), metrics(old().ssrc)]);
    assert_eq!(to_node(&mut session, same.clone()), Ok(same), "nothing is translated");
}

#[test]
fn client_rtcp_of_untouched_stream_is_unchanged() {
    let mut session = Session::new();
    session.voice_as(old(), old(), 0, 10);
    session.voice_as(old().again(2), old(), 10, 20);
    let bytes = compound(|out| {
        let block = ReportBlock { lost: 5, last_sr: 9, ..block_at(3) };
        write_receiver_report(CLIENT, &[block], out);
        write_cname(CLIENT, b"client", out);
        write_nack(CLIENT, old().ssrc, &[1_003], out);
        write_pli(Pli { sender: CLIENT, media: old().ssrc }, out);
    });
    assert_eq!(to_node(&mut session, bytes.clone()), Ok(bytes));
}

#[test]
fn srtcp_is_unchanged() {
    let mut session = Session(Continuity::new(7, Protection::Srtp));
    assert_eq!(session.pass(old(), voice(0), 0.0), Pass::Untouched);
    assert_eq!(session.pass(new(), voice(1), 20.0), Pass::Untouched);
    let encrypted = vec![0x80, 200, 0, 1, 9, 9, 9, 9, 9];
    assert_eq!(to_client(&mut session, 2, encrypted.clone()), Ok(encrypted.clone()));
    assert_eq!(to_node(&mut session, encrypted.clone()), Ok(encrypted.clone()));
    session.0.close_previous();
    assert_eq!(to_client(&mut session, 1, encrypted), Err(FeedbackDrop::Stale));
}

#[test]
fn malformed_rtcp_is_dropped_with_its_reason() {
    let mut session = switched();
    let nonsense = vec![0x80, 200, 0, 9];
    let expected = Err(FeedbackDrop::Malformed(RtcpError::Length));
    assert_eq!(to_client(&mut session, 2, nonsense.clone()), expected);
    assert_eq!(to_node(&mut session, nonsense), expected);
}

#[test]
fn fuzz_rtcp_rewrite() {
    let report = |node: Node| {
        compound(|out| {
            let block = ReportBlock { ssrc: CLIENT, ..<_>::default() };
            write_sender_report(&report_of(node, 22), &[block], out);
            write_cname(node.ssrc, b"node", out);
            write_bye(&[node.ssrc], out);
        })
    };
    let feedback = |media: u32| {
        compound(|out| {
            let block = ReportBlock { ssrc: media, sequence_max: 1_022, ..<_>::default() };
            write_receiver_report(CLIENT, &[block], out);
            write_nack(CLIENT, media, &[1_014, 1_016], out);
            write_pli(Pli { sender: CLIENT, media }, out);
            write_fir(CLIENT, &[FirEntry { media, number: 1 }], out);
            write_remb(CLIENT, 64_000, &[media], out);
        })
    };
    let corpus = Corpus::of("rtcp").with(report(old())).with(report(new()));
    corpus.with(feedback(old().ssrc)).with(feedback(OTHER)).check(|bytes| {
        let mut session = switched();
        for rewritten in [
            to_client(&mut session, 1, bytes.to_vec()),
            to_client(&mut session, 2, bytes.to_vec()),
            to_node(&mut session, bytes.to_vec()),
        ] {
            let Ok(rewritten) = rewritten else { continue };
            assert!(!rewritten.is_empty() && rewritten.len() <= bytes.len());
            assert!(packets(&rewritten).all(|packet| packet.is_ok()));
        }
    });
}
