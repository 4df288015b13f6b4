use std::collections::BTreeSet;

use super::*;

#[test]
fn counters_of_rows_are_registered_with_labels() {
    for count in CoreEvent::rows().iter().chain(GatewayEvent::rows()).flat_map(|row| row.counts) {
        let metric = Count::of_name(count.metric);
        let metric = metric.unwrap_or_else(|| panic!("{} is not registered", count.metric));
        let registered = metric.described().attributes.iter();
        let registered: BTreeSet<_> =
            registered.map(|it| it.key().trim_start_matches("evenkeel.")).collect();
        let labels: BTreeSet<_> = count.labels.iter().copied().collect();
        assert_eq!(labels, registered, "{}", count.metric);
    }
}
