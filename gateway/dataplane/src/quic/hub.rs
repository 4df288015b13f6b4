//! Which connection each session uses, and the rings to the workers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evenkeel_media::{demux, roq, rtp};
use quinn_proto::ConnectionHandle;

use super::counters::{Counters, count};
use crate::flows::{FlowKey, Flows, Home};
use crate::ring::{self, PathReport, RingItem, RingMeta};

/// A packet that causes a panic.
#[cfg(test)]
pub(super) const FATAL: &[u8] = b"fatal";

struct Presence {
    /// Sessions that use this connection towards their client.
    homes: HashSet<Home>,
    /// Time when its last session left or, if none has joined, when it opened.
    useful: Instant,
    /// The last report of its path.
    last_report: PathStatistics,
}

/// A session's connection to its client.
struct Attachment {
    client: ConnectionHandle,
    /// The flow of the session's last packet. [`Flows`] drops the flow when the session ends.
    flow: u64,
    /// The last report to this session. A new session starts with the connection's last report.
    told: PathStatistics,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rejected {
    UnknownFlow,
    /// The packet is neither RTP nor RTCP.
    NotRtp,
}

/// State of a connection's path; counts are since the connection opened.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct PathStatistics {
    pub(super) rtt: Duration,
    pub(super) lost: u64,
    pub(super) sent: u64,
}

pub(super) struct Hub {
    pub(super) counters: Arc<Counters>,
    flows: Arc<Flows>,
    workers: Vec<WorkerRing>,
    /// Open connections.
    connections: HashMap<ConnectionHandle, Presence>,
    sessions: HashMap<Home, Attachment>,
}

struct WorkerRing {
    ring: ring::RingSender,
    /// True if packets were pushed since the last wake-up.
    loaded: bool,
}

impl Hub {
    pub(super) fn new(
        flows: Arc<Flows>,
        counters: Arc<Counters>,
        to_workers: Vec<ring::RingSender>,
    ) -> Hub {
        let workers =
            to_workers.into_iter().map(|ring| WorkerRing { ring, loaded: false }).collect();
        Hub { counters, flows, workers, connections: HashMap::new(), sessions: HashMap::new() }
    }

    /// Adds a connection whose handshake is complete.
    pub(super) fn join(&mut self, client: ConnectionHandle, now: Instant) {
        let presence =
            Presence { homes: HashSet::new(), useful: now, last_report: PathStatistics::default() };
        self.connections.insert(client, presence);
    }

    /// Removes an ended connection and detaches its sessions.
    pub(super) fn part(&mut self, client: ConnectionHandle) {
        let Some(presence) = self.connections.remove(&client) else { return };
        for home in presence.homes {
            let flow = self.sessions.remove(&home).map_or(0, |attachment| attachment.flow);
            self.tell(RingMeta { home, kind: RingItem::Detached, flow }, &[]);
        }
        self.count_attached();
    }

    pub(super) fn home(&self, flow: roq::FlowId) -> Option<Home> {
        self.flows.home(&FlowKey::Roq(flow.number()))
    }

    /// Passes a packet of a known flow to its session's worker and counts it as received. Later packets to the
    /// session's client use this connection.
    pub(super) fn deliver(
        &mut self,
        client: ConnectionHandle,
        flow: roq::FlowId,
        packet: &[u8],
        now: Instant,
        received: impl Fn(&Counters) -> &AtomicU64,
    ) -> Result<(), Rejected> {
        let home = self.home(flow).ok_or(Rejected::UnknownFlow)?;
        #[cfg(test)]
        assert_ne!(packet, FATAL, "injected panic");
        let kind = media_kind(packet).ok_or(Rejected::NotRtp)?;
        count(received(&self.counters));
        self.attach(client, home, flow.number(), now);
        self.tell(RingMeta { home, kind, flow: flow.number() }, packet);
        Ok(())
    }

    pub(super) fn client(&self, home: Home) -> Option<ConnectionHandle> {
        self.sessions.get(&home).map(|attachment| attachment.client)
    }

    /// Returns whether a session uses this connection towards its client.
    pub(super) fn carries_session(&self, client: ConnectionHandle) -> bool {
        self.connections.get(&client).is_some_and(|presence| !presence.homes.is_empty())
    }

    pub(super) fn wake_workers(&mut self) {
        for worker in &mut self.workers {
            if std::mem::take(&mut worker.loaded) {
                worker.ring.wake();
            }
        }
    }

    /// Returns the sessions that have a connection.
    pub(super) fn homes(&self) -> impl Iterator<Item = Home> {
        self.sessions.keys().copied()
    }

