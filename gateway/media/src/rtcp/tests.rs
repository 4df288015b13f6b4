use std::collections::BTreeSet;

use super::*;
use evenkeel_fuzz::Corpus;

const INFO: SenderInfo = SenderInfo {
    ssrc: 0x1111_1111,
    ntp: 0xe000_0000_8000_0000,
    timestamp: 48_000,
    packets: 100,
    octets: 9_000,
};

fn block(ssrc: u32) -> ReportBlock {
    ReportBlock {
        ssrc,
        fraction_lost: 25,
        lost: -3,
        sequence_max: 0x0001_fffe,
        jitter: 77,
        last_sr: 0x0000_8000,
        delay_since_last_sr: 65_536,
    }
}

fn bytes(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Arrivals of three packets from number 258 on, with three bytes of padding.
const ARRIVALS: [u8; 28] =
    [0xaf, 205, 0, 6, 0, 0, 0, 2, 0, 0, 0, 1, 1, 2, 0, 3, 0, 0, 9, 1, 0x20, 3, 4, 4, 4, 0, 0, 3];

/// Appends a BYE.
pub(crate) fn write_bye(sources: &[u32], out: &mut Vec<u8>) {
    report::write_header(sources.len() as u8, BYE, sources.len() * 4, out);
    sources.iter().for_each(|ssrc| out.extend_from_slice(&ssrc.to_be_bytes()));
}

/// Returns the numbers in a NACK.
fn missing(nack: &[u8]) -> Vec<u16> {
    let RtcpPacket::Nack(nack) = only(nack) else { panic!("no NACK") };
    nack.missing().collect()
}

fn only(compound: &[u8]) -> RtcpPacket<'_> {
    let mut packets = packets(compound);
    let packet = packets.next().unwrap().unwrap();
    assert!(packets.next().is_none());
    packet
}

#[test]
fn sender_report_is_read_back() {
    let report = bytes(|out| write_sender_report(&INFO, &[block(1), block(2)], out));
    let packet = only(&report);
    let RtcpPacket::SenderReport(report) = packet else { panic!("no sender report") };
    assert_eq!(report.info, INFO);
    assert_eq!(packet.blocks().collect::<Vec<_>>(), [block(1), block(2)]);
}

#[test]
fn receiver_report_is_read_back() {
    let report = bytes(|out| write_receiver_report(9, &[block(1)], out));
    let packet = only(&report);
    let RtcpPacket::ReceiverReport(report) = packet else { panic!("no receiver report") };
    assert_eq!(report.ssrc, 9);
    assert_eq!(packet.blocks().collect::<Vec<_>>(), [block(1)]);
}

#[test]
fn blocks_beyond_one_packet_follow_in_others() {
    let blocks: Vec<_> = (0..70).map(block).collect();
    let compound = bytes(|out| write_sender_report(&INFO, &blocks, out));
    let mut read = Vec::new();
    for packet in packets(&compound) {
        read.extend(packet.unwrap().blocks());
    }
    assert_eq!(read, blocks);
}

#[test]
fn loss_is_a_signed_24_bit_number() {
    for lost in [-0x80_0000, -1, 0, 0x7f_ffff] {
        let block = ReportBlock { lost, ..block(1) };
        assert_eq!(ReportBlock::read(&block.bytes()), block);
    }
    let beyond = ReportBlock { lost: 0x80_0000, ..block(1) };
    assert_eq!(ReportBlock::read(&beyond.bytes()).lost, 0x7f_ffff);
}

#[test]
fn canonical_names_of_any_length_are_read_back() {
    for length in [0, 1, 2, 3, 4, 5, 255] {
        let name = vec![b'n'; length];
        let mut compound = bytes(|out| write_cname(5, &name, out));
        assert_eq!(compound.len() % 4, 0);
        write_bye(&[5], &mut compound);
        let mut packets = packets(&compound);
        assert_eq!(compound[4..10], [0, 0, 0, 5, 1, length as u8]);
        assert_eq!(compound[10..10 + length], name);
        assert!(packets.next().unwrap().is_ok());
        assert!(matches!(packets.next(), Some(Ok(RtcpPacket::Other { payload_type: BYE, .. }))));
    }
}

