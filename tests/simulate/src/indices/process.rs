//! A process that serves sessions: its clock, its workers, and its copies for a standby.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_instant as instant;
use evenkeel_media::continuity::{Continuity, Pass, Protection, StreamEpoch};
use evenkeel_media::rtp::{self, RtpHeader};
use evenkeel_media::srtp::{
    CopyNumber, GrantView, IndexGrant, LeasedSender, SentBatch, SentIndices, SrtpError, SrtpKey,
    SrtpProfile,
};

use super::link::{Batch, SessionCopy};

pub(super) type SessionId = u8;

pub(super) const WORKERS: u8 = 2;

const PAYLOAD: [u8; 16] = [0; 16];
const TAG_LEN: usize = 16;
const CLOCK_HZ: u32 = 48_000;

/// A clock with a rate of its own.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    pub(super) base: Instant,
    pub(super) permille: u32,
}

impl Clock {
    pub(super) fn read(self, now: Instant) -> Instant {
        self.base + (now - self.base) * self.permille / 1_000
    }
}

/// A packet that was sent, by its index: the key stream of SRTP, and the index in SRTCP.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UsedIndex {
    Rtp(SessionId, u32, Vec<u8>),
    Rtcp(SessionId, u32, u32),
}

struct Session {
    sender: LeasedSender,
    continuity: Continuity,
    is_uncopied: bool,
}

/// Copies that a worker was asked for.
struct Asked {
    /// When the worker makes them, and when control takes them.
    made_at: Instant,
    taken_at: Instant,
    /// The newest acknowledged batch at the time of the request.
    echo: u64,
    everything: bool,
    made: Option<(CopyNumber, Vec<SessionCopy>)>,
}

/// The standby that follows.
struct Follower {
    follower: u64,
    number: u64,
    asked: [Option<Asked>; WORKERS as usize],
    /// Sessions whose first copies were requested.
    swept: [bool; WORKERS as usize],
    checkpoint: Instant,
    sent_last: Instant,
}

pub(super) struct Process {
    pub(super) clock: Clock,
    grant: IndexGrant,
    sessions: BTreeMap<SessionId, Session>,
    copies: [u64; WORKERS as usize],
    follower: Option<Follower>,
}

fn key(session: SessionId) -> SrtpKey {
    SrtpKey::new(SrtpProfile::AeadAes128Gcm, &[session; 16], &[7; 12])
        .expect("the profile has 16 and 12 bytes")
}

fn encode(continuity: &Continuity, now: Instant) -> Vec<u8> {
    instant::relative_to(now, || rmp_serde::to_vec(continuity)).expect("a vector takes all bytes")
}

fn decode(bytes: &[u8], now: Instant) -> Continuity {
    instant::relative_to(now, || rmp_serde::from_slice(bytes)).expect("it was encoded here")
}

fn worker(session: SessionId) -> u16 {
    u16::from(session % WORKERS)
}

impl Process {
    pub(super) fn new(clock: Clock, now: Instant) -> Process {
        let now = clock.read(now);
        Process {
            clock,
            grant: IndexGrant::new(WORKERS.into(), now),
            sessions: BTreeMap::new(),
            copies: [0; WORKERS as usize],
            follower: None,
        }
    }

    pub(super) fn open(&mut self, session: SessionId) {
        let (sender, continuity) =
            (LeasedSender::new(&key(session)), Continuity::new(7, Protection::Terminated));
        self.sessions.insert(session, Session { sender, continuity, is_uncopied: true });
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.keys().copied()
    }

