//! The thread that runs the DTLS handshakes of WebRTC clients (RFC 5764), off the packet workers.
//!
//! Workers pass datagrams of addresses that passed a connectivity check. The answers go through the session's worker, which sends them
//! while the gateway has the lease. Keys, failures and closed connections go to control.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use evenkeel_dtls::{DtlsCertificate, HandshakeEvent, HandshakeRefusal, Handshakes, Peer};
use evenkeel_model::{CloseReason, DropReason};
use tokio::sync::{mpsc, watch};

use crate::worker::dtls::{
    DtlsSession, HandshakeDatagram, HandshakeFlight, HandshakeInput, InputKind,
};
use crate::worker::{ClientPath, WorkerCommand, WorkerReport, WorkerStats};
use crate::{Waker, panics};

/// Interval of the looks for timeouts while no handshake has any.
const LOOKS_EVERY: Duration = Duration::from_secs(1);

/// A worker that sends the answers.
#[derive(Debug)]
pub struct HandshakeWorker {
    /// Commands of the worker. The thread does not wait for room: a client asks again.
    pub commands: Sender<WorkerCommand>,
    /// Wakes the worker.
    pub waker: Arc<Waker>,
}

/// The parts of the thread.
#[derive(Debug)]
pub struct HandshakeParts {
    /// The certificate that clients see. A handshake keeps the one that it began with.
    pub certificate: watch::Receiver<DtlsCertificate>,
    /// From the workers.
    pub inputs: Receiver<HandshakeInput>,
    /// By number.
    pub workers: Vec<HandshakeWorker>,
    /// Reports to control. The thread waits while there is no room: keys are reported once.
    pub reports: mpsc::Sender<WorkerReport>,
    /// Counts of drops, which the thread writes.
    pub stats: Arc<WorkerStats>,
}

impl HandshakeParts {
    /// Runs until all workers have ended.
    pub fn run(self) {
        panics::capture_here();
        let HandshakeParts { mut certificate, inputs, workers, reports, stats } = self;
        let send = |session: DtlsSession, to: ClientPath, bytes: &[u8]| {
            let DtlsSession { home, .. } = session;
            let Some(worker) = workers.get(usize::from(home.worker)) else { return };
            let flight = HandshakeFlight { home, to, bytes: bytes.into() };
            if worker.commands.try_send(WorkerCommand::SendDtls(Box::new(flight))).is_ok() {
                worker.waker.wake();
            }
        };
        let handshakes = Handshakes::new(&certificate.borrow_and_update());
        let mut thread = HandshakeThread { handshakes, send, stats };
        loop {
            let due = thread.handshakes.next_timeout();
            let due = due.unwrap_or_else(|| Instant::now() + LOOKS_EVERY);
            let input = match inputs.recv_deadline(due) {
                Ok(HandshakeInput(input)) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // Fails only if the gateway ends.
            if certificate.has_changed().unwrap_or(false) {
                thread.handshakes.set_certificate(&certificate.borrow_and_update());
            }
            for report in thread.turn(input, Instant::now()) {
                // Fails only if control has ended.
                let _ = reports.blocking_send(report);
            }
        }
    }
}

/// `S` sends a datagram of a session.
struct HandshakeThread<S> {
    handshakes: Handshakes<DtlsSession, ClientPath>,
    send: S,
    stats: Arc<WorkerStats>,
}

impl<S: FnMut(DtlsSession, ClientPath, &[u8])> HandshakeThread<S> {
    /// Handles an input and the timeouts until `now`.
    fn turn(&mut self, input: Option<InputKind>, now: Instant) -> Vec<WorkerReport> {
        let mut reports = Vec::new();
        match input {
            Some(InputKind::Datagram(datagram)) => {
                let session = datagram.session;
                reports.extend(self.guarded(session, |thread| thread.receive(&datagram, now)));
            }
            Some(InputKind::Ended(session)) => self.handshakes.remove(session),
            None => {}
        }
        for session in self.handshakes.due(now) {
            reports.extend(self.guarded(session, |thread| thread.handle_timeout(session, now)));
        }
        reports
    }

    /// Handles one session. A panic ends that session; its state is not in the table at that time.
    fn guarded(
        &mut self,
        session: DtlsSession,
        handle: impl FnOnce(&mut Self) -> Option<WorkerReport>,
    ) -> Option<WorkerReport> {
        let session = session.id;
        catch_unwind(AssertUnwindSafe(|| handle(self))).unwrap_or_else(|panic| {
            let (location, message) = panics::describe(&*panic);
            tracing::error!(%session, panic = message, %location, "DTLS caused a panic; session ends");
            Some(WorkerReport::Ended(session, CloseReason::HandshakeFailed))
        })
    }

    fn receive(&mut self, datagram: &HandshakeDatagram, now: Instant) -> Option<WorkerReport> {
        let HandshakeDatagram { session, path, fingerprints, is_keyed, bytes, .. } = datagram;
        let peer = if *is_keyed { Peer::Connected } else { Peer::Expected(fingerprints) };
        let HandshakeThread { handshakes, send, stats } = self;
        let output = &mut |to, bytes: &[u8]| send(*session, to, bytes);
        let event = handshakes.receive(*session, *path, peer, bytes, now, output)?;
        report(*session, event, stats)
    }

    fn handle_timeout(&mut self, session: DtlsSession, now: Instant) -> Option<WorkerReport> {
        let HandshakeThread { handshakes, send, stats } = self;
        let output = &mut |to, bytes: &[u8]| send(session, to, bytes);
        let failure = handshakes.handle_timeout(session, now, output)?;
        report(session, HandshakeEvent::Failed(failure), stats)
    }
}

/// The report of an event. `None` for a datagram that was refused, which is counted as dropped.
fn report(
    session: DtlsSession,
    event: HandshakeEvent,
    stats: &WorkerStats,
) -> Option<WorkerReport> {
    let session = session.id;
    match event {
        HandshakeEvent::Connected(keys) => {
            Some(WorkerReport::Handshake { session, result: Ok(Arc::new(keys)) })
        }
        HandshakeEvent::Closed => Some(WorkerReport::Ended(session, CloseReason::ClientClosed)),
        HandshakeEvent::Failed(failure) => {
            Some(WorkerReport::Handshake { session, result: Err(failure) })
        }
        HandshakeEvent::Refused(refusal) => {
            stats.dropped(match refusal {
                HandshakeRefusal::Record => DropReason::DtlsRecord,
                HandshakeRefusal::SecondAddress => DropReason::DtlsAddress,
                HandshakeRefusal::Full => DropReason::DtlsFull,
            });
            None
        }
    }
}

#[cfg(test)]
mod tests;
