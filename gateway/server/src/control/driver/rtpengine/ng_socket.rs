use std::cell::OnceCell;
use std::io::ErrorKind;
use std::rc::Rc;

use evenkeel_core::NodeId;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::control::prober;

/// Buffer size, longer than any answer of rtpengine.
const ANSWER_MAX: usize = 65_535;

#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Ng {
    Datagram(Box<[u8]>),
    /// ICMP reported that no process listens.
    Refused,
}

/// A connected socket to one rtpengine.
pub(crate) struct Line {
    _reading: prober::Task,
    node: NodeId,
    /// Set once the system has a route to the address.
    socket: Rc<OnceCell<UdpSocket>>,
    told: mpsc::Sender<(NodeId, Ng)>,
}

impl Line {
    /// Starts a task that connects as soon as a route exists and forwards answers to control. Must be called on
    /// control's runtime.
    pub(crate) fn start(
        node: NodeId,
        told: mpsc::Sender<(NodeId, Ng)>,
        connect: impl Fn() -> std::io::Result<std::net::UdpSocket> + 'static,
    ) -> Line {
        let socket = Rc::new(OnceCell::new());
        prober::fill(&socket, node, connect());
        let (connected, tells) = (Rc::clone(&socket), told.clone());
        let reading = prober::Task::spawn(async move {
            let socket = prober::connect_in_time(&connected, node, connect).await;
            read(socket, node, &tells).await;
        });
        Line { _reading: reading, node, socket, told }
    }

    /// Sends a request. A request that cannot be sent is retried as if unanswered.
    pub(crate) fn send(&self, datagram: &[u8]) {
        let sent = self.socket.get().map(|socket| socket.try_send(datagram));
        if let Some(Err(error)) = sent
            && error.kind() == ErrorKind::ConnectionRefused
        {
            // If control's queue is full, the request times out instead.
            let _ = self.told.try_send((self.node, Ng::Refused));
        }
    }
}

async fn read(socket: &UdpSocket, node: NodeId, told: &mpsc::Sender<(NodeId, Ng)>) {
    let mut buffer = vec![0; ANSWER_MAX];
    loop {
        let word = match socket.recv(&mut buffer).await {
            Ok(length) => Ng::Datagram(buffer[..length].into()),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ng::Refused,
            Err(_) => continue,
        };
        if told.send((node, word)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