#[test]
fn nack_round_trips_across_the_wrap() {
    let lost = [0xfff0, 0xfff1, 0xffff, 0, 1, 40];
    let compound = bytes(|out| write_nack(1, 2, &lost, out));
    assert_eq!(compound.len(), 12 + 3 * 4, "0xfff0 + 16 is 0; 1 and 40 need entries of their own");
    assert_eq!(missing(&compound), lost);
}

#[test]
fn key_frame_requests_are_read_back() {
    let pli = Pli { sender: 1, media: 2 };
    let compound = bytes(|out| write_pli(pli, out));
    assert!(matches!(only(&compound), RtcpPacket::Pli(read) if read == pli));

    let entries = [FirEntry { media: 2, number: 255 }, FirEntry { media: 3, number: 0 }];
    let compound = bytes(|out| write_fir(1, &entries, out));
    let RtcpPacket::Fir(fir) = only(&compound) else { panic!("no FIR") };
    assert_eq!(fir.sender, 1);
    assert_eq!(fir.entries().collect::<Vec<_>>(), entries);
}

#[test]
fn bitrates_keep_18_bits_of_mantissa() {
    for bitrate in [0, 1, 0x3_ffff, 0x4_0000, 64_000, 400_001, 10_000_000_000, u64::MAX] {
        let compound = bytes(|out| write_remb(1, bitrate, &[7, 8], out));
        let RtcpPacket::Remb(remb) = only(&compound) else { panic!("no REMB") };
        assert!(remb.bitrate_bps <= bitrate, "never rounded up");
        assert!(bitrate - remb.bitrate_bps <= bitrate >> 17, "{bitrate}: {}", remb.bitrate_bps);
        assert_eq!(remb.sources().collect::<Vec<_>>(), [7, 8]);
    }
    let exact = bytes(|out| write_remb(1, 0x3_ffff, &[], out));
    let RtcpPacket::Remb(remb) = only(&exact) else { panic!("no REMB") };
    assert_eq!(remb.bitrate_bps, 0x3_ffff);
}

#[test]
fn absurd_exponent_saturates() {
    let mut compound = bytes(|out| write_remb(1, 0x3_ffff, &[], out));
    let word = compound.len() - 4;
    compound[word + 1] = 0xff;
    let RtcpPacket::Remb(remb) = only(&compound) else { panic!("no REMB") };
    assert_eq!(remb.bitrate_bps, u64::MAX);
}

/// Builds one packet of every kind.
fn everything() -> Vec<u8> {
    bytes(|out| {
        write_sender_report(&INFO, &[block(1)], out);
        write_receiver_report(2, &[block(3), block(4)], out);
        write_cname(2, b"someone", out);
        write_nack(2, 1, &[5, 7], out);
        out.extend_from_slice(&ARRIVALS);
        write_pli(Pli { sender: 2, media: 1 }, out);
        write_fir(2, &[FirEntry { media: 1, number: 1 }], out);
        write_remb(2, 64_000, &[1, 3], out);
        write_bye(&[2, 6], out);
    })
}

