//! Checks the modes and affinities of scenarios against the configured nodes and regions.

use std::ops::Range;
use std::sync::Arc;

use evenkeel_model::{Affinity, NodeProbing, RedundancyMode};

use super::check::ConfigCheck;
use super::invalid::{ConfigSource, InvalidSetting};
use super::{DriverSettings, GatewayConfig, NodeConfig, PolicySet};

/// The file of a set, and the spans of its scenarios.
type Places = (Arc<ConfigSource>, Vec<Range<usize>>);

/// Refuses modes and affinities that the nodes cannot provide. A gateway without nodes is for trying out and is not
/// checked.
pub(super) fn check(settings: &GatewayConfig, places: &[Places]) -> Vec<InvalidSetting> {
    let sets = settings.sets.iter().zip(places);
    sets.flat_map(|(set, (source, places))| {
        let mut check = ConfigCheck::new(Arc::clone(source), std::path::Path::new(""));
        of_set(settings, set, places, &mut check);
        check.invalid.sort_by_key(|invalid| (invalid.line, invalid.column));
        check.invalid
    })
    .collect()
}

fn of_set(
    settings: &GatewayConfig,
    set: &PolicySet,
    places: &[Range<usize>],
    check: &mut ConfigCheck,
) {
    for (scenario, place) in set.scenarios.iter().zip(places) {
        let name = &scenario.name;
        let nodes = settings.nodes.len();
        match scenario.mode {
            RedundancyMode::Hitless if nodes == 1 => {
                let found = format!("mode `hitless` of scenario `{name}` with one node");
                let expected = "at least two nodes: both carry all packets";
                check.refuse(place.clone(), found, expected);
            }
            RedundancyMode::Regional => {
                for region in &scenario.regions {
                    if !settings.regions.contains(region) {
                        let known = settings.regions.iter().map(|name| format!("`{name}`"));
                        let known: Vec<String> = known.collect();
                        let found = format!("unknown region `{region}` in scenario `{name}`");
                        let expected = format!("one of {}", known.join(", "));
                        check.refuse(place.clone(), found, expected);
                    }
                }
            }
            RedundancyMode::Cold
                if nodes > 0 && settings.nodes.iter().all(|node| node.start.is_none()) =>
            {
                let found = format!("mode `cold` of scenario `{name}` without a node with `start`");
                let expected =
                    "a node that can be started: `start = { command = [\"…\"] }` in `[[node]]`";
                check.refuse(place.clone(), found, expected);
            }
            RedundancyMode::Hitless
            | RedundancyMode::Hot
            | RedundancyMode::ActiveActive
            | RedundancyMode::Cold => {}
        }
        if scenario.affinity == Affinity::Session {
            of_sessions_apart(settings, name, place, check);
        }
    }
}

/// With affinity `session` a call spans several nodes. These must be meshed, and must answer probes: a node with a
/// single, listening session sends nothing.
fn of_sessions_apart(
    settings: &GatewayConfig,
    name: &str,
    place: &Range<usize>,
    check: &mut ConfigCheck,
) {
    let mut refuse = |node: &NodeConfig, is: &str, expected| {
        let found =
            format!("affinity `session` of scenario `{name}` with node `{}`{is}", node.name);
        check.refuse(place.clone(), found, expected);
    };
    let mut nodes = settings.nodes.iter();
    if let Some(node) = nodes.clone().find(|node| node.driver == DriverSettings::Rtpengine) {
        let expected = "affinity `room`: rtpengines do not forward to each other";
        refuse(node, ", which has driver `rtpengine`", expected);
    }
    if let Some(node) = nodes.find(|node| node.probed() == NodeProbing::No) {
        let expected = "affinity `room`, or a probe: a node with a single session sends no media";
        refuse(node, ", which has no probe", expected);
    }
}
