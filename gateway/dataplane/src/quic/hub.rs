//! Which session has which connection, and the rings to the workers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evenkeel_media::{demux, roq, rtp};
use quinn_proto::ConnectionHandle;

use super::counters::{Counters, count};
use crate::flows::{Flows, Home, Key};
use crate::ring::{self, Kind, Meta};

#[cfg(test)]
mod tests;

/// What runs over a connection.
struct Presence {
    /// Sessions whose packets to the client go here.
    homes: HashSet<Home>,
    /// When its last session left it, or when it came.
    useful: Instant,
    /// What the last report said of its path.
    told: Path,
}

/// A session's way to its client.
struct Attachment {
    line: ConnectionHandle,
    /// The flow it was last heard on; gone from [`Flows`] when the session is.
    flow: u64,
    /// What its last report said of the path; of one that is new, what another's did.
    told: Path,
}

/// Why a packet was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rejected {
    /// Its flow belongs to nobody.
    UnknownFlow,
    /// It is neither RTP nor RTCP.
    NotRtp,
}

/// How a connection's path does, and what was lost and sent on it since its beginning.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Path {
    pub(super) rtt: Duration,
    pub(super) lost: u64,
    pub(super) sent: u64,
}

pub(super) struct Hub {
    pub(super) counters: Arc<Counters>,
    flows: Arc<Flows>,
    workers: Vec<Worker>,
    /// Those that came through their handshake and have not ended.
    lines: HashMap<ConnectionHandle, Presence>,
    sessions: HashMap<Home, Attachment>,
}

struct Worker {
    ring: ring::Sender,
    /// Packets were put in since it was last woken.
    loaded: bool,
}

impl Hub {
    pub(super) fn new(
        flows: Arc<Flows>,
        counters: Arc<Counters>,
        to_workers: Vec<ring::Sender>,
    ) -> Hub {
        let workers = to_workers.into_iter().map(|ring| Worker { ring, loaded: false }).collect();
        Hub { counters, flows, workers, lines: HashMap::new(), sessions: HashMap::new() }
    }

    /// A connection came through its handshake.
    pub(super) fn join(&mut self, line: ConnectionHandle, now: Instant) {
        let presence = Presence { homes: HashSet::new(), useful: now, told: Path::default() };
        self.lines.insert(line, presence);
    }

    /// The connection is gone, and with it its sessions' way to their clients.
    pub(super) fn part(&mut self, line: ConnectionHandle) {
        let Some(presence) = self.lines.remove(&line) else { return };
        for home in presence.homes {
            let flow = self.sessions.remove(&home).map_or(0, |attachment| attachment.flow);
            self.tell(Meta { home, kind: Kind::Detached, flow }, &[]);
        }
        self.count_attached();
    }

    /// Whose flow this is.
    pub(super) fn home(&self, flow: roq::Flow) -> Option<Home> {
        self.flows.home(&Key::Roq(flow.number()))
    }

    /// A packet came over this connection; if it is a session's, it is counted as received, and that session's
    /// packets go back the same way.
    pub(super) fn deliver(
        &mut self,
        line: ConnectionHandle,
        flow: roq::Flow,
        packet: &[u8],
        now: Instant,
        received: impl Fn(&Counters) -> &AtomicU64,
    ) -> Result<(), Rejected> {
        let home = self.home(flow).ok_or(Rejected::UnknownFlow)?;
        if !is_media(packet) {
            return Err(Rejected::NotRtp);
        }
        count(received(&self.counters));
        self.attach(line, home, flow.number(), now);
        self.tell(Meta { home, kind: Kind::Media, flow: flow.number() }, packet);
        Ok(())
    }

    /// The connection to this session's client, if there is one.
    pub(super) fn line(&self, home: Home) -> Option<ConnectionHandle> {
        self.sessions.get(&home).map(|attachment| attachment.line)
    }

    /// The session ended: nothing goes to its client any more.
    pub(super) fn forget(&mut self, home: Home, now: Instant) {
        self.detach(home, now);
        self.count_attached();
    }

    /// Wakes the workers that got packets since the last time.
    pub(super) fn wake_workers(&mut self) {
        for worker in &mut self.workers {
            if std::mem::take(&mut worker.loaded) {
                worker.ring.wake();
            }
        }
    }

    /// All that have a connection to their client.
    pub(super) fn homes(&self) -> impl Iterator<Item = Home> {
        self.sessions.keys().copied()
    }

    /// Forgets the session if it ended, else tells its worker how its path does. `path` is asked of its connection. What
    /// a ring has no room for is told with the next report.
    pub(super) fn look_after(
        &mut self,
        home: Home,
        now: Instant,
        path: impl FnOnce(ConnectionHandle) -> Option<Path>,
    ) {
        let Some(attachment) = self.sessions.get_mut(&home) else { return };
        if self.flows.home(&Key::Roq(attachment.flow)) != Some(home) {
            return self.forget(home, now);
        }
        let Some(path) = path(attachment.line) else { return };
        let Some(worker) = self.workers.get_mut(usize::from(home.worker)) else { return };
        let kind = Kind::Feedback {
            rtt_us: path.rtt.as_micros().try_into().unwrap_or(u32::MAX),
            lost: since(attachment.told.lost, path.lost),
            sent: since(attachment.told.sent, path.sent),
        };
        if worker.ring.push(Meta { home, kind, flow: attachment.flow }, &[]).is_ok() {
            worker.loaded = true;
            attachment.told = path;
            if let Some(presence) = self.lines.get_mut(&attachment.line) {
                presence.told = path;
            }
        }
    }

    /// Connections that had no session for so long.
    pub(super) fn flowless(&self, after: Duration, now: Instant) -> Vec<ConnectionHandle> {
        let flowless = self.lines.iter().filter(|(_, presence)| {
            presence.homes.is_empty() && now.saturating_duration_since(presence.useful) >= after
        });
        flowless.map(|(line, _)| *line).collect()
    }

    fn attach(&mut self, line: ConnectionHandle, home: Home, flow: u64, now: Instant) {
        if let Some(attachment) = self.sessions.get_mut(&home)
            && attachment.line == line
        {
            attachment.flow = flow;
            return;
        }
        self.detach(home, now);
        let Some(presence) = self.lines.get_mut(&line) else { return };
        presence.homes.insert(home);
        let attachment = Attachment { line, flow, told: presence.told };
        self.sessions.insert(home, attachment);
        self.count_attached();
        self.tell(Meta { home, kind: Kind::Attached, flow }, &[]);
    }

    fn detach(&mut self, home: Home, now: Instant) {
        let Some(attachment) = self.sessions.remove(&home) else { return };
        if let Some(presence) = self.lines.get_mut(&attachment.line) {
            presence.homes.remove(&home);
            presence.useful = now;
        }
    }

    fn tell(&mut self, meta: Meta, bytes: &[u8]) {
        let Some(worker) = self.workers.get_mut(usize::from(meta.home.worker)) else { return };
        if bytes.len() > ring::PACKET_MAX {
            count(&self.counters.oversize);
        } else if worker.ring.push(meta, bytes).is_err() {
            count(&self.counters.ring_full);
        }
        worker.loaded = true;
    }

    fn count_attached(&self) {
        self.counters.attached.store(self.sessions.len() as u64, Ordering::Relaxed);
    }
}

/// What was added to a count since it was told.
fn since(told: u64, now: u64) -> u32 {
    now.saturating_sub(told).try_into().unwrap_or(u32::MAX)
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