/// Writes a packet and reads it back.
fn assert_reads_back(packet: RtcpPacket<'_>) {
    let blocks: Vec<_> = packet.blocks().collect();
    match packet {
        RtcpPacket::SenderReport(report) => {
            let again = bytes(|out| write_sender_report(&report.info, &blocks, out));
            assert!(only(&again).blocks().eq(blocks));
            let RtcpPacket::SenderReport(again) = only(&again) else { panic!("no sender report") };
            assert_eq!(again.info, report.info);
        }
        RtcpPacket::ReceiverReport(report) => {
            let again = bytes(|out| write_receiver_report(report.ssrc, &blocks, out));
            assert!(only(&again).blocks().eq(blocks));
            let RtcpPacket::ReceiverReport(again) = only(&again) else {
                panic!("no receiver report")
            };
            assert_eq!(again.ssrc, report.ssrc);
        }
        RtcpPacket::Pli(pli) => {
            let again = bytes(|out| write_pli(pli, out));
            assert!(matches!(only(&again), RtcpPacket::Pli(again) if again == pli));
        }
        RtcpPacket::Fir(fir) => {
            let entries: Vec<_> = fir.entries().collect();
            let again = bytes(|out| write_fir(fir.sender, &entries, out));
            let RtcpPacket::Fir(again) = only(&again) else { panic!("no FIR") };
            assert_eq!((again.sender, again.entries().collect::<Vec<_>>()), (fir.sender, entries));
        }
        RtcpPacket::Remb(remb) => {
            let sources: Vec<_> = remb.sources().collect();
            let again = bytes(|out| write_remb(remb.sender, remb.bitrate_bps, &sources, out));
            let RtcpPacket::Remb(again) = only(&again) else { panic!("no REMB") };
            assert!(again.bitrate_bps == remb.bitrate_bps || remb.bitrate_bps == u64::MAX);
            assert_eq!((again.sender, again.sources().collect::<Vec<_>>()), (remb.sender, sources));
        }
        RtcpPacket::Nack(nack) => {
            let numbers: Vec<_> = nack.missing().collect();
            let again = bytes(|out| write_nack(nack.sender, nack.media, &numbers, out));
            let RtcpPacket::Nack(again) = only(&again) else { panic!("no NACK") };
            assert_eq!((again.sender, again.media), (nack.sender, nack.media));
            let [before, after] = [nack, again].map(|it| it.missing().collect::<BTreeSet<_>>());
            assert_eq!(after, before);
        }
        RtcpPacket::TransportFeedback(arrivals) => {
            let again = bytes(|out| arrivals.write(out));
            let RtcpPacket::TransportFeedback(again) = only(&again) else { panic!("no arrivals") };
            assert_eq!((again.sender, again.media), (arrivals.sender, arrivals.media));
            assert_eq!(bytes(|out| again.write(out)), bytes(|out| arrivals.write(out)));
        }
        RtcpPacket::CongestionFeedback(_) | RtcpPacket::Extended(_) | RtcpPacket::Other { .. } => {}
    }
}

#[test]
fn fuzz_rtcp() {
    Corpus::of("rtcp").with(everything()).with(padded()).check(|compound| {
        let read: Result<Vec<_>, _> = packets(compound).collect();
        let mut changed = compound.to_vec();
        let kept = rewrite::rewrite(&mut changed, |packet| {
            rewrite::rename_media(packet, |ssrc| Some(ssrc.wrapping_add(1)));
            let kept = rewrite::retain_blocks(packet, |block| block.ssrc & 1 == 1);
            let kept =
                rewrite::retain_missing(&mut packet[..kept], |first, mask| (first, mask & 2));
            let kept = rewrite::retain_described(&mut packet[..kept], |ssrc| Some(!ssrc));
            rewrite::retain_leaving(&mut packet[..kept], |ssrc| (ssrc & 1 == 1).then_some(ssrc))
        });
        match (&read, kept) {
            (Ok(_), Ok(kept)) => {
                assert!(kept <= compound.len());
                assert!(kept == 0 || packets(&changed[..kept]).all(|packet| packet.is_ok()));
            }
            (Err(reason), kept) => {
                assert_eq!(kept, Err(*reason));
                assert_eq!(changed, compound);
            }
            (Ok(_), Err(reason)) => panic!("{reason}"),
        }
        let Ok(read) = read else { return };
        read.iter().copied().for_each(assert_reads_back);
        let mut limited = compound.to_vec();
        rewrite::limit_rates(&mut limited, 300_000);
        assert_eq!(packets(&limited).filter(Result::is_ok).count(), read.len());
        assert!(packets(&limited).all(|packet| match packet {
            Ok(RtcpPacket::Remb(remb)) => remb.bitrate_bps <= 300_000,
            _ => true,
        }));
    });
}

/// Appends padding to the only packet in `compound`.
fn pad(mut compound: Vec<u8>) -> Vec<u8> {
    compound.extend_from_slice(&[0, 0, 0, 4]);
    compound[0] |= 0x20;
    compound[3] += 1;
    compound
}

