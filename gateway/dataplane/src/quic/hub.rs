//! Which connection each session uses, and the rings to the workers.
//!
//! A predecessor's hub (`predecessors.rs`) has the process that serves in place of workers.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evenkeel_media::{demux, roq, rtp};
use quinn_proto::ConnectionHandle;

use super::counters::{Counters, count};
use super::predecessors::{CarriedSession, HandedConnections, Predecessors};
use super::process_link::{LinkRead, ProcessLink};
use crate::client_probes::{ClientProbe, ClientProbes};
use crate::flows::{FlowEntry, FlowKey, Flows, Home};
use crate::ring::{self, PathReport, RingFull, RingItem, RingMeta};

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

/// The home of a session that a predecessor does not know.
const UNKNOWN: Home = Home { worker: 0, slot: 0, generation: 0 };

/// The connection that a session uses towards its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Carrier {
    /// One of this process.
    Own(ConnectionHandle),
    /// One of the predecessor with this number.
    Predecessor(u8),
}

/// A session's connection to its client.
struct Attachment {
    carrier: Carrier,
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
    probes: Arc<ClientProbes>,
    outlet: Outlet,
    pub(super) predecessors: Predecessors,
    /// Open connections of this process.
    connections: HashMap<ConnectionHandle, Presence>,
    sessions: HashMap<Home, Attachment>,
}

/// Takes what clients send.
enum Outlet {
    /// By number.
    Workers(Vec<WorkerRing>),
    Successor(Arc<ProcessLink>),
}

struct WorkerRing {
    ring: ring::RingSender,
    /// True if packets were pushed since the last wake-up.
    loaded: bool,
}

impl Outlet {
    fn push(&mut self, meta: RingMeta, bytes: &[u8]) -> Result<(), RingFull> {
        match self {
            Outlet::Workers(workers) => {
                let Some(worker) = workers.get_mut(usize::from(meta.home.worker)) else {
                    return Ok(());
                };
                worker.loaded = true;
                worker.ring.push(meta, bytes)
            }
            Outlet::Successor(link) => link.push(meta, bytes),
        }
    }
}

impl Hub {
    pub(super) fn new(
        flows: Arc<Flows>,
        counters: Arc<Counters>,
        to_workers: Vec<ring::RingSender>,
    ) -> Hub {
        let workers =
            to_workers.into_iter().map(|ring| WorkerRing { ring, loaded: false }).collect();
        Hub {
            counters,
            flows,
            probes: Arc::default(),
            outlet: Outlet::Workers(workers),
            predecessors: Predecessors::default(),
            connections: HashMap::new(),
            sessions: HashMap::new(),
        }
    }

    /// With the probes of clients, for which it opens sessions of WebTransport.
    pub(super) fn with_probes(self, probes: Arc<ClientProbes>) -> Hub {
        Hub { probes, ..self }
    }

    /// The probe with this id.
    pub(super) fn probe(&self, id: &str, now: Instant) -> Option<Arc<ClientProbe>> {
        self.probes.find(id, now)
    }

    /// Everything that the next process needs to know. `newest` is the number of this process, `link` the other end of one to it.
    pub(super) fn hand_over(&self, newest: u8, link: OwnedFd) -> io::Result<HandedConnections> {
        let sessions = self.sessions.iter().map(|(home, attachment)| CarriedSession {
            home: *home,
            flow: attachment.flow,
            process: match attachment.carrier {
                Carrier::Own(_) => newest,
                Carrier::Predecessor(process) => process,
            },
        });
        HandedConnections::new(newest, link, &self.predecessors, sessions.collect())
    }

    /// Becomes the hub of a predecessor.
    pub(super) fn follow(&mut self, successor: Arc<ProcessLink>) {
        self.outlet = Outlet::Successor(successor);
        self.predecessors = Predecessors::default();
        // Sessions of other predecessors.
        self.sessions.retain(|_, attachment| matches!(attachment.carrier, Carrier::Own(_)));
    }

