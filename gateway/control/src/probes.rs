//! Probes of nodes, agents beside nodes, orders to agents, and canary sessions.
//!
//! Agents are polled for the nodes' state, and send notices when it changes. An order to start a node's process or to
//! inject a fault is repeated until answered; agents ignore repetitions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::Gateway;
use evenkeel_drivers::socket::connected;
use evenkeel_drivers::{Clock, Fencing, set};
use evenkeel_media::trunk::message::{
    NodeFault, NodeLoad, OrderOutcome, ProcessReport, ServingState, TrunkQuestion,
};
use evenkeel_model::NodeId;
use evenkeel_nodes::{AgentWord, NodeEvidence, ProcessState};
use evenkeel_process::random::{draw, fill};
use tokio::sync::{mpsc, oneshot};

use crate::canary::{CanaryNode, CanaryProbe};
use crate::messages::{AgentError, ControlError, NodeOrder, OrderStep};
use crate::node_list::ListedNodes;
use crate::prober::{Mismatch, ProbeEvent, ProbeMethod, ProbeResult, Prober};

/// Watches per poll of an agent: 100 ms. Deaths come as notices; polling covers lost notices and tells agents where to
/// send them.
const WATCHES: u64 = 50;

/// Watches per question about the process of a node: 10 s. Memory is sampled each minute.
const PROCESS_WATCHES: u64 = 5_000;

/// Each probe finds the same mismatch again. This interval limits the log lines per node.
const MISMATCH_LOGGED_EVERY: Duration = Duration::from_secs(600);

/// Interval of repetitions of an order.
const AGAIN: Duration = Duration::from_millis(50);

const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Limit of pending orders, which come from operators and drills.
const ORDERS_MAX: usize = 256;

/// Probes, agents, orders and canary sessions, by node.
pub(crate) struct Probes {
    probers: Vec<Option<Prober>>,
    events: mpsc::Sender<ProbeEvent>,
    agents: Vec<Option<Prober>>,
    /// Datagrams refused by either end, and when that was last logged.
    mismatches: BTreeMap<(Mismatch, NodeId), (u64, Option<Instant>)>,
    /// Watches so far: agents beside nodes are asked in turn.
    watches: u64,
    orders: Vec<PendingOrder>,
    /// Nonce of the questions about processes.
    process_nonce: u64,
    canaries: Vec<Option<CanaryProbe>>,
    fencing: Arc<Fencing>,
}

struct PendingOrder {
    node: NodeId,
    order: NodeOrder,
    nonce: u64,
    again: Instant,
    until: Instant,
    reply: oneshot::Sender<Result<(), ControlError>>,
}

impl PendingOrder {
    /// The agent may have executed it.
    fn give_up(self, nodes: &ListedNodes) {
        let node = nodes.node_name(self.node);
        // Fails only for a caller that has gone.
        let _ = self.reply.send(Err(ControlError::Agent { node, why: AgentError::Silent }));
    }
}

impl Probes {
    pub(crate) fn new(events: mpsc::Sender<ProbeEvent>, fencing: Arc<Fencing>) -> Probes {
        Probes {
            probers: Vec::new(),
            events,
            agents: Vec::new(),
            mismatches: BTreeMap::new(),
            watches: 0,
            orders: Vec::new(),
            process_nonce: draw(),
            canaries: Vec::new(),
            fencing,
        }
    }

    /// Probes a node from now on; without a method, no longer.
    pub(crate) fn set_prober(&mut self, id: NodeId, probe: Option<(SocketAddr, ProbeMethod)>) {
        let prober = probe.map(|(address, method)| self.prober(id, address, method));
        set(&mut self.probers, id, prober);
    }

    pub(crate) fn set_agent(&mut self, id: NodeId, agent: Option<(SocketAddr, ProbeMethod)>) {
        let agent = agent.map(|(address, method)| self.prober(id, address, method));
        set(&mut self.agents, id, agent);
    }

    /// Starts or stops canary sessions at a node.
    pub(crate) fn set_canary(&mut self, id: NodeId, canary: Option<CanaryNode>) {
        let events = self.events.clone();
        let canary = canary.map(|node| CanaryProbe::start(id, node, events, &mut draw));
        set(&mut self.canaries, id, canary);
    }