/// Builds padded feedback.
fn padded() -> Vec<u8> {
    let nack = pad(bytes(|out| write_nack(1, 2, &[5], out)));
    let fir = pad(bytes(|out| write_fir(2, &[FirEntry { media: 1, number: 1 }], out)));
    [nack, fir, pad(bytes(|out| write_remb(1, 64_000, &[7], out)))].concat()
}

#[test]
fn malformed_packet_names_its_reason() {
    let reason = |bytes: &[u8]| packets(bytes).find_map(Result::err).unwrap();
    assert_eq!(reason(&[]), RtcpError::Short);
    assert_eq!(reason(&[0x80, 201, 0]), RtcpError::Short);
    assert_eq!(reason(&[0x40, 201, 0, 0]), RtcpError::Version);
    assert_eq!(reason(&[0x80, 201, 0, 1]), RtcpError::Length);
    assert_eq!(reason(&[0x80, 201, 0, 0]), RtcpError::Body(201));
    assert_eq!(reason(&[0x81, 201, 0, 1, 0, 0, 0, 1]), RtcpError::Body(201));
    assert_eq!(reason(&[0x82, 203, 0, 1, 0, 0, 0, 1]), RtcpError::Body(203));
    assert_eq!(reason(&[0x81, 205, 0, 1, 0, 0, 0, 1]), RtcpError::Body(205));
    assert_eq!(reason(&[0x80, 207, 0, 0]), RtcpError::Body(207));
    assert_eq!(reason(&[0xa0, 201, 0, 1, 0, 0, 0, 0]), RtcpError::Padding);
    assert_eq!(reason(&[0xa0, 201, 0, 1, 0, 0, 0, 5]), RtcpError::Padding);
}

#[test]
fn padding_is_not_part_of_the_body() {
    let compound = pad(bytes(|out| write_nack(1, 2, &[5], out)));
    assert_eq!(missing(&compound), [5]);
}

#[test]
fn unknown_packets_are_skipped() {
    let mut compound = vec![0x85, 208, 0, 1, 1, 2, 3, 4];
    write_bye(&[1], &mut compound);
    let mut packets = packets(&compound);
    let Some(Ok(RtcpPacket::Other { payload_type: 208, count: 5 })) = packets.next() else {
        panic!()
    };
    assert!(matches!(packets.next(), Some(Ok(RtcpPacket::Other { payload_type: BYE, count: 1 }))));
}

#[test]
fn removed_packets_leave_no_gap() {
    let mut compound = everything();
    let kept = rewrite::rewrite(&mut compound, |packet| match rewrite::payload_type(packet) {
        RECEIVER_REPORT | PAYLOAD_FEEDBACK => 0,
        _ => packet.len(),
    });
    let expected = bytes(|out| {
        write_sender_report(&INFO, &[block(1)], out);
        write_cname(2, b"someone", out);
        write_nack(2, 1, &[5, 7], out);
        out.extend_from_slice(&ARRIVALS);
        write_bye(&[2, 6], out);
    });
    assert_eq!(compound[..kept.unwrap()], expected);
}

#[test]
fn malformed_compound_is_unchanged() {
    let mut compound = everything();
    compound.push(0x80);
    let before = compound.clone();
    assert_eq!(rewrite::rewrite(&mut compound, |_| 0), Err(RtcpError::Short));
    assert_eq!(compound, before);
}

#[test]
fn blocks_are_changed_or_removed() {
    let mut compound = bytes(|out| {
        write_sender_report(&INFO, &[block(1), block(2), block(3)], out);
        write_receiver_report(9, &[block(2)], out);
    });
    let kept = rewrite::rewrite(&mut compound, |packet| {
        rewrite::retain_blocks(packet, |block| {
            block.jitter += 1;
            block.ssrc != 2
        })
    });
    let expected = bytes(|out| {
        let changed = |ssrc| ReportBlock { jitter: 78, ..block(ssrc) };
        write_sender_report(&INFO, &[changed(1), changed(3)], out);
        write_receiver_report(9, &[], out);
    });
    assert_eq!(compound[..kept.unwrap()], expected);
}