    /// Continues with the connections of predecessors.
    pub(super) fn adopt(&mut self, predecessors: Predecessors, sessions: Vec<CarriedSession>) {
        self.predecessors = predecessors;
        for CarriedSession { home, flow, process } in sessions {
            if self.predecessors.get(process).is_some() {
                let carrier = Carrier::Predecessor(process);
                let attachment = Attachment { carrier, flow, told: PathStatistics::default() };
                self.sessions.insert(home, attachment);
            }
        }
        self.count_attached();
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

    /// Returns whether packets of this flow are useless. A predecessor does not know the flows of later sessions.
    pub(super) fn is_unknown(&self, flow: roq::FlowId) -> bool {
        !self.is_predecessor() && self.home(flow).is_none()
    }

    fn is_predecessor(&self) -> bool {
        matches!(self.outlet, Outlet::Successor(_))
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
        let home = self.home(flow);
        if home.is_none() && !self.is_predecessor() {
            return Err(Rejected::UnknownFlow);
        }
        #[cfg(test)]
        assert_ne!(packet, FATAL, "injected panic");
        let kind = media_kind(packet).ok_or(Rejected::NotRtp)?;
        count(received(&self.counters));
        if let Some(home) = home {
            self.attach(client, home, flow.number(), now);
        }
        let home = home.unwrap_or(UNKNOWN);
        self.tell(RingMeta { home, kind, flow: flow.number() }, packet);
        Ok(())
    }

    /// Reads a message of the predecessor at this place.
    pub(super) fn read_predecessor<'a>(&self, place: usize, buffer: &'a mut [u8]) -> LinkRead<'a> {
        let predecessor = self.predecessors.all.get(place);
        predecessor.map_or(LinkRead::Ended, |predecessor| predecessor.link.receive(buffer))
    }

    /// Handles an item of the predecessor at this place.
    pub(super) fn take_item(&mut self, place: usize, meta: RingMeta, bytes: &[u8], now: Instant) {
        let Some(predecessor) = self.predecessors.all.get(place) else { return };
        let (process, RingMeta { home: there, kind, flow }) = (predecessor.process, meta);
        let carrier = Carrier::Predecessor(process);
        let is_carried = |hub: &Hub, home| hub.carrier(home) == Some(carrier);
        match (kind, self.flows.home(&FlowKey::Roq(flow))) {
            (RingItem::Rtp | RingItem::Rtcp, Some(home)) => {
                count(&self.counters.received_by_predecessors);
                if there == UNKNOWN {
                    let known = RingMeta { home, kind: RingItem::Attached, flow };
                    self.tell_predecessor(process, known, &[]);
                } else {
                    self.attach_to(carrier, home, flow, now);
                }
                self.tell(RingMeta { home, ..meta }, bytes);
            }
            (RingItem::Rtp | RingItem::Rtcp, None) => {
                count(&self.counters.unknown_flow_datagrams);
                if there != UNKNOWN {
                    let ended = RingMeta { kind: RingItem::Detached, ..meta };
                    self.tell_predecessor(process, ended, &[]);
                }
            }
            (RingItem::Attached, Some(home)) => self.attach_to(carrier, home, flow, now),
            (RingItem::Path(_), _) if is_carried(self, there) => self.tell(meta, &[]),
            // The end of the use did not fit into the link.
            (RingItem::Path(_), _) => {
                let ended = RingMeta { kind: RingItem::Detached, ..meta };
                self.tell_predecessor(process, ended, &[]);
            }
            (RingItem::Detached, _) if is_carried(self, there) => {
                self.sessions.remove(&there);
                self.count_attached();
                self.tell(meta, &[]);
            }
            // Of sessions that have ended, or use another connection by now.
            (_, _) => {}
        }
    }

    /// Sends an item to a predecessor. Returns whether it was taken.
    pub(super) fn tell_predecessor(&self, process: u8, meta: RingMeta, bytes: &[u8]) -> bool {
        let predecessor = self.predecessors.get(process);
        let is_taken = predecessor.is_some_and(|it| it.link.push(meta, bytes).is_ok());
        if !is_taken {
            count(&self.counters.predecessors_full);
        }
        is_taken
    }

    /// Forgets the predecessor at this place, which has ended, with all its connections.
    pub(super) fn part_predecessor(&mut self, place: usize) {
        let carrier = Carrier::Predecessor(self.predecessors.all.remove(place).process);
        let carried = self.sessions.extract_if(|_, attachment| attachment.carrier == carrier);
        let carried: Vec<_> = carried.map(|(home, attachment)| (home, attachment.flow)).collect();
        for (home, flow) in carried {
            self.tell(RingMeta { home, kind: RingItem::Detached, flow }, &[]);
        }
        self.count_attached();
    }

    /// Notes at a predecessor that a flow belongs to this session.
    pub(super) fn learn(&self, home: Home, flow: u64) {
        // The flow may be another session's, or the table full: the session then gets no packets over this connection.
        let _ = self.flows.insert(FlowKey::Roq(flow), FlowEntry::of(home));
    }

    /// Forgets a session at a predecessor: it has ended, or uses another process's connection.
    pub(super) fn unlearn(&mut self, home: Home, flow: u64, now: Instant) {
        self.flows.remove(&FlowKey::Roq(flow), home);
        self.detach(home, now);
    }

    pub(super) fn carrier(&self, home: Home) -> Option<Carrier> {
        self.sessions.get(&home).map(|attachment| attachment.carrier)
    }

    /// Returns whether a session uses this connection towards its client.
    pub(super) fn carries_session(&self, client: ConnectionHandle) -> bool {
        self.connections.get(&client).is_some_and(|presence| !presence.homes.is_empty())
    }

    pub(super) fn wake_workers(&mut self) {
        let Outlet::Workers(workers) = &mut self.outlet else { return };
        for worker in workers {
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
        // A predecessor reports the paths of its connections itself.
        let Carrier::Own(client) = attachment.carrier else { return };
        let Some(path) = path(client) else { return };
        let kind = RingItem::Path(PathReport {
            rtt_us: path.rtt.as_micros().try_into().unwrap_or(u32::MAX),
            lost: since(attachment.told.lost, path.lost),
            sent: since(attachment.told.sent, path.sent),
        });
        if self.outlet.push(RingMeta { home, kind, flow: attachment.flow }, &[]).is_ok() {
            attachment.told = path;
            if let Some(presence) = self.connections.get_mut(&client) {
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
        self.attach_to(Carrier::Own(client), home, flow, now);
    }

    fn attach_to(&mut self, carrier: Carrier, home: Home, flow: u64, now: Instant) {
        if let Some(attachment) = self.sessions.get_mut(&home)
            && attachment.carrier == carrier
        {
            attachment.flow = flow;
            return;
        }
        self.detach(home, now);
        let told = match carrier {
            Carrier::Own(client) => {
                let Some(presence) = self.connections.get_mut(&client) else { return };
                presence.homes.insert(home);
                presence.last_report
            }
            Carrier::Predecessor(_) => PathStatistics::default(),
        };
        self.sessions.insert(home, Attachment { carrier, flow, told });
        self.count_attached();
        self.tell(RingMeta { home, kind: RingItem::Attached, flow }, &[]);
    }

    /// Ends the session's use of its connection.
    pub(super) fn detach(&mut self, home: Home, now: Instant) {
        let Some(Attachment { carrier, flow, .. }) = self.sessions.remove(&home) else { return };
        self.count_attached();
        match carrier {
            Carrier::Own(client) => {
                if let Some(presence) = self.connections.get_mut(&client) {
                    presence.homes.remove(&home);
                    presence.useful = now;
                }
            }
            Carrier::Predecessor(process) => {
                let detached = RingMeta { home, kind: RingItem::Detached, flow };
                self.tell_predecessor(process, detached, &[]);
            }
        }
    }

    /// Ends the session's use of this connection, if it uses it.
    pub(super) fn release(&mut self, client: ConnectionHandle, home: Home, now: Instant) {
        if let Some(attachment) = self.sessions.get(&home)
            && attachment.carrier == Carrier::Own(client)
        {
            let flow = attachment.flow;
            self.detach(home, now);
            self.tell(RingMeta { home, kind: RingItem::Detached, flow }, &[]);
        }
    }

    fn tell(&mut self, meta: RingMeta, bytes: &[u8]) {
        if bytes.len() > ring::PACKET_MAX {
            count(&self.counters.oversize);
        } else if self.outlet.push(meta, bytes).is_err() {
            count(&self.counters.ring_full);
        }
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
