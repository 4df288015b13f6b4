use super::*;
use crate::rtcp::xr::ExtendedBlock;
use crate::rtcp::xr::tests::{blocks, loss_runs, voip};
use crate::tests::at;

fn block(fraction_lost: u8, sequence_max: u32) -> ReportBlock {
    ReportBlock { fraction_lost, sequence_max, ..ReportBlock::default() }
}

/// Reads a report about 100 numbers, of which so many were not sent. Rounded to a thousandth.
fn after_100(loss: &mut StreamLoss, fraction_lost: u8, unsent: i32) -> (i64, i64) {
    loss.read(&block(0, u32::MAX - 9), 7, at(0));
    let read = loss.read(&block(fraction_lost, 90), 7_u32.wrapping_add_signed(unsent), at(0));
    ((read.before_repair + 500).div_euclid(1_000), (read.after_repair + 500).div_euclid(1_000))
}

#[test]
fn loss_is_the_fraction_lost_without_repair() {
    let mut loss = StreamLoss::default();
    let first = loss.read(&block(64, 90), 3, at(0));
    assert_eq!((first.before_repair, first.after_repair), (250_000, 250_000));
    assert_eq!(after_100(&mut StreamLoss::default(), 64, 0), (250, 250));
}

#[test]
fn numbers_that_were_not_sent_are_not_lost() {
    // 26 of 256, rounded down as receivers do, of 100 numbers are ten.
    for (fraction, unsent, lost) in [(25, 10, 0), (26, 10, 2), (51, 10, 110), (25, 0, 98)] {
        let read = after_100(&mut StreamLoss::default(), fraction, unsent);
        assert_eq!(read, (lost, lost), "{fraction} {unsent}");
    }
    assert_eq!(after_100(&mut StreamLoss::default(), 0, -3), (0, 0), "late packets filled gaps");
    assert_eq!(after_100(&mut StreamLoss::default(), 0, 100), (0, 0), "none was sent");
}

#[test]
fn first_report_tells_of_all_numbers() {
    for (lost, unsent, ppm) in [(0, 7, 250_000), (20, 0, 250_000), (20, 5, 187_500), (20, 21, 0)] {
        let block = ReportBlock { lost, ..block(64, 90) };
        let read = StreamLoss::default().read(&block, unsent, at(0));
        assert_eq!((read.before_repair, read.after_repair), (ppm, ppm), "{lost} {unsent}");
    }
}

#[test]
fn repair_under_the_same_number_adds_to_loss_before_it() {
    let mut loss = StreamLoss::default();
    loss.read(&block(0, u32::MAX - 9), 7, at(0));
    (0..5).for_each(|_| loss.note_repair(RepairPacket::Same));
    let read = loss.read(&block(0, 90), 7, at(0));
    assert_eq!((read.before_repair, read.after_repair), (50_000, 0));
    let next = loss.read(&block(0, 190), 7, at(0));
    assert_eq!((next.before_repair, next.after_repair), (0, 0), "counted once");
}

#[test]
fn repair_in_another_stream_takes_from_loss_after_it() {
    let mut loss = StreamLoss::default();
    loss.read(&block(0, u32::MAX - 9), 7, at(0));
    (0..5).for_each(|_| loss.note_repair(RepairPacket::Separate));
    let read = loss.read(&block(64, 90), 7, at(0));
    assert_eq!((read.before_repair, read.after_repair), (250_000, 200_000));
    loss.note_repair(RepairPacket::Separate);
    let late = loss.read(&block(0, 190), 7, at(0));
    assert_eq!(
        (late.before_repair, late.after_repair),
        (0, -10_000),
        "lost in the interval before"
    );
}

#[test]
fn restarted_receiver_is_believed() {
    let mut loss = StreamLoss::default();
    loss.read(&block(0, 100_000), 50, at(0));
    let read = loss.read(&block(128, 90), 60, at(0));
    assert_eq!((read.before_repair, read.after_repair), (500_000, 500_000));
}