#[test]
fn sender_info_is_replaced() {
    let mut report = bytes(|out| write_sender_report(&INFO, &[block(1)], out));
    assert_eq!(rewrite::sender_info(&report), Some(INFO));
    let other = SenderInfo { ssrc: 1, ntp: 2, timestamp: 3, packets: 4, octets: 5 };
    rewrite::set_sender_info(&mut report, &other);
    assert_eq!(report, bytes(|out| write_sender_report(&other, &[block(1)], out)));
}

#[test]
fn missing_numbers_are_shifted_or_removed() {
    let mut nack = bytes(|out| write_nack(1, 2, &[10, 12, 14, 100], out));
    let kept = rewrite::retain_missing(&mut nack, |first, mask| {
        let mask = if first == 100 { 0 } else { mask & !1 };
        (first.wrapping_sub(20), mask)
    });
    assert_eq!(nack[..kept], bytes(|out| write_nack(1, 2, &[0xfff8, 0xfffa], out)));
    assert_eq!(rewrite::retain_missing(&mut nack[..kept], |first, _| (first, 0)), 0);
}

#[test]
fn shifted_times_of_reports_are_restored() {
    const SHIFT: u32 = 0xc000_0001;
    let mut compound = bytes(|out| {
        write_sender_report(&INFO, &[block(1)], out);
        write_cname(2, b"someone", out);
        write_sender_report(&SenderInfo { ntp: 0, ..INFO }, &[], out);
    });
    let mut moved = Vec::new();
    rewrite::shift_sender_reports(&mut compound, SHIFT, |from, to| moved.push((from, to)));
    assert_eq!(moved, [0x0000_8000, 0].map(|from: u32| (from, from.wrapping_sub(SHIFT))));
    let ntp = INFO.ntp.wrapping_sub(u64::from(SHIFT) << 16);
    let shifted = bytes(|out| {
        write_sender_report(&SenderInfo { ntp, ..INFO }, &[block(1)], out);
        write_cname(2, b"someone", out);
        let ntp = 0_u64.wrapping_sub(u64::from(SHIFT) << 16);
        write_sender_report(&SenderInfo { ntp, ..INFO }, &[], out);
    });
    assert_eq!(compound, shifted);

    let answer = |last_sr| {
        bytes(|out| {
            write_sender_report(&INFO, &[ReportBlock { last_sr, ..block(1) }, block(2)], out);
            write_receiver_report(9, &[ReportBlock { last_sr, ..block(3) }], out);
        })
    };
    let (from, to) = moved[0];
    let mut compound = answer(to);
    rewrite::replace_last_reports(&mut compound, |time| if time == to { from } else { time });
    assert_eq!(compound, answer(from));
}

#[test]
fn padding_is_no_missing_number_or_source() {
    let mut nack = pad(bytes(|out| write_nack(1, 2, &[10, 12], out)));
    let kept = rewrite::retain_missing(&mut nack, |first, mask| (first.wrapping_add(1), mask));
    assert_eq!(nack[..kept], bytes(|out| write_nack(1, 2, &[11, 13], out)));

    // The padding, read as a source, would have the SSRC 4.
    let mut remb = pad(bytes(|out| write_remb(1, 64_000, &[7], out)));
    let before = remb.clone();
    rewrite::rename_media(&mut remb, |ssrc| (ssrc == 4).then_some(0));
    assert_eq!(remb, before);
}

#[test]
fn all_media_sources_of_feedback_are_renamed() {
    let write = |media: u32, other: u32| {
        bytes(|out| {
            write_nack(9, media, &[1], out);
            write_pli(Pli { sender: 9, media }, out);
            let entries = [FirEntry { media: other, number: 1 }, FirEntry { media, number: 2 }];
            write_fir(9, &entries, out);
            write_remb(9, 64_000, &[media, other], out);
        })
    };
    let mut compound = write(1, 3);
    let length = compound.len();
    let kept = rewrite::rewrite(&mut compound, |packet| {
        rewrite::rename_media(packet, |ssrc| (ssrc == 1).then_some(2));
        packet.len()
    });
    assert_eq!(kept, Ok(length));
    assert_eq!(compound, write(2, 3));
}

