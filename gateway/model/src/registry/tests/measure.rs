use super::super::*;

#[test]
fn every_metric_has_a_place_of_its_own() {
    let mut measures = Measures::default();
    for &metric in Metric::ALL {
        assert_eq!(measures.measured(metric), None);
        measures.set(metric, metric as u64);
    }
    assert!(Metric::ALL.iter().all(|&metric| measures.value(metric) == metric as u32));
}

#[test]
fn large_value_is_clamped_to_wire() {
    let mut measures = Measures::default();
    measures.set(Metric::Age, u64::from(UNMEASURED) - 1);
    assert_eq!(measures.measured(Metric::Age), Some(UNMEASURED - 1));
    measures.set(Metric::Age, u64::from(UNMEASURED));
    assert_eq!(measures.measured(Metric::Age), Some(UNMEASURED - 1));
}
