//! The suspension of a worker: it hands out its sessions and reads nothing, so that another worker, perhaps in another process,
//! can continue them with duplicates of its sockets. If that fails, this worker resumes.
//!
//! A worker without a lease rests as well. It keeps the packets that it has read, and sends them once the lease is
//! renewed, or drops them if it is suspended: then another worker continues the sessions.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use evenkeel_media::srtp::CopyNumber;
use evenkeel_model::forward::DropReason;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;

use super::egress::TrunkState;
use super::session::SessionState;
use super::{PacketSource, PacketWorker};
use crate::lease::CHECKED_EVERY;
use crate::ring;

/// Time in which the other workers stop passing packets to this one: a pass takes about a millisecond.
const PAUSED_WITHIN: Duration = Duration::from_millis(100);

/// Interval at which a worker looks for packets from the others.
const LOOKS_EVERY: Duration = Duration::from_micros(50);

/// [`lease::CHECKED_EVERY`](crate::lease::CHECKED_EVERY), as the kernel takes it.
const LOOKS_FOR_LEASE_EVERY: Timespec =
    Timespec { tv_sec: 0, tv_nsec: CHECKED_EVERY.subsec_nanos() as i64 };

/// A copy of a session that goes on.
#[derive(Debug)]
pub struct Duplicate {
    /// The state at the time of the copy.
    pub state: SessionState,
    /// Duplicates of the session's own sockets for RTP and, if it has a separate port, for RTCP.
    pub ports: Option<(OwnedFd, Option<OwnedFd>)>,
}

/// Answer to [`WorkerCommand::Duplicate`](super::WorkerCommand::Duplicate).
#[derive(Debug)]
pub struct SocketDuplicates {
    /// The copied sessions, by slot.
    pub sessions: Vec<Duplicate>,
    /// The number of the worker's slots.
    pub slots: u32,
}

/// The sessions of a suspended worker, in parts: another worker continues the first while this one hands out the others.
#[derive(Debug)]
pub enum HandedOut {
    /// Up to [`HandedOut::PART`] sessions that have changed since their last copy.
    Sessions(Vec<SessionState>),
    /// The last part: the trunks.
    Trunks {
        /// Number of the worker.
        worker: u16,
        /// The state of each open trunk.
        trunks: Vec<TrunkState>,
    },
}

impl HandedOut {
    /// Half a millisecond for the process that encodes them, and for the one that reads them.
    pub const PART: usize = 64;

    /// The number of parts of a worker with this number of slots, at most.
    pub fn parts(slots: usize) -> usize {
        slots.div_ceil(HandedOut::PART) + 1
    }
}

/// Copies of sessions that go on.
#[derive(Debug)]
pub struct Copies {
    /// Each with the number of its own sockets.
    pub sessions: Vec<(SessionState, u8)>,
    /// The number of the worker's slots.
    pub slots: u32,
    /// The number of this copy.
    pub number: CopyNumber,
}

impl PacketWorker {
    /// Begins the suspension, and hands out sessions and trunks.
    #[cold]
    pub(super) fn hand_out(&mut self, to: &mpsc::Sender<HandedOut>) {
        self.pause_rings(true);
        self.read_rings_to_the_end();
        self.suspended = true;
        self.egress.is_handed_out = true;
        let uncopied = self.sessions.iter().filter(|session| session.uncopied);
        let at = self.egress.indices.view(Instant::now());
        let mut states = uncopied.map(|session| session.hand_over(&self.flows, at));
        loop {
            let part: Vec<_> = states.by_ref().take(HandedOut::PART).collect();
            if part.is_empty() {
                break;
            }
            // The hand-over fails without the last part. `Resume` follows.
            if to.try_send(HandedOut::Sessions(part)).is_err() {
                return;
            }
        }
        let trunks = self.egress.hand_out_trunks();
        let _ = to.try_send(HandedOut::Trunks { worker: self.number, trunks });
    }

    #[cold]
    pub(super) fn duplicate(
        &mut self,
        slots: Range<u32>,
        all: bool,
        for_standby: bool,
        now: Instant,
    ) -> io::Result<SocketDuplicates> {
        let number = self.next_copy(for_standby);
        let at = self.egress.indices.view(now);
        let mut sessions = Vec::new();
        for slot in slots {
            let flows = &self.flows;
            let duplicate: Option<io::Result<_>> = self.sessions.with_slot(slot, |session| {
                let ports = session.nodes.duplicate_sockets()?;
                let wanted = all || ports.is_some();
                Ok(wanted.then(|| Duplicate { state: session.copy(flows, number, at), ports }))
            });
            sessions.extend(duplicate.transpose()?.flatten());
        }
        Ok(SocketDuplicates { sessions, slots: self.sessions.slots() })
    }

