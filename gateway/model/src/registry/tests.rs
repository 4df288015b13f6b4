mod measure;

use super::*;

#[test]
fn a_number_is_known_if_the_registry_has_it() {
    assert_eq!(Metric::from_number(1), Some(Metric::LossUp));
    assert_eq!(Metric::from_number(65_536), None);
    assert_eq!(Op::from_number(2), Some(Op::VoiceOnly));
    assert_eq!(Op::from_number(0), None);
    assert_eq!(CommonReason::from_number(65_537), Some(CommonReason::Loss));
    assert_eq!(CommonReason::from_number(1), None, "that is the plugin's own");
    assert_eq!(Param::from_key("spares"), Some(Param::Spares));
    assert_eq!(Param::from_key("Spares"), None);
}

#[test]
fn loss_after_repair_replaces_that_before() {
    let mut measures = Measures::default();
    assert_eq!(measures.losses_after_repair(), [None, None]);
    measures.set(Metric::LossUp, 5).set(Metric::LossDown, 6);
    assert_eq!(measures.losses_after_repair(), [Some(5), Some(6)]);
    measures.set(Metric::LossUpAfterRepair, 1).set(Metric::LossDownAfterRepair, 0);
    assert_eq!(measures.losses_after_repair(), [Some(1), Some(0)]);
}

#[test]
fn parameter_is_clamped_to_bounds() {
    let spares = [0, 1, 3, 4].map(|value| Param::Spares.within(value));
    assert_eq!(spares, [1, 1, 3, 3]);
    assert_eq!(Param::BitrateFloor.within(-1), -1, "the scenario's text bounds it");
}

#[test]
fn impaired_segments_are_those_of_the_diagnosis() {
    let names = crate::PathSegment::ALL.map(crate::PathSegment::name);
    assert_eq!(Metric::ImpairedSegment.values(), [&["none"][..], &names].concat());
}
