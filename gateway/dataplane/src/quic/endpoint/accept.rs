//! Who is let in, and what those are told who are not.

use std::time::Instant;

use quinn_proto::{EndpointEvent, Incoming, Transmit};

use super::Endpoint;
use crate::quic::connection::Line;
use crate::quic::counters::count;

impl Endpoint {
    /// Bounded by all connections that are held, also those that are over and wait for quinn to forget them: it is they
    /// that take memory.
    pub(super) fn let_in(&mut self, incoming: Incoming, now: Instant) {
        let counters = &self.hub.counters;
        let most = self.settings.connections_max;
        let held = self.lines.count();
        self.packet.clear();
        if held >= most {
            count(&counters.connections_refused);
            let refusal = self.quinn.refuse(incoming, &mut self.packet);
            return self.respond(&refusal);
        }
        if held >= most / 2 && incoming.may_retry() && !incoming.remote_address_validated() {
            // `may_retry` was true, so there is one.
            if let Ok(retry) = self.quinn.retry(incoming, &mut self.packet) {
                self.respond(&retry);
            }
            return;
        }
        match self.quinn.accept(incoming, now, &mut self.packet, None) {
            // Its first packet closed it. quinn would keep it until it is idle for too long, since it sets no nearer
            // timer then; and anybody can send such a packet in anybody's name.
            Ok((handle, connection)) if connection.is_closed() => {
                count(&counters.handshakes_failed);
                let _ = self.quinn.handle_event(handle, EndpointEvent::drained());
            }
            Ok((handle, connection)) => {
                count(&counters.connections);
                let until = now + self.settings.handshake_within;
                self.lines.insert(Line::new(handle, connection, until));
            }
            Err(error) => {
                count(&counters.handshakes_failed);
                if let Some(response) = error.response {
                    self.respond(&response);
                }
            }
        }
    }

    /// Answers one who has no connection. If there is no room for it, he asks again.
    pub(super) fn respond(&self, transmit: &Transmit) {
        if self.blocked.is_none() {
            let _ = self.socket.send(transmit, &self.packet);
        }
    }
}
