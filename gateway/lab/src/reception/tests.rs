use super::*;

#[test]
fn loss_is_reported_per_interval_and_in_total() {
    let mut reception = RtpReception::default();
    (65_530..=65_535u16).chain(0..4).filter(|n| n % 2 == 0).for_each(|n| reception.packet(n));
    // 65,530 to 2 across the wrap: nine due, five received.
    let first = reception.report(7, 0);
    assert_eq!((first.fraction_lost, first.lost, first.sequence_max), (113, 4, 65_538));
    (3..13).for_each(|n| reception.packet(n));
    let second = reception.report(7, 0);
    assert_eq!((second.fraction_lost, second.lost, second.sequence_max), (0, 4, 65_548));
}

#[test]
fn late_and_duplicate_packets_are_no_loss() {
    let mut reception = RtpReception::default();
    [10, 12, 11, 11].into_iter().for_each(|n| reception.packet(n));
    let block = reception.report(7, 0);
    assert_eq!((block.fraction_lost, block.lost), (0, -1));
}

#[test]
fn jitter_grows_by_a_sixteenth_of_a_step() {
    let mut reception = RtpReception::default();
    for n in 0..10u32 {
        reception.timing(
            n.wrapping_mul(960).wrapping_sub(2_000),
            48_000,
            u64::from(n) * 20_000_000,
        );
    }
    assert_eq!(reception.report(7, 0).jitter, 0);
    reception.timing(9_600u32.wrapping_sub(2_000), 48_000, 220_000_000);
    assert_eq!(reception.report(7, 0).jitter, 60);
}

#[test]
fn last_sender_report_and_delay_are_returned() {
    let mut reception = RtpReception::default();
    assert_eq!(
        (reception.report(7, 5).last_sr, reception.report(7, 5).delay_since_last_sr),
        (0, 0)
    );
    reception.sender_report(0x0123_4567_89ab_cdef, 1_000_000_000);
    let block = reception.report(7, 1_500_000_000);
    assert_eq!((block.last_sr, block.delay_since_last_sr), (0x4567_89ab, 32_768));
}

#[test]
fn ntp_counts_from_1900() {
    assert_eq!(ntp_of(500_000_000), 2_208_988_800 << 32 | 1 << 31);
}
