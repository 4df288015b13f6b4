use super::*;

fn at(highest: u64) -> IndexWindow {
    let mut window = IndexWindow::default();
    window.mark(highest);
    window
}

#[test]
fn first_sequence_number_is_the_index() {
    for sequence in [0, 1, 0x8000, 0xffff] {
        assert_eq!(IndexWindow::default().estimate(sequence), Some(sequence.into()));
    }
}

#[test]
fn index_is_the_nearest_of_its_sequence_number() {
    const ROC: u64 = 7 << 16;
    for (highest, sequence, index) in [
        (ROC | 100, 101, ROC | 101),
        (ROC | 100, 99, ROC | 99),
        (ROC | 100, 100 + 0x8000, ROC | (100 + 0x8000)),
        (ROC | 100, 101 + 0x8000, 6 << 16 | (101 + 0x8000)),
        (ROC | 0xffff, 0, 8 << 16),
        (ROC | 0xffff, 0x7fff, ROC | 0x7fff),
        (ROC | 0xffff, 0x7ffe, 8 << 16 | 0x7ffe),
        (ROC | 0x8000, 0, ROC),
        (ROC | 0x8001, 0, 8 << 16),
        (ROC | 0x7fff, 0xffff, ROC | 0xffff),
    ] {
        assert_eq!(at(highest).estimate(sequence), Some(index), "{highest:x} {sequence:x}");
    }
}

#[test]
fn index_is_neither_negative_nor_beyond_48_bits() {
    assert_eq!(at(100).estimate(0xffff), None);
    assert_eq!(at(100).estimate(100 + 0x8000), Some(100 + 0x8000));
    let last = RTP_INDICES - 1;
    assert_eq!(at(last).estimate(0xffff), Some(last));
    assert_eq!(at(last).estimate(0), None);
}

#[test]
fn window_accepts_each_index_once() {
    let mut window = at(1_000);
    let below = 1_000 - (WINDOW - 1);
    for index in [1_000, below - 1, 0] {
        assert!(!window.is_unused(index), "{index}");
    }
    for index in [below, 999, 1_001, 1_003, 1_002, 1_003 + WINDOW, 1_000_000] {
        assert!(window.is_unused(index), "{index}");
        window.mark(index);
        assert!(!window.is_unused(index), "{index}");
    }
    assert_eq!(window.next(), 1_000_001);
    assert!(!window.is_unused(1_003));
}

#[test]
fn window_moves_by_any_distance() {
    for distance in 1..=2 * WINDOW {
        let mut window = at(1_000);
        window.mark(1_000 + distance);
        let seen = (distance < WINDOW).then_some(1_000);
        for index in 1_000 + distance + 1 - WINDOW..1_000 + distance {
            assert_eq!(window.is_unused(index), Some(index) != seen, "{distance} {index}");
        }
    }
}

#[test]
fn skipped_indices_count_as_used() {
    let mut window = at(1_000);
    window.skip_to(1_000);
    assert!(window.is_unused(999), "nothing was skipped");
    window.skip_to(1_002);
    assert!(!window.is_unused(999) && !window.is_unused(1_001) && window.is_unused(1_002));
    assert_eq!(window.next(), 1_002);
}
