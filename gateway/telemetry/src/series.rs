//! Series that begin with 0. A query such as `increase(…[5m])` does not see the first event of a series that begins with it.

use std::collections::BTreeSet;

use evenkeel_config::{GatewayConfig, NodeConfig, PolicySet};
use evenkeel_model::{CloseReason, PolicyName};

use super::instruments::Instruments;
use super::registry::{Attribute, Count};

/// Series of a metric that begin so: the SDK merges those of a metric beyond 2,000.
const SERIES_MAX: usize = 1_000;

/// Labels that have their values together: those of a zone and its region.
type LabelValues = Vec<(Attribute, String)>;

impl Instruments {
    /// Begins each series with labels that the configuration or this program knows; those that exist stay as they are.
    pub fn begin(&self, settings: &GatewayConfig) {
        for metric in Count::ALL {
            let Some(dimensions) = dimensions(*metric, settings) else { continue };
            if dimensions.iter().map(Vec::len).product::<usize>() > SERIES_MAX {
                continue;
            }
            let mut series: Vec<Vec<(Attribute, &str)>> = vec![Vec::new()];
            for choices in &dimensions {
                let longer = series.iter().flat_map(|labels| {
                    choices.iter().map(move |choice| {
                        let more = choice.iter().map(|(label, value)| (*label, value.as_str()));
                        labels.iter().copied().chain(more).collect()
                    })
                });
                series = longer.collect();
            }
            series.iter().for_each(|labels| self.count(*metric, 0, labels));
        }
    }
}

/// The values of each label of a metric; `None` if those of one are not known.
fn dimensions(metric: Count, settings: &GatewayConfig) -> Option<Vec<Vec<LabelValues>>> {
    let labels = metric.described().attributes;
    let has_zone = labels.contains(&Attribute::Zone);
    let own = labels.iter().copied().filter(|label| !has_zone || *label != Attribute::Region);
    let values = own.map(|label| {
        if label == Attribute::Zone {
            return Some(places(settings));
        }
        let values = known(metric, label, settings)?.into_iter();
        Some(values.map(|value| vec![(label, value)]).collect())
    });
    values.collect()
}

/// Each zone with its region.
fn places(settings: &GatewayConfig) -> Vec<LabelValues> {
    let place = |node: &NodeConfig| (node.region.to_string(), node.zone.to_string());
    let places: BTreeSet<(String, String)> = settings.nodes.iter().map(place).collect();
    let labels = |(region, zone)| vec![(Attribute::Region, region), (Attribute::Zone, zone)];
    places.into_iter().map(labels).collect()
}

/// All values of a metric's label; `None` if they are not known.
fn known(metric: Count, label: Attribute, settings: &GatewayConfig) -> Option<Vec<String>> {
    let scenarios = || settings.sets.iter().flat_map(|set| &set.scenarios);
    let policies = |set: &PolicySet| {
        let name = |hook| PolicyName { set: set.name.clone(), hook }.to_string();
        set.bindings.iter().map(|binding| name(binding.hook)).collect::<Vec<_>>()
    };
    Some(match (metric, label) {
        (Count::NodeStarts | Count::NodeStops, Attribute::Node) => {
            let with_hook = settings.nodes.iter().filter(|node| node.start.is_some());
            with_hook.map(|node| node.name.to_string()).collect()
        }
        (_, Attribute::Node) => settings.nodes.iter().map(|node| node.name.to_string()).collect(),
        (_, Attribute::Region) => settings.regions.iter().map(ToString::to_string).collect(),
        (_, Attribute::Policy) => settings.sets.iter().flat_map(policies).collect(),
        (_, Attribute::Scenario) => scenarios().map(|it| it.name.to_string()).collect(),
        (_, Attribute::Receiver) => {
            settings.alerts.iter().map(|receiver| receiver.name.to_string()).collect()
        }
        // Without revisions.
        (_, Attribute::By) => {
            let policies = settings.sets.iter().flat_map(policies);
            policies.chain(["native", "operator", "node"].map(str::to_owned)).collect()
        }
        // Of many scenarios only the series of an alert begin.
        (Count::SessionsClosed, Attribute::Reason)
            if scenarios().count() * CloseReason::ALL.len() > SERIES_MAX =>
        {
            vec![CloseReason::Panicked.name().to_owned()]
        }
        _ => metric.described().words(label)?.into_iter().map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests;