#[test]
fn bursts_follow_the_numbers_that_are_asked_for() {
    let mut loss = StreamLoss::default();
    let ratio = |loss: &StreamLoss, ppm| (loss.bursts().ratio(ppm) * 1_000.0).round();
    assert_eq!((loss.bursts().mean_centi(), ratio(&loss, 0) as u32), (None, 1_000));
    loss.note_missing([65_534, 65_535, 0].into_iter(), at(0));
    assert_eq!(loss.bursts().mean_centi(), Some(300));
    // The second request repeats two numbers, and goes on with the burst.
    loss.note_missing([65_535, 0, 1, 7].into_iter(), at(0));
    assert_eq!(loss.bursts().mean_centi(), Some(250));
    assert_eq!(ratio(&loss, 100_000) as u32, 2_250);
    // No number was lost for more than half of a cycle.
    loss.note_missing([40_000].into_iter(), at(0));
    assert_eq!(loss.bursts().mean_centi(), Some(200));
}

#[test]
fn recent_bursts_weigh_more() {
    let mut bursts = Bursts::default();
    (0..1_000).for_each(|_| bursts.add(1, 1));
    assert_eq!(bursts.mean_centi(), Some(100));
    (0..200).for_each(|_| bursts.add(3, 1));
    let mean = bursts.mean_centi().unwrap();
    assert!((280..=300).contains(&mean), "{mean}");
}

/// Reads runs of the client's extended report.
fn read_runs(loss: &mut StreamLoss, packet: &[u8], unsent: u32) -> Option<IntervalLoss> {
    let [ExtendedBlock::LossRuns(runs)] = blocks(packet)[..] else { panic!("no runs") };
    loss.read_runs(&runs, unsent, at(0))
}

#[test]
fn runs_of_lost_packets_are_counted_exactly() {
    let mut loss = StreamLoss::default();
    // 20 of 22 numbers came; the lost ones are two bursts.
    let packet = loss_runs(65_530, 16, 0, [0x400a, 0x0001, 0x4005, 0xdffc]);
    let read = read_runs(&mut loss, &packet, 0).unwrap();
    assert_eq!((read.before_repair, read.after_repair, read.before_path), (90_909, 90_909, 0));
    assert_eq!(loss.bursts().mean_centi(), Some(100));
    // The next ten numbers: five are lost in one burst, of which two were not sent. One came again.
    loss.note_repair(RepairPacket::Same);
    let packet = loss_runs(16, 26, 0, [0x4003, 0x0005, 0x4002, 0]);
    let read = read_runs(&mut loss, &packet, 2).unwrap();
    assert_eq!((read.before_repair, read.after_repair), (500_000, 375_000));
    assert_eq!(read.before_path, 200_000);
    assert_eq!(loss.bursts().mean_centi(), Some(233));
    // A request for one of them repeats what is known.
    loss.note_missing([20].into_iter(), at(0));
    assert_eq!(loss.bursts().mean_centi(), Some(233));
    // Each fourth number is a sample, which tells of no burst.
    let packet = loss_runs(26, 66, 2, [0x4005, 0x0005, 0, 0]);
    assert_eq!(read_runs(&mut loss, &packet, 9).unwrap().before_repair, 500_000);
    assert_eq!(loss.bursts().mean_centi(), Some(233));
}

#[test]
fn runs_of_unsent_numbers_are_no_loss() {
    let mut loss = StreamLoss::default();
    let is_sent = |number: &u16| !number.is_multiple_of(10);
    (0..40).filter(is_sent).for_each(|number| loss.note_sent(number));
    // 10, 11 and 20 are lost, of which 11 was sent.
    let packet = loss_runs(1, 21, 0, [0x4009, 0x0002, 0x4008, 0x0001]);
    let read = read_runs(&mut loss, &packet, 0).unwrap();
    assert_eq!((read.before_repair, read.before_path), (55_555, 100_000));
    assert_eq!(loss.bursts().mean_centi(), Some(100));
    assert_eq!(loss.sample(at(0)).unwrap().ppm, 55_555);
}

