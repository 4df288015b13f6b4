//! Drivers, and the sockets and clients through which they reach nodes.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_config::{NodeConfig, Signalling};
use evenkeel_drivers::socket::connected;
use evenkeel_drivers::{Clock, DriverAction, Drivers, NodeInput, NodeSocket, set};
use evenkeel_http::{Effort, HttpError, Poster, TraceHeaders, WebhookMessage};
use evenkeel_model::{NodeId, NotStarted};
use evenkeel_process::random::draw;
use tokio::sync::mpsc;

use crate::node_hooks::NodeHooks;

pub(crate) struct NodeSignalling {
    pub(crate) drivers: Drivers,
    /// Sockets of drivers that send datagrams, by node.
    pub(crate) sockets: Vec<Option<NodeSocket>>,
    pub(crate) poster: Option<Poster>,
    /// The inputs of drivers from sockets and responses.
    pub(crate) inputs: mpsc::Sender<(NodeId, NodeInput)>,
    pub(crate) node_hooks: NodeHooks,
}

impl NodeSignalling {
    /// Signals to a node by its driver.
    pub(crate) fn equip(&mut self, id: NodeId, node: &NodeConfig) {
        self.drivers.put(id, Some(node));
        let address = node.address;
        let socket = (node.driver.signalling == Signalling::Datagrams)
            .then(|| NodeSocket::start(id, self.inputs.clone(), move || connected(address)));
        set(&mut self.sockets, id, socket);
    }

    pub(crate) fn unequip(&mut self, id: NodeId) {
        self.drivers.put(id, None);
        self.node_hooks.release(id);
        set(&mut self.sockets, id, None);
    }

    /// Calls the hook that starts the node.
    pub(crate) fn start(
        &mut self,
        id: NodeId,
        node: Option<&Arc<NodeConfig>>,
        trace: Option<TraceHeaders>,
    ) {
        if let Some(node) = node
            && let Some(start) = &node.start
        {
            self.node_hooks.start(id, &node.name, start, draw(), trace);
        }
    }

    pub(crate) fn end_start(
        &mut self,
        id: NodeId,
        node: Option<&Arc<NodeConfig>>,
        why: NotStarted,
    ) {
        self.node_hooks.give_up(id);
        if let Some(node) = node
            && let Some(start) = &node.start
            && why == NotStarted::Late
        {
            let within = start.within;
            tracing::warn!(node = %node.name, "node did not answer within {within:?}; start given up");
        }
    }

    /// Calls the hook that stops the node.
    pub(crate) fn stop(
        &mut self,
        id: NodeId,
        node: Option<&Arc<NodeConfig>>,
        trace: Option<TraceHeaders>,
    ) {
        if let Some(node) = node
            && let Some(start) = &node.start
        {
            self.node_hooks.stop(id, &node.name, start, draw(), trace);
        }
    }

    /// If the thread for webhooks cannot be started, requests fail with an error.
    pub(crate) fn start_posting(&mut self) {
        if self.poster.is_none() {
            match Poster::start() {
                Ok(poster) => {
                    self.node_hooks.poster = Some(poster.clone());
                    self.poster = Some(poster);
                }
                Err(error) => tracing::error!(%error, "no thread for webhooks"),
            }
        }
    }

    /// Handles an input of a node's driver.
    pub(crate) fn handle(
        &mut self,
        node: NodeId,
        input: NodeInput,
        clock: Clock,
    ) -> Option<DriverAction> {
        self.drivers.handle(node, input, &mut draw, clock)
    }

    pub(crate) fn send_datagram(&self, node: NodeId, datagram: &[u8]) {
        if let Some(Some(socket)) = self.sockets.get(node.0 as usize) {
            socket.send(datagram);
        }
    }

    /// POSTs; `number` identifies the answer.
    pub(crate) fn post(
        &self,
        node: NodeId,
        number: u64,
        message: WebhookMessage,
        within: Duration,
    ) {
        let (poster, inputs) = (self.poster.clone(), self.inputs.clone());
        tokio::task::spawn_local(async move {
            let response = match poster {
                Some(poster) => poster.post(message, Effort::of_session(within)).await,
                None => Err(HttpError::Busy),
            };
            let response = response.map_err(|failed| failed.to_string());
            // Fails only if control has ended.
            let _ = inputs.send((node, NodeInput::Posted { number, response })).await;
        });
    }
}
