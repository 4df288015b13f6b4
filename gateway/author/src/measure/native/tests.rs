use super::*;

#[test]
fn figures_are_found_in_test_output() {
    let said = "\nrunning 1 test\ntest measured_natively ... \nevenkeel-native 10 20 30\nok\nevenkeel-native 1 2";
    let found: Vec<TimeSpread> = said.lines().filter_map(spread).collect();
    assert_eq!(found, [TimeSpread { min: 10, median: 20, p99: 30 }]);
}