    #[cold]
    pub(super) fn copy(
        &mut self,
        slots: Range<u32>,
        all: bool,
        for_standby: bool,
        now: Instant,
    ) -> Copies {
        let number = self.next_copy(for_standby);
        let mut changed = self.egress.changed.take();
        if all && slots.start == 0 {
            // The first copy includes each in its turn.
            changed.clear();
        }
        let changed = changed.into_iter().map(|home| home.slot);
        let at = self.egress.indices.view(now);
        let mut copies = Vec::new();
        for (slot, all) in slots.map(|slot| (slot, all)).chain(changed.map(|slot| (slot, false))) {
            let flows = &self.flows;
            let copied = self.sessions.with_slot(slot, |session| {
                let sockets = session.nodes.sockets();
                let is_wanted =
                    all || session.uncopied || number.is_some() && session.needs_copy(at);
                is_wanted.then(|| (session.copy(flows, number, at), sockets))
            });
            copies.extend(copied.flatten());
        }
        let number = self.egress.indices.copy;
        Copies { sessions: copies, slots: self.sessions.slots(), number }
    }

    /// Counts a copy. Returns its number if it is for a standby.
    fn next_copy(&mut self, for_standby: bool) -> Option<u64> {
        let copy = &mut self.egress.indices.copy.number;
        *copy += 1;
        for_standby.then_some(*copy)
    }

    pub(super) fn resume(&mut self) {
        self.pause_rings(false);
        self.suspending = None;
        self.suspended = false;
        self.egress.is_handed_out = false;
        // Packets of another process may have been counted up to now.
        self.begin_restored(Instant::now());
    }

    /// Runs commands while the worker is suspended, which [`WorkerCommand::Resume`](super::WorkerCommand::Resume) ends, and while its
    /// lease has ended.
    #[cold]
    pub(super) fn run_suspended(&mut self) -> io::Result<()> {
        let mut began = Instant::now();
        // Epoll does not report these again.
        let mut unread = Vec::new();
        while !self.stopped {
            if let Some(to) = self.suspending.take() {
                self.hand_out(&to);
            }
            let is_held = self.egress.permit.lease.is_held(Instant::now);
            if !self.suspended && is_held {
                break;
            }
            if self.suspended && !is_held {
                self.drop_output();
            }
            unread.extend(self.unread.extract_if(.., |source| *source != PacketSource::Commands));
            if self.unread.is_empty() {
                let wait = if self.suspended { None } else { Some(&LOOKS_FOR_LEASE_EVERY) };
                match poll(&mut [PollFd::new(&self.waker, PollFlags::IN)], wait) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                self.mark_unread(PacketSource::Commands);
            }
            self.guarded_pass(&[], Instant::now());
            if self.suspended {
                // No packet is awaited here.
                began = Instant::now();
                self.egress.stats.pass_ends(began);
            } else {
                // Packets wait.
                self.egress.stats.pass_begins(began);
            }
        }
        unread.into_iter().for_each(|source| self.mark_unread(source));
        Ok(())
    }

    /// Drops the packets that wait to be sent.
    fn drop_output(&mut self) {
        let mut dropped = self.egress.clear_queues();
        while let Some(home) = self.egress.ports.pop() {
            let of_session = self.sessions.with(home, |session| session.nodes.clear());
            dropped += of_session.unwrap_or_default();
        }
        (0..dropped).for_each(|_| self.egress.count_drop(DropReason::Fenced));
    }

    /// Reads what other threads have passed on. Other workers have paused, or do so soon.
    fn read_rings_to_the_end(&mut self) {
        let sockets = std::mem::take(&mut self.unread);
        let until = Instant::now() + PAUSED_WITHIN;
        loop {
            // A ring that is paused here holds all that its sender pushed.
            let paused = self.from_workers.iter().all(ring::Receiver::is_paused);
            (0..self.from_workers.len() as u16)
                .for_each(|number| self.mark_unread(PacketSource::Worker(number)));
            self.mark_unread(PacketSource::Quic);
            while !self.unread.is_empty() && Instant::now() < until {
                self.guarded_pass(&[], Instant::now());
            }
            if paused || Instant::now() >= until {
                break;
            }
            std::thread::sleep(LOOKS_EVERY);
        }
        sockets.into_iter().for_each(|source| self.mark_unread(source));
    }

    fn pause_rings(&self, paused: bool) {
        self.egress.to_workers.iter().flatten().for_each(|ring| ring.pause(paused));
    }
}
