//! Starts of nodes within the budget, replacements, and the end of stops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{CoreEvent, NodeId, RegionId, StartPhase, StartRefusal, StopPhase};

use crate::node::Node;
use crate::node::trust::ElasticState;
use crate::providers::{ProviderBreaker, ProviderBreakerStanding};
use crate::table::{NodeEffect, NodeTable, NodeTimer};

/// Starts that are refused for one reason are reported this often. Rooms without a node try several times a second.
const REFUSAL_EVERY: Duration = Duration::from_secs(60);

/// Validity of an expected load, which is forecast each minute.
const EXPECTED_FOR: Duration = Duration::from_secs(5 * 60);

impl NodeTable {
    /// Calls the start hook of the first of these nodes that the limits allow, unless a node is being started already.
    pub(super) fn start_first(&mut self, nodes: &[NodeId], for_calls: bool, now: Instant) {
        if self.shutting_down || self.iter().any(Node::is_starting) {
            return;
        }
        let mut refused = None;
        for &node in nodes {
            match self.refusal(node, for_calls, now) {
                None => return self.start(node, now),
                Some(why) => refused = refused.or(Some((node, why))),
            }
        }
        if let Some((node, why)) = refused {
            self.refuse(node, why, now);
        }
    }

    /// Calls the start hook of the node.
    fn start(&mut self, node: NodeId, now: Instant) {
        let (attempt, within) = self[node].start(now);
        self.event(CoreEvent::Start { node, step: StartPhase::Begun { attempt } });
        self.push(NodeEffect::Start(node));
        self.set(NodeTimer::Probe(node), now);
        self.set(NodeTimer::StartLate(node), now + within);
    }

    /// The limit that forbids the start of the node.
    fn refusal(&self, id: NodeId, for_calls: bool, now: Instant) -> Option<StartRefusal> {
        let hook = &self[id].settings.hook;
        if self.providers.is_open(&hook.provider, now) {
            return Some(StartRefusal::Provider);
        }
        let budget = &self.limits.start_budget;
        if for_calls && budget.exceeded_for_calls {
            return None;
        }
        let started = || self.iter().filter(|node| node.is_in_budget());
        if budget.nodes_max.is_some_and(|max| started().count() >= max as usize) {
            return Some(StartRefusal::Nodes);
        }
        let cost = started()
            .fold(hook.cost_milli, |sum, node| sum.saturating_add(node.settings.hook.cost_milli));
        budget.cost_milli_max.filter(|max| cost > *max).map(|_| StartRefusal::Cost)
    }

    fn refuse(&mut self, node: NodeId, why: StartRefusal, now: Instant) {
        let lately = |at: &Instant| now.saturating_duration_since(*at) < REFUSAL_EVERY;
        if !self.refused_starts.get(&why).is_some_and(lately) {
            self.refused_starts.insert(why, now);
            self.event(CoreEvent::Start { node, step: StartPhase::Refused { why } });
        }
    }

    /// A start of the node has succeeded or failed, which its provider is judged by.
    pub(super) fn judge_provider(&mut self, node: NodeId, has_started: bool, now: Instant) {
        if let Some(node) = self.slots.get(node.0 as usize).and_then(Option::as_ref) {
            self.providers.judge(&node.settings.hook.provider, has_started, now);
        }
        self.report_providers(now);
    }

    fn report_providers(&mut self, now: Instant) {
        let NodeTable { slots, providers, .. } = self;
        let is_listed = |provider: &str| {
            slots.iter().flatten().any(|node| *node.settings.hook.provider == *provider)
        };
        let changes = providers.changes(is_listed, now);
        changes.into_iter().for_each(|change| self.event(change));
    }

    /// Returns the breakers of providers that are not closed.
    pub fn provider_breakers(&self, now: Instant) -> impl Iterator<Item = ProviderBreakerStanding> {
        self.providers.standings(now)
    }

    /// Returns the breakers of providers for the process that continues them.
    pub fn provider_records(&self) -> BTreeMap<Arc<str>, ProviderBreaker> {
        self.providers.records()
    }

    /// Continues the breakers of another process. Breakers that are not closed are reported within a second.
    pub fn restore_providers(&mut self, records: BTreeMap<Arc<str>, ProviderBreaker>) {
        self.providers.restore(records);
    }

    /// The highest load that is expected in the region within the horizon of forecasts.
    pub fn note_expected_load(&mut self, region: RegionId, kbps: u64, now: Instant) {
        self.expected_load.insert(region, (kbps, now));
    }

    /// The load that was forecast lately for the region, kbit/s; 0 without a forecast.
    pub fn expected_load(&self, region: RegionId, now: Instant) -> u64 {
        let forecast = self.expected_load.get(&region);
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < EXPECTED_FOR;
        forecast.filter(|(_, at)| is_fresh(*at)).map_or(0, |(kbps, _)| *kbps)
    }

    /// Tells the empty node to stop, and marks it down.
    pub fn stop(&mut self, id: NodeId, now: Instant) {
        let hop = self[id].hop();
        self[id].stop(now);
        self.mark_down(hop, now);
        self.push(NodeEffect::Stop(id));
        self.event(CoreEvent::Stop { node: id, step: StopPhase::Begun });
    }

    /// The process whose record was restored goes on with the nodes: it alone stops and replaces those that it started.
    pub fn forget_restored(&mut self) {
        self.providers.restore(BTreeMap::new());
        let ended = self.iter_mut().filter_map(|node| {
            let drained = node.drains();
            node.trust.elastic = ElasticState::default();
            (drained && !node.drains()).then_some(node.id)
        });
        for node in ended.collect::<Vec<_>>() {
            self.event(CoreEvent::Draining { node, draining: false });
        }
    }

    /// Replaces a dead node, ends stops, and reports breakers that became half-open. Call it each second.
    pub fn turn_hooks(&mut self, now: Instant) {
        let ended = self.iter_mut().filter_map(|node| Some((node.id, node.stop_ended(now)?)));
        for (node, step) in ended.collect::<Vec<_>>() {
            if step == StopPhase::Failed {
                self.push(NodeEffect::EndStop(node));
            }
            self.event(CoreEvent::Stop { node, step });
        }
        self.report_providers(now);
        let dead = self.iter().filter(|node| node.wants_replacement(now));
        let dead: Vec<NodeId> = dead.map(|node| node.id).collect();
        self.start_first(&dead, false, now);
    }
}
