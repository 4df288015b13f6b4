//! Converts the settings to the core's: ids in place of names.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_model::{
    AdmitOnFault, CapBounds, DegradeOnFault, Hook, NodeProbing, NodeSettings, RegionId, RegionRole,
    Starts, Zone, ZoneId,
};

use super::{
    DriverSettings, GatewayConfig, NodeConfig, OnFault, PolicyBinding, PolicySet, ProbeKind,
    ScenarioSettings,
};

impl GatewayConfig {
    /// The core's settings; a node's id is its index in [`GatewayConfig::nodes`].
    pub fn core(&self) -> evenkeel_model::CoreSettings {
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
        evenkeel_model::CoreSettings {
            home: self.region(&self.gateway.region),
            regions: self.regions.iter().map(|name| (**name).into()).collect(),
            zones,
            nodes,
            scenarios: self.scenarios_of(&self.sets),
            timings: self.detector,
            limits: evenkeel_model::GatewayLimits {
                sessions_max: self.limits.sessions as usize,
                churn_percent: self.limits.churn_percent,
                moves_per_minute: usize::from(self.limits.moves_per_minute),
                failbacks_per_second: u32::from(self.limits.failbacks_per_second),
                breakers: self.breaker,
                ..evenkeel_model::GatewayLimits::default()
            },
        }
    }

    /// The scenarios of these sets, with region ids. A new region waits for a restart and is left out.
    pub fn scenarios_of(&self, sets: &[PolicySet]) -> BTreeMap<Arc<str>, evenkeel_model::Scenario> {
        let place = |name: &Arc<str>| self.regions.iter().position(|known| known == name);
        let regions = |scenario: &ScenarioSettings| {
            let places = scenario.regions.iter().filter_map(place);
            places.map(|place| RegionId(place as u32)).collect()
        };
        let all = sets.iter().flat_map(|set| set.scenarios.iter().map(move |s| (set, s)));
        all.map(|(set, s)| {
            (s.name.clone(), evenkeel_model::Scenario { regions: regions(s), ..scenario(set, s) })
        })
        .collect()
    }

    /// The id of a region; its name was checked.
    fn region(&self, name: &str) -> RegionId {
        let place = self.regions.iter().position(|known| **known == *name);
        RegionId(place.expect("names of regions are checked against the list") as u32)
    }
}

impl NodeConfig {
    /// The node's settings in the core, with its zone as a number.
    pub fn core(&self, zone: ZoneId) -> NodeSettings {
        let by_hook = |start: &super::StartHook| Starts::ByHook { within: start.within };
        NodeSettings {
            name: (*self.name).into(),
            zone,
            capacity_kbps: self.capacity.kbps(),
            probed: self.probed(),
            role: if self.standby { RegionRole::Standby } else { RegionRole::Active },
            starts: self.start.as_ref().map_or(Starts::ByItself, by_hook),
            canary: self.canary,
        }
    }

    pub(super) fn probed(&self) -> NodeProbing {
        match self.driver {
            DriverSettings::Plain { probe: ProbeKind::None }
            | DriverSettings::Webhook { probe: ProbeKind::None, .. } => NodeProbing::No,
            DriverSettings::Plain { probe: ProbeKind::Stun | ProbeKind::Echo }
            | DriverSettings::Webhook { probe: ProbeKind::Stun | ProbeKind::Echo, .. }
            | DriverSettings::Agent { .. }
            | DriverSettings::Rtpengine => NodeProbing::Yes,
        }
    }
}

impl PolicySet {
    /// The plugin that answers this hook, if the set has one.
    pub fn binding(&self, hook: Hook) -> Option<&PolicyBinding> {
        self.bindings.iter().find(|binding| binding.hook == hook)
    }
}

fn scenario(set: &PolicySet, scenario: &ScenarioSettings) -> evenkeel_model::Scenario {
    let on_fault = |hook| set.binding(hook).map(|binding| binding.on_fault);
    evenkeel_model::Scenario {
        set: set.name.clone(),
        bound: Hook::ALL.map(|hook| set.binding(hook).is_some()),
        bounds: CapBounds {
            floor_kbps: kbps(scenario.floor),
            ceiling_kbps: kbps(scenario.ceiling),
        },
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
fn kbps(rate: super::ConfigBitRate) -> u32 {
    u32::try_from(rate.kbps()).unwrap_or(u32::MAX)
}
