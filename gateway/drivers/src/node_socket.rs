//! The socket of a node whose driver sends datagrams.

use std::cell::OnceCell;
use std::rc::Rc;

use evenkeel_model::NodeId;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::driver::NodeInput;
use crate::socket::{self, LocalTask, Received};

/// Buffer size, longer than any datagram.
const ANSWER_MAX: usize = 65_535;

/// A connected socket to one node.
pub struct NodeSocket {
    _reading: LocalTask,
    /// Set once the system has a route to the address.
    socket: Rc<OnceCell<UdpSocket>>,
}

impl NodeSocket {
    /// Starts a task that connects as soon as a route exists and forwards answers to control. Must be called on
    /// control's runtime.
    pub fn start(
        node: NodeId,
        inputs: mpsc::Sender<(NodeId, NodeInput)>,
        connect: impl Fn() -> std::io::Result<std::net::UdpSocket> + 'static,
    ) -> NodeSocket {
        let socket = Rc::new(OnceCell::new());
        socket::fill(&socket, node, connect());
        let connected = Rc::clone(&socket);
        let reading = LocalTask::spawn(async move {
            let socket = socket::connect_in_time(&connected, node, connect).await;
            forward(socket, node, &inputs).await;
        });
        NodeSocket { _reading: reading, socket }
    }

    /// Sends a datagram. The driver repeats one that cannot be sent, as if it were unanswered.
    pub fn send(&self, datagram: &[u8]) {
        if let Some(socket) = self.socket.get() {
            let _lost_at_worst = socket::send(socket, datagram);
        }
    }
}

async fn forward(socket: &UdpSocket, node: NodeId, inputs: &mpsc::Sender<(NodeId, NodeInput)>) {
    let mut buffer = vec![0; ANSWER_MAX];
    loop {
        let input = match socket::receive(socket, &mut buffer).await {
            Ok(Received::Datagram(length, _)) => NodeInput::Datagram(buffer[..length].into()),
            Ok(Received::Refused(quotes)) => NodeInput::Unreachable(quotes),
            Err(_) => continue,
        };
        if inputs.send((node, input)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
