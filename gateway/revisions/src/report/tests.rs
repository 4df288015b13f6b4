use super::*;

fn revision(name: &str, plugin: &str, version: &str) -> Revision {
    let version = Version::read(version);
    Revision { name: name.into(), plugin: plugin.into(), version, schema: 1 }
}

fn near(version: &str) -> Revision {
    revision("x", "near", version)
}

#[test]
fn version_below_the_floor_is_refused() {
    let mut floor = Remembered::default();
    assert!(floor.check_version(&near("0.1.0")).is_ok(), "nothing ran yet");
    floor.accept(&revision("a", "near", "1.10.0"));
    floor.accept(&revision("b", "near", "1.2.0"));
    for (version, taken) in [
        ("1.10.0", true),
        ("1.10.1", true),
        ("1.9.9", false),
        ("1.10.0-rc.1", false),
        ("new", false),
    ] {
        assert_eq!(floor.check_version(&near(version)).is_ok(), taken, "{version}");
    }
    assert!(floor.check_version(&revision("x", "far", "0.0.1")).is_ok(), "another plugin");
}

#[test]
fn rollback_restores_the_earlier_floor() {
    let mut floor = Remembered::default();
    floor.accept(&revision("old", "near", "1.1.0"));
    floor.accept(&revision("new", "near", "1.2.0"));
    assert!(floor.check_version(&near("1.1.1")).is_err());
    floor.withdraw("new");
    assert!(floor.check_version(&near("1.1.1")).is_ok());
    assert!(floor.check_version(&near("1.0.9")).is_err());
}

#[test]
fn lowered_floor_is_the_version_in_use() {
    let mut floor = Remembered::default();
    for (name, plugin, version) in
        [("old", "near", "1.1.0"), ("new", "near", "1.3.0"), ("other", "far", "9.0.0")]
    {
        floor.accept(&revision(name, plugin, version));
    }
    floor.lower_floor(&near("1.2.0"));
    assert!(floor.check_version(&near("1.2.1")).is_ok());
    assert!(floor.check_version(&near("1.0.9")).is_err());
    assert!(floor.check_version(&revision("x", "far", "8.0.0")).is_err(), "another plugin");
    assert!(floor.has_accepted("old") && !floor.has_accepted("new"));
}

#[test]
fn ages_are_in_their_largest_unit() {
    for (seconds, text) in
        [(0, "0 s"), (59, "59 s"), (1_066, "17 min"), (3_600, "1 h"), (200_000, "2 d")]
    {
        assert_eq!(age_text(Duration::from_secs(seconds)), text);
    }
}

#[test]
fn floor_is_restored_with_its_limit() {
    let mut before = Remembered::default();
    before.accept(&revision("old", "near", "1.10.0"));
    before.accept(&revision("new", "near", "1.2"));
    let list = before.accepted.clone();
    let mut after = before.clone().limited();
    assert_eq!(after, before);
    assert!(after.check_version(&near("1.9.9")).is_err());
    after.withdraw("old");
    assert!(after.check_version(&near("1.9.9")).is_ok());
    assert!(after.check_version(&near("1.1.9")).is_err());

    let one =
        |number: usize| AcceptedRevision { revision: number.to_string().into(), ..list[0].clone() };
    let accepted = (0..=ACCEPTED_MAX).map(one).collect();
    let many = Remembered { accepted, ..before }.limited();
    assert_eq!((many.accepted.len(), &*many.accepted[0].revision), (ACCEPTED_MAX, "1"));
}

#[test]
fn newest_version_outlives_the_limit() {
    let mut floor = Remembered::default();
    floor.accept(&revision("first", "far", "2.0.0"));
    floor.accept(&revision("newest", "near", "9.0.0"));
    for number in 0..3 * ACCEPTED_MAX {
        floor.accept(&revision(&number.to_string(), "near", "1.0.0"));
    }
    assert_eq!(floor.accepted.len(), ACCEPTED_MAX);
    assert!(floor.check_version(&near("8.0.0")).is_err());
    assert!(floor.check_version(&revision("x", "far", "1.0.0")).is_err());
}
