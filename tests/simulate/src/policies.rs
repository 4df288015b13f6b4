//! The shipped plugins with the shipped settings, and their faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_host::{BoundPlugin, CallBudgets, Component, Engine, shipped};
use evenkeel_model::{
    AdmitVerdict, Arm, Ask, CatalogEntry, CoreSettings, DegradationAction, EntryKind, Hook,
    HookAnswer, NodeId, PluginFault as Failure, PluginState, PolicyName, PolicyQuestion, RegionId,
    RevisionAnswer, RoutingMove,
};
use evenkeel_revisions::{Revision as Known, Version};
use fastrand::Rng;

/// The shipped policy sets in use.
const SETS: [(&str, &str); 2] = [
    ("call", include_str!("../../../policies/call.toml")),
    ("live", include_str!("../../../policies/live.toml")),
];

/// Plugins get no deadline, so that the machine's speed does not change decisions.
pub(crate) const FOREVER: Duration = Duration::from_secs(600);

/// The plugins of the shipped sets, compiled once per thread.
pub struct Library {
    engine: Engine,
    pub(crate) policies: BTreeMap<PolicyName, (Component, serde_json::Value)>,
    /// The revision with which answers of a policy are compared.
    pub(crate) beside: Option<(PolicyName, Component, serde_json::Value)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behaviour {
    Normal,
    /// This percentage of questions faults.
    Trap(u8),
    Late,
    Dead,
    Hostile,
}

pub(crate) struct Policies {
    policies: BTreeMap<PolicyName, BoundPlugin>,
    /// Canary revisions with their percentages.
    candidates: BTreeMap<PolicyName, (BoundPlugin, u8)>,
    previous: BTreeMap<PolicyName, BoundPlugin>,
    beside: Option<Beside>,
    catalog: Vec<CatalogEntry>,
    pub(crate) behaviour: Behaviour,
    rng: Rng,
    nodes: u32,
}

/// A revision that gets the questions of a policy, too. Its answers are compared and have no effect.
struct Beside {
    name: PolicyName,
    policy: BoundPlugin,
    compared: u64,
    differing: u64,
}

/// One step of a policy's rollout.
pub(crate) struct Swap {
    pub(crate) name: PolicyName,
    /// The active revision before the step.
    pub(crate) active: Known,
    pub(crate) step: Step,
}

pub(crate) enum Step {
    /// The candidate gets this percentage of rooms or sessions.
    Try(Known, u8),
    Abort,
    Promote,
}

/// The result and its delay; `None` if the policy does not answer.
pub(crate) type Reply = Option<(Duration, Result<RevisionAnswer, Failure>)>;

impl Library {
    /// Compiles the plugins of the shipped sets.
    ///
    /// # Panics
    /// A shipped set or plugin is invalid.
    pub fn new() -> Library {
        Library::with_budget(FOREVER)
    }

    /// The same with a limit of time for each call.
    ///
    /// # Panics
    /// A shipped set or plugin is invalid.
    pub(crate) fn with_budget(budget: Duration) -> Library {
        let budgets = CallBudgets::all(budget);
        let engine = Engine::with_budgets(budgets);
        let mut policies = BTreeMap::new();
        for (set, text) in SETS {
            let file: toml::Table = text.parse().expect("a shipped set is TOML");
            for hook in Hook::ALL {
                let section = if hook == Hook::Scenario { "resolve" } else { hook.name() };
                let Some(section) = file.get(section) else { continue };
                let plugin = section["plugin"].as_str().expect("a plugin has a name");
                let settings = section.get("settings").map(serde_json::to_value);
                let settings = settings
                    .map_or(serde_json::Value::Null, |value| value.expect("TOML is JSON here"));
                let bytes =
                    shipped().iter().find(|one| one.name == plugin).expect("it is shipped").bytes;
                let component = Component::vet(&engine, bytes).expect("a shipped plugin compiles");
                policies.insert(PolicyName { set: set.into(), hook }, (component, settings));
            }
        }
        Library { engine, policies, beside: None }
    }

    /// Validates and compiles a plugin.
    ///
    /// # Errors
    /// The plugin is invalid.
    pub(crate) fn vet(&self, plugin: &[u8]) -> Result<Component, String> {
        Component::vet(&self.engine, plugin).map_err(|refused| refused.to_string())
    }

