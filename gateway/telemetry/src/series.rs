//! Series that begin with 0. A query such as `increase(…[5m])` does not see the first event of a series that begins with it.

use evenkeel_config::{GatewayConfig, PolicySet};
use evenkeel_model::{CloseReason, MoveCause, PathSegment, PolicyName};

use super::instruments::Instruments;
use super::registry::{Attribute, Count};

/// Series of a metric that begin so: the SDK merges those of a metric beyond 2,000.
const SERIES_MAX: usize = 1_000;

impl Instruments {
    /// Begins each series with labels that the configuration or this program knows; those that exist stay as they are.
    pub fn begin(&self, settings: &GatewayConfig) {
        for metric in Count::ALL {
            let attributes = metric.described().attributes;
            let values = attributes.iter().map(|attribute| known(*metric, *attribute, settings));
            let Some(values) = values.collect::<Option<Vec<_>>>() else { continue };
            if values.iter().map(Vec::len).product::<usize>() > SERIES_MAX {
                continue;
            }
            let mut series = vec![Vec::new()];
            for (attribute, values) in attributes.iter().zip(&values) {
                let with = |labels: &Vec<(Attribute, _)>, value| {
                    labels.iter().copied().chain([(*attribute, value)]).collect()
                };
                let longer = series.iter().flat_map(|labels| {
                    values.iter().map(move |value| with(labels, value.as_str()))
                });
                series = longer.collect();
            }
            series.iter().for_each(|labels| self.count(*metric, 0, labels));
        }
    }
}

/// All values of a metric's label; `None` if they are not known.
fn known(metric: Count, label: Attribute, settings: &GatewayConfig) -> Option<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
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
        (Count::NodeStarts, Attribute::Outcome) => {
            words(&["starting", "failed", "ready", "refused"])
        }
        (Count::NodeStops, Attribute::Outcome) => words(&["stopping", "failed", "stopped"]),
        (_, Attribute::Node) => settings.nodes.iter().map(|node| node.name.to_string()).collect(),
        (_, Attribute::Region) => settings.regions.iter().map(ToString::to_string).collect(),
        (_, Attribute::Policy) => settings.sets.iter().flat_map(policies).collect(),
        (_, Attribute::Scenario) => scenarios().map(|it| it.name.to_string()).collect(),
        (_, Attribute::Receiver) => {
            settings.alerts.iter().map(|receiver| receiver.name.to_string()).collect()
        }
        (_, Attribute::Direction) => words(&["up", "down"]),
        (_, Attribute::Segment) => words(&PathSegment::ALL.map(PathSegment::name)),
        (_, Attribute::Cause) => words(&MoveCause::ALL.map(MoveCause::name)),
        // Of many scenarios only the series of an alert begin.
        (Count::SessionsClosed, Attribute::Reason)
            if scenarios().count() * CloseReason::ALL.len() > SERIES_MAX =>
        {
            words(&[CloseReason::Panicked.name()])
        }
        (Count::SessionsClosed, Attribute::Reason) => {
            words(&CloseReason::ALL.map(CloseReason::name))
        }
        (Count::NodeMessagesRefused, Attribute::Reason) => {
            words(&["clock", "secret", "encryption"])
        }
        (Count::TelemetryDropped, Attribute::Signal) => {
            words(&["spans", "logs", "metrics", "events"])
        }
        (Count::TelemetryDropped, Attribute::Reason) => {
            words(&["queue-full", "not-taken", "behind"])
        }
        (Count::ApiTokensRefused, Attribute::Reason) => words(&["missing", "wrong"]),
        (Count::AlertDeliveries, Attribute::Outcome) => words(&["delivered", "failed"]),
        (Count::PolicyRollouts, Attribute::Outcome) => {
            words(&["activated", "rolled-back", "refused"])
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
