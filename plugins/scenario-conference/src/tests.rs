//! Parameters of sessions by label.

use evenkeel_plugin_sdk::trial::{Trial, World};

use super::*;

fn resolve(settings: &str, labels: &[(&str, &str)]) -> Params {
    let policy = ScenarioConference::parse(settings).unwrap();
    Trial::of(policy, World::around("east")).resolve(labels)
}

fn ceiling(labels: &[(&str, &str)]) -> Option<i64> {
    resolve("{}", labels).value(Param::BitrateCeiling)
}

#[test]
fn conference_priority_is_between_call_and_stream() {
    let mut expected = Params::default();
    expected
        .bitrate_floor_kbps(24)
        .bitrate_ceiling_kbps(2_500)
        .spares(2)
        .close_after_ms(45_000)
        .priority(15);
    assert_eq!(resolve("{}", &[]), expected);
    assert_eq!(resolve("{}", &[("role", "speaker")]), expected);
}

#[test]
fn listener_has_a_lower_ceiling() {
    assert_eq!(ceiling(&[("role", "listener")]), Some(500));
    assert_eq!(ceiling(&[("role", "viewer")]), Some(500));
    assert_eq!(ceiling(&[("role", "interpreter")]), Some(2_500));
    assert_eq!(ceiling(&[]), Some(2_500));
    let all_alike = resolve(r#"{"low_priority_roles": []}"#, &[("role", "listener")]);
    assert_eq!(all_alike.value(Param::BitrateCeiling), Some(2_500));
}

#[test]
fn phone_has_a_lower_ceiling() {
    assert_eq!(ceiling(&[("device", "phone")]), Some(1_200));
    assert_eq!(ceiling(&[("device", "desktop")]), Some(2_500));
    assert_eq!(ceiling(&[("device", "phone"), ("role", "listener")]), Some(500));
    let thin = resolve(r#"{"ceiling_phone": 300}"#, &[("device", "phone"), ("role", "listener")]);
    assert_eq!(thin.value(Param::BitrateCeiling), Some(300));
}

#[test]
fn low_battery_lowers_ceiling_to_floor_at_most() {
    assert_eq!(ceiling(&[("battery", "low")]), Some(1_250));
    assert_eq!(ceiling(&[("battery", "full")]), Some(2_500));
    let params = resolve(r#"{"floor": 700}"#, &[("role", "listener"), ("battery", "low")]);
    assert_eq!(params.value(Param::BitrateCeiling), Some(700));
}

#[test]
fn settings_override_defaults() {
    let params = resolve(r#"{"spares": 1, "close_after": "2m", "priority": 5}"#, &[]);
    assert_eq!(params.value(Param::Spares), Some(1));
    assert_eq!(params.value(Param::CloseAfter), Some(120_000));
    assert_eq!(params.value(Param::Priority), Some(5));
    assert!(ScenarioConference::parse(r#"{"spares": 4}"#).is_err());
}