    /// Replaces the plugin or the settings of a shipped policy.
    ///
    /// # Errors
    /// The policy is unknown, or the plugin does not run.
    pub(crate) fn replace(
        &mut self,
        name: &PolicyName,
        plugin: Option<&[u8]>,
        settings: Option<serde_json::Value>,
    ) -> Result<(), String> {
        let standing = self.policies.get(name);
        let (component, ours) =
            standing.ok_or_else(|| format!("no shipped set binds {name}"))?.clone();
        let wrong = |refused: evenkeel_host::PluginRefusal| format!("{name}: {refused}");
        let other = plugin.map(|bytes| Component::vet(&self.engine, bytes)).transpose();
        let other = other.map_err(wrong)?.unwrap_or_else(|| component.clone());
        let is_it = other.manifest().name == component.manifest().name;
        let settings = settings.unwrap_or(if is_it { ours } else { serde_json::Value::Null });
        let (hook, given) = (name.hook, settings.clone());
        BoundPlugin::install(&self.engine, &other, hook, given, Vec::new(), 0).map_err(wrong)?;
        self.policies.insert(name.clone(), (other, settings));
        Ok(())
    }

    fn install(
        &self,
        name: &PolicyName,
        catalog: Vec<CatalogEntry>,
        seed: u64,
    ) -> Option<BoundPlugin> {
        let (component, settings) = self.policies.get(name)?;
        BoundPlugin::install(&self.engine, component, name.hook, settings.clone(), catalog, seed)
            .ok()
    }

    /// Another revision of the same plugin, with settings that change little.
    fn install_another(
        &self,
        name: &PolicyName,
        catalog: Vec<CatalogEntry>,
        rng: &mut Rng,
    ) -> Option<BoundPlugin> {
        let (component, settings) = self.policies.get(name)?;
        let mut settings = settings.clone();
        let changed = match name.hook {
            Hook::Admission => ("retry_after", format!("{}ms", rng.u32(1_000..9_000))),
            Hook::Routing => ("min_stay", format!("{}ms", rng.u32(1_000..60_000))),
            Hook::Degradation => ("up_after", format!("{}ms", rng.u32(2_000..9_000))),
            Hook::Scenario => return self.install(name, catalog, rng.u64(..)),
        };
        settings[changed.0] = changed.1.into();
        BoundPlugin::install(&self.engine, component, name.hook, settings, catalog, rng.u64(..))
            .ok()
    }
}

impl Default for Library {
    fn default() -> Self {
        Library::new()
    }
}

impl Policies {
    /// The plugins that the scenarios bind.
    pub(crate) fn of(library: &Library, settings: &CoreSettings, mut rng: Rng) -> Policies {
        let catalog = catalog(settings);
        let mut policies = BTreeMap::new();
        for scenario in settings.scenarios.values() {
            for hook in Hook::ALL.into_iter().filter(|hook| scenario.binds(*hook)) {
                let name = scenario.policy(hook);
                if let Some(policy) = library.install(&name, catalog.clone(), rng.u64(..)) {
                    policies.insert(name, policy);
                }
            }
        }
        let (candidates, previous) = (BTreeMap::new(), BTreeMap::new());
        let beside = library.beside.as_ref().and_then(|(name, component, settings)| {
            let (hook, settings) = (name.hook, settings.clone());
            let engine = &library.engine;
            let policy =
                BoundPlugin::install(engine, component, hook, settings, catalog.clone(), 0).ok()?;
            Some(Beside { name: name.clone(), policy, compared: 0, differing: 0 })
        });
        let nodes = settings.nodes.len() as u32;
        Policies {
            policies,
            candidates,
            previous,
            beside,
            catalog,
            behaviour: Behaviour::Normal,
            rng,
            nodes,
        }
    }

    /// Updates the catalog to the nodes that are listed.
    pub(crate) fn set_catalog(&mut self, settings: &CoreSettings, there: &[bool]) {
        let is_there = |entry: &CatalogEntry| {
            entry.kind != EntryKind::Node
                || there.get(entry.id as usize).is_some_and(|there| *there)
        };
        self.catalog = catalog(settings).into_iter().filter(is_there).collect();
        self.nodes = there.len() as u32;
        let candidates = self.candidates.values_mut().map(|(policy, _)| policy);
        let previous = self.previous.values_mut();
        let beside = self.beside.iter_mut().map(|beside| &mut beside.policy);
        let policies = self.policies.values_mut().chain(candidates).chain(previous);
        for policy in policies.chain(beside) {
            // A plugin that faults here is asked again, like any plugin that faults.
            let _ = policy.catalog(self.catalog.clone());
        }
    }

    /// Advances the rollout of one policy: starts a canary, raises its percentage, promotes it or drops it.
    pub(crate) fn swap(&mut self, library: &Library) -> Option<Swap> {
        let names: Vec<PolicyName> = self.policies.keys().cloned().collect();
        let name = self.rng.choice(&names)?.clone();
        let active = core_revision(self.policies.get(&name)?);
        let step = match (self.candidates.remove(&name), self.rng.u8(0..4)) {
            (None, _) => {
                let policy = library.install_another(&name, self.catalog.clone(), &mut self.rng)?;
                self.try_out(&name, policy, |rng| rng.u8(1..50))
            }
            // At 100 % it would be promoted.
            (Some((policy, percent)), 0) => {
                self.try_out(&name, policy, |rng| rng.u8(percent..=100).min(99))
            }
            (Some(_), 1) => Step::Abort,
            (Some((policy, _)), _) => {
                let before = self.policies.insert(name.clone(), policy);
                before.and_then(|before| self.previous.insert(name.clone(), before));
                Step::Promote
            }
        };
        Some(Swap { name, active, step })
    }

