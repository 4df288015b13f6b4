//! Converts the settings to the core's: ids in place of names.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_core::{
    self as core, AdmitOnFault, Bounds, DegradeOnFault, Hook, NodeSettings, Probed, RegionId, Role,
    Starts, Zone, ZoneId,
};

use super::{Binding, Driver, Node, OnFault, PolicySet, Probe, Scenario, Settings};

impl Settings {
    /// The core's settings; a node's id is its index in [`Settings::nodes`].
    pub fn core(&self) -> core::Settings {
        let mut zones: Vec<Zone> = Vec::new();
        let nodes = self.nodes.iter().map(|node| {
            let zone = Zone { name: (*node.zone).into(), region: self.region(&node.region) };
            let known = zones.iter().position(|known| *known == zone);
            let place = known.unwrap_or_else(|| {
                zones.push(zone);
                zones.len() - 1
            });
            node.core(ZoneId(place as u32))
        });
        let nodes = nodes.collect();
        core::Settings {
            home: self.region(&self.gateway.region),
            regions: self.regions.iter().map(|name| (**name).into()).collect(),
            zones,
            nodes,
            scenarios: self.scenarios_of(&self.sets),
            timings: self.detector,
            limits: core::Limits {
                sessions_max: self.limits.sessions as usize,
                churn_percent: self.limits.churn_percent,
                moves_per_minute: usize::from(self.limits.moves_per_minute),
                failbacks_per_second: u32::from(self.limits.failbacks_per_second),
                breakers: self.breaker,
                ..core::Limits::default()
            },
        }
    }

    /// The scenarios of these sets, with region ids. A new region waits for a restart and is left out.
    pub(crate) fn scenarios_of(&self, sets: &[PolicySet]) -> BTreeMap<Arc<str>, core::Scenario> {
        let place = |name: &Arc<str>| self.regions.iter().position(|known| known == name);
        let regions = |scenario: &Scenario| {
            let places = scenario.regions.iter().filter_map(place);
            places.map(|place| RegionId(place as u32)).collect()
        };
        let all = sets.iter().flat_map(|set| set.scenarios.iter().map(move |s| (set, s)));
        all.map(|(set, s)| {
            (s.name.clone(), core::Scenario { regions: regions(s), ..scenario(set, s) })
        })
        .collect()
    }

    /// The id of a region; its name was checked.
    fn region(&self, name: &str) -> RegionId {
        let place = self.regions.iter().position(|known| **known == *name);
        RegionId(place.expect("names of regions are checked against the list") as u32)
    }
}

impl Node {
    pub(crate) fn core(&self, zone: ZoneId) -> NodeSettings {
        let by_hook = |start: &super::Start| Starts::ByHook { within: start.within };
        NodeSettings {
            name: (*self.name).into(),
            zone,
            capacity_kbps: self.capacity.kbps(),
            probed: self.probed(),
            role: if self.standby { Role::Standby } else { Role::Active },
            starts: self.start.as_ref().map_or(Starts::ByItself, by_hook),
            canary: self.canary,
        }
    }

    pub(super) fn probed(&self) -> Probed {
        match self.driver {
            Driver::Plain { probe: Probe::None } | Driver::Webhook { probe: Probe::None, .. } => {
                Probed::No
            }
            Driver::Plain { probe: Probe::Stun | Probe::Echo }
            | Driver::Webhook { probe: Probe::Stun | Probe::Echo, .. }
            | Driver::Agent { .. }
            | Driver::Rtpengine => Probed::Yes,
        }
    }
}

impl PolicySet {
    pub fn binding(&self, hook: Hook) -> Option<&Binding> {
        self.bindings.iter().find(|binding| binding.hook == hook)
    }
}

fn scenario(set: &PolicySet, scenario: &Scenario) -> core::Scenario {
    let on_fault = |hook| set.binding(hook).map(|binding| binding.on_fault);
    core::Scenario {
        set: set.name.clone(),
        bound: Hook::ALL.map(|hook| set.binding(hook).is_some()),
        bounds: Bounds { floor_kbps: kbps(scenario.floor), ceiling_kbps: kbps(scenario.ceiling) },
        mode: scenario.mode,
        affinity: scenario.affinity,
        regions: Vec::new(),
        spares: scenario.spares,
        close_after: scenario.close_after,
        priority: i64::from(scenario.priority),
        on_admission_fault: match on_fault(Hook::Admission) {
            Some(OnFault::Reject) => AdmitOnFault::Reject,
            Some(OnFault::Admit) => AdmitOnFault::Admit,
            Some(
                OnFault::AdmitCapped
                | OnFault::Native
                | OnFault::Hold
                | OnFault::NativeLadder
                | OnFault::Builtin,
            )
            | None => AdmitOnFault::AdmitCapped,
        },
        on_degradation_fault: match on_fault(Hook::Degradation) {
            Some(OnFault::NativeLadder) => DegradeOnFault::NativeLadder,
            Some(
                OnFault::Hold
                | OnFault::Native
                | OnFault::AdmitCapped
                | OnFault::Admit
                | OnFault::Reject
                | OnFault::Builtin,
            )
            | None => DegradeOnFault::Hold,
        },
    }
}

/// A rate above `u32::MAX` kbit/s is no limit.
fn kbps(rate: super::BitRate) -> u32 {
    u32::try_from(rate.kbps()).unwrap_or(u32::MAX)
}
