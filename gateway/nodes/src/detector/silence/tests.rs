use super::*;

const MS: Duration = Duration::from_millis(1);

/// The usual lateness after these notes: the second, and the lateness in ms.
fn usual(notes: &[(u64, u32)]) -> Duration {
    let (mut lately, start) = (Lateness::default(), Instant::now());
    for &(second, late) in notes {
        lately.note(MS * late, start + Duration::from_secs(second));
    }
    lately.usual()
}

#[test]
fn one_bad_second_is_not_usual_and_two_are() {
    assert_eq!(usual(&[]), Duration::ZERO);
    assert_eq!(usual(&[(0, 1), (1, 90), (1, 80), (2, 1)]), MS);
    assert_eq!(usual(&[(0, 1), (1, 90), (2, 80), (3, 1)]), 80 * MS);
}

#[test]
fn values_older_than_ten_seconds_expire() {
    assert_eq!(usual(&[(0, 90), (1, 80), (9, 2)]), 80 * MS);
    assert_eq!(usual(&[(0, 90), (1, 80), (10, 2)]), 2 * MS, "80 ms is one second's alone");
    assert_eq!(usual(&[(0, 90), (1, 80), (500, 2), (501, 1)]), MS);
}
