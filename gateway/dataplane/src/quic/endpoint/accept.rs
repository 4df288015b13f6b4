//! Admission of connections: accept, retry, ignore or refuse.

use std::time::Instant;

use quinn_proto::{EndpointEvent, Incoming, Transmit};

use super::{QuicEndpoint, send};
use crate::quic::connection::ClientConnection;
use crate::quic::counters::count;
use crate::quic::sources::ClientNetwork;

/// With this many handshakes of a source in progress, further clients of the source must validate their address: a
/// sender of forged sources holds no more connections in the name of another host.
const UNVALIDATED_MAX: usize = 16;

impl QuicEndpoint {
    /// Accepts, retries, ignores or refuses a connection. The limits include connections that are closed but not
    /// forgotten, because they still use memory.
    pub(super) fn accept(&mut self, incoming: Incoming, now: Instant) {
        let counters = &self.hub.counters;
        let (held, most) = (self.connections.count(), self.settings.connections_max);
        let of_source = self.connections.held(ClientNetwork::of(incoming.remote_address()));
        let most_of_source = self.settings.connections_per_source;
        self.packet.clear();
        let refused = if held >= most {
            Some(&counters.connections_refused)
        } else if of_source.connections >= most_of_source {
            Some(&counters.source_refused)
        } else {
            None
        };
        if let Some(refused) = refused {
            count(refused);
            let refusal = self.quinn.refuse(incoming, &mut self.packet);
            return self.respond(&refusal);
        }
        let unvalidated_max = UNVALIDATED_MAX.min(most_of_source / 2);
        let is_crowded = held >= most / 2 || of_source.handshakes >= unvalidated_max;
        if is_crowded && incoming.may_retry() && !incoming.remote_address_validated() {
            // `may_retry` was checked, so this cannot fail.
            if let Ok(retry) = self.quinn.retry(incoming, &mut self.packet) {
                count(&counters.retries);
                self.respond(&retry);
            }
            return;
        }
        if of_source.handshakes >= self.settings.handshakes_per_source {
            count(&counters.handshakes_deferred);
            return self.quinn.ignore(incoming);
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
            let _ = send(&self.socket, &self.lease, transmit, &self.packet);
        }
    }
}
