use super::*;

const BEFORE: &str = "cpu  1000 100 200 9000 50 1 49 10 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
const AFTER: &str = "cpu  1060 100 220 9900 70 1 59 20 7 7\ncpu0 1 1 1 1 1 1 1 1 0 0\n";

#[test]
fn stolen_is_a_share_of_the_used_time() {
    let [before, after] = [BEFORE, AFTER].map(|books| Used::of(books).expect("it is a book"));
    assert_eq!(after.stolen_percent_since(before), 10.0, "10 of 60 + 20 + 10 + 10");
    assert_eq!(before.stolen_percent_since(before), 0.0);
}

#[test]
fn books_without_that_column_say_nothing() {
    for books in ["", "intr 5", "cpu  1 2 3", "cpu  1 2 3 4 5 6 7 eight"] {
        assert_eq!(Used::of(books), None, "{books:?}");
    }
}

#[test]
fn own_kernel_keeps_these_books() {
    assert!(Used::now().all > 0);
}

#[test]
fn machine_is_late_by_either() {
    let of = |p99, stolen_percent| Timeliness {
        woken_late_ms: GapSpread { p50: 0.1, p99, max: p99 },
        stolen_percent,
    };
    assert!(!of(2.0, 2.0).is_late());
    assert!(of(2.1, 0.0).is_late() && of(0.1, 2.1).is_late());
}
