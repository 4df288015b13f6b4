//! Admission of connections: accept, retry or refuse.

use std::time::Instant;

use quinn_proto::{EndpointEvent, Incoming, Transmit};

use super::Endpoint;
use crate::quic::connection::ClientConnection;
use crate::quic::counters::count;

impl Endpoint {
    /// Accepts, retries or refuses a connection. The limit includes connections that are closed but not forgotten,
    /// because they still use memory.
    pub(super) fn accept(&mut self, incoming: Incoming, now: Instant) {
        let counters = &self.hub.counters;
        let most = self.settings.connections_max;
        let held = self.connections.count();
        self.packet.clear();
        if held >= most {
            count(&counters.connections_refused);
            let refusal = self.quinn.refuse(incoming, &mut self.packet);
            return self.respond(&refusal);
        }
        if held >= most / 2 && incoming.may_retry() && !incoming.remote_address_validated() {
            // `may_retry` was checked, so this cannot fail.
            if let Ok(retry) = self.quinn.retry(incoming, &mut self.packet) {
                self.respond(&retry);
            }
            return;
        }
        match self.quinn.accept(incoming, now, &mut self.packet, None) {
            // The client's first packet closed the connection. quinn would keep it until the idle timeout, and such a
            // packet can be sent with a forged source.
            Ok((handle, connection)) if connection.is_closed() => {
                count(&counters.handshakes_failed);
                let _ = self.quinn.handle_event(handle, EndpointEvent::drained());
            }
            Ok((handle, connection)) => {
                count(&counters.connections);
                let until = now + self.settings.handshake_within;
                self.connections.insert(ClientConnection::new(handle, connection, until));
            }
            Err(error) => {
                count(&counters.handshakes_failed);
                if let Some(response) = error.response {
                    self.respond(&response);
                }
            }
        }
    }

    /// Answers a client without a connection. A full socket drops the answer; the client will retry.
    pub(super) fn respond(&self, transmit: &Transmit) {
        if self.blocked.is_none() {
            let _ = self.socket.send(transmit, &self.packet);
        }
    }
}