#[test]
fn bye_and_description_sources_are_rewritten() {
    let mut bye = bytes(|out| write_bye(&[1, 2, 3], out));
    let kept = rewrite::retain_leaving(&mut bye, |ssrc| (ssrc != 2).then_some(ssrc + 10));
    assert_eq!(bye[..kept], bytes(|out| write_bye(&[11, 13], out)));
    assert_eq!(rewrite::retain_leaving(&mut bye[..kept], |_| None), 0);

    let mut described = bytes(|out| write_cname(1, b"one", out));
    described.extend_from_slice(&bytes(|out| write_cname(2, b"second", out))[4..]);
    described[0] = 0x82;
    described[3] = (described.len() / 4 - 1) as u8;
    let kept = rewrite::retain_described(&mut described, |ssrc| (ssrc == 2).then_some(12));
    assert_eq!(described[..kept], bytes(|out| write_cname(12, b"second", out)));
    assert_eq!(rewrite::retain_described(&mut described[..kept], |_| None), 0);
}

#[test]
fn rates_above_the_limit_are_lowered() {
    let compound = |remb, tmmbr| {
        let mut bytes = Vec::new();
        write_receiver_report(1, &[], &mut bytes);
        write_remb(1, remb, &[5, 6], &mut bytes);
        write_tmmbr(1, tmmbr, &[5, 6], &mut bytes);
        bytes
    };
    let mut bytes = compound(u64::MAX, 2_000_000);
    assert!(rewrite::limit_rates(&mut bytes, 300_000));
    assert_eq!(bytes, compound(300_000, 300_000));
    let mut bytes = compound(200_000, 100);
    assert!(rewrite::limit_rates(&mut bytes, 300_000));
    assert_eq!(bytes, compound(200_000, 100));
    let mut bytes = compound(0, 0)[..8].to_vec();
    assert!(!rewrite::limit_rates(&mut bytes, 0), "a report alone");
}

#[test]
fn tmmbr_matches_the_rfc() {
    let mut bytes = Vec::new();
    write_tmmbr(1, 300_000, &[5], &mut bytes);
    // RFC 5104, 4.2.1.1: six bits of exponent, 17 of mantissa, nine of overhead. 300,000 is 75,000
    // << 2.
    let word = 2 << 26 | 75_000 << 9 | 40_u32;
    let words = [0x83cd_0004, 1, 0, 5, word];
    assert_eq!(bytes, words.map(u32::to_be_bytes).concat());
}

#[test]
fn unwanted_key_frame_requests_are_removed() {
    let (mut report, mut pli, mut fir) = (Vec::new(), Vec::new(), Vec::new());
    write_receiver_report(9, &[], &mut report);
    write_pli(Pli { sender: 9, media: 5 }, &mut pli);
    let entries = [5, 6].map(|media| FirEntry { media, number: 1 });
    write_fir(9, &entries, &mut fir);
    let retained = |parts: &[&[u8]], wanted: &[u32]| {
        let mut compound = parts.concat();
        let is_wanted = |media| wanted.contains(&media);
        let length = rewrite::retain_key_frame_requests(&mut compound, is_wanted);
        compound.truncate(length);
        compound
    };
    let all: &[&[u8]] = &[&report, &pli, &fir];
    assert_eq!(retained(all, &[5, 6]), all.concat());
    assert_eq!(retained(all, &[6]), [&report[..], &fir].concat());
    assert_eq!(retained(all, &[]), [0; 0], "an empty report beside removed requests");
    let full = bytes(|out| write_receiver_report(9, &[block(5)], out));
    assert_eq!(retained(&[&full, &pli], &[]), full);
    assert_eq!(retained(&[&pli], &[]), [0; 0]);
    assert_eq!(retained(&[&report], &[]), report);
    assert_eq!(retained(&[&pli, &[0x80]], &[]), [&pli[..], &[0x80]].concat(), "malformed");
}

