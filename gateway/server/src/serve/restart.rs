//! Finds changed keys that a reload cannot apply.

use evenkeel_config::{GatewayConfig, PolicySet, ScenarioSettings};
use evenkeel_model::Hook;

/// Lists each changed key that needs a restart, by its name in the file. A reload applies nodes, plugins, their
/// settings, and how sessions survive the failure of a node.
pub(super) fn needed(old: &GatewayConfig, new: &GatewayConfig) -> Vec<String> {
    let tables = [
        (old.gateway != new.gateway, "[gateway]"),
        (old.listens != new.listens, "[[listen]]"),
        (new.regions.iter().any(|region| !old.regions.contains(region)), "[[region]]"),
        (old.admin != new.admin, "[admin]"),
        (old.telemetry != new.telemetry, "[telemetry]"),
        (old.limits != new.limits, "[limits]"),
        (old.breaker != new.breaker, "[breaker]"),
        (old.detector != new.detector, "[detector]"),
        (old.cluster != new.cluster, "[cluster]"),
        (old.index != new.index, "[index]"),
    ];
    let tables = tables.into_iter().filter(|(differs, _)| *differs);
    let mut keys: Vec<String> = tables.map(|(_, table)| table.to_owned()).collect();
    keys.extend(pairs(&old.sets, &new.sets, |set| &set.name).flat_map(|pair| match pair {
        (Some(old), Some(new)) => of_set(old, new),
        (Some(set), None) => vec![format!("{}.toml, which is gone", set.name)],
        (None, Some(set)) => vec![format!("{}.toml, which is new", set.name)],
        (None, None) => Vec::new(),
    }));
    keys
}

fn of_set(old: &PolicySet, new: &PolicySet) -> Vec<String> {
    let scenarios = pairs(&old.scenarios, &new.scenarios, |scenario| &scenario.name);
    let scenarios = scenarios.flat_map(|pair| match pair {
        (Some(old), Some(new)) => of_scenario(old, new),
        (Some(one), None) | (None, Some(one)) => vec![format!("[scenario.{}]", one.name)],
        (None, None) => Vec::new(),
    });
    let hooks =
        Hook::ALL.into_iter().filter_map(|hook| match (old.binding(hook), new.binding(hook)) {
            (Some(old), Some(new)) => {
                (old.on_fault != new.on_fault).then(|| format!("[{}] on_fault", old.key()))
            }
            (Some(one), None) | (None, Some(one)) => Some(format!("[{}]", one.key())),
            (None, None) => None,
        });
    scenarios.chain(hooks).map(|key| format!("{}.toml {key}", old.name)).collect()
}

fn of_scenario(old: &ScenarioSettings, new: &ScenarioSettings) -> Vec<String> {
    // Mode, affinity, regions and spares need no restart.
    let ScenarioSettings {
        name,
        floor,
        ceiling,
        close_after,
        await_first_packet,
        dscp,
        priority,
        ..
    } = old;
    let keys = [
        ((*floor, *ceiling) != (new.floor, new.ceiling), "bitrate"),
        (*close_after != new.close_after, "close_after"),
        (*await_first_packet != new.await_first_packet, "await_first_packet"),
        (*dscp != new.dscp, "dscp"),
        (*priority != new.priority, "priority"),
    ];
    let keys = keys.into_iter().filter(|(differs, _)| *differs);
    keys.map(|(_, key)| format!("[scenario.{name}] {key}")).collect()
}

/// Pairs the entries of both lists by name.
fn pairs<'a, T, K: PartialEq>(
    old: &'a [T],
    new: &'a [T],
    name: impl Fn(&T) -> &K + Copy + 'a,
) -> impl Iterator<Item = (Option<&'a T>, Option<&'a T>)> {
    let find = move |list: &'a [T], one: &T| list.iter().find(|other| name(other) == name(one));
    let kept = old.iter().map(move |one| (Some(one), find(new, one)));
    let added = new.iter().filter(move |one| find(old, one).is_none()).map(|one| (None, Some(one)));
    kept.chain(added)
}

#[cfg(test)]
mod tests;
