use super::*;

#[test]
fn packets_that_pass_follow_one_another() {
    for first in [0_u16, 1, 65_530] {
        let mut numbers = LeftOutNumbers::new(first);
        let mut passed = Vec::new();
        for place in 0..400_u16 {
            let sequence = first.wrapping_add(place);
            if place % 5 < 2 {
                numbers.leave_out(sequence, false);
                assert_eq!(numbers.passed(sequence), None);
            } else {
                let number = numbers.pass(sequence).unwrap();
                assert_eq!(numbers.of_sender(number), Some(sequence));
                passed.push(number);
            }
        }
        assert!(!numbers.is_unchanged());
        let right: Vec<_> = (0..240).map(|place| first.wrapping_add(place)).collect();
        assert_eq!(passed, right, "{first}");
    }
}

#[test]
fn packet_out_of_order_has_its_own_number() {
    let mut numbers = LeftOutNumbers::new(10);
    assert_eq!(numbers.pass(10), Some(10));
    numbers.leave_out(12, false);
    assert_eq!(numbers.pass(13), Some(12));
    assert_eq!((numbers.pass(11), numbers.pass(12)), (Some(11), None));
    assert_eq!([11, 12].map(|number| numbers.of_sender(number)), [Some(11), Some(13)]);
    // Number 14 is late, and its place is kept.
    assert_eq!(numbers.pass(15), Some(14));
    numbers.leave_out(14, false);
    assert_eq!(numbers.pass(16), Some(15));
}

#[test]
fn losses_within_a_frame_are_left_out_with_it() {
    let mut numbers = LeftOutNumbers::new(0);
    numbers.leave_out(0, false);
    numbers.leave_out(3, true);
    assert_eq!(numbers.pass(4), Some(0));
    assert_eq!(numbers.passed(2), None);
    // A loss before the frame remains one.
    numbers.leave_out(6, false);
    assert_eq!(numbers.pass(7), Some(2));
    assert_eq!(numbers.of_sender(1), Some(5));
}

#[test]
fn old_numbers_are_forgotten() {
    let mut numbers = LeftOutNumbers::new(0);
    for place in 0..RANGES_MAX as u16 + 2 {
        numbers.leave_out(2 * place, false);
        numbers.pass(2 * place + 1);
    }
    assert_eq!([1, 3, 5].map(|number| numbers.passed(number)), [None, Some(1), Some(2)]);
    assert_eq!([0, 1, 2].map(|number| numbers.of_sender(number)), [None, Some(3), Some(5)]);
}
