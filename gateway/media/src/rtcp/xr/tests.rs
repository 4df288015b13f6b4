use evenkeel_fuzz::Corpus;

use super::*;
use crate::rtcp::rewrite::extended::{
    first_number, move_numbers, rename_receivers, retain_answers, retain_extended, source,
};
use crate::rtcp::rewrite::{PADDING, rewrite};
use crate::rtcp::{RtcpPacket, packets};

/// A block of this type, with a byte of its own and these words.
pub(crate) fn block(kind: u8, own: u8, words: &[u32]) -> Vec<u8> {
    let mut block = vec![kind, own, 0, words.len() as u8];
    words.iter().for_each(|word| block.extend_from_slice(&word.to_be_bytes()));
    block
}

/// An extended report of the SSRC 5.
pub(crate) fn report(blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut packet = vec![0x80, EXTENDED_REPORT, 0, 0, 0, 0, 0, 5];
    packet.extend(blocks.concat());
    let words = (packet.len() / 4 - 1) as u16;
    packet[2..4].copy_from_slice(&words.to_be_bytes());
    packet
}

pub(crate) fn range(begin: u16, end: u16) -> u32 {
    u32::from(begin) << 16 | u32::from(end)
}

/// Received and lost packets of the source 9, as runs.
pub(crate) fn loss_runs(begin: u16, end: u16, thinning: u8, chunks: [u16; 4]) -> Vec<u8> {
    let [a, b, c, d] = chunks.map(u32::from);
    report(&[block(LOSS_RUNS, thinning, &[9, range(begin, end), a << 16 | b, c << 16 | d])])
}

pub(crate) fn voip(burst_density: u8, burst_ms: u16, buffer_ms: u16) -> Vec<u8> {
    let (density, duration) = (u32::from(burst_density) << 8, u32::from(burst_ms) << 16);
    let words = [9, density, duration, 0, 0, 0, buffer_ms.into(), 0];
    report(&[block(VOIP_METRICS, 0, &words)])
}

/// The blocks of the only packet.
pub(crate) fn blocks(packet: &[u8]) -> Vec<ExtendedBlock<'_>> {
    let Some(Ok(RtcpPacket::Extended(report))) = packets(packet).next() else { panic!("no XR") };
    assert_eq!(report.ssrc, 5);
    report.blocks().collect()
}

fn runs(packet: &[u8]) -> Vec<(bool, u16)> {
    let [ExtendedBlock::LossRuns(runs)] = blocks(packet)[..] else { panic!("no runs") };
    runs.runs().map(|run| (run.is_lost, run.length)).collect()
}

#[test]
fn runs_and_vectors_are_read_in_order() {
    // Seven received; a vector of which the third is lost; five lost; the end.
    let packet = loss_runs(65_530, 26, 0, [0x4007, 0xefff, 0x0005, 0]);
    let mut expected = vec![(false, 7)];
    expected.extend((0..15).map(|place| (place == 2, 1)));
    expected.push((true, 5));
    assert_eq!(runs(&packet), expected);
    // The range ends within the vector.
    expected.truncate(4);
    assert_eq!(runs(&loss_runs(65_530, 4, 0, [0x4007, 0xefff, 0x0005, 0])), expected);
    assert!(runs(&loss_runs(7, 7, 0, [0x4007, 0, 0, 0])).is_empty());
}

#[test]
fn thinned_runs_are_of_multiples() {
    // Of 3 to 12 the multiples of four are 4, 8 and 12.
    for (begin, end, length) in [(3, 13, 3), (4, 12, 2), (5, 8, 0), (5, 9, 1), (65_534, 1, 1)] {
        let runs = runs(&loss_runs(begin, end, 2, [0x0fff, 0, 0, 0]));
        assert_eq!(runs.iter().map(|(_, length)| length).sum::<u16>(), length, "{begin} {end}");
    }
}

#[test]
fn counts_times_and_metrics_are_read() {
    let mut statistics = vec![9, range(100, 200), 7];
    statistics.resize(9, 0);
    let packet = report(&[
        block(STATISTICS, HAS_LOSS, &statistics),
        block(STATISTICS, 0, &statistics),
        block(REFERENCE_TIME, 0, &[1, 2]),
        block(LAST_REFERENCES, 0, &[6, 7, 8, 9, 0, 0]),
        block(99, 0, &[1]),
        block(STATISTICS, HAS_LOSS, &statistics[..2]),
    ]);
    let summary = StatisticsSummary { ssrc: 9, begin: 100, end: 200, lost: Some(7) };
    let [
        ExtendedBlock::Statistics(counted),
        ExtendedBlock::Statistics(uncounted),
        ExtendedBlock::ReferenceTime(0x1_0000_0002),
        ExtendedBlock::LastReferences(answers),
        ExtendedBlock::Other,
        ExtendedBlock::Other,
    ] = blocks(&packet)[..]
    else {
        panic!("other blocks")
    };
    assert_eq!((counted, uncounted), (summary, StatisticsSummary { lost: None, ..summary }));
    let first = LastReference { ssrc: 6, reference: 7, delay: 8 };
    let second = LastReference { ssrc: 9, reference: 0, delay: 0 };
    assert_eq!(answers.entries().collect::<Vec<_>>(), [first, second]);
    let packet = voip(64, 300, 80);
    let [ExtendedBlock::Voip(metrics)] = blocks(&packet)[..] else { panic!("no metrics") };
    let expected = VoipMetrics { ssrc: 9, burst_density: 64, burst_ms: 300, buffer_ms: 80 };
    assert_eq!(metrics, expected);
}

