use super::*;

#[test]
fn lowest_value_ends_after_two_periods() {
    let mut lowest = Lowest::within(100);
    let values = [(5.0, 0), (3.0, 99), (9.0, 199), (7.0, 298), (8.0, 299)];
    let read = values.map(|(value, at_us)| lowest.update(value, at_us));
    assert_eq!(read, [5.0, 3.0, 3.0, 3.0, 7.0]);
    assert_eq!(lowest.update(8.0, 499), 8.0, "nothing came for two periods");
}