    fn prober(&self, id: NodeId, address: SocketAddr, method: ProbeMethod) -> Prober {
        let (fencing, events) = (Arc::clone(&self.fencing), self.events.clone());
        Prober::start(id, method, fencing, draw(), events, move || connected(address))
    }

    pub(crate) fn probe(&self, node: NodeId, sequence: u64, clock: Clock) {
        if let Some(Some(prober)) = self.probers.get(node.0 as usize) {
            let mut token = [0; 12];
            fill(&mut token);
            prober.probe(sequence, token, clock);
        }
    }

    /// The answers of the node that wait in its prober's socket.
    pub(crate) fn read_waiting(&self, node: NodeId) -> Vec<ProbeResult> {
        let prober = self.probers.get(node.0 as usize).and_then(Option::as_ref);
        prober.map(Prober::read_waiting).unwrap_or_default()
    }

    pub(crate) fn send_canary(&self, node: NodeId, sequence: u64, clock: Clock) {
        if let Some(Some(canary)) = self.canaries.get(node.0 as usize) {
            canary.send(sequence, &mut draw, clock);
        }
    }

    /// Watches so far.
    pub(crate) fn watches(&self) -> u64 {
        self.watches
    }

    /// A node refused a message because its group has this newer epoch.
    pub(crate) fn handle_fenced(&self, node: NodeId, epoch: u64) {
        self.fencing.handle_refused(node, epoch);
    }

    /// Polls the agents whose turn it is; called with each watch.
    pub(crate) fn ask_agents(&mut self) {
        self.watches += 1;
        let turn = (self.watches % WATCHES) as usize;
        let clock = Clock::read();
        for agent in self.agents.iter().skip(turn).step_by(WATCHES as usize).flatten() {
            let mut token = [0; 12];
            fill(&mut token);
            // An unanswered poll of an agent is no evidence about the node.
            agent.probe(self.watches, token, clock);
        }
        let turn = (self.watches % PROCESS_WATCHES) as usize;
        let places = turn..self.agents.len().max(self.probers.len());
        for place in places.step_by(PROCESS_WATCHES as usize) {
            let both = [&self.agents, &self.probers].into_iter();
            if let Some(agent) = both.filter_map(|of| of.get(place)?.as_ref()).next() {
                agent.order(&TrunkQuestion::Process, self.process_nonce, clock);
            }
        }
    }

    /// Takes the report of an agent on the process of its node.
    pub(crate) fn handle_process(
        &self,
        node: NodeId,
        nonce: u64,
        report: ProcessReport,
        gateway: &mut Gateway,
        at: Instant,
    ) {
        if nonce != self.process_nonce {
            return;
        }
        let started = at.checked_sub(Duration::from_secs(report.age_s.into())).unwrap_or(at);
        let process = ProcessState { memory_permille: report.memory_permille, started };
        gateway.handle_evidence(node, NodeEvidence::Process(process), at);
    }

    /// Counts a datagram that was refused, and logs the first of each kind and node.
    pub(crate) fn note_mismatch(
        &mut self,
        node: NodeId,
        mismatch: Mismatch,
        nodes: &ListedNodes,
        now: Instant,
    ) {
        let (count, logged) = self.mismatches.entry((mismatch, node)).or_insert((0, None));
        *count += 1;
        if logged.is_some_and(|at| now.saturating_duration_since(at) < MISMATCH_LOGGED_EVERY) {
            return;
        }
        *logged = Some(now);
        let node = nodes.node_name(node);
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
    pub(crate) fn handle_state_report(
        &self,
        node: NodeId,
        beside: bool,
        load: NodeLoad,
        gateway: &mut Gateway,
        at: Instant,
    ) {
        let place = node.0 as usize;
        let has_agent = self.agents[place].is_some();
        let prober = self.probers[place].as_ref();
        let speaks = prober.is_some_and(Prober::takes_orders);
        let scope = ReportScope::of(beside, has_agent, speaks);
        if scope.process {
            let word = match load.state {
                ServingState::Serving => AgentWord::Serving,
                ServingState::Draining => AgentWord::Draining,
                ServingState::Gone => AgentWord::Gone,
            };
            gateway.change_nodes(at, |nodes| nodes.handle_agent_word(node, word, at));
            gateway.change_nodes(at, |nodes| nodes.handle_load(node, load.permille, at));
        }
        if scope.sessions {
            let willing = load.state == ServingState::Serving && load.permille < 1_000;
            gateway.handle_evidence(node, NodeEvidence::Willing(willing), at);
        }
    }

    /// Datagrams refused so far, by reason.
    pub(crate) fn messages_refused(&self) -> BTreeMap<&'static str, u64> {
        let mut refused = BTreeMap::new();
        for ((mismatch, _), (count, _)) in &self.mismatches {
            *refused.entry(mismatch.name()).or_default() += count;
        }
        refused
    }

