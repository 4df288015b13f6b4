//! The registry of sessions: home worker, slot, flow-table keys, answer to the client, and sessions' own ports; its part of a
//! snapshot.

mod client_record;
mod listener;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use evenkeel_dataplane::flows::{self, FlowEntry, FlowKey, Flows, Home, PackedKey};
use evenkeel_dataplane::freebind;
use evenkeel_dataplane::worker::{
    AnsweredMedia, ClientAddressing, SessionPorts, SrtpKeying, Totals,
};
use evenkeel_drivers::SessionFacts;
use evenkeel_dtls::DtlsCertificate;
use evenkeel_http::TraceHeaders;
use evenkeel_media::roq::FlowId;
use evenkeel_media::srtp::SrtpKeys;
use evenkeel_model::{
    ClientIdentity, ClientLabel, IdMap, IngressProtocol, Labels, MediaDescription, Offer, OfferId,
    RtcpPort, SessionId, Srtp,
};
use evenkeel_process::descriptors;
use evenkeel_process::random::draw;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::messages::{ControlError, IceFragments, SnapshotError};
use crate::registry::client_record::{ClientRecord, IceSecret, ScopedAddress};
use crate::registry::listener::reaches;
pub use crate::registry::listener::{
    IceAnswer, IngressAnswer, ListenerAddress, ListenerAddresses, QuicListener, UdpListener,
};
use crate::session_urls::{SessionUrlSecret, SessionUrls};
use crate::traces::{CallerSpan, TraceIds, TraceRegistry};

#[derive(Debug)]
pub struct Registered {
    pub home: Home,
    pub client: ClientAddressing,
    pub ports: Option<Box<SessionPorts>>,
    pub reached: IngressAnswer,
}

/// Small, because there is one per session.
#[derive(Debug)]
pub struct SessionEntry {
    pub home: Home,
    /// Totals of the session's last summary.
    totals: Option<Box<Totals>>,
    pub rtcp: RtcpPort,
    pub client_srtp: Srtp,
    pub offer: OfferId,
    /// The session's part of the limit `session_data_mib`.
    pub data: Option<OwnedSemaphorePermit>,
    key: PackedKey,
    /// Boxed, because many sessions need none of these fields.
    more: Option<Box<EntryDetails>>,
}

#[derive(PartialEq, Default, Debug)]
struct EntryDetails {
    /// The client's own addresses at `plain` nodes, by name: a node's number may be reused during the session.
    nodes: Box<[(Arc<str>, SocketAddr)]>,
    /// Description of the session for media servers, where a driver needs it.
    facts: Option<SessionFacts>,
    /// The RoQ flow towards a QUIC client; 0 for others.
    flow_from_gateway: u64,
    /// Local ports towards nodes, as in [`SessionPorts::numbers`].
    ports: Option<(u16, Option<u16>)>,
    second_key: Option<FlowKey>,
    srtp: Option<SrtpKeying>,
}

impl EntryDetails {
    fn if_any(self) -> Option<Box<EntryDetails>> {
        (self != EntryDetails::default()).then(|| Box::new(self))
    }
}

impl SessionEntry {
    pub fn address_at(&self, name: &str) -> Option<SocketAddr> {
        let nodes = self.more.iter().flat_map(|more| &more.nodes);
        let mut named = nodes.filter(|(node, _)| **node == *name);
        named.next().map(|(_, address)| *address)
    }

    pub fn is_quic(&self) -> bool {
        matches!(self.key.key(), FlowKey::Roq(_))
    }

    /// Description of the session for media servers, where a driver needs it.
    pub fn facts(&self) -> Option<&SessionFacts> {
        self.more.as_ref()?.facts.as_ref()
    }

    /// The origin of the keys of the client's SRTP, if it ends here.
    pub fn srtp(&self) -> Option<&SrtpKeying> {
        self.more.as_ref()?.srtp.as_ref()
    }

    pub fn set_srtp(&mut self, keying: SrtpKeying) {
        self.more.get_or_insert_default().srtp = Some(keying);
    }

    /// Sets the keys of the client's DTLS handshake. The first ones remain: a client has one handshake.
    pub fn set_keys(&mut self, found: &Arc<SrtpKeys>) {
        let srtp = self.more.as_mut().and_then(|more| more.srtp.as_mut());
        if let Some(SrtpKeying::Dtls { keys, .. }) = srtp {
            keys.get_or_insert_with(|| Arc::clone(found));
        }
    }

