use super::*;

#[test]
fn calls_are_summed_over_policies() {
    let text = "# HELP evenkeel_policy_calls_total Questions that were concluded.\n\
        evenkeel_policy_calls_total{evenkeel_outcome=\"applied\",evenkeel_policy=\"call/routing\"} 3\n\
        evenkeel_policy_calls_total{evenkeel_outcome=\"kept\",evenkeel_policy=\"call/routing\"} 4\n\
        evenkeel_policy_differs_total{evenkeel_policy=\"call/routing\"} 2\n\
        evenkeel_policy_faults_total{evenkeel_fault=\"trap\",evenkeel_policy=\"live/routing\"} 1\n\
        evenkeel_policy_call_duration_seconds_sum{evenkeel_policy=\"call/routing\"} 0.01\n";
    let applied_by = [("call/routing".to_owned(), 3)].into();
    assert_eq!(
        calls(text),
        PolicyCalls { total: 7, applied: 3, applied_by, differs_from_native: 2, faults: 1 }
    );
}