    /// Sends an order to the agent of a node; the reply is sent with its answer. Returns false if it is not sent.
    pub(crate) fn order(
        &mut self,
        node: NodeId,
        order: NodeOrder,
        reply: oneshot::Sender<Result<(), ControlError>>,
        nodes: &ListedNodes,
        now: Instant,
    ) -> bool {
        let refusal = if self.agent_for(node, order).is_none() {
            ControlError::Agent { node: nodes.node_name(node), why: AgentError::NoAgent }
        } else if self.orders.len() == ORDERS_MAX {
            ControlError::Unavailable
        } else {
            let (nonce, until) = (draw(), now + ANSWER_WITHIN);
            self.orders.push(PendingOrder { node, order, nonce, again: now, until, reply });
            self.repeat_orders(nodes);
            return true;
        };
        // Fails only for a caller that has gone.
        let _ = reply.send(Err(refusal));
        false
    }

    /// Repeats or gives up pending orders; called with each watch.
    pub(crate) fn repeat_orders(&mut self, nodes: &ListedNodes) {
        let clock = Clock::read();
        let late = self.orders.extract_if(.., |pending| pending.until <= clock.now);
        late.for_each(|pending| pending.give_up(nodes));
        let mut due = Vec::new();
        for pending in self.orders.iter_mut().filter(|pending| pending.again <= clock.now) {
            pending.again = clock.now + AGAIN;
            due.push((pending.node, pending.order, pending.nonce));
        }
        for (node, order, nonce) in due {
            if let Some(agent) = self.agent_for(node, order) {
                agent.order(&order.question(), nonce, clock);
            }
        }
    }

    /// Answers all pending orders as after their deadline.
    pub(crate) fn give_up_orders(&mut self, nodes: &ListedNodes) {
        self.orders.drain(..).for_each(|pending| pending.give_up(nodes));
    }

    /// Returns the order that is answered, unless it was answered before.
    pub(crate) fn handle_order_answer(
        &mut self,
        node: NodeId,
        nonce: u64,
        outcome: OrderOutcome,
        nodes: &ListedNodes,
    ) -> Option<(NodeOrder, OrderStep)> {
        let own = |pending: &PendingOrder| pending.nonce == nonce && pending.node == node;
        let place = self.orders.iter().position(own)?;
        let PendingOrder { order, reply, .. } = self.orders.remove(place);
        let why = match outcome {
            OrderOutcome::Done => None,
            OrderOutcome::Forbidden => Some(AgentError::Forbidden),
            OrderOutcome::Unable => Some(AgentError::Unable(order)),
        };
        let step = if why.is_some() { OrderStep::Refused } else { OrderStep::Done };
        let failed = |why| Err(ControlError::Agent { node: nodes.node_name(node), why });
        let _ = reply.send(why.map_or(Ok(()), failed));
        Some((order, step))
    }

    /// The agent that handles the order: the agent beside the node controls its process, the agent that ends its trunk
    /// controls its packets.
    fn agent_for(&self, node: NodeId, order: NodeOrder) -> Option<&Prober> {
        let place = node.0 as usize;
        let beside = self.agents.get(place)?.as_ref();
        let own = self.probers.get(place)?.as_ref().filter(|prober| prober.takes_orders());
        match order {
            NodeOrder::Break(NodeFault::Cut | NodeFault::Heal) => own.or(beside),
            NodeOrder::Start
            | NodeOrder::Break(NodeFault::Kill | NodeFault::Hang | NodeFault::Wake) => {
                beside.or(own)
            }
        }
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
