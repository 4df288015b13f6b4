//! How scenarios survive, held against the nodes and regions there are: what cannot hold is refused with the reason.

use std::ops::Range;
use std::sync::Arc;

use evenkeel_core::{Affinity, Mode};

use super::check::Check;
use super::invalid::{Invalid, Source};
use super::{Driver, PolicySet, Settings};

/// Where a set was read, and where in it its scenarios are.
type Places = (Arc<Source>, Vec<Range<usize>>);

/// Modes and affinities that the configured nodes cannot keep. A gateway without nodes keeps none, and is only tried out.
pub(super) fn check(settings: &Settings, places: &[Places]) -> Vec<Invalid> {
    let sets = settings.sets.iter().zip(places);
    sets.flat_map(|(set, (source, places))| {
        let mut check = Check::new(Arc::clone(source), std::path::Path::new(""));
        of_set(settings, set, places, &mut check);
        check.invalid.sort_by_key(|invalid| (invalid.line, invalid.column));
        check.invalid
    })
    .collect()
}

fn of_set(settings: &Settings, set: &PolicySet, places: &[Range<usize>], check: &mut Check) {
    for (scenario, place) in set.scenarios.iter().zip(places) {
        let name = &scenario.name;
        let nodes = settings.nodes.len();
        match scenario.mode {
            Mode::Hitless if nodes == 1 => {
                let found = format!("scenario `{name}` in mode `hitless`, and one node");
                let expected = "at least two: both carry all packets";
                check.refuse(place.clone(), found, expected);
            }
            Mode::Regional => {
                for region in &scenario.regions {
                    if !settings.regions.contains(region) {
                        let known = settings.regions.iter().map(|name| format!("`{name}`"));
                        let known: Vec<String> = known.collect();
                        let found = format!("scenario `{name}` with the unknown region `{region}`");
                        let expected = format!("regions of {}", known.join(", "));
                        check.refuse(place.clone(), found, expected);
                    }
                }
            }
            Mode::Cold if nodes > 0 && settings.nodes.iter().all(|node| node.start.is_none()) => {
                let found = format!("scenario `{name}` in mode `cold`, and no node with `start`");
                let expected =
                    "a node that can be started: `start = { command = [\"…\"] }` in `[[node]]`";
                check.refuse(place.clone(), found, expected);
            }
            Mode::Hitless | Mode::Hot | Mode::ActiveActive | Mode::Cold => {}
        }
        let alone = settings.nodes.iter().find(|node| node.driver == Driver::Rtpengine);
        if let Some(node) = alone.filter(|_| scenario.affinity == Affinity::Session) {
            let found = format!(
                "scenario `{name}` with affinity `session`, and node `{}` with driver `rtpengine`",
                node.name
            );
            let expected = "affinity `room`: one rtpengine bridges no call to another";
            check.refuse(place.clone(), found, expected);
        }
    }
}