    pub(super) fn has(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Sends a packet of a node to the client.
    pub(super) fn send(
        &mut self,
        session: SessionId,
        node: &RtpHeader,
        now: Instant,
    ) -> Option<Result<UsedIndex, SrtpError>> {
        let at =
            GrantView { grant: &self.grant, worker: worker(session), now: self.clock.read(now) };
        let state = self.sessions.get_mut(&session)?;
        let passed = state.continuity.pass(StreamEpoch(1), node, CLOCK_HZ, at.now);
        let (ssrc, sequence, timestamp) = match passed {
            Pass::Untouched => (node.ssrc, node.sequence, node.timestamp),
            Pass::Rewrite { ssrc, sequence, timestamp } => (ssrc, sequence, timestamp),
            Pass::Stale | Pass::Duplicate | Pass::Surplus => return None,
        };
        let fields = rtp::Fields { payload_type: 111, marker: false, sequence, timestamp, ssrc };
        let mut packet = Vec::new();
        rtp::write(&fields, &PAYLOAD, &mut packet);
        let length = packet.len();
        packet.resize(length + TAG_LEN, 0);
        state.is_uncopied = true;
        let sent = state.sender.protect_rtp(&mut packet, length, at);
        Some(sent.map(|_| {
            let stream = packet[length - PAYLOAD.len()..length].to_vec();
            UsedIndex::Rtp(session, ssrc, stream)
        }))
    }

    /// Sends a report to the client.
    pub(super) fn report(
        &mut self,
        session: SessionId,
        ssrc: u32,
        now: Instant,
    ) -> Option<Result<UsedIndex, SrtpError>> {
        let at =
            GrantView { grant: &self.grant, worker: worker(session), now: self.clock.read(now) };
        let state = self.sessions.get_mut(&session)?;
        let mut packet = Vec::new();
        evenkeel_media::rtcp::write_receiver_report(ssrc, &[], &mut packet);
        let length = packet.len();
        packet.resize(length + TAG_LEN + 4, 0);
        state.is_uncopied = true;
        let sent = state.sender.protect_rtcp(&mut packet, length, at);
        Some(sent.map(|length| {
            let word = packet[..length].last_chunk().expect("it ends with E and the index");
            UsedIndex::Rtcp(session, ssrc, u32::from_be_bytes(*word))
        }))
    }

    /// Continues the sessions of a process that has ended.
    pub(super) fn inherit(&mut self, before: &Process, now: Instant) {
        let here = self.clock.read(now);
        for (id, session) in &before.sessions {
            let at = GrantView {
                grant: &before.grant,
                worker: worker(*id),
                now: before.clock.read(now),
            };
            let is_limited = session.sender.is_limited(at);
            let mut sender = LeasedSender::new(&key(*id));
            let sources: Vec<SentIndices> = session.sender.counters().collect();
            sender.restore_exact(&sources, is_limited).expect("there is no jump");
            let continuity = decode(&encode(&session.continuity, at.now), here);
            let session = Session { sender, continuity, is_uncopied: true };
            self.sessions.insert(*id, session);
        }
        self.grant.inherit(here);
    }

    /// Continues a session of a copy. Returns false if receivers could not follow.
    pub(super) fn restore(&mut self, copy: &SessionCopy, now: Instant) -> bool {
        let mut sender = LeasedSender::new(&key(copy.session));
        if !copy.counters.iter().all(|counters| sender.restore(*counters).is_ok()) {
            return false;
        }
        let mut continuity = decode(&copy.continuity, self.clock.read(now));
        for SentIndices { ssrc, rtp, .. } in sender.counters() {
            if let Some(last) = rtp.next.checked_sub(1) {
                continuity.skip_to(ssrc, last as u16);
            }
        }
        continuity.went_on_elsewhere();
        self.sessions.insert(copy.session, Session { sender, continuity, is_uncopied: true });
        true
    }

    /// Begins to copy to a standby; `is_other`: another member than before.
    pub(super) fn follow(&mut self, is_other: bool, now: Instant) {
        let now = self.clock.read(now);
        if is_other {
            self.grant.hold();
        }
        let follower = self.grant.begin(now);
        self.follower = Some(Follower {
            follower,
            number: 0,
            asked: [None, None],
            swept: [false; WORKERS as usize],
            checkpoint: now,
            sent_last: now,
        });
    }

    pub(super) fn unfollow(&mut self) {
        self.follower = None;
    }

    pub(super) fn acknowledge(&self, batch: &SentBatch, now: Instant) {
        self.grant.acknowledge(batch, self.clock.read(now));
    }

    /// Workers make the copies that they were asked for.
    pub(super) fn make_copies(&mut self, now: Instant) {
        let local = self.clock.read(now);
        let Some(follower) = &mut self.follower else { return };
        for (number, asked) in (0..).zip(&mut follower.asked) {
            let Some(asked) = asked.as_mut().filter(|it| it.made.is_none() && it.made_at <= local)
            else {
                continue;
            };
            let newest = &mut self.copies[usize::from(number)];
            *newest += 1;
            let at = GrantView { grant: &self.grant, worker: number, now: local };
            let mut copies = Vec::new();
            for (id, session) in &mut self.sessions {
                let is_wanted =
                    asked.everything || session.is_uncopied || session.sender.needs_copy(at);
                if worker(*id) == number && is_wanted {
                    session.is_uncopied = false;
                    let counters = session.sender.copy_for_standby(*newest, at);
                    let continuity = encode(&session.continuity, local);
                    copies.push(SessionCopy { session: *id, counters, continuity });
                }
            }
            asked.made = Some((CopyNumber { worker: number, number: *newest }, copies));
        }
    }

    /// A turn of control: returns the next batch, and asks for copies. `delays`: those of the workers, until they make the copies
    /// and until these arrive.
    pub(super) fn turn(
        &mut self,
        is_urgent: bool,
        mut delays: impl FnMut() -> [Duration; 2],
        now: Instant,
    ) -> Option<Batch> {
        let now = self.clock.read(now);
        let follower = self.follower.as_mut()?;
        let (mut copies, mut numbers, mut echo) = (Vec::new(), Vec::new(), self.grant.batch());
        for asked in &mut follower.asked {
            let taken = asked.take_if(|it| it.made.is_some() && it.taken_at <= now);
            if let Some(Asked { made: Some((number, made)), echo: before, .. }) = taken {
                numbers.push(number);
                copies.extend(made);
                echo = echo.min(before);
            }
        }
        let is_checkpoint = now - follower.checkpoint >= Duration::from_secs(1);
        for (worker, asked) in follower.asked.iter_mut().enumerate() {
            let is_first = !follower.swept[worker];
            if asked.is_none() && (is_checkpoint || is_urgent || is_first) {
                let [made, taken] = delays();
                follower.swept[worker] = true;
                *asked = Some(Asked {
                    made_at: now + made,
                    taken_at: now + made + taken,
                    echo: self.grant.batch(),
                    everything: is_first,
                    made: None,
                });
            }
        }
        if is_checkpoint {
            follower.checkpoint = now;
        }
        let is_due = now - follower.sent_last >= Duration::from_millis(100);
        if numbers.is_empty() && !is_due {
            return None;
        }
        (follower.sent_last, follower.number) = (now, follower.number + 1);
        let sent =
            SentBatch { follower: follower.follower, number: follower.number, copies: numbers };
        Some(Batch { sent, echo, copies })
    }
}