#[test]
fn unwanted_numbers_are_removed_from_requests() {
    let nack = |media, numbers: &[u16]| bytes(|out| write_nack(9, media, numbers, out));
    let report = bytes(|out| write_receiver_report(9, &[], out));
    let retained = |parts: &[&[u8]], wanted: &[(u32, u16)]| {
        let mut compound = parts.concat();
        let is_wanted = |media, number| wanted.contains(&(media, number));
        let length = rewrite::retain_requested(&mut compound, is_wanted);
        compound.truncate(length);
        compound
    };
    let (five, six) = (nack(5, &[65_534, 65_535, 0, 14, 300]), nack(6, &[0]));
    let all: &[&[u8]] = &[&report, &five, &six];
    let wanted = [65_534, 65_535, 0, 14, 300].map(|number| (5, number));
    assert_eq!(retained(all, &[&wanted[..], &[(6, 0)]].concat()), all.concat());
    assert_eq!(
        retained(all, &[(5, 14), (6, 0)]),
        [report.clone(), nack(5, &[14]), six.clone()].concat()
    );
    assert_eq!(
        retained(all, &[(5, 65_535), (5, 300)]),
        [report.clone(), nack(5, &[65_535, 300])].concat()
    );
    assert_eq!(retained(all, &[]), [0; 0], "an empty report beside removed numbers");
    let full = bytes(|out| write_receiver_report(9, &[block(5)], out));
    assert_eq!(retained(&[&full, &five], &[]), full);
    assert_eq!(retained(&[&report], &[]), report);
    let pli = bytes(|out| write_pli(Pli { sender: 9, media: 5 }, out));
    assert_eq!(retained(&[&pli, &five], &[]), pli);
    assert_eq!(retained(&[&five, &[0x80]], &[]), [&five[..], &[0x80]].concat(), "malformed");
}

#[test]
fn reports_about_some_streams_are_removed() {
    let retained = |parts: &[&[u8]], kept: &[u32]| {
        let mut compound = parts.concat();
        let length = rewrite::retain_reports(&mut compound, |ssrc| kept.contains(&ssrc));
        compound.truncate(length);
        compound
    };
    let report = |ssrcs: &[u32]| {
        let blocks: Vec<_> = ssrcs.iter().map(|ssrc| block(*ssrc)).collect();
        bytes(|out| write_receiver_report(9, &blocks, out))
    };
    let pli = bytes(|out| write_pli(Pli { sender: 9, media: 5 }, out));
    let all = report(&[5, 6, 7]);
    assert_eq!(retained(&[&all, &pli], &[5, 6, 7]), [&all[..], &pli].concat());
    assert_eq!(retained(&[&all, &pli], &[5, 7]), [report(&[5, 7]), pli.clone()].concat());
    assert_eq!(retained(&[&all, &pli], &[]), [report(&[]), pli.clone()].concat());
    assert_eq!(retained(&[&all], &[]), [0; 0], "an empty report");
    assert_eq!(retained(&[&report(&[])], &[]), report(&[]), "as it was sent");
}

#[test]
fn feedback_about_arrivals_is_removed() {
    // Two packets from 7 on, received at once (draft-holmer-rmcat-transport-wide-cc-extensions-01, section 3.1).
    let wide = [0x8f, 205, 0, 5, 0, 0, 0, 9, 0, 0, 0, 5, 0, 7, 0, 2, 0, 0, 1, 0, 0x20, 2, 0, 0];
    let removed = |parts: &[&[u8]]| {
        let mut compound = parts.concat();
        let length = rewrite::remove_arrivals(&mut compound);
        compound.truncate(length);
        compound
    };
    let report = bytes(|out| write_receiver_report(9, &[], out));
    let full = bytes(|out| write_receiver_report(9, &[block(5)], out));
    let nack = bytes(|out| write_nack(9, 5, &[1], out));
    assert_eq!(removed(&[&wide]), [0; 0]);
    assert_eq!(removed(&[&report, &wide]), [0; 0], "an empty report beside removed feedback");
    assert_eq!(removed(&[&full, &wide, &nack, &wide]), [&full[..], &nack].concat());
    // No packet of stream 5, from 7 on (RFC 8888, section 3.1).
    let congestion = [0x8b, 205, 0, 4, 0, 0, 0, 9, 0, 0, 0, 5, 0, 7, 0, 0, 0, 0, 0, 1];
    assert_eq!(removed(&[&full, &congestion, &nack]), [&full[..], &nack].concat());
    assert_eq!(removed(&[&report]), report);
    assert_eq!(removed(&[&wide, &[0x80]]), [&wide[..], &[0x80]].concat(), "malformed");
}
