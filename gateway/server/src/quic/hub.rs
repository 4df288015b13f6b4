//! Where the endpoint's tasks meet: which session has which connection, and the rings to the workers.
//!
//! All tasks run on one thread, so a borrow lasts for one packet and never across an await.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use evenkeel_media::{demux, roq, rtp};
use tokio::sync::Notify;

use super::counters::{Counters, count};
use super::{Settings, code};
use crate::flows::{Flows, Home, Key};
use crate::ring::{self, Kind, Meta};

/// A connection, for as long as the endpoint runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct LineId(u64);

/// A connection and what runs over it.
struct Line {
    connection: quinn::Connection,
    /// Sessions whose packets to the client go here.
    homes: HashSet<Home>,
    /// When there was last a session on it, or when it came.
    useful: Instant,
    streams_out: Rc<Cell<usize>>,
    lost: u64,
    sent: u64,
}

/// A session's way to its client.
struct Attachment {
    line: LineId,
    /// The flow it was last heard on; gone from [`Flows`] when the session is.
    flow: u64,
}

/// Why a packet was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rejected {
    /// Its flow belongs to nobody.
    UnknownFlow,
    /// It is neither RTP nor RTCP.
    NotRtp,
}

/// What a session's packets are sent by.
pub(super) struct Way {
    pub(super) connection: quinn::Connection,
    pub(super) streams_out: Rc<Cell<usize>>,
}

pub(super) struct Hub {
    pub(super) settings: Settings,
    pub(super) counters: Arc<Counters>,
    flows: Arc<Flows>,
    state: RefCell<State>,
    /// Rings when a ring got its first packet since the last wake-up.
    loaded: Notify,
}

struct State {
    workers: Vec<Worker>,
    lines: HashMap<LineId, Line>,
    sessions: HashMap<Home, Attachment>,
    lines_ever: u64,
}

struct Worker {
    ring: ring::Sender,
    /// Packets were put in since it was last woken.
    loaded: bool,
}

impl Hub {
    pub(super) fn new(
        settings: Settings,
        flows: Arc<Flows>,
        counters: Arc<Counters>,
        to_workers: Vec<ring::Sender>,
    ) -> Hub {
        let workers = to_workers.into_iter().map(|ring| Worker { ring, loaded: false }).collect();
        let state =
            State { workers, lines: HashMap::new(), sessions: HashMap::new(), lines_ever: 0 };
        Hub { settings, counters, flows, state: RefCell::new(state), loaded: Notify::new() }
    }

    /// A connection came through its handshake.
    pub(super) fn join(&self, connection: quinn::Connection) -> LineId {
        let mut state = self.state.borrow_mut();
        state.lines_ever += 1;
        let id = LineId(state.lines_ever);
        let line = Line {
            connection,
            homes: HashSet::new(),
            useful: Instant::now(),
            streams_out: Rc::default(),
            lost: 0,
            sent: 0,
        };
        state.lines.insert(id, line);
        id
    }

    /// The connection is gone, and with it its sessions' way to their clients.
    pub(super) fn part(&self, id: LineId) {
        let mut state = self.state.borrow_mut();
        let Some(line) = state.lines.remove(&id) else { return };
        for home in line.homes {
            let flow = state.sessions.remove(&home).map_or(0, |attachment| attachment.flow);
            self.tell(&mut state, Meta { home, kind: Kind::Detached, flow }, &[]);
        }
        self.count_attached(&state);
    }

    /// Whose flow this is.
    pub(super) fn home(&self, flow: roq::Flow) -> Option<Home> {
        self.flows.home(&Key::Roq(flow.number()))
    }

    /// A packet came over this connection; if it is a session's, it is counted as `received`, and that session's
    /// packets go back the same way.
    pub(super) fn deliver(
        &self,
        line: LineId,
        flow: roq::Flow,
        packet: &[u8],
        received: &AtomicU64,
    ) -> Result<(), Rejected> {
        let home = self.home(flow).ok_or(Rejected::UnknownFlow)?;
        if !is_media(packet) {
            return Err(Rejected::NotRtp);
        }
        count(received);
        let mut state = self.state.borrow_mut();
        self.attach(&mut state, line, home, flow.number());
        self.tell(&mut state, Meta { home, kind: Kind::Media, flow: flow.number() }, packet);
        Ok(())
    }

    /// Has something done with the connection to this session's client, if there is one. Cloning it instead would
    /// take its lock twice more for each packet.
    pub(super) fn through<T>(
        &self,
        home: Home,
        send: impl FnOnce(&quinn::Connection) -> T,
    ) -> Option<T> {
        let state = self.state.borrow();
        let line = state.lines.get(&state.sessions.get(&home)?.line)?;
        Some(send(&line.connection))
    }

    /// How packets of this session get to its client from a task of their own.
    pub(super) fn way(&self, home: Home) -> Option<Way> {
        let state = self.state.borrow();
        let line = state.lines.get(&state.sessions.get(&home)?.line)?;
        let streams_out = Rc::clone(&line.streams_out);
        Some(Way { connection: line.connection.clone(), streams_out })
    }

