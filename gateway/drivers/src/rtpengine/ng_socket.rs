use std::cell::OnceCell;
use std::rc::Rc;

use evenkeel_model::NodeId;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::socket::Received;
use crate::{LocalTask, socket};

/// Buffer size, longer than any answer of rtpengine.
const ANSWER_MAX: usize = 65_535;

/// What the socket of an rtpengine returned.
#[derive(PartialEq, Eq, Debug)]
pub enum Ng {
    /// A message of rtpengine.
    Datagram(Box<[u8]>),
    /// ICMP reports that no process listens for the datagrams that begin with these bytes.
    Refused(Vec<Box<[u8]>>),
}

/// A connected socket to one rtpengine.
pub struct NgSocket {
    _reading: LocalTask,
    /// Set once the system has a route to the address.
    socket: Rc<OnceCell<UdpSocket>>,
}

impl NgSocket {
    /// Starts a task that connects as soon as a route exists and forwards answers to control. Must be called on
    /// control's runtime.
    pub fn start(
        node: NodeId,
        told: mpsc::Sender<(NodeId, Ng)>,
        connect: impl Fn() -> std::io::Result<std::net::UdpSocket> + 'static,
    ) -> NgSocket {
        let socket = Rc::new(OnceCell::new());
        socket::fill(&socket, node, connect());
        let connected = Rc::clone(&socket);
        let reading = LocalTask::spawn(async move {
            let socket = socket::connect_in_time(&connected, node, connect).await;
            read(socket, node, &told).await;
        });
        NgSocket { _reading: reading, socket }
    }

    /// Sends a request. A request that cannot be sent is retried as if unanswered.
    pub fn send(&self, datagram: &[u8]) {
        if let Some(socket) = self.socket.get() {
            let _lost_at_worst = socket::send(socket, datagram);
        }
    }
}

async fn read(socket: &UdpSocket, node: NodeId, told: &mpsc::Sender<(NodeId, Ng)>) {
    let mut buffer = vec![0; ANSWER_MAX];
    loop {
        let word = match socket::receive(socket, &mut buffer).await {
            Ok(Received::Datagram(length, _)) => Ng::Datagram(buffer[..length].into()),
            Ok(Received::Refused(quotes)) => Ng::Refused(quotes),
            Err(_) => continue,
        };
        if told.send((node, word)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
