//! The threads of clients, and the states that they report.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::talker::{ClientTally, Persona};
use crate::ledger::{Books, ReceivedPacket, SentPacket};

/// A client as its thread last reported it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct ClientState {
    /// Time from which the client could send, nanoseconds since the Unix epoch: at once with a declared address, after
    /// the first answered check with STUN, after the handshake with QUIC.
    pub(crate) ready_ns: Option<u64>,
    /// The reason why the client cannot send any more.
    pub(crate) failed: Option<String>,
    /// Counters, updated every second, and exact once the client has stopped sending.
    pub tally: ClientTally,
}

/// States of all clients that have joined, by session. Clients that left stay in it.
pub(super) type Roster = Arc<Mutex<BTreeMap<u64, ClientState>>>;

/// A command to a thread of clients. `W` is the way of their packets.
pub(super) enum FleetCommand<W> {
    Join(Persona, W),
    Leave(u64),
}

/// A thread of clients. Dropping it ends them.
pub(super) struct FleetThread<W> {
    commands: Option<UnboundedSender<FleetCommand<W>>>,
    thread: Option<JoinHandle<()>>,
}

impl<W: Send + 'static> FleetThread<W> {
    /// `run` returns once its channel is closed.
    pub(super) fn start(
        name: &str,
        run: impl FnOnce(UnboundedReceiver<FleetCommand<W>>) + Send + 'static,
    ) -> io::Result<Self> {
        let (commands, orders) = unbounded_channel();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || run(orders))?;
        Ok(Self { commands: Some(commands), thread: Some(thread) })
    }

    pub(super) fn command(&self, command: FleetCommand<W>) {
        if let Some(commands) = &self.commands {
            // The thread ends only with this handle.
            let _heard = commands.send(command);
        }
    }
}

impl<W> Drop for FleetThread<W> {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// The channel on which a client thread reports.
pub(super) struct ClientReports {
    books: Books,
    roster: Roster,
    pub(super) sent: Vec<SentPacket>,
    pub(super) arrived: Vec<ReceivedPacket>,
}

impl ClientReports {
    pub(super) fn new(books: &Books, roster: &Roster) -> Self {
        Self {
            books: books.clone(),
            roster: Arc::clone(roster),
            sent: Vec::new(),
            arrived: Vec::new(),
        }
    }

    pub(super) fn enter(&mut self) {
        self.books.note(&mut self.sent, &mut self.arrived);
    }

    pub(super) fn ready(&self, session: u64, at_ns: u64) {
        self.tell(session, |state| state.ready_ns = Some(at_ns));
    }

    pub(super) fn counted(&self, session: u64, tally: ClientTally) {
        self.tell(session, |state| state.tally = tally);
    }

    pub(super) fn tell(&self, session: u64, change: impl FnOnce(&mut ClientState)) {
        change(lock(&self.roster).entry(session).or_default());
    }
}

impl Drop for ClientReports {
    fn drop(&mut self) {
        self.enter();
    }
}

pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
