//! Drivers, and the sockets and clients through which they reach nodes.

use evenkeel_config::NodeConfig;
use evenkeel_drivers::socket::connected;
use evenkeel_drivers::{
    DriverConfig, Drivers, Effort, HttpError, Ng, NgSocket, Posted, Poster, TraceHeaders,
    WebhookMessage, set,
};
use evenkeel_model::{NodeId, NotStarted};
use evenkeel_process::random::draw;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

use crate::node_hooks::NodeHooks;

pub(crate) struct NodeSignalling {
    pub(crate) drivers: Drivers,
    pub(crate) ng_sockets: Vec<Option<NgSocket>>,
    pub(crate) ng_replies: mpsc::Sender<(NodeId, Ng)>,
    /// The webhook client, with the channel of its responses.
    pub(crate) poster: Option<Poster>,
    pub(crate) webhook_replies: mpsc::Sender<(NodeId, u64, Posted)>,
    pub(crate) node_hooks: NodeHooks,
}

impl NodeSignalling {
    /// Signals to a node by its driver; `ng`: the address of its NG protocol, if it has one.
    pub(crate) fn equip(&mut self, id: NodeId, driver: DriverConfig, ng: Option<SocketAddr>) {
        self.drivers.put(id, Some(driver));
        let socket =
            ng.map(|ng| NgSocket::start(id, self.ng_replies.clone(), move || connected(ng)));
        set(&mut self.ng_sockets, id, socket);
    }

    pub(crate) fn unequip(&mut self, id: NodeId) {
        self.drivers.put(id, None);
        self.node_hooks.release(id);
        set(&mut self.ng_sockets, id, None);
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

    pub(crate) fn send_ng(&self, node: NodeId, datagram: &[u8]) {
        if let Some(Some(socket)) = self.ng_sockets.get(node.0 as usize) {
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
        let (poster, replies) = (self.poster.clone(), self.webhook_replies.clone());
        tokio::task::spawn_local(async move {
            let answer = match poster {
                Some(poster) => poster.post(message, Effort::of_session(within)).await,
                None => Err(HttpError::Busy),
            };
            let answer = answer.map_err(|failed| failed.to_string());
            // Fails only if control has ended.
            let _ = replies.send((node, number, answer)).await;
        });
    }
}
