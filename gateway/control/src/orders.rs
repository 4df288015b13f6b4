//! Orders from the API to agents: start a node's process, or inject a fault. An order is repeated until answered;
//! agents ignore repetitions.

use std::time::{Duration, Instant};

use evenkeel_drivers::Clock;
use evenkeel_media::trunk::message::{NodeFault, OrderOutcome, TrunkQuestion};
use evenkeel_model::NodeId;
use tokio::sync::oneshot;

use super::equipment::name;
use super::messages::{AgentError, ControlError};
use super::prober::Prober;
use super::thread::{Control, Probes};
use evenkeel_process::random::draw;

const AGAIN: Duration = Duration::from_millis(50);

const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Limit of pending orders, which come from operators and drills.
const ORDERS_MAX: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeOrder {
    Start,
    Break(NodeFault),
}

impl NodeOrder {
    fn question(self) -> TrunkQuestion {
        match self {
            NodeOrder::Start => TrunkQuestion::Start,
            NodeOrder::Break(how) => TrunkQuestion::Break(how),
        }
    }
}

#[derive(Default)]
pub(super) struct Orders(Vec<PendingOrder>);

struct PendingOrder {
    node: NodeId,
    order: NodeOrder,
    nonce: u64,
    again: Instant,
    until: Instant,
    reply: oneshot::Sender<Result<(), ControlError>>,
}

impl Control {
    /// Sends an order to the agent of a node; the reply is sent with its answer.
    pub(super) fn order(
        &mut self,
        name: &str,
        order: NodeOrder,
        reply: oneshot::Sender<Result<(), ControlError>>,
        now: Instant,
    ) {
        use evenkeel_core::Impossible::NoSuchNode;
        let refusal = match self.nodes.node_named(name) {
            None => Some(self.why_impossible(NoSuchNode, None)),
            Some(node) if self.probes.agent_for(node, order).is_none() => {
                Some(ControlError::Agent { node: name.into(), why: AgentError::NoAgent })
            }
            Some(_) if self.probes.orders.0.len() == ORDERS_MAX => Some(ControlError::Unavailable),
            Some(node) => {
                let (nonce, until) = (draw(), now + ANSWER_WITHIN);
                self.probes.orders.0.push(PendingOrder {
                    node,
                    order,
                    nonce,
                    again: now,
                    until,
                    reply,
                });
                return self.repeat_orders();
            }
        };
        // Fails only for a caller that has gone.
        let _ = reply.send(refusal.map_or(Ok(()), Err));
    }

    /// Repeats or gives up pending orders; called with each watch.
    pub(super) fn repeat_orders(&mut self) {
        let clock = Clock::read();
        for late in self.probes.orders.0.extract_if(.., |pending| pending.until <= clock.now) {
            let node = name(&self.nodes.listed, late.node);
            let _ = late.reply.send(Err(ControlError::Agent { node, why: AgentError::Silent }));
        }
        let mut due = Vec::new();
        for pending in self.probes.orders.0.iter_mut().filter(|pending| pending.again <= clock.now)
        {
            pending.again = clock.now + AGAIN;
            due.push((pending.node, pending.order, pending.nonce));
        }
        for (node, order, nonce) in due {
            if let Some(taker) = self.probes.agent_for(node, order) {
                taker.order(&order.question(), nonce, clock);
            }
        }
    }

    pub(super) fn handle_order_answer(&mut self, node: NodeId, nonce: u64, outcome: OrderOutcome) {
        let own = |pending: &mut PendingOrder| pending.nonce == nonce && pending.node == node;
        for answered in self.probes.orders.0.extract_if(.., own) {
            let name = || name(&self.nodes.listed, node);
            let _ = answered.reply.send(match outcome {
                OrderOutcome::Done => Ok(()),
                OrderOutcome::Forbidden => {
                    Err(ControlError::Agent { node: name(), why: AgentError::Forbidden })
                }
                OrderOutcome::Unable => Err(ControlError::Agent {
                    node: name(),
                    why: AgentError::Unable(answered.order),
                }),
            });
        }
    }
}

impl Probes {
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