/// Reads two reports about ten lost ones of 100 packets, before the first of which the client tells that it lacks the last two after
/// repair. Returns the loss after repair of both.
fn left_after_repair(noted: std::ops::Range<u16>, thinning: u8) -> [i64; 2] {
    let mut loss = StreamLoss::default();
    noted.for_each(|number| loss.note_sent(number));
    loss.read(&block(0, 0), 0, at(0));
    let mut packet = loss_runs(1, 101, thinning, [0x4062, 0x0002, 0, 0]);
    // The type of the block.
    packet[8] = 10;
    let [ExtendedBlock::LossRunsAfterRepair(runs)] = blocks(&packet)[..] else { panic!("no runs") };
    loss.read_runs_after_repair(&runs);
    [100, 200].map(|sequence_max| {
        let read = loss.read(&block(26, sequence_max), 0, at(0));
        assert_eq!(read.before_repair, 101_562);
        read.after_repair
    })
}

#[test]
fn runs_after_repair_tell_what_parity_left() {
    assert_eq!(left_after_repair(0..201, 0), [20_000, 101_562]);
    assert_eq!(left_after_repair(0..100, 0), [10_101, 101_562], "the last one was not sent");
    assert_eq!(left_after_repair(0..201, 1), [101_562; 2], "a sample");
    assert_eq!(left_after_repair(0..0, 0), [101_562; 2], "not known which were sent");
}

#[test]
fn runs_after_repair_belong_to_an_exact_count() {
    let mut loss = StreamLoss::default();
    (1..=20).for_each(|number| loss.note_sent(number));
    let mut packet = loss_runs(1, 21, 0, [0x4013, 0x0001, 0, 0]);
    packet[8] = 10;
    let [ExtendedBlock::LossRunsAfterRepair(runs)] = blocks(&packet)[..] else { panic!("no runs") };
    loss.read_runs_after_repair(&runs);
    let packet = loss_runs(1, 21, 0, [0x4010, 0x0004, 0, 0]);
    let read = read_runs(&mut loss, &packet, 0).unwrap();
    assert_eq!((read.before_repair, read.after_repair), (200_000, 50_000));
}

#[test]
fn statistics_count_lost_packets() {
    let summary = StatisticsSummary { ssrc: 9, begin: 0, end: 100, lost: Some(10) };
    let mut loss = StreamLoss::default();
    let read = loss.read_statistics(&summary, 7, at(0)).unwrap();
    assert_eq!((read.before_repair, read.after_repair), (100_000, 100_000));
    let next = StatisticsSummary { begin: 100, end: 200, ..summary };
    let read = loss.read_statistics(&next, 12, at(0)).unwrap();
    assert_eq!((read.before_repair, read.before_path), (52_631, 50_000));
    let uncounted = StatisticsSummary { lost: None, ..summary };
    assert_eq!(loss.read_statistics(&uncounted, 12, at(0)), None);
    let lie = StatisticsSummary { lost: Some(u32::MAX), ..summary };
    assert_eq!(loss.read_statistics(&lie, 12, at(0)).unwrap().before_repair, 1_000_000);
    let empty = StatisticsSummary { begin: 5, end: 5, ..summary };
    assert_eq!(loss.read_statistics(&empty, 12, at(0)), None);
}

#[test]
fn bursts_of_voip_metrics_are_used_until_numbers_are_known() {
    let mut loss = StreamLoss::default();
    let read = |loss: &mut StreamLoss, density, ms| {
        let packet = voip(density, ms, 80);
        let [ExtendedBlock::Voip(metrics)] = blocks(&packet)[..] else { panic!("no metrics") };
        loss.read_voip(&metrics);
        loss.bursts().mean_centi()
    };
    // Three of four packets are lost in a burst.
    assert_eq!(read(&mut loss, 192, 300), Some(400));
    assert_eq!(read(&mut loss, 192, 0), None, "no burst");
    assert_eq!(read(&mut loss, 255, 300), Some(25_600));
    loss.note_missing([5].into_iter(), at(0));
    assert_eq!(loss.bursts().mean_centi(), Some(100));
}
