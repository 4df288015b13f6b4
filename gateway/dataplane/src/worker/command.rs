//! Commands from control to a worker.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_media::continuity::FILLED_WITHIN;
use evenkeel_media::srtp::SrtpKeys;
use evenkeel_model::forward::DropReason;
use evenkeel_model::{CloseReason, Hop, MediaDescription, NodeId, Plan};
use tokio::sync::mpsc;

use super::dtls::HandshakeFlight;
use super::egress::{Trunk, TrunkSocket, TrunkState, trunk_to};
use super::report::WorkerReport;
use super::session::{AnsweredMedia, Install, NodeLeg, PacketContext, SessionState, WorkerSession};
use super::slots::SessionSlots;
use super::sockets::RtpSide;
use super::suspension::{Copies, HandedOut, SocketDuplicates};
use super::{COMMANDS_MAX, PacketSource, PacketWorker, watch};
use crate::flows::Home;

/// Commands handled before packets are read again: about a millisecond.
const PER_TURN: usize = 1_024;

/// A command of control, run in the order of the channel.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Adds a session.
    Install(Box<Install>),
    /// Adds the leg that the node of this hop opened for the session.
    Attach {
        /// Worker and slot of the session.
        home: Home,
        /// The hop of the leg.
        hop: Hop,
        /// The leg's path to the node.
        leg: NodeLeg,
    },
    /// Removes the session's leg at this hop.
    Detach {
        /// Worker and slot of the session.
        home: Home,
        /// The hop of the leg.
        hop: Hop,
    },
    /// Sets the degradation decision in force for a session.
    Plan {
        /// Worker and slot of the session.
        home: Home,
        /// Replaces the earlier plan.
        plan: Plan,
    },
    /// Sets the keys on which the client's DTLS handshake agreed.
    SetKeys {
        /// Worker and slot of the session.
        home: Home,
        /// The keys of both directions.
        keys: Arc<SrtpKeys>,
    },
    /// Follows the answer to a later offer of a WebRTC client.
    Renegotiate {
        /// Worker and slot of the session.
        home: Home,
        /// The streams from now on.
        media: Arc<MediaDescription>,
        /// The direction and the numbers of the answer.
        answered: Arc<AnsweredMedia>,
    },
    /// Sends DTLS to a client.
    SendDtls(Box<HandshakeFlight>),
    /// Requests a key frame from the client for each of its video streams.
    KeyFrame(Home),
    /// Panics at the session's next packet.
    #[cfg(any(test, feature = "fault-injection"))]
    Panic(Home),
    /// Removes a session, which is reported with its totals.
    Remove(Home),
    /// Removes all sessions without a report: they go on at another gateway.
    ForgetRestored,
    /// Sends a signed message on the trunk of a node.
    SendSigned {
        /// The receiver.
        node: NodeId,
        /// The whole datagram, before encryption.
        message: Box<[u8]>,
        /// Encrypt it if the trunk is encrypted. Path probes are not: their length is what they probe.
        sealed: bool,
    },
    /// Limits the size of datagrams that packets to this node share.
    LimitBundles {
        /// The node of the trunk.
        node: NodeId,
        /// Bytes; one of [`BUNDLE_SIZES`](super::BUNDLE_SIZES).
        size_max: u16,
    },
    /// Opens or replaces the trunk to a node.
    AddTrunk {
        /// The node of the trunk.
        node: NodeId,
        /// A socket connected to the node.
        trunk: TrunkSocket,
    },
    /// Closes the node's trunk and clears its statistics. Its number may be reused afterwards.
    RemoveNode(NodeId),
    /// Copies the sessions in these slots that have sockets of their own, with duplicates of these sockets. Fails if a
    /// socket cannot be duplicated.
    Duplicate {
        /// Slots of sessions at this worker.
        slots: Range<u32>,
        /// Includes sessions without sockets.
        all: bool,
        /// The copies are for a standby, and limit the indices of SRTP.
        for_standby: bool,
        /// Receives the copies.
        done: crossbeam_channel::Sender<io::Result<SocketDuplicates>>,
    },
    /// Finishes the packets that were read, sends them, and hands out the sessions that have changed since their last
    /// copy, and the trunks. Then reads nothing and runs only commands until [`WorkerCommand::Resume`]. Sent to all workers
    /// together: each waits for the packets that others pass to it. The channel has room for all
    /// [parts](HandedOut::parts).
    Suspend(mpsc::Sender<HandedOut>),
    /// Copies sessions that have changed since their last copy: those in these slots, and those with another leg, hop
    /// or address.
    Copy {
        /// Slots of sessions at this worker.
        slots: Range<u32>,
        /// Includes sessions in these slots that have not changed.
        all: bool,
        /// The copies are for a standby, and limit the indices of SRTP.
        for_standby: bool,
        /// Receives the copies.
        done: crossbeam_channel::Sender<Copies>,
    },
    /// Continues the session in this newer state.
    Continue {
        /// The session, which is installed already.
        home: Home,
        /// Replaces the state that the session has.
        state: Box<SessionState>,
    },
    /// Continues the trunk of another process on a duplicate of its socket. The secret must be the same.
    ContinueTrunk(Box<TrunkState>),
    /// Answers when all earlier commands have run.
    Confirm(crossbeam_channel::Sender<()>),
    /// Reads again, first what has arrived meanwhile.
    Resume,
    /// Ends the thread of the worker.
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
            WorkerCommand::Install(install) => self.install(*install, now),
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
            WorkerCommand::SetKeys { home, keys } => {
                self.sessions.with(home, |session| session.set_keys(&keys));
                self.egress.note_changed(home);
            }
            WorkerCommand::Renegotiate { home, media, answered } => {
                self.sessions.with(home, |session| session.renegotiate(media, answered));
                self.egress.note_changed(home);
            }
            WorkerCommand::SendDtls(flight) => {
                let HandshakeFlight { home, to, bytes } = *flight;
                self.with_session(home, now, |session, cx| session.send_dtls(to, &bytes, cx));
            }
            WorkerCommand::KeyFrame(home) => {
                self.with_session(home, now, WorkerSession::request_client_key_frame);
            }
            #[cfg(any(test, feature = "fault-injection"))]
            WorkerCommand::Panic(home) => {
                self.sessions.with(home, |session| session.panics = true);
            }
            WorkerCommand::Remove(home) => self.remove(home, now),
            WorkerCommand::ForgetRestored => self.forget_restored(),
            WorkerCommand::SendSigned { node, message, sealed } => {
                self.egress.send_signed(node, &message, sealed);
            }
            WorkerCommand::LimitBundles { node, size_max } => {
                if let Some(trunk) = trunk_to(&mut self.egress.trunks, node) {
                    trunk.limit_bundles(size_max);
                }
            }
            WorkerCommand::AddTrunk { node, trunk } => self.add_trunk(node, trunk),
            WorkerCommand::RemoveNode(node) => self.egress.remove_node(node),
            // Fails only if control waits no longer.
            WorkerCommand::Duplicate { slots, all, for_standby, done } => {
                drop(done.send(self.duplicate(slots, all, for_standby, now)));
            }
            WorkerCommand::Suspend(to) => self.suspending = Some(to),
            WorkerCommand::Continue { home, state } => self.continue_session(home, *state, now),
            // Fails only if control waits no longer.
            WorkerCommand::Copy { slots, all, for_standby, done } => {
                drop(done.send(self.copy(slots, all, for_standby, now)));
            }
            WorkerCommand::ContinueTrunk(state) => {
                if let Some(trunk) = trunk_to(&mut self.egress.trunks, state.node) {
                    trunk.go_on(*state);
                }
            }
            WorkerCommand::Confirm(done) => drop(done.send(())),
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

    fn install(&mut self, mut install: Install, now: Instant) {
        // Sessions that are installed while nothing is read come from another process.
        let awaits_counters = self.suspended && install.state.is_none();
        let is_restored = self.suspended || install.state.is_some();
        let home = install.home;
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
        if awaits_counters {
            session.await_srtp_counters();
        }
        learned.into_iter().flatten().for_each(|learned| session.relearn(learned, &self.flows));
        if session.active {
            self.egress.active.push(session.home);
        }
        let (has_srtp, has_srtp_legs) = (session.has_srtp(), session.has_srtp_legs());
        self.sessions.put(session);
        if (has_srtp || has_srtp_legs) && is_restored {
            self.egress.indices.restored.push(home);
            self.begin_restored(now);
        } else if has_srtp {
            // A standby without a copy of the counters cannot continue the session.
            self.egress.note_changed(home);
        }
    }

    /// Begins to send SRTP of restored sessions, unless this worker sends nothing yet. Sessions with unknown used indices end.
    pub(super) fn begin_restored(&mut self, now: Instant) {
        if self.suspended {
            return;
        }
        for home in std::mem::take(&mut self.egress.indices.restored) {
            let lost = self.sessions.with(home, |session| {
                (!session.begin_srtp(now)).then_some((session.id, CloseReason::SrtpCountersLost))
            });
            self.unreported.extend(lost.flatten());
        }
        self.report_ends();
    }

    /// Repeats reports for which control had no room.
    #[cold]
    pub(super) fn report_ends(&mut self) {
        let reports = &self.egress.reports;
        let report = |&(session, reason): &_| WorkerReport::Ended(session, reason);
        self.unreported.retain(|ended| reports.try_send(report(ended)).is_err());
    }

    fn continue_session(&mut self, home: Home, mut state: SessionState, now: Instant) {
        let (learned, flows) = (state.take_learned(), &self.flows);
        let begins = self.sessions.with(home, |session| {
            let was_active = session.active;
            session
                .client
                .learned()
                .iter()
                .for_each(|source| _ = flows.remove(&source.key(), home));
            session.go_on(state);
            learned.into_iter().for_each(|learned| session.relearn(learned, flows));
            session.active && !was_active
        });
        if begins.unwrap_or_default() {
            self.egress.active.push(home);
        }
        self.begin_restored(now);
    }

    fn remove(&mut self, home: Home, now: Instant) {
        let (flows, egress) = (&self.flows, &self.egress);
        self.sessions.with(home, |session| {
            for source in session.client.learned() {
                flows.remove(&source.key(), home);
            }
            if session.nodes.sockets() > 0 && egress.permit.may_send() {
                session.nodes.flush(&egress.stats, now);
            }
            (0..session.nodes.clear()).for_each(|_| egress.count_drop(DropReason::Fenced));
            session.end_dtls(egress);
            session.report_shed(egress);
            // Packets still missing count as lost.
            let (mode, totals) = (session.mode(), session.totals(now + FILLED_WITHIN));
            let (session, counts) = (session.id, session.take_counts());
            egress.report(WorkerReport::Removed { session, mode, totals, counts });
        });
        self.sessions.remove(home);
    }

    /// Nothing was read or sent since the sessions were installed.
    fn forget_restored(&mut self) {
        for session in self.sessions.iter() {
            for source in session.client.learned() {
                self.flows.remove(&source.key(), session.home);
            }
        }
        self.sessions = SessionSlots::default();
        self.egress.indices.restored.clear();
        self.egress.active.clear();
        self.egress.changed.take();
    }
}
