//! Commands from control to a worker.

use std::io;
use std::ops::Range;
use std::time::Instant;

use evenkeel_model::forward::DropReason;
use evenkeel_model::{Hop, NodeId, Plan};
use tokio::sync::mpsc;

use super::ports::RtpSide;
use super::report::WorkerReport;
use super::session::{Install, NodeLeg, PacketContext, SessionState, WorkerSession};
use super::source::{PacketSource, watch};
use super::suspension::{Copies, HandedOut, SocketDuplicates};
use super::trunk::{Trunk, TrunkSocket, TrunkState};
use super::{COMMANDS_MAX, PacketWorker};
use crate::flows::Home;

/// Commands handled before packets are read again: about a millisecond.
const PER_TURN: usize = 1_024;

#[derive(Debug)]
pub enum WorkerCommand {
    /// Adds a session.
    Install(Box<Install>),
    /// Adds the leg that the node of this hop opened for the session.
    Attach {
        home: Home,
        hop: Hop,
        leg: NodeLeg,
    },
    /// Removes the session's leg at this hop.
    Detach {
        home: Home,
        hop: Hop,
    },
    Plan {
        home: Home,
        plan: Plan,
    },
    /// Requests a key frame from the client for each of its video streams.
    KeyFrame {
        home: Home,
    },
    /// Panics at the session's next packet.
    #[cfg(any(test, feature = "fault-injection"))]
    Panic {
        home: Home,
    },
    Remove {
        home: Home,
    },
    SendSigned {
        node: NodeId,
        message: Box<[u8]>,
        /// Encrypt it if the trunk is encrypted. Path probes are not: their length is what they probe.
        sealed: bool,
    },
    /// Limits the size of datagrams that packets to this node share.
    LimitBundles {
        node: NodeId,
        size_max: u16,
    },
    AddTrunk {
        node: NodeId,
        trunk: TrunkSocket,
    },
    /// Closes the node's trunk and clears its statistics.
    RemoveNode {
        node: NodeId,
    },
    /// Copies the sessions in these slots that have sockets of their own, with duplicates of these sockets. Fails if a
    /// socket cannot be duplicated.
    Duplicate {
        slots: Range<u32>,
        /// Includes sessions without sockets.
        all: bool,
        done: crossbeam_channel::Sender<io::Result<SocketDuplicates>>,
    },
    /// Finishes the packets that were read, sends them, and hands out the sessions that have changed since their last
    /// copy, and the trunks. Then reads nothing and runs only commands until [`WorkerCommand::Resume`]. Sent to all workers
    /// together: each waits for the packets that others pass to it.
    Suspend {
        /// Has room for all [parts](HandedOut::parts).
        to: mpsc::Sender<HandedOut>,
    },
    /// Copies sessions that have changed since their last copy: those in these slots, and those with another leg, hop
    /// or address.
    Copy {
        slots: Range<u32>,
        /// Includes sessions in these slots that have not changed.
        all: bool,
        done: crossbeam_channel::Sender<Copies>,
    },
    /// Continues the session in this newer state.
    Continue {
        home: Home,
        state: Box<SessionState>,
    },
    /// Continues the trunk of another process on a duplicate of its socket. The secret must be the same.
    ContinueTrunk(Box<TrunkState>),
    /// Answers when all earlier commands have run.
    Confirm {
        done: crossbeam_channel::Sender<()>,
    },
    /// Reads again, first what has arrived meanwhile.
    Resume,
    Stop,
}

impl PacketWorker {
    /// Runs commands after control has woken the worker.
    pub(super) fn handle_wake(&mut self, now: Instant) {
        self.waker.clear();
        if self.run_commands(PER_TURN, now) {
            self.mark_unread(PacketSource::Commands);
        }
    }

    /// Runs all commands sent so far. Packets read afterwards may depend on them.
    pub(super) fn take_commands(&mut self, now: Instant) {
        self.run_commands(COMMANDS_MAX, now);
    }

    /// Runs up to `most` commands. Returns whether more may be waiting.
    fn run_commands(&mut self, most: usize, now: Instant) -> bool {
        let done = (0..most).map_while(|_| {
            let command = self.commands.try_recv().ok()?;
            self.run_command(command, now);
            Some(())
        });
        let may_have_more = done.count() == most;
        // Packets that waited for a leg are sent before later ones.
        self.send_early(now);
        may_have_more
    }

