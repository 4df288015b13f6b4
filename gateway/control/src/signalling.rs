//! The sockets and the client for HTTP by which drivers reach nodes.

use std::time::Duration;

use evenkeel_config::{NodeConfig, Signalling};
use evenkeel_drivers::socket::connected;
use evenkeel_drivers::{NodeInput, NodeSocket, set};
use evenkeel_http::{Effort, HttpError, Poster, WebhookMessage};
use evenkeel_model::NodeId;
use tokio::sync::mpsc;

/// Sends the messages of drivers. Their answers are inputs of the drivers.
pub(crate) struct NodeSignalling {
    /// Sockets of drivers that send datagrams, by node.
    sockets: Vec<Option<NodeSocket>>,
    /// `None` until a node has webhooks, and if its thread cannot be started.
    poster: Option<Poster>,
    inputs: mpsc::Sender<(NodeId, NodeInput)>,
}

impl NodeSignalling {
    pub(crate) fn new(
        poster: Option<Poster>,
        inputs: mpsc::Sender<(NodeId, NodeInput)>,
    ) -> NodeSignalling {
        NodeSignalling { sockets: Vec::new(), poster, inputs }
    }

    /// Opens the socket of a node whose driver sends datagrams.
    pub(crate) fn open(&mut self, id: NodeId, node: &NodeConfig) {
        let address = node.address;
        let socket = (node.driver.signalling == Signalling::Datagrams)
            .then(|| NodeSocket::start(id, self.inputs.clone(), move || connected(address)));
        set(&mut self.sockets, id, socket);
    }

    pub(crate) fn close(&mut self, id: NodeId) {
        set(&mut self.sockets, id, None);
    }

    /// Starts the thread for webhooks, unless it runs. If it cannot be started, requests fail with an error.
    pub(crate) fn start_posting(&mut self) -> Option<&Poster> {
        if self.poster.is_none() {
            match Poster::start() {
                Ok(poster) => self.poster = Some(poster),
                Err(error) => tracing::error!(%error, "no thread for webhooks"),
            }
        }
        self.poster.as_ref()
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
