//! Isolation of panics: a panic over a packet of one connection ends only that connection.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use quinn_proto::EndpointEvent;

use super::{QuicEndpoint, TurnResult};
use crate::panics;

impl QuicEndpoint {
    /// Runs the round when due, and a turn.
    pub(in crate::quic) fn guarded_turn(&mut self, now: Instant) -> TurnResult {
        self.connections.take_accessed();
        let turn = AssertUnwindSafe(|| {
            self.look_round(now);
            self.turn(now)
        });
        catch_unwind(turn).unwrap_or_else(|panic| {
            self.isolate_panic(panic);
            TurnResult { packets: 0, more: true }
        })
    }

    /// Forgets the connection that was accessed when the panic occurred; its client gets a stateless reset (RFC 9000,
    /// 10.3). Resumes the panic, which ends the process, if no connection was accessed.
    #[cold]
    fn isolate_panic(&mut self, panic: Box<dyn Any + Send>) {
        let (location, message) =
            (panics::take_location().unwrap_or_default(), panics::message(&*panic));
        let Some(handle) = self.connections.take_accessed() else {
            tracing::error!(panic = message, %location, "panic outside of a connection; gateway ends");
            resume_unwind(panic);
        };
        tracing::error!(panic = message, %location, "QUIC packet caused a panic; connection ends");
        if let Some(client) = self.connections.get_mut(handle) {
            client.forgotten(&mut self.hub);
        }
        self.connections.remove(handle);
        self.connections.take_accessed();
        let _ = self.quinn.handle_event(handle, EndpointEvent::drained());
    }
}