    fn run_command(&mut self, command: WorkerCommand, now: Instant) {
        match command {
            WorkerCommand::Install(install) => self.install(*install),
            WorkerCommand::Attach { home, hop, leg } => {
                self.sessions.with(home, |session| session.attach(hop, leg));
                self.egress.note_changed(home);
            }
            WorkerCommand::Detach { home, hop } => {
                self.sessions.with(home, |session| session.detach(hop));
                self.egress.note_changed(home);
            }
            WorkerCommand::Plan { home, plan } => {
                self.with_session(home, now, |session, cx| session.set_plan(plan, cx));
            }
            WorkerCommand::KeyFrame { home } => {
                self.with_session(home, now, WorkerSession::request_client_key_frame);
            }
            #[cfg(any(test, feature = "fault-injection"))]
            WorkerCommand::Panic { home } => {
                self.sessions.with(home, |session| session.panics = true);
            }
            WorkerCommand::Remove { home } => self.remove(home, now),
            WorkerCommand::SendSigned { node, message, sealed } => {
                self.egress.send_signed(node, &message, sealed);
            }
            WorkerCommand::LimitBundles { node, size_max } => {
                self.egress.limit_bundles(node, size_max);
            }
            WorkerCommand::AddTrunk { node, trunk } => self.add_trunk(node, trunk),
            WorkerCommand::RemoveNode { node } => self.egress.remove_node(node),
            // Fails only if control waits no longer.
            WorkerCommand::Duplicate { slots, all, done } => {
                drop(done.send(self.duplicate(slots, all)));
            }
            WorkerCommand::Suspend { to } => self.suspending = Some(to),
            WorkerCommand::Continue { home, state } => self.continue_session(home, *state),
            // Fails only if control waits no longer.
            WorkerCommand::Copy { slots, all, done } => drop(done.send(self.copy(slots, all))),
            WorkerCommand::ContinueTrunk(state) => self.egress.continue_trunk(*state),
            WorkerCommand::Confirm { done } => drop(done.send(())),
            WorkerCommand::Resume => self.resume(),
            WorkerCommand::Stop => self.stopped = true,
        }
    }

    fn add_trunk(&mut self, node: NodeId, trunk: TrunkSocket) {
        let watched = watch(&self.epoll, &trunk.socket, PacketSource::Trunk(node));
        match watched.and_then(|()| Trunk::new(trunk)) {
            Ok(trunk) => self.egress.add_trunk(node, trunk),
            // Probes use another socket and still succeed, so only this line explains the silence.
            Err(error) => {
                tracing::error!(%node, %error, "trunk not opened; no packets are exchanged with the node");
            }
        }
    }

    fn with_session(
        &mut self,
        home: Home,
        now: Instant,
        act: impl FnOnce(&mut WorkerSession, &mut PacketContext<'_>),
    ) {
        let cx = &mut PacketContext { egress: &mut self.egress, board: &self.board, now };
        self.sessions.with(home, |session| act(session, cx));
    }

    fn install(&mut self, mut install: Install) {
        let learned = install.state.as_deref_mut().map(SessionState::take_learned);
        let slot = install.home.slot;
        for side in [RtpSide::Rtp, RtpSide::Rtcp] {
            let fd = install.ports.as_ref().and_then(|ports| ports.fd(side));
            if let Some(fd) = fd
                && let Err(error) = watch(&self.epoll, fd, PacketSource::Port(slot, side))
            {
                tracing::warn!(session = %install.session, %error, "port not watched; node packets are not read");
            }
        }
        let mut session = WorkerSession::new(install);
        learned.into_iter().flatten().for_each(|learned| session.relearn(learned, &self.flows));
        if session.is_active() {
            self.egress.active.add(session.home);
        }
        self.sessions.put(session);
    }

    fn continue_session(&mut self, home: Home, mut state: SessionState) {
        let (learned, flows) = (state.take_learned(), &self.flows);
        let begins = self.sessions.with(home, |session| {
            let was_active = session.is_active();
            session.learned().iter().for_each(|source| _ = flows.remove(&source.key(), home));
            session.go_on(state);
            learned.into_iter().for_each(|learned| session.relearn(learned, flows));
            session.is_active() && !was_active
        });
        if begins.unwrap_or_default() {
            self.egress.active.add(home);
        }
    }

    fn remove(&mut self, home: Home, now: Instant) {
        let (flows, egress) = (&self.flows, &self.egress);
        self.sessions.with(home, |session| {
            for source in session.learned() {
                flows.remove(&source.key(), home);
            }
            if let Some(ports) = &mut session.ports {
                if egress.permit.may_send() {
                    ports.flush(&egress.stats, now);
                }
                (0..ports.clear()).for_each(|_| egress.count_drop(DropReason::Fenced));
            }
            session.report_shed(egress);
            let (mode, totals) = (session.mode(), session.final_totals(now));
            egress.report(WorkerReport::Removed { session: session.id, mode, totals });
        });
        self.sessions.remove(home);
    }
}