    fn try_out(
        &mut self,
        name: &PolicyName,
        policy: BoundPlugin,
        percent: impl FnOnce(&mut Rng) -> u8,
    ) -> Step {
        let (revision, percent) = (core_revision(&policy), percent(&mut self.rng));
        self.candidates.insert(name.clone(), (policy, percent));
        Step::Try(revision, percent)
    }

    /// The candidate of a policy, and its percentage.
    pub(crate) fn canary(&self, name: &PolicyName) -> Option<(Revision, u8)> {
        self.candidates.get(name).map(|(policy, percent)| (policy.revision().into(), *percent))
    }

    /// The core no longer asks this revision: a candidate is dropped, an active revision is rolled back.
    pub(crate) fn unload(&mut self, name: &PolicyName, revision: &str) {
        if self.candidates.get(name).is_some_and(|(policy, _)| policy.revision() == revision) {
            self.candidates.remove(name);
        } else if self.policies.get(name).is_some_and(|policy| policy.revision() == revision)
            && let Some(previous) = self.previous.remove(name)
        {
            self.policies.insert(name.clone(), previous);
        }
    }

    pub(crate) fn ask(&mut self, ask: &Ask) -> Reply {
        let soon = Duration::from_micros(self.rng.u64(20..400));
        let late = Duration::from_millis(self.rng.u64(3..40));
        let dice = self.rng.u8(0..100);
        match self.behaviour {
            Behaviour::Trap(percent) if dice < percent => {
                return Some((soon, Err(failure(&mut self.rng))));
            }
            Behaviour::Dead => return None,
            Behaviour::Hostile if dice < 70 => {
                let answer = nonsense(&mut self.rng, ask, self.nodes);
                let revision = format!("hostile{:05}", self.rng.u32(0..100_000)).into();
                return Some((
                    soon,
                    Ok(RevisionAnswer {
                        answer,
                        revision,
                        notes: Vec::new(),
                        took: soon,
                        isolated: None,
                        reasons: [].into(),
                        ungranted: 0,
                    }),
                ));
            }
            _ => {}
        }
        let after = if self.behaviour == Behaviour::Late { late } else { soon };
        let tried = self.candidates.get_mut(&ask.policy).filter(|_| ask.arm == Arm::Canary);
        let tried = tried.map(|(policy, _)| policy);
        let Some(policy) = tried.or_else(|| self.policies.get_mut(&ask.policy)) else {
            return Some((soon, Err(Failure::Absent)));
        };
        // The measured time depends on the machine.
        let reply = policy
            .ask(&ask.question, ask.now_us)
            .map(|answered| RevisionAnswer { took: soon, ..answered });
        if let Some(beside) = self.beside.as_mut().filter(|beside| beside.name == ask.policy) {
            beside.compare(ask, &reply);
        }
        Some((after, reply))
    }