    /// Replaces the answer of a WebRTC client.
    pub fn set_answered(&mut self, new: Arc<AnsweredMedia>) {
        let srtp = self.more.as_mut().and_then(|more| more.srtp.as_mut());
        if let Some(SrtpKeying::Dtls { answered, .. }) = srtp {
            *answered = new;
        }
    }

    pub fn totals(&self) -> Totals {
        self.totals.as_deref().copied().unwrap_or_default()
    }

    pub fn note_totals(&mut self, totals: Totals) {
        match &mut self.totals {
            Some(standing) => **standing = totals,
            None => self.totals = Some(Box::new(totals)),
        }
    }
}

/// The sessions of this gateway, by number.
pub struct SessionRegistry {
    /// The UDP listeners, by number.
    udp: Vec<UdpListener>,
    /// The QUIC listener.
    quic: Option<QuicListener>,
    /// The certificate that DTLS clients see; `None` without handshakes.
    dtls_certificate: Option<watch::Receiver<DtlsCertificate>>,
    /// The flow table, which workers read.
    flows: Arc<Flows>,
    /// The address of sessions' own ports, which another host may have if it is one; `None` if no node needs any.
    port_legs: Option<IpAddr>,
    /// A driver needs [`SessionFacts`]s of sessions.
    keeps_facts: bool,
    /// Ids of the traces of sessions.
    traces: Arc<TraceRegistry>,
    /// Codes of the URLs of sessions.
    session_urls: Arc<SessionUrls>,
    /// The spans of trusted callers.
    callers: BTreeMap<SessionId, CallerSpan>,
    entries: IdMap<SessionId, Box<SessionEntry>>,
    workers: Vec<Slots>,
}

/// The slots of a worker. A reused slot has a new generation, so late messages find no session.
#[derive(Default, Debug)]
struct Slots {
    used: usize,
    free: Vec<u32>,
    generations: Vec<u32>,
}

