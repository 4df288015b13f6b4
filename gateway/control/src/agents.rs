//! Agents beside nodes: polled for the nodes' state, and sending notices when it changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_core::{AgentWord, NodeEvidence};
use evenkeel_drivers::Clock;
use evenkeel_media::trunk::message::{NodeLoad, ServingState};
use evenkeel_model::NodeId;

use super::prober::{Mismatch, Prober};
use super::thread::{Control, Probes};
use evenkeel_process::random::fill;

/// Watches per poll of an agent: 100 ms. Deaths come as notices; polling covers lost notices and tells agents where to
/// send them.
const WATCHES: u64 = 50;

/// Each probe finds the same mismatch again. This interval limits the log lines per node.
const MISMATCH_LOGGED_EVERY: Duration = Duration::from_secs(600);

impl Control {
    /// Counts a datagram that was refused, and logs the first of each kind and node.
    pub(super) fn note_mismatch(&mut self, node: NodeId, mismatch: Mismatch, now: Instant) {
        let (count, logged) = self.probes.mismatches.entry((mismatch, node)).or_insert((0, None));
        *count += 1;
        if logged.is_some_and(|at| now.saturating_duration_since(at) < MISMATCH_LOGGED_EVERY) {
            return;
        }
        *logged = Some(now);
        let node = self.nodes.node_name(node);
        match mismatch {
            Mismatch::Clock => tracing::warn!(
                %node,
                "signed message refused: clocks differ by more than 5 s; synchronize them"
            ),
            Mismatch::Secret => tracing::warn!(
                %node,
                "signed message refused: other secret; use one secret_file at both ends"
            ),
            Mismatch::Encryption => tracing::warn!(
                %node,
                "datagram refused: not encrypted with the node's key; set encrypt at both ends or at none"
            ),
        }
    }

    /// Handles a state report of a node or of the agent beside it. With an agent, the agent decides on process and
    /// load; the node decides whether it takes sessions, if it reports at all.
    pub(super) fn handle_state_report(
        &mut self,
        node: NodeId,
        beside: bool,
        load: NodeLoad,
        at: Instant,
    ) {
        let place = node.0 as usize;
        let has_agent = self.probes.agents[place].is_some();
        let prober = self.probes.probers[place].as_ref();
        let speaks = prober.is_some_and(Prober::takes_orders);
        let scope = ReportScope::of(beside, has_agent, speaks);
        if scope.process {
            let word = match load.state {
                ServingState::Serving => AgentWord::Serving,
                ServingState::Draining => AgentWord::Draining,
                ServingState::Gone => AgentWord::Gone,
            };
            self.gateway.change_nodes(at, |nodes| nodes.handle_agent_word(node, word, at));
            self.gateway.change_nodes(at, |nodes| nodes.handle_load(node, load.permille, at));
        }
        if scope.sessions {
            let willing = load.state == ServingState::Serving && load.permille < 1_000;
            self.gateway.handle_evidence(node, NodeEvidence::Willing(willing), at);
        }
    }
}

impl Probes {
    pub(super) fn ask_agents(&mut self) {
        self.watches += 1;
        let turn = (self.watches % WATCHES) as usize;
        let clock = Clock::read();
        for agent in self.agents.iter().skip(turn).step_by(WATCHES as usize).flatten() {
            let mut token = [0; 12];
            fill(&mut token);
            // An unanswered poll of an agent is no evidence about the node.
            agent.probe(self.watches, token, clock);
        }
    }

    /// Datagrams refused so far, by reason.
    pub(super) fn messages_refused(&self) -> BTreeMap<&'static str, u64> {
        let mut refused = BTreeMap::new();
        for ((mismatch, _), (count, _)) in &self.mismatches {
            *refused.entry(mismatch.name()).or_default() += count;
        }
        refused
    }
}

/// The parts of a state report that control applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ReportScope {
    /// Process state and load.
    process: bool,
    /// Admission of sessions by the node.
    sessions: bool,
}

impl ReportScope {
    /// `beside`: the report comes from the agent beside the node, not from the node itself.
    fn of(beside: bool, has_agent: bool, speaks: bool) -> ReportScope {
        ReportScope { process: beside == has_agent, sessions: !beside || !speaks }
    }
}

#[cfg(test)]
mod tests;
