use super::super::*;

#[test]
fn versions_are_ordered() {
    let rising = ["mine", "0", "0.1", "0.1.1", "1.0.0-alpha", "1.0.0-rc.2", "1", "1.2.9", "1.10"];
    for pair in rising.windows(2) {
        assert!(Version::read(pair[0]) < Version::read(pair[1]), "{pair:?}");
    }
    for (one, same) in [("1", "1.0.0"), ("1.2", "1.2.0+build7"), ("mine", "yours")] {
        assert_eq!(Version::read(one), Version::read(same));
    }
    assert_eq!(Version::read("1.2").to_string(), "1.2");
}
