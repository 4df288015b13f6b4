use super::*;

fn block(fraction_lost: u8, sequence_max: u32) -> ReportBlock {
    ReportBlock { fraction_lost, sequence_max, ..ReportBlock::default() }
}

/// Reads a report about 100 numbers, of which so many were not sent. Rounded to a thousandth.
fn after_100(loss: &mut ReportedLoss, fraction_lost: u8, unsent: i32) -> (i64, i64) {
    loss.read(&block(0, u32::MAX - 9), 7);
    let read = loss.read(&block(fraction_lost, 90), 7_u32.wrapping_add_signed(unsent));
    ((read.before_repair + 500).div_euclid(1_000), (read.after_repair + 500).div_euclid(1_000))
}

#[test]
fn loss_is_the_fraction_lost_without_repair() {
    let mut loss = ReportedLoss::default();
    let first = loss.read(&block(64, 90), 3);
    assert_eq!((first.before_repair, first.after_repair), (250_000, 250_000));
    assert_eq!(after_100(&mut ReportedLoss::default(), 64, 0), (250, 250));
}

#[test]
fn numbers_that_were_not_sent_are_not_lost() {
    // 26 of 256, rounded down as receivers do, of 100 numbers are ten.
    for (fraction, unsent, lost) in [(25, 10, 0), (26, 10, 2), (51, 10, 110), (25, 0, 98)] {
        let read = after_100(&mut ReportedLoss::default(), fraction, unsent);
        assert_eq!(read, (lost, lost), "{fraction} {unsent}");
    }
    assert_eq!(after_100(&mut ReportedLoss::default(), 0, -3), (0, 0), "late packets filled gaps");
    assert_eq!(after_100(&mut ReportedLoss::default(), 0, 100), (0, 0), "none was sent");
}

#[test]
fn first_report_tells_of_all_numbers() {
    for (lost, unsent, ppm) in [(0, 7, 250_000), (20, 0, 250_000), (20, 5, 187_500), (20, 21, 0)] {
        let block = ReportBlock { lost, ..block(64, 90) };
        let read = ReportedLoss::default().read(&block, unsent);
        assert_eq!((read.before_repair, read.after_repair), (ppm, ppm), "{lost} {unsent}");
    }
}

#[test]
fn repair_under_the_same_number_adds_to_loss_before_it() {
    let mut loss = ReportedLoss::default();
    loss.read(&block(0, u32::MAX - 9), 7);
    (0..5).for_each(|_| loss.note_repair(RepairPacket::Same));
    let read = loss.read(&block(0, 90), 7);
    assert_eq!((read.before_repair, read.after_repair), (50_000, 0));
    let next = loss.read(&block(0, 190), 7);
    assert_eq!((next.before_repair, next.after_repair), (0, 0), "counted once");
}

#[test]
fn repair_in_another_stream_takes_from_loss_after_it() {
    let mut loss = ReportedLoss::default();
    loss.read(&block(0, u32::MAX - 9), 7);
    (0..5).for_each(|_| loss.note_repair(RepairPacket::Separate));
    let read = loss.read(&block(64, 90), 7);
    assert_eq!((read.before_repair, read.after_repair), (250_000, 200_000));
    loss.note_repair(RepairPacket::Separate);
    let late = loss.read(&block(0, 190), 7);
    assert_eq!(
        (late.before_repair, late.after_repair),
        (0, -10_000),
        "lost in the interval before"
    );
}

#[test]
fn restarted_receiver_is_believed() {
    let mut loss = ReportedLoss::default();
    loss.read(&block(0, 100_000), 50);
    let read = loss.read(&block(128, 90), 60);
    assert_eq!((read.before_repair, read.after_repair), (500_000, 500_000));
}

#[test]
fn bursts_follow_the_numbers_that_are_asked_for() {
    let mut loss = ReportedLoss::default();
    let ratio = |loss: &ReportedLoss, ppm| (loss.bursts().ratio(ppm) * 1_000.0).round();
    assert_eq!((loss.bursts().mean_centi(), ratio(&loss, 0) as u32), (None, 1_000));
    loss.note_missing([65_534, 65_535, 0].into_iter());
    assert_eq!(loss.bursts().mean_centi(), Some(300));
    // The second request repeats two numbers, and goes on with the burst.
    loss.note_missing([65_535, 0, 1, 7].into_iter());
    assert_eq!(loss.bursts().mean_centi(), Some(250));
    assert_eq!(ratio(&loss, 100_000) as u32, 2_250);
    // No number was lost for more than half of a cycle.
    loss.note_missing([40_000].into_iter());
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