#[test]
fn block_beyond_the_packet_ends_the_list() {
    let mut packet = report(&[block(REFERENCE_TIME, 0, &[1, 2]), block(REFERENCE_TIME, 0, &[3])]);
    let at = packet.len() - 5;
    packet[at] = 2;
    assert_eq!(blocks(&packet).len(), 1);
    let length = retain_extended(&mut packet, |_| true);
    assert_eq!(packet[..length], report(&[block(REFERENCE_TIME, 0, &[1, 2])]));
    assert_eq!(retain_extended(&mut packet[..length], |_| false), 0);
}

#[test]
fn answers_to_other_times_are_removed() {
    let answer = |reference| block(LAST_REFERENCES, 0, &[6, reference, 8]);
    let mut packet = report(&[answer(1), answer(2), block(99, 0, &[]), answer(0)]);
    let length = retain_answers(&mut packet, |reference| reference == 2);
    assert_eq!(packet[..length], report(&[answer(2), block(99, 0, &[]), answer(0)]));
}

#[test]
fn fuzz_extended_report() {
    let mut padded = loss_runs(65_530, 26, 0, [0x4007, 0xefff, 0x0005, 0]);
    padded.extend_from_slice(&[0, 0, 0, 4]);
    (padded[0], padded[3]) = (padded[0] | PADDING, padded[3] + 1);
    let answers =
        report(&[block(LAST_REFERENCES, 0, &[6, 7, 8]), block(REFERENCE_TIME, 0, &[1, 2])]);
    Corpus::of("rtcp").with(padded).with(voip(64, 300, 80)).with(answers).check(|bytes| {
        for packet in packets(bytes).map_while(Result::ok) {
            let RtcpPacket::Extended(report) = packet else { continue };
            for block in report.blocks() {
                match block {
                    ExtendedBlock::LossRuns(runs) => {
                        let numbers: u32 = runs.runs().map(|run| u32::from(run.length)).sum();
                        assert!(numbers <= u32::from(runs.end.wrapping_sub(runs.begin)));
                        assert!(runs.runs().count() <= 15 * bytes.len() / 2);
                        assert!(runs.runs().all(|run| run.length > 0));
                    }
                    ExtendedBlock::LastReferences(answers) => {
                        assert!(answers.entries().count() <= bytes.len() / 12);
                    }
                    _ => {}
                }
            }
        }
        let mut moved = bytes.to_vec();
        let move_all = |compound: &mut [u8], ssrc, shift| {
            rewrite(compound, |packet| {
                retain_extended(packet, |block| {
                    rename_receivers(block, |name| Some(name.wrapping_add(ssrc)));
                    let named = source(block).zip(first_number(block));
                    named
                        .is_none_or(|(name, _)| move_numbers(block, name.wrapping_add(ssrc), shift))
                })
            })
        };
        let Ok(kept) = move_all(&mut moved, 1, 1 << 15) else { return };
        if kept == 0 {
            return;
        }
        let mut again = moved[..kept].to_vec();
        assert_eq!(move_all(&mut again, u32::MAX, 1 << 15), Ok(kept));
        // Names and numbers that went there and back are the same.
        let mut unmoved = bytes.to_vec();
        let length = move_all(&mut unmoved, 0, 0).unwrap();
        assert_eq!(again, unmoved[..length]);
    });
}

#[test]
fn runs_after_repair_are_moved_as_runs() {
    for (thinning, shift, is_moved) in [(0, 3, true), (2, 4, true), (2, 3, false)] {
        let mut runs = block(LOSS_RUNS_AFTER_REPAIR, thinning, &[9, range(65_534, 6), 0x4008_0000]);
        assert_eq!((source(&runs), first_number(&runs)), (Some(9), Some(65_534)));
        assert_eq!(move_numbers(&mut runs, 7, shift), is_moved, "{thinning} {shift}");
        if is_moved {
            assert_eq!((source(&runs), first_number(&runs)), (Some(7), Some(shift - 2)));
        }
    }
}