    /// The session ended: nothing goes to its client any more.
    pub(super) fn forget(&self, home: Home) {
        let mut state = self.state.borrow_mut();
        state.detach(home);
        self.count_attached(&state);
    }

    /// Wakes workers: those that got packets since the last time, once all tasks that had some have run.
    pub(super) async fn wake_workers(&self) {
        loop {
            self.loaded.notified().await;
            for worker in &mut self.state.borrow_mut().workers {
                if std::mem::take(&mut worker.loaded) {
                    worker.ring.wake();
                }
            }
        }
    }

    /// Tells workers how their sessions' paths do, forgets sessions that ended, closes connections without one.
    pub(super) async fn report_paths(&self) {
        let mut ticks = tokio::time::interval(self.settings.feedback_every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut state = self.state.borrow_mut();
            self.forget_ended(&mut state);
            self.report(&mut state);
            self.close_flowless(&mut state);
        }
    }

    fn attach(&self, state: &mut State, id: LineId, home: Home, flow: u64) {
        if let Some(attachment) = state.sessions.get_mut(&home)
            && attachment.line == id
        {
            attachment.flow = flow;
            return;
        }
        state.detach(home);
        let Some(line) = state.lines.get_mut(&id) else { return };
        line.homes.insert(home);
        state.sessions.insert(home, Attachment { line: id, flow });
        self.count_attached(state);
        self.tell(state, Meta { home, kind: Kind::Attached, flow }, &[]);
    }

    fn tell(&self, state: &mut State, meta: Meta, bytes: &[u8]) {
        let Some(worker) = state.workers.get_mut(usize::from(meta.home.worker)) else { return };
        if bytes.len() > ring::PACKET_MAX {
            count(&self.counters.oversize);
        } else if worker.ring.push(meta, bytes).is_err() {
            count(&self.counters.ring_full);
        }
        if !std::mem::replace(&mut worker.loaded, true) {
            self.loaded.notify_one();
        }
    }

    fn forget_ended(&self, state: &mut State) {
        let ended: Vec<Home> = state
            .sessions
            .iter()
            .filter(|(home, attachment)| {
                self.flows.home(&Key::Roq(attachment.flow)) != Some(**home)
            })
            .map(|(home, _)| *home)
            .collect();
        for home in &ended {
            state.detach(*home);
        }
        if !ended.is_empty() {
            self.count_attached(state);
        }
    }

    fn report(&self, state: &mut State) {
        let mut reports = Vec::with_capacity(state.sessions.len());
        for line in state.lines.values_mut().filter(|line| !line.homes.is_empty()) {
            let path = line.connection.stats().path;
            let kind = Kind::Feedback {
                rtt_us: path.rtt.as_micros().try_into().unwrap_or(u32::MAX),
                lost: since(&mut line.lost, path.lost_packets),
                sent: since(&mut line.sent, path.sent_packets),
            };
            reports.extend(line.homes.iter().map(|&home| (home, kind)));
        }
        for (home, kind) in reports {
            let flow = state.sessions.get(&home).map_or(0, |attachment| attachment.flow);
            self.tell(state, Meta { home, kind, flow }, &[]);
        }
    }

    fn close_flowless(&self, state: &mut State) {
        for line in state.lines.values_mut() {
            if !line.homes.is_empty() {
                line.useful = Instant::now();
            } else if line.useful.elapsed() >= self.settings.flowless_after
                && line.connection.close_reason().is_none()
            {
                count(&self.counters.flowless);
                line.connection.close(code(roq::ErrorCode::General), b"no flow of a session");
            }
        }
    }

    fn count_attached(&self, state: &State) {
        self.counters.attached.store(state.sessions.len() as u64, Ordering::Relaxed);
    }
}

impl State {
    fn detach(&mut self, home: Home) {
        let Some(attachment) = self.sessions.remove(&home) else { return };
        if let Some(line) = self.lines.get_mut(&attachment.line) {
            line.homes.remove(&home);
            line.useful = Instant::now();
        }
    }
}

fn is_media(packet: &[u8]) -> bool {
    match demux::classify(packet) {
        demux::Kind::Rtp => rtp::Header::parse(packet).is_ok(),
        // The fixed part of every RTCP packet (RFC 3550, 6.1).
        demux::Kind::Rtcp => packet.len() >= 4,
        demux::Kind::Stun
        | demux::Kind::Dtls
        | demux::Kind::Quic
        | demux::Kind::Bundle
        | demux::Kind::Signed
        | demux::Kind::Echo
        | demux::Kind::Unknown => false,
    }
}

/// What was added to a count since it was last looked at.
fn since(seen: &mut u64, now: u64) -> u32 {
    let added = now.saturating_sub(*seen);
    *seen = now;
    added.try_into().unwrap_or(u32::MAX)
}