    /// The number of answers that were compared with another revision's, and of those that decide otherwise.
    pub(crate) fn compared(&self) -> (u64, u64) {
        self.beside.as_ref().map_or((0, 0), |beside| (beside.compared, beside.differing))
    }
}

impl Beside {
    /// Asks the same, and compares the answer.
    fn compare(&mut self, ask: &Ask, reply: &Result<RevisionAnswer, Failure>) {
        let own = self.policy.ask(&ask.question, ask.now_us);
        let decides_alike = match (reply, &own) {
            (Ok(one), Ok(other)) => decide_alike(&one.answer, &other.answer),
            (one, other) => one.is_err() && other.is_err(),
        };
        self.compared += 1;
        self.differing += u64::from(!decides_alike);
    }
}

/// Compares decisions. Reasons, states and times of reviews are none.
fn decide_alike(one: &HookAnswer, other: &HookAnswer) -> bool {
    match (one, other) {
        (HookAnswer::Params(one), HookAnswer::Params(other)) => one == other,
        (HookAnswer::Admit { verdict: one, .. }, HookAnswer::Admit { verdict: other, .. }) => {
            one == other
        }
        (HookAnswer::Placed { hops: one, .. }, HookAnswer::Placed { hops: other, .. }) => {
            one == other
        }
        (HookAnswer::Moves { moves: one, .. }, HookAnswer::Moves { moves: other, .. }) => {
            let decided = |moves: &[RoutingMove]| -> Vec<(u32, Vec<NodeId>)> {
                moves.iter().map(|it| (it.row, it.hops.clone())).collect()
            };
            decided(one) == decided(other)
        }
        (HookAnswer::Actions { actions: one, .. }, HookAnswer::Actions { actions: other, .. }) => {
            let decided = |actions: &[DegradationAction]| -> Vec<(u32, u32, u64)> {
                actions.iter().map(|it| (it.row, it.op, it.arg)).collect()
            };
            decided(one) == decided(other)
        }
        _ => false,
    }
}

fn core_revision(policy: &BoundPlugin) -> Known {
    let manifest = policy.component().manifest();
    let plugin = Arc::clone(&manifest.name);
    let version = Version::read(&manifest.version);
    Known { name: policy.revision().into(), plugin, version, schema: manifest.state_schema }
}

fn catalog(settings: &CoreSettings) -> Vec<CatalogEntry> {
    let entry = |kind, id: usize, parent: u32, name: &str| CatalogEntry {
        kind,
        id: id as u64,
        parent: u64::from(parent),
        name: name.into(),
        labels: Vec::new(),
    };
    let regions =
        settings.regions.iter().enumerate().map(|(id, name)| entry(EntryKind::Region, id, 0, name));
    let zones = settings
        .zones
        .iter()
        .enumerate()
        .map(|(id, zone)| entry(EntryKind::Zone, id, zone.region.0, &zone.name));
    let nodes = settings
        .nodes
        .iter()
        .enumerate()
        .map(|(id, node)| entry(EntryKind::Node, id, node.zone.0, &node.name));
    let home = &settings.regions[settings.home.0 as usize];
    regions
        .chain(zones)
        .chain(nodes)
        .chain([entry(EntryKind::Home, 0, settings.home.0, home)])
        .collect()
}

fn failure(rng: &mut Rng) -> Failure {
    match rng.u8(0..4) {
        0 => Failure::Deadline,
        1 => Failure::OutOfMemory,
        2 => Failure::Malformed("rows".into()),
        _ => Failure::Trap("unreachable".into()),
    }
}

/// An invalid answer of the right type. Rates are not changed, so that the checker knows the load of each session.
fn nonsense(rng: &mut Rng, ask: &Ask, nodes: u32) -> HookAnswer {
    let state = || PluginState { plugin: "hostile".into(), schema: 1, bytes: [7].into() };
    let hops = |rng: &mut Rng| -> Vec<NodeId> {
        let mut hops: Vec<NodeId> = (0..nodes).map(NodeId).collect();
        rng.shuffle(&mut hops);
        hops.truncate(rng.usize(0..6));
        if rng.u8(0..10) == 0 {
            hops.push(NodeId(rng.u32(..)));
        }
        if rng.u8(0..10) == 0 {
            hops.extend(hops.first().copied());
        }
        hops
    };
    let row = |rng: &mut Rng, rows: usize| rng.u32(0..rows as u32 + 1);
    match &ask.question {
        PolicyQuestion::Resolve { .. } => {
            let keys = ["spares", "priority", "close-after", "no-such-key"];
            HookAnswer::Params(
                keys.into_iter().map(|key| (key.into(), rng.i64(-5..60_000))).collect(),
            )
        }
        PolicyQuestion::Admit { .. } => HookAnswer::Admit {
            verdict: match rng.u8(0..7) {
                0 => AdmitVerdict::Reject(rng.u32(..)),
                1 => AdmitVerdict::Redirect(RegionId(rng.u32(0..4))),
                2 => AdmitVerdict::AcceptCapped(rng.u32(..)),
                3 => AdmitVerdict::Abstain,
                _ => AdmitVerdict::Accept,
            },
            reason: rng.u32(..),
        },
        PolicyQuestion::Place { .. } => HookAnswer::Placed {
            hops: hops(rng),
            ttl_ms: rng.u32(0..3) * 200,
            reason: rng.u32(..),
            state: state(),
        },
        PolicyQuestion::Reroute { rooms, .. } => HookAnswer::Moves {
            moves: (0..rng.usize(0..5))
                .map(|_| RoutingMove {
                    row: row(rng, rooms.len()),
                    hops: hops(rng),
                    ttl_ms: rng.u32(0..3) * 200,
                    reason: 0,
                })
                .collect(),
            states: vec![(row(rng, rooms.len()), state())],
            memo: Some(state()),
        },
        PolicyQuestion::Tick { sessions, .. } => HookAnswer::Actions {
            actions: (0..rng.usize(0..5))
                .map(|_| DegradationAction {
                    row: row(rng, sessions.len()),
                    op: rng.u32(0..4),
                    arg: rng.u64(0..3),
                    reason: 0,
                })
                .collect(),
            states: vec![(row(rng, sessions.len()), state())],
            memo: None,
        },
    }
}

pub(crate) type Revision = Arc<str>;