impl Slots {
    fn take(&mut self) -> (u32, u32) {
        self.used += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.generations.push(0);
            self.generations.len() as u32 - 1
        });
        let generation = &mut self.generations[slot as usize];
        *generation += 1;
        (slot, *generation)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RegistryRecord {
    /// The bound addresses of the UDP listeners, by number.
    listeners: Vec<ScopedAddress>,
    /// The generations of each worker's slots.
    generations: Vec<Vec<u32>>,
    /// The address of sessions' own ports, if it is one that another host may have.
    #[serde(default)]
    pub(crate) ports_at: Option<IpAddr>,
    /// The seed of the ids of traces; `None` from an older version.
    #[serde(default)]
    trace_seed: Option<u64>,
    /// The secret of the URLs of sessions; `None` from an older version.
    #[serde(default)]
    pub(crate) url_secret: Option<SessionUrlSecret>,
    pub(crate) sessions: Vec<EntryRecord>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EntryRecord {
    pub(crate) session: SessionId,
    worker: u16,
    slot: u32,
    generation: u32,
    client: ClientRecord,
    offer: OfferId,
    pub(crate) totals: Totals,
    /// Local ports towards nodes: RTP and, if it has a port of its own, RTCP.
    #[serde(default)]
    pub(crate) ports: Option<(u16, Option<u16>)>,
    /// The client's own addresses at `plain` nodes, by name.
    nodes: Vec<(Arc<str>, ScopedAddress)>,
    /// The session's part of the limit `session_data_mib`, bytes.
    pub(crate) data: u32,
    /// The span of a trusted caller.
    #[serde(default)]
    caller: Option<CallerSpan>,
    /// The keys of the client's SRTP and their origin, if it ends at the gateway.
    #[serde(default)]
    srtp: Option<SrtpKeying>,
}

/// Sessions of another process that this one can serve.
#[derive(Debug)]
pub(crate) struct RestoringSessions {
    /// In the order of the sessions.
    pub(crate) entries: Vec<EntryRecord>,
    /// The numbers that the listeners have here.
    pub(crate) listeners: Vec<Option<u8>>,
}

/// Facts about a session that other parts restored.
pub(crate) struct RestoredParts {
    pub(crate) media: Arc<MediaDescription>,
    pub(crate) ports: Option<Box<SessionPorts>>,
    /// The room's name and the labels.
    pub(crate) facts: Option<(Arc<str>, Labels)>,
    pub(crate) data: Option<OwnedSemaphorePermit>,
    /// The client's port is known. If its IP address was declared, another session may declare it by now.
    pub(crate) has_address: bool,
}

impl RegistryRecord {
    /// With these sessions, and the generations of their slots. Other slots begin anew.
    pub(crate) fn with_sessions(mut self, sessions: Vec<EntryRecord>) -> RegistryRecord {
        self.generations.iter_mut().for_each(Vec::clear);
        for entry in &sessions {
            // The worker is checked by the restore.
            let Some(slots) = self.generations.get_mut(usize::from(entry.worker)) else { continue };
            let place = entry.slot as usize;
            if slots.len() <= place {
                slots.resize(place + 1, 0);
            }
            slots[place] = entry.generation;
        }
        RegistryRecord { sessions, ..self }
    }
}

impl SessionRegistry {
    /// A registry without sessions.
    pub fn new(
        udp: Vec<UdpListener>,
        quic: Option<QuicListener>,
        flows: Arc<Flows>,
        port_legs: Option<IpAddr>,
        keeps_facts: bool,
        workers: usize,
        traces: Arc<TraceRegistry>,
    ) -> SessionRegistry {
        let workers = (0..workers).map(|_| Slots::default()).collect();
        SessionRegistry {
            udp,
            quic,
            dtls_certificate: None,
            flows,
            port_legs,
            keeps_facts,
            traces,
            session_urls: Arc::default(),
            callers: BTreeMap::new(),
            entries: IdMap::default(),
            workers,
        }
    }

    /// With the certificate that DTLS clients see.
    #[must_use]
    pub fn with_certificate(
        self,
        certificate: watch::Receiver<DtlsCertificate>,
    ) -> SessionRegistry {
        SessionRegistry { dtls_certificate: Some(certificate), ..self }
    }

    /// With the codes of the URLs of sessions.
    #[must_use]
    pub fn with_session_urls(self, session_urls: Arc<SessionUrls>) -> SessionRegistry {
        SessionRegistry { session_urls, ..self }
    }

    /// Ids of the traces of sessions.
    pub(crate) fn traces(&self) -> &Arc<TraceRegistry> {
        &self.traces
    }

    /// A driver needs [`SessionFacts`]s of sessions.
    pub(crate) fn keeps_session_facts(&self) -> bool {
        self.keeps_facts
    }

    /// The default addresses of the UDP listeners.
    pub(crate) fn udp_addresses(&self) -> Vec<SocketAddr> {
        self.udp.iter().map(|udp| udp.addresses.default.rtp).collect()
    }

    /// The default address of the QUIC listener.
    pub(crate) fn quic_address(&self) -> Option<SocketAddr> {
        self.quic.as_ref().map(|quic| quic.addresses.default.rtp)
    }

    /// SHA-256 of the certificates of the QUIC listener that browsers accept by it, the one in use first.
    pub(crate) fn short_lived_sha256(&self) -> Vec<[u8; 32]> {
        self.quic.iter().flat_map(QuicListener::short_lived_sha256).collect()
    }

    /// The scenario of sessions that a first packet at this listener opens.
    pub(crate) fn open_scenario(&self, listener: u8) -> Option<&Arc<str>> {
        self.udp.get(usize::from(listener))?.open.as_ref()
    }

    /// Returns the entry of a session, if present.
    pub fn get(&self, session: SessionId) -> Option<&SessionEntry> {
        self.entries.get(session).map(|entry| &**entry)
    }

    /// Returns the mutable entry of a session, if present.
    pub fn get_mut(&mut self, session: SessionId) -> Option<&mut SessionEntry> {
        self.entries.get_mut(session).map(|entry| &mut **entry)
    }

    /// Keeps the span of a trusted caller, for a process that continues the session's trace.
    pub fn note_caller(&mut self, session: SessionId, caller: Option<&CallerSpan>) {
        let trusted = self.traces.parent(caller).cloned();
        self.callers.extend(trusted.map(|caller| (session, caller)));
    }

    /// Ids of the session's trace.
    pub fn trace(&self, session: SessionId) -> TraceIds {
        self.traces.of(session, self.callers.get(&session))
    }

    /// All sessions, oldest first.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.entries.keys()
    }

    /// The headers of a request about an open session.
    pub(crate) fn trace_headers(&self, session: SessionId) -> Option<TraceHeaders> {
        self.get(session)?;
        self.traces.headers(session, self.callers.get(&session))
    }

    /// The spans of trusted callers.
    pub fn callers(&self) -> impl Iterator<Item = (SessionId, CallerSpan)> {
        self.callers.iter().map(|(session, caller)| (*session, caller.clone()))
    }

    /// The addresses of RTP that clients of each carrier are told.
    pub fn carriers(&self) -> BTreeMap<Arc<str>, Vec<SocketAddr>> {
        let mut carriers: BTreeMap<_, Vec<SocketAddr>> = BTreeMap::new();
        let quic = self.quic.iter().map(|quic| &quic.addresses);
        let listeners = self.udp.iter().map(|udp| &udp.addresses).chain(quic);
        for ListenerAddress { rtp, carrier, .. } in listeners.flat_map(ListenerAddresses::iter) {
            if let Some(carrier) = carrier {
                carriers.entry(Arc::clone(carrier)).or_default().push(*rtp);
            }
        }
        carriers
    }

    /// Checks that a listener accepts clients of this kind.
    pub fn admits(&self, ingress: &IngressProtocol) -> Result<(), ControlError> {
        match ingress {
            IngressProtocol::Quic | IngressProtocol::WebTransport => match self.quic {
                Some(_) => Ok(()),
                None => Err(ControlError::NoListener),
            },
            IngressProtocol::Udp(identity) => {
                let (listener, _) = self.listener(identity).ok_or(ControlError::NoListener)?;
                if let ClientIdentity::Declared { address, .. } = *identity
                    && self.flows.home(&FlowKey::Udp { listener, address }).is_some()
                {
                    return Err(ControlError::AddressTaken(address));
                }
                Ok(())
            }
        }
    }

    /// The first listener that accepts clients of this kind.
    pub(crate) fn listener(&self, identity: &ClientIdentity) -> Option<(u8, &UdpListener)> {
        if let ClientIdentity::Open { listener, .. } = identity {
            return Some((*listener, self.udp.get(usize::from(*listener))?));
        }
        let takes = |listener: &UdpListener| match identity {
            ClientIdentity::Declared { address, .. } => {
                listener.declared && listener.hears(address.ip())
            }
            ClientIdentity::DeclaredIp(ip) => listener.declared_ip && listener.hears(*ip),
            ClientIdentity::Stun => listener.stun,
            ClientIdentity::Open { .. } => listener.open.is_some(),
        };
        (0..).zip(&self.udp).find(|(_, listener)| takes(listener))
    }

    /// Registers a session at the worker with the fewest sessions. `nodes`: the client's addresses at plain nodes.
    pub fn register(
        &mut self,
        session: SessionId,
        offer: &Offer,
        nodes: Vec<(Arc<str>, SocketAddr)>,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Registered, ControlError> {
        let (ingress, media) = (&offer.ingress, &*offer.media);
        self.admits(ingress)?;
        let ports = self.ports(media)?;
        let (client, reached) = self.welcome(offer, random).ok_or(ControlError::NoListener)?;
        let nobody = Home { worker: 0, slot: 0, generation: 0 };
        let (client, first, second) = client.keys(nobody).ok_or(ControlError::NoListener)?;
        let (worker, slots) = self
            .workers
            .iter_mut()
            .enumerate()
            .min_by_key(|(_, slots)| slots.used)
            .ok_or(ControlError::Full)?;
        let (slot, generation) = slots.take();
        let home = Home { worker: worker as u16, slot, generation };
        let more = EntryDetails {
            nodes: nodes.into(),
            facts: ports.as_ref().filter(|_| self.keeps_facts).map(|ports| SessionFacts {
                room: offer.room.clone(),
                labels: offer.labels.clone(),
                media: offer.media.clone(),
                ports: ports.numbers(),
            }),
            flow_from_gateway: flow_from_gateway(&client),
            ports: ports.as_ref().map(|ports| ports.numbers()),
            second_key: second.as_ref().map(|(key, _)| *key),
            srtp: None,
        };
        let entry = SessionEntry {
            home,
            totals: None,
            rtcp: media.rtcp,
            client_srtp: media.srtp,
            offer: offer.id,
            data: None,
            key: PackedKey::of(&first.0),
            more: more.if_any(),
        };
        self.entries.insert(session, Box::new(entry));
        for (key, entry) in [Some(first), second].into_iter().flatten() {
            if let Err(refused) = self.flows.insert(key, FlowEntry { home, ..entry }) {
                // Removes only the keys that belong to this session.
                self.remove(session);
                return Err(match (refused, key) {
                    (flows::InsertRefusal::Taken(_), FlowKey::Udp { address, .. }) => {
                        ControlError::AddressTaken(address)
                    }
                    _ => ControlError::Full,
                });
            }
        }
        Ok(Registered { home, client, ports, reached })
    }

    /// The client's identification, and the answer to it.
    fn welcome(
        &self,
        offer: &Offer,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Option<(ClientRecord, IngressAnswer)> {
        let carrier = ClientLabel::Carrier.value(&offer.labels);
        let IngressProtocol::Udp(identity) = &offer.ingress else {
            let quic = self.quic.as_ref()?;
            let (flow_to_gateway, flow_from_gateway) = (flow(random), flow(random));
            let reached = IngressAnswer::Quic {
                addresses: quic.addresses.rtp_of_client(carrier),
                certificate_sha256: quic.certificate_sha256,
                short_lived_sha256: quic.short_lived_sha256().collect(),
                flow_to_gateway,
                flow_from_gateway,
            };
            return Some((ClientRecord::Quic { flow_to_gateway, flow_from_gateway }, reached));
        };
        let (listener, found) = self.listener(identity)?;
        let own_rtcp = offer.media.rtcp == RtcpPort::Own;
        let mut ice = None;
        let client = match identity {
            ClientIdentity::Declared { address, .. } | ClientIdentity::Open { address, .. } => {
                let rtcp = match (identity, own_rtcp) {
                    (ClientIdentity::Declared { rtcp: Some(rtcp), .. }, _) => **rtcp,
                    (_, true) => SocketAddr::new(address.ip(), address.port().wrapping_add(1)),
                    (_, false) => *address,
                };
                let rtcp = (rtcp != *address).then_some(ScopedAddress(rtcp));
                ClientRecord::Declared { listener, address: ScopedAddress(*address), rtcp }
            }
            ClientIdentity::DeclaredIp(ip) => ClientRecord::DeclaredIp { listener, ip: *ip },
            ClientIdentity::Stun => {
                let credentials = IceSecret::draw(random);
                ice = Some(self.ice_answer(&credentials));
                let IceSecret { ufrag, password } = credentials;
                ClientRecord::Stun { ufrag, password, earlier: None }
            }
        };
        let addresses = found.addresses.rtp_of_client(carrier);
        let rtcp = if own_rtcp { found.addresses.rtcp_of_client(carrier) } else { Vec::new() };
        Some((client, IngressAnswer::Udp { addresses, rtcp, ice }))
    }

    /// The session's own sockets towards nodes with port legs.
    fn ports(&self, media: &MediaDescription) -> Result<Option<Box<SessionPorts>>, ControlError> {
        let Some(at) = self.port_legs else {
            return Ok(None);
        };
        let bind = || bind(at, 0).map_err(|_| ControlError::Full);
        let rtcp = match media.rtcp {
            RtcpPort::Mux => None,
            RtcpPort::Own => Some(bind()?),
        };
        let ports = SessionPorts::new(bind()?, rtcp).map_err(|_| ControlError::Full)?;
        Ok(Some(Box::new(ports)))
    }

    /// Returns true if sessions' own ports reach a node at this address.
    pub fn has_ports_to(&self, node: SocketAddr) -> bool {
        self.port_legs.is_some_and(|bound| reaches(bound, node.ip()))
    }

    /// Removes a session and returns its entry, if present.
    pub fn remove(&mut self, session: SessionId) -> Option<Box<SessionEntry>> {
        let entry = self.entries.remove(session)?;
        self.callers.remove(&session);
        self.remove_keys(&entry);
        let slots = &mut self.workers[usize::from(entry.home.worker)];
        slots.used -= 1;
        slots.free.push(entry.home.slot);
        Some(entry)
    }

    fn remove_keys(&self, entry: &SessionEntry) {
        let second = entry.more.as_ref().and_then(|more| more.second_key);
        for key in [Some(entry.key.key()), second].into_iter().flatten() {
            self.flows.remove(&key, entry.home);
        }
    }

    fn ice_answer(&self, IceSecret { ufrag, password }: &IceSecret) -> IceAnswer {
        let certificate = self.dtls_certificate.as_ref();
        let sha256 = certificate.map(|certificate| certificate.borrow().fingerprint());
        IceAnswer {
            ufrag: ufrag.clone(),
            password: password.clone(),
            certificate_sha256: sha256.unwrap_or_default(),
            announced: None,
        }
    }

    /// The credentials of this key of the flow table.
    fn ice_secret(&self, key: &FlowKey) -> Option<IceSecret> {
        let FlowKey::Ufrag(ufrag) = key else { return None };
        let text = |bytes: &[u8]| str::from_utf8(bytes).ok().map(Box::from);
        let password = self.flows.entry(key)?.password?;
        Some(IceSecret { ufrag: text(ufrag.as_bytes())?, password: text(&password)? })
    }

    /// The gateway's part of the session's ICE; `None` if its client has none.
    pub(crate) fn ice_of(&self, session: SessionId) -> Option<IceAnswer> {
        let entry = self.get(session)?;
        let announced = match entry.srtp() {
            Some(SrtpKeying::Dtls { answered, .. }) => Some(Arc::clone(&answered.announced)),
            _ => None,
        };
        let answer = self.ice_answer(&self.ice_secret(&entry.key.key())?);
        Some(IceAnswer { announced, ..answer })
    }

    /// The user fragments of a WebRTC client.
    pub(crate) fn ice_fragments(&self, session: SessionId) -> Option<IceFragments> {
        let entry = self.get(session)?;
        let SrtpKeying::Dtls { answered, .. } = entry.srtp()? else { return None };
        let FlowKey::Ufrag(ufrag) = entry.key.key() else { return None };
        let gateway = str::from_utf8(ufrag.as_bytes()).ok()?.into();
        Some(IceFragments { gateway, client: answered.ufrag.clone() })
    }

    /// Draws new credentials (RFC 8445, section 9). The ones before remain valid until the next restart: the client checks the path
    /// in use with them until another is nominated.
    pub(crate) fn restart_ice(
        &mut self,
        session: SessionId,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), ControlError> {
        let entry = self.entries.get_mut(session).ok_or(ControlError::NotWebrtc)?;
        let (key, flow) = IceSecret::draw(random).pair(entry.home).ok_or(ControlError::Full)?;
        let packed = PackedKey::of(&key);
        self.flows.insert(key, flow).map_err(|_| ControlError::Full)?;
        let before = std::mem::replace(&mut entry.key, packed).key();
        let earlier = entry.more.get_or_insert_default().second_key.replace(before);
        if let Some(earlier) = earlier {
            self.flows.remove(&earlier, entry.home);
        }
        Ok(())
    }

    pub(crate) fn record(&self) -> RegistryRecord {
        RegistryRecord {
            generations: self.workers.iter().map(|slots| slots.generations.clone()).collect(),
            ..self.record_of(self.entries.keys())
        }
    }

    /// The record of these sessions, without generations.
    pub(crate) fn record_of(&self, sessions: impl Iterator<Item = SessionId>) -> RegistryRecord {
        let record = |id| self.entry_record(id, self.entries.get(id)?);
        RegistryRecord {
            listeners: self.udp.iter().map(|listener| ScopedAddress(listener.bound)).collect(),
            generations: vec![Vec::new(); self.workers.len()],
            ports_at: self.port_legs.filter(|at| !at.is_unspecified()),
            trace_seed: Some(self.traces.seed()),
            url_secret: Some(self.session_urls.secret()),
            sessions: sessions.filter_map(record).collect(),
        }
    }

    /// The number of the worker's slots.
    pub(crate) fn slots_of(&self, worker: usize) -> usize {
        self.workers[worker].generations.len()
    }

    /// `None` if the entry has no identification that another process could use; it has one by construction.
    fn entry_record(&self, session: SessionId, entry: &SessionEntry) -> Option<EntryRecord> {
        let Home { worker, slot, generation } = entry.home;
        let more = entry.more.as_deref();
        let first = entry.key.key();
        let client = match first {
            FlowKey::Udp { listener, address } => {
                let rtcp = match more.and_then(|more| more.second_key) {
                    Some(FlowKey::Udp { address, .. }) => Some(ScopedAddress(address)),
                    _ => None,
                };
                ClientRecord::Declared { listener, address: ScopedAddress(address), rtcp }
            }
            FlowKey::DeclaredIp { listener, ip } => ClientRecord::DeclaredIp { listener, ip },
            FlowKey::Ufrag(_) => {
                let earlier = more.and_then(|more| more.second_key.as_ref());
                let earlier = earlier.and_then(|key| self.ice_secret(key));
                let IceSecret { ufrag, password } = self.ice_secret(&first)?;
                ClientRecord::Stun { ufrag, password, earlier }
            }
            FlowKey::Roq(flow_to_gateway) => {
                let flow_from_gateway = more?.flow_from_gateway;
                ClientRecord::Quic { flow_to_gateway, flow_from_gateway }
            }
        };
        let data = entry.data.as_ref().map_or(0, |data| data.num_permits() as u32);
        let nodes = more.into_iter().flat_map(|more| &more.nodes);
        let nodes = nodes.map(|(name, address)| (Arc::clone(name), ScopedAddress(*address)));
        let (offer, totals, nodes) = (entry.offer, entry.totals(), nodes.collect());
        let ports = more.and_then(|more| more.ports);
        Some(EntryRecord {
            session,
            worker,
            slot,
            generation,
            client,
            offer,
            totals,
            ports,
            nodes,
            data,
            caller: self.callers.get(&session).cloned(),
            srtp: entry.srtp().cloned(),
        })
    }

    /// Takes over the slots of another process and returns its sessions, for [`SessionRegistry::restore`]. Fails without
    /// a change if this process cannot serve all of them.
    pub(crate) fn begin_restore(
        &mut self,
        record: RegistryRecord,
    ) -> Result<RestoringSessions, SnapshotError> {
        let RegistryRecord {
            listeners,
            generations,
            sessions,
            ports_at: _,
            trace_seed,
            url_secret,
        } = record;
        let here = |ScopedAddress(bound): &ScopedAddress| {
            let at = self.udp.iter().position(|listener| listener.bound == *bound);
            at.map(|number| number as u8)
        };
        let listeners_here: Vec<Option<u8>> = listeners.iter().map(here).collect();
        let (found, here) = (generations.len(), self.workers.len());
        if found != here {
            return Err(SnapshotError::Workers { found, here });
        }
        let mut used: Vec<Vec<bool>> =
            generations.iter().map(|slots| vec![false; slots.len()]).collect();
        let mut entries = sessions;
        for record in &mut entries {
            let (worker, slot) = (usize::from(record.worker), record.slot as usize);
            let generation = generations.get(worker).and_then(|slots| slots.get(slot));
            let is_own = generation == Some(&record.generation)
                && !std::mem::replace(&mut used[worker][slot], true);
            if !is_own {
                let session = record.session;
                return Err(SnapshotError::malformed(format!("{session} has no slot of its own")));
            }
            self.renumber(&mut record.client, &listeners, &listeners_here)?;
        }
        entries.sort_by_key(|record| record.session);
        for ((slots, generations), used) in self.workers.iter_mut().zip(generations).zip(used) {
            let free = (0..used.len() as u32).rev().filter(|slot| !used[*slot as usize]);
            let free: Vec<u32> = free.collect();
            *slots = Slots { used: used.len() - free.len(), free, generations };
        }
        trace_seed.into_iter().for_each(|seed| self.traces.resume(seed));
        url_secret.into_iter().for_each(|secret| self.session_urls.resume(secret));
        Ok(RestoringSessions { entries, listeners: listeners_here })
    }

    /// Removes the sessions of another process, which goes on with them.
    pub(crate) fn forget_restored(&mut self) {
        // The process that goes on has these numbers and ids.
        self.traces.resume(draw());
        self.callers.clear();
        for entry in std::mem::take(&mut self.entries).into_values() {
            self.remove_keys(&entry);
        }
        self.workers.iter_mut().for_each(|slots| *slots = Slots::default());
    }

    /// Replaces the number of the listener by the number that the same address has here.
    fn renumber(
        &self,
        client: &mut ClientRecord,
        listeners: &[ScopedAddress],
        numbers: &[Option<u8>],
    ) -> Result<(), SnapshotError> {
        match client {
            ClientRecord::Declared { listener, .. } | ClientRecord::DeclaredIp { listener, .. } => {
                let place = usize::from(*listener);
                let known = listeners.get(place).zip(numbers.get(place));
                let (&ScopedAddress(address), number) = known.ok_or_else(|| {
                    SnapshotError::malformed(format!("there is no listener {listener}"))
                })?;
                *listener = number.ok_or(SnapshotError::NoListener(address))?;
                Ok(())
            }
            ClientRecord::Quic { .. } if self.quic.is_none() => Err(SnapshotError::NoQuic),
            ClientRecord::Stun { .. } | ClientRecord::Quic { .. } => Ok(()),
        }
    }

    /// Registers a session of another process. If it has no sockets towards nodes, and nodes now need them, it gets some.
    pub(crate) fn restore(
        &mut self,
        record: EntryRecord,
        beside: RestoredParts,
    ) -> Result<(Home, ClientAddressing, Option<Box<SessionPorts>>), SnapshotError> {
        let EntryRecord { session, worker, slot, generation, offer, totals, nodes, caller, .. } =
            record;
        self.note_caller(session, caller.as_ref());
        let RestoredParts { media, ports, facts, data, has_address } = beside;
        let ports = match ports {
            Some(ports) => Some(ports),
            None => self.ports(&media).map_err(|_| SnapshotError::NoPorts(session))?,
        };
        let home = Home { worker, slot, generation };
        let (client, first, second) = record.client.keys(home).ok_or_else(|| {
            SnapshotError::malformed(format!("the ufrag of {session} is too long"))
        })?;
        let learned = has_address && matches!(first.0, FlowKey::DeclaredIp { .. });
        let held = (!learned).then(|| first.clone());
        for (key, entry) in held.into_iter().chain(second.clone()) {
            self.flows.insert(key, entry).map_err(|refused| {
                SnapshotError::malformed(format!("the address of {session}: {refused}"))
            })?;
        }
        let facts = facts.zip(ports.as_ref()).map(|((room, labels), ports)| {
            let media = Arc::clone(&media);
            SessionFacts { room, labels, media, ports: ports.numbers() }
        });
        let more = EntryDetails {
            nodes: nodes
                .into_iter()
                .map(|(name, ScopedAddress(address))| (name, address))
                .collect(),
            facts,
            flow_from_gateway: flow_from_gateway(&client),
            ports: ports.as_ref().map(|ports| ports.numbers()),
            second_key: second.map(|(key, _)| key),
            srtp: record.srtp,
        };
        let entry = SessionEntry {
            home,
            totals: (totals != Totals::default()).then(|| Box::new(totals)),
            rtcp: media.rtcp,
            client_srtp: media.srtp,
            offer,
            data,
            key: PackedKey::of(&first.0),
            more: more.if_any(),
        };
        self.entries.insert(session, Box::new(entry));
        Ok((home, client, ports))
    }
}

/// 0 for other clients than those of QUIC.
fn flow_from_gateway(client: &ClientAddressing) -> u64 {
    match client {
        ClientAddressing::Quic { flow_from_gateway } => *flow_from_gateway,
        ClientAddressing::Declared { .. }
        | ClientAddressing::DeclaredIp { .. }
        | ClientAddressing::Stun => 0,
    }
}

fn flow(random: &mut dyn FnMut(&mut [u8])) -> u64 {
    let mut bytes = [0; 8];
    random(&mut bytes);
    FlowId::from_random(u64::from_be_bytes(bytes)).number()
}

/// Binds a socket to this address. Port 0: the kernel chooses one.
fn bind(at: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let address = SocketAddr::new(at, port);
    let socket = if at.is_unspecified() {
        UdpSocket::bind(address)?
    } else {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        freebind::allow(&socket, address)?;
        socket.bind(&address.into())?;
        socket.into()
    };
    if descriptors::is_reserved(&socket) { Err(Errno::EMFILE.into()) } else { Ok(socket) }
}

/// Sockets at the ports of another gateway's sessions, bound before its address moves here: packets that come with the
/// address wait in them.
#[derive(Default, Debug)]
pub(crate) struct ReservedPorts {
    at: Option<IpAddr>,
    sockets: BTreeMap<SessionId, Reserved>,
}

#[derive(Debug)]
struct Reserved {
    numbers: (u16, Option<u16>),
    /// RTP, then RTCP.
    sockets: Vec<OwnedFd>,
}

/// A clone reserves none yet.
impl Clone for ReservedPorts {
    fn clone(&self) -> ReservedPorts {
        ReservedPorts::new(self.at)
    }
}

impl ReservedPorts {
    /// `at`: the address of the group to which both members bind sessions' own ports. Without one nothing is reserved.
    pub(crate) fn new(at: Option<IpAddr>) -> ReservedPorts {
        ReservedPorts { at, sockets: BTreeMap::new() }
    }

    /// Binds these ports unless it has. A port that is not free now may be so at the takeover. `at`: the address to which
    /// the other gateway has bound them. Returns false if they are to be bound here, and are not.
    pub(crate) fn reserve(
        &mut self,
        session: SessionId,
        at: Option<IpAddr>,
        numbers: (u16, Option<u16>),
    ) -> bool {
        let Some(here) = self.at.filter(|here| at == Some(*here)) else { return true };
        if self.sockets.get(&session).is_none_or(|reserved| reserved.numbers != numbers) {
            // Closes the session's earlier sockets first.
            self.sockets.remove(&session);
            let (rtp, rtcp) = numbers;
            let ports = [Some(rtp), rtcp].into_iter().flatten();
            let sockets = ports.map(|port| bind(here, port).map(OwnedFd::from)).collect();
            if let Ok(sockets) = sockets {
                self.sockets.insert(session, Reserved { numbers, sockets });
            }
        }
        self.sockets.contains_key(&session)
    }

    pub(crate) fn forget(&mut self, session: SessionId) {
        self.sockets.remove(&session);
    }

    pub(crate) fn binds(&self) -> bool {
        self.at.is_some()
    }

    pub(crate) fn retain(&mut self, stays: impl Fn(SessionId) -> bool) {
        self.sockets.retain(|session, _| stays(*session));
    }

    /// The session's sockets: RTP, then RTCP. None if its ports are not free.
    pub(crate) fn take(&mut self, session: SessionId) -> Vec<OwnedFd> {
        self.sockets.remove(&session).map(|reserved| reserved.sockets).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
