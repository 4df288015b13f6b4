//! Parameters of sessions by label.

use evenkeel_plugin_sdk::trial::{Trial, World};

use super::*;

fn resolve(settings: &str, labels: &[(&str, &str)]) -> Params {
    let policy = ScenarioLive::parse(settings).unwrap();
    Trial::of(policy, World::around("east")).resolve(labels)
}

fn ceiling(labels: &[(&str, &str)]) -> Option<i64> {
    resolve("{}", labels).value(Param::BitrateCeiling)
}

const PUBLISHER: (&str, &str) = ("role", "publisher");

#[test]
fn viewer_has_floor_and_low_priority() {
    let mut expected = Params::default();
    expected
        .bitrate_floor_kbps(300)
        .bitrate_ceiling_kbps(6_000)
        .spares(2)
        .close_after_ms(15_000)
        .priority(10);
    assert_eq!(resolve("{}", &[]), expected);
    assert_eq!(resolve("{}", &[("role", "viewer")]), expected);
}

#[test]
fn publisher_has_priority_and_a_longer_timeout() {
    let params = resolve("{}", &[PUBLISHER]);
    assert_eq!(params.value(Param::Priority), Some(11));
    assert_eq!(params.value(Param::CloseAfter), Some(60_000));
}

#[test]
fn viewer_ceiling_depends_on_the_devices_height() {
    let expected =
        [("360", 1_000), ("361", 2_500), ("720", 2_500), ("721", 6_000), ("tall", 6_000)];
    for (lines, kbps) in expected {
        assert_eq!(ceiling(&[("max-height", lines)]), Some(kbps), "{lines}");
        assert_eq!(ceiling(&[("max-height", lines), PUBLISHER]), Some(6_000), "{lines}");
    }
}

#[test]
fn ceiling_is_never_below_the_floor() {
    let params = resolve(r#"{"floor": 1200}"#, &[("max-height", "360")]);
    assert_eq!(params.value(Param::BitrateCeiling), Some(1_200));
}

#[test]
fn settings_override_defaults() {
    let params = resolve(r#"{"spares": 1, "close_after": "2m", "priority": 5}"#, &[]);
    assert_eq!(params.value(Param::Spares), Some(1));
    assert_eq!(params.value(Param::CloseAfter), Some(120_000));
    assert_eq!(params.value(Param::Priority), Some(5));
    assert!(ScenarioLive::parse(r#"{"spares": 4}"#).is_err());
}
