//! Parameters of sessions by label.

use evenkeel_plugin_sdk::trial::{Trial, World};

use super::*;

fn resolve(settings: &str, labels: &[(&str, &str)]) -> Params {
    let policy = ScenarioCall::parse(settings).unwrap();
    Trial::of(policy, World::around("east")).resolve(labels)
}

fn ceiling(labels: &[(&str, &str)]) -> Option<i64> {
    resolve("{}", labels).value(Param::BitrateCeiling)
}

#[test]
fn call_has_floor_and_priority() {
    let mut expected = Params::default();
    expected
        .bitrate_floor_kbps(24)
        .bitrate_ceiling_kbps(2_000)
        .spares(2)
        .close_after_ms(30_000)
        .priority(20);
    assert_eq!(resolve("{}", &[]), expected);
}

#[test]
fn ceiling_depends_on_the_devices_height() {
    let expected = [("360", 600), ("361", 1_500), ("720", 1_500), ("721", 2_000), ("tall", 2_000)];
    for (lines, kbps) in expected {
        assert_eq!(ceiling(&[("max-height", lines)]), Some(kbps), "{lines}");
    }
}

#[test]
fn low_battery_lowers_the_ceiling() {
    assert_eq!(ceiling(&[("battery", "low")]), Some(1_000));
    assert_eq!(ceiling(&[("battery", "full")]), Some(2_000));
}

#[test]
fn ceiling_is_never_below_the_floor() {
    let params = resolve(r#"{"floor": 700}"#, &[("max-height", "240"), ("battery", "low")]);
    assert_eq!(params.value(Param::BitrateCeiling), Some(700));
}

#[test]
fn settings_override_defaults() {
    let params = resolve(r#"{"spares": 3, "close_after": "2m", "priority": 0}"#, &[]);
    assert_eq!(params.value(Param::Spares), Some(3));
    assert_eq!(params.value(Param::CloseAfter), Some(120_000));
    assert_eq!(params.value(Param::Priority), Some(0));
    assert!(ScenarioCall::parse(r#"{"spares": 0}"#).is_err());
}