    /// Forgets the session if it has ended, otherwise reports its path to its worker. If the ring is full, the next
    /// report includes the values.
    pub(super) fn look_after(
        &mut self,
        home: Home,
        now: Instant,
        path: impl FnOnce(ConnectionHandle) -> Option<PathStatistics>,
    ) {
        let Some(attachment) = self.sessions.get_mut(&home) else { return };
        if self.flows.home(&FlowKey::Roq(attachment.flow)) != Some(home) {
            return self.detach(home, now);
        }
        let Some(path) = path(attachment.client) else { return };
        let Some(worker) = self.workers.get_mut(usize::from(home.worker)) else { return };
        let kind = RingItem::Path(PathReport {
            rtt_us: path.rtt.as_micros().try_into().unwrap_or(u32::MAX),
            lost: since(attachment.told.lost, path.lost),
            sent: since(attachment.told.sent, path.sent),
        });
        if worker.ring.push(RingMeta { home, kind, flow: attachment.flow }, &[]).is_ok() {
            worker.loaded = true;
            attachment.told = path;
            if let Some(presence) = self.connections.get_mut(&attachment.client) {
                presence.last_report = path;
            }
        }
    }

    /// Returns the connections without a session for at least this time.
    pub(super) fn flowless(&self, after: Duration, now: Instant) -> Vec<ConnectionHandle> {
        let flowless = self.connections.iter().filter(|(_, presence)| {
            presence.homes.is_empty() && now.saturating_duration_since(presence.useful) >= after
        });
        flowless.map(|(client, _)| *client).collect()
    }

    /// Packets to the session's client use this connection from now on.
    pub(super) fn attach(&mut self, client: ConnectionHandle, home: Home, flow: u64, now: Instant) {
        if let Some(attachment) = self.sessions.get_mut(&home)
            && attachment.client == client
        {
            attachment.flow = flow;
            return;
        }
        self.detach(home, now);
        let Some(presence) = self.connections.get_mut(&client) else { return };
        presence.homes.insert(home);
        let attachment = Attachment { client, flow, told: presence.last_report };
        self.sessions.insert(home, attachment);
        self.count_attached();
        self.tell(RingMeta { home, kind: RingItem::Attached, flow }, &[]);
    }

    /// Ends the session's use of its connection.
    pub(super) fn detach(&mut self, home: Home, now: Instant) {
        let Some(attachment) = self.sessions.remove(&home) else { return };
        self.count_attached();
        if let Some(presence) = self.connections.get_mut(&attachment.client) {
            presence.homes.remove(&home);
            presence.useful = now;
        }
    }

    /// Ends the session's use of this connection, if it uses it.
    pub(super) fn release(&mut self, client: ConnectionHandle, home: Home, now: Instant) {
        if let Some(attachment) = self.sessions.get(&home)
            && attachment.client == client
        {
            let flow = attachment.flow;
            self.detach(home, now);
            self.tell(RingMeta { home, kind: RingItem::Detached, flow }, &[]);
        }
    }

    fn tell(&mut self, meta: RingMeta, bytes: &[u8]) {
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

fn since(told: u64, now: u64) -> u32 {
    now.saturating_sub(told).try_into().unwrap_or(u32::MAX)
}

/// Returns `None` if the packet is neither RTP nor RTCP. The worker checks padding, since it knows whether the session is
/// SRTP.
fn media_kind(packet: &[u8]) -> Option<RingItem> {
    match demux::classify(packet) {
        demux::DatagramKind::Rtp => {
            rtp::RtpHeader::parse_opaque(packet).is_ok().then_some(RingItem::Rtp)
        }
        // The fixed part of every RTCP packet (RFC 3550, 6.1).
        demux::DatagramKind::Rtcp => (packet.len() >= 4).then_some(RingItem::Rtcp),
        _ => None,
    }
}

/// Sessions per share: a sixteenth of a ring, some 20 µs.
const SHARE: usize = 128;

/// Rounds of path reports. Each round reports every session once, in shares, so that packets wait neither for all
/// reports nor for space in a ring full of reports.
pub(super) struct Round {
    every: Duration,
    began: Instant,
    /// The sessions at the start of the round.
    homes: Vec<Home>,
    /// Sessions reported in this round.
    done: usize,
}

impl Round {
    /// The first round begins one interval after `now`.
    pub(super) fn new(every: Duration, now: Instant) -> Round {
        Round { every, began: now, homes: Vec::new(), done: 0 }
    }

    /// Time of the next share or, between rounds, of the next round.
    pub(super) fn due(&self) -> Instant {
        if self.is_over() {
            return self.began + self.every;
        }
        let shares = self.homes.len().div_ceil(SHARE);
        self.began + self.every.mul_f64((self.done / SHARE) as f64 / shares as f64)
    }

    pub(super) fn is_over(&self) -> bool {
        self.done == self.homes.len()
    }

    /// Begins a round with these sessions. Missed rounds are skipped.
    pub(super) fn begin(&mut self, homes: impl Iterator<Item = Home>, now: Instant) {
        let due = self.due();
        self.began = if now < due + self.every { due } else { now };
        self.homes.clear();
        self.homes.extend(homes);
        self.done = 0;
    }

    /// Takes the next share.
    pub(super) fn share(&mut self) -> &[Home] {
        let first = self.done;
        self.done = self.homes.len().min(first + SHARE);
        &self.homes[first..self.done]
    }
}

#[cfg(test)]
mod tests;
