//! The sessions of this gateway: offers without an answer, the registry, and the sessions' homes at the packet workers.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_config::{NodeConfig, ScenarioSettings};
use evenkeel_core::{Gateway, InstalledSession, RoomStanding, SessionStanding};
use evenkeel_dataplane::flows::Home;
use evenkeel_dataplane::worker::{
    AnsweredMedia, ClientAddressing, ClientStream, DscpMarks, HandedOut, Install, SessionPorts,
    SessionState, SrtpKeying, Totals, TrunkState, WorkerCommand,
};
use evenkeel_drivers::OpenRequest;
use evenkeel_media::continuity::AnnouncedStreams;
use evenkeel_media::fingerprint::CertificateFingerprint;
use evenkeel_media::srtp::SrtpKeys;
use evenkeel_model::{
    ClientIdentity, ClientLabel, ClientTransport, CoreEvent, Hop, Impossible, Labels,
    MediaDescription, NodeId, Offer, ReplayedMedia, RoomId, RtcpPort, SessionId, StreamKind,
};
use evenkeel_process::random::{draw, fill};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::idempotency::KeyTable as IdempotencyKeys;
use crate::last_states::LastStates;
use crate::lists::ListCopy;
use crate::messages::{ControlError, REQUESTS_MAX, SessionView, Slice, SnapshotError};
use crate::offers::{LaterOffer, OfferQueue, OfferedSession, SessionParts};
use crate::registry::{
    EntryRecord, IngressAnswer, Registered, RegistryRecord, RestoredParts, RestoringSessions,
    SessionEntry, SessionRegistry,
};
use crate::reporting::{Continuation, EventRecord, GatewayEvent};
use crate::senders::{RoomSender, RoomStream, described_streams, name_senders, sent_streams};
use crate::snapshot::MediaRecord;
use crate::workers::WorkerLines;

/// Copying this many ids of a room's sessions takes as long as copying the view of one session.
const SESSIONS_PER_COST: usize = 100;

/// Maximum sessions that an event names: packets need the processor after a takeover.
const CONTINUED_MAX: usize = 10_000;

/// The first sessions of a room, among which an answer finds the senders: a room may have thousands of viewers.
const SENDERS_AMONG: usize = 256;

/// Sessions between two wakes of the workers that take them: a worker's queue of commands is bounded.
const WOKEN_EVERY: usize = 1_024;

/// The sessions of this gateway.
pub(crate) struct Sessions {
    registry: SessionRegistry,
    workers: WorkerLines,
    offers: OfferQueue,
    idempotency_keys: Arc<IdempotencyKeys>,
    /// Lists of sessions and rooms, which are copied in turns.
    lists: VecDeque<ListCopy>,
}

/// A session's part of a snapshot that its worker takes.
pub(crate) struct AtWorker {
    pub(crate) state: Box<SessionState>,
    pub(crate) ports: Option<Box<SessionPorts>>,
}

impl Sessions {
    /// No session, and offers wait if the first policies are still being compiled.
    pub(crate) fn new(
        registry: SessionRegistry,
        workers: WorkerLines,
        idempotency_keys: Arc<IdempotencyKeys>,
        session_data_bytes: usize,
        awaits_policies: bool,
    ) -> Sessions {
        idempotency_keys.share(session_data_bytes);
        Sessions {
            registry,
            workers,
            offers: OfferQueue::new(awaits_policies),
            idempotency_keys,
            lists: VecDeque::new(),
        }
    }

    pub(crate) fn registry(&self) -> &SessionRegistry {
        &self.registry
    }

    pub(crate) fn workers(&self) -> &WorkerLines {
        &self.workers
    }

    pub(crate) fn workers_mut(&mut self) -> &mut WorkerLines {
        &mut self.workers
    }

    pub(crate) fn offers(&self) -> &OfferQueue {
        &self.offers
    }

    pub(crate) fn offers_mut(&mut self) -> &mut OfferQueue {
        &mut self.offers
    }

    pub(crate) fn idempotency_keys(&self) -> &IdempotencyKeys {
        &self.idempotency_keys
    }

    /// Reserves the request's part of the limit `session_data_mib`.
    pub(crate) fn reserve_data(
        &self,
        request: &OfferedSession,
    ) -> Result<OwnedSemaphorePermit, ControlError> {
        let bytes = u32::try_from(request.data_bytes()).unwrap_or(u32::MAX);
        self.idempotency_keys.reserve(bytes).ok_or(ControlError::SessionDataFull)
    }

    /// Returns the request of a session for RTP from an unknown source at an open listener, once per source.
    pub(crate) fn first_packet(
        &mut self,
        listener: u8,
        source: SocketAddr,
        payload_type: u8,
        now: Instant,
    ) -> Option<OfferedSession> {
        let scenario = Arc::clone(self.registry.open_scenario(listener)?);
        self.offers.first_packet(scenario, listener, source, payload_type, now)
    }

    /// Registers a session of an offer, and gives it to its worker. `keeps_ssrc`: the nodes of its room do. A refusal is the reply to the offer.
    pub(crate) fn install(
        &mut self,
        installed: InstalledSession,
        offer: &Offer,
        scenario: Option<&ScenarioSettings>,
        gateway: &Gateway,
        keeps_ssrc: bool,
    ) -> Result<(), ControlError> {
        let session = installed.session;
        let SessionParts { nodes, data, caller, srtp } = self.offers.take_for_session(offer.id);
        let registered = self.registry.register(session, offer, nodes, &mut fill);
        if let Some(entry) = self.registry.get_mut(session) {
            entry.data = data;
            srtp.into_iter().for_each(|keying| entry.set_srtp(keying));
            self.registry.note_caller(session, caller.as_ref());
        }
        let Registered { home, client, ports, mut reached } = registered
            .inspect_err(|error| self.offers.note_registered(offer.id, Err(error.clone())))?;
        let answered = self.registry.get(session).and_then(|entry| dtls(entry.srtp()));
        if let Some((_, answered)) = answered {
            let mut named = answered.clone();
            let senders = self.senders(gateway, session, installed.room, &named);
            let announced = Arc::make_mut(&mut named.announced);
            let before = AnnouncedStreams::default();
            name_senders(announced, &before, &installed.media, &senders, keeps_ssrc);
            if let IngressAnswer::Udp { ice: Some(ice), .. } = &mut reached {
                ice.announced = Some(Arc::clone(&named.announced));
            }
            if let Some(entry) = self.registry.get_mut(session) {
                entry.set_answered(Arc::new(named));
            }
        }
        self.offers.note_registered(offer.id, Ok(reached));
        self.install_at(home, installed, client, ports, None, scenario, keeps_ssrc);
        Ok(())
    }

    /// The other sessions that send to a room, for the answer to a session that receives.
    fn senders(
        &self,
        gateway: &Gateway,
        receiver: SessionId,
        room: RoomId,
        answered: &AnsweredMedia,
    ) -> Vec<RoomSender> {
        if answered.announced.sections.is_empty() {
            return Vec::new();
        }
        let views = gateway.views();
        let others = views.sessions_of(room).take(SENDERS_AMONG).filter(|other| *other != receiver);
        let sender = |other| {
            let (labels, media) = views.streams(other)?;
            let streams = self.sent_streams(other, media);
            (!streams.is_empty()).then(|| RoomSender::new(other, labels, streams))
        };
        others.filter_map(sender).collect()
    }

    fn sent_streams(&self, session: SessionId, media: &MediaDescription) -> Vec<ClientStream> {
        let entry = self.registry.get(session);
        let answered = entry.and_then(|entry| dtls(entry.srtp())).map(|(_, answered)| answered);
        sent_streams(answered, media)
    }

    /// The streams that a session with this description sends to its room.
    pub(crate) fn streams_of(
        &self,
        session: SessionId,
        room: &Arc<str>,
        labels: &Labels,
        media: &MediaDescription,
    ) -> Vec<RoomStream> {
        described_streams(session, room, labels, &self.sent_streams(session, media))
    }

    /// Gives the session to its worker, with the state that it had in another process. `keeps_ssrc`: the nodes of its room do.
    fn install_at(
        &mut self,
        home: Home,
        installed: InstalledSession,
        client: ClientAddressing,
        ports: Option<Box<SessionPorts>>,
        state: Option<Box<SessionState>>,
        scenario: Option<&ScenarioSettings>,
        keeps_ssrc: bool,
    ) {
        let InstalledSession {
            session,
            room: _,
            route,
            plan: _,
            limits,
            media,
            scenario: _,
            of_first_packet,
        } = installed;
        // The client of a session that a first packet opened has sent.
        let declared = scenario.filter(|_| !of_first_packet);
        let srtp = self.registry.get(session).and_then(SessionEntry::srtp).cloned();
        let install = Install {
            home,
            session,
            media,
            srtp,
            client,
            route,
            limits,
            dscp: scenario.map_or(DscpMarks::default(), |scenario| DscpMarks {
                voice: scenario.dscp.voice,
                video: scenario.dscp.video,
            }),
            replay: scenario.map_or(ReplayedMedia::Off, |scenario| scenario.replayed(keeps_ssrc)),
            ports,
            await_first_packet: declared.is_some_and(|scenario| scenario.await_first_packet),
            await_report: declared.is_some_and(|scenario| scenario.await_report),
            // The state contains the seed.
            seed: if state.is_some() { 0 } else { draw() },
            state,
        };
        self.workers.command(home.worker, WorkerCommand::Install(Box::new(install)));
    }

    /// The request to open a session at a node with this name and these settings of SRTP. `None` for a session that has ended.
    pub(crate) fn open_request(
        &self,
        session: SessionId,
        room: RoomId,
        hop: Hop,
        node: Option<&NodeConfig>,
    ) -> Option<OpenRequest<'_>> {
        let entry = self.registry.get(session)?;
        Some(OpenRequest {
            session,
            home: entry.home,
            room,
            hop,
            address: node.and_then(|node| entry.address_at(&node.name)),
            rtcp_apart: entry.rtcp == RtcpPort::Own,
            client_srtp: entry.client_srtp,
            srtp: node.map(|node| node.srtp).unwrap_or_default(),
            facts: entry.facts(),
        })
    }

    /// Commands the worker of a session, unless the session has ended.
    pub(crate) fn command(
        &mut self,
        session: SessionId,
        command: impl FnOnce(Home) -> WorkerCommand,
    ) {
        if let Some(home) = self.registry.get(session).map(|entry| entry.home) {
            self.workers.command(home.worker, command(home));
        }
    }

    /// Notes why a node did not open a session, for the reply to its offer.
    pub(crate) fn note_not_opened(
        &mut self,
        session: SessionId,
        node: NodeId,
        refusal: ControlError,
    ) {
        if let Some(offer) = self.registry.get(session).map(|entry| entry.offer) {
            self.offers.note_not_opened(offer, node, refusal);
        }
    }

    /// The event of an offer or session for subscribers, with its caller.
    pub(crate) fn event(&self, event: CoreEvent) -> EventRecord {
        let offer = match event {
            CoreEvent::Opened { session, .. } => {
                self.registry.get(session).map(|entry| entry.offer)
            }
            CoreEvent::Refused { offer, .. } => Some(offer),
            _ => None,
        };
        match offer {
            Some(offer) => self.offers.event(event, offer),
            None => EventRecord::now(GatewayEvent::Core(event)),
        }
    }

    /// Sets the keys of a client's DTLS handshake.
    pub(crate) fn set_keys(&mut self, session: SessionId, keys: Arc<SrtpKeys>) {
        if let Some(entry) = self.registry.get_mut(session) {
            entry.set_keys(&keys);
            let home = entry.home;
            self.workers.command(home.worker, WorkerCommand::SetKeys { home, keys });
        }
    }

    /// Notes the totals of a session. Returns the ones before; `None` if the session has ended.
    pub(crate) fn note_totals(&mut self, session: SessionId, totals: Totals) -> Option<Totals> {
        let entry = self.registry.get_mut(session)?;
        let before = entry.totals();
        entry.note_totals(totals);
        Some(before)
    }

    /// The totals of the session's last summary; `None` if the session has ended.
    pub(crate) fn totals(&self, session: SessionId) -> Option<Totals> {
        self.registry.get(session).map(SessionEntry::totals)
    }

    pub(crate) fn transport(&self, session: SessionId) -> ClientTransport {
        let is_quic = self.registry.get(session).is_some_and(SessionEntry::is_quic);
        if is_quic { ClientTransport::Quic } else { ClientTransport::Udp }
    }

    /// Removes a session from the registry and from its worker.
    pub(crate) fn end(&mut self, session: SessionId) {
        if let Some(entry) = self.registry.remove(session) {
            let home = entry.home;
            self.workers.command(home.worker, WorkerCommand::Remove(home));
        }
        self.idempotency_keys.end_session(session);
    }

    /// Follows a later offer, in the core too. After an error packets pass as before. Returns the addresses and credentials for
    /// the answer, and the events of an offer that changes something.
    pub(crate) fn renegotiate(
        &mut self,
        offer: LaterOffer,
        gateway: &mut Gateway,
        keeps_ssrc: bool,
        now: Instant,
    ) -> Result<(IngressAnswer, Vec<GatewayEvent>), ControlError> {
        let LaterOffer { session, ufrag, streams } = offer;
        let described = gateway.views().streams(session);
        let (labels, present) =
            described.ok_or(ControlError::Impossible(Impossible::NoSuchSession))?;
        let (labels, present) = (labels.clone(), Arc::clone(present));
        let entry = self.registry.get(session).ok_or(ControlError::Unavailable)?;
        let (certificates, before) = dtls(entry.srtp()).ok_or(ControlError::NotWebrtc)?;
        let ice_restarted = before.ufrag != ufrag;
        let mut answered = before.clone();
        // Without a description, the client's password of a restart is unknown.
        let mut password = if ice_restarted { Default::default() } else { before.password.clone() };
        let mut media = None;
        if let Some(streams) = streams {
            let offered = dtls(Some(&streams.keying)).ok_or(ControlError::NotWebrtc)?;
            if offered.0 != certificates {
                return Err(ControlError::OtherCertificate);
            }
            if let Some(kind) = added_kind(entry, &streams.media) {
                return Err(ControlError::OpenedWithout(kind));
            }
            let mut announced = (*offered.1.announced).clone();
            // A session of an older version has none.
            if *before.announced != AnnouncedStreams::default() {
                announced.seed = before.announced.seed;
                announced.in_sync.clone_from(&before.announced.in_sync);
            }
            let room = gateway.views().room_of(session);
            let room = room.ok_or(ControlError::Impossible(Impossible::NoSuchSession))?;
            let senders = self.senders(gateway, session, room, offered.1);
            let earlier = &before.announced;
            name_senders(&mut announced, earlier, &streams.media, &senders, keeps_ssrc);
            password = offered.1.password.clone();
            answered = AnsweredMedia {
                ufrag: before.ufrag.clone(),
                password: before.password.clone(),
                announced: Arc::new(announced),
                ..offered.1.clone()
            };
            // SDP describes the streams, not the client's jitter buffer.
            let latency = present.latency;
            media = Some(Arc::new(MediaDescription { latency, ..(*streams.media).clone() }));
        }
        let sent_before = sent_streams(Some(before), &present);
        let streams_changed =
            media.as_ref().is_some_and(|media| *media != present) || answered != *before;
        (answered.ufrag, answered.password) = (ufrag, password);
        let home = entry.home;
        let (_, listener) =
            self.registry.listener(&ClientIdentity::Stun).ok_or(ControlError::NoListener)?;
        let addresses = listener.addresses.rtp_of_client(ClientLabel::Carrier.value(&labels));
        if let Some(media) = &media {
            let changed = gateway.handle_streams(session, Arc::clone(media), now);
            changed.map_err(ControlError::Impossible)?;
        }
        if ice_restarted {
            self.registry.restart_ice(session, &mut fill)?;
        }
        let answered = Arc::new(answered);
        if let Some(entry) = self.registry.get_mut(session) {
            entry.set_answered(Arc::clone(&answered));
        }
        gateway.records().note_session(session);
        let ice = self.registry.ice_of(session);
        let media = media.unwrap_or(present);
        let sent_now = sent_streams(Some(&answered), &media);
        self.workers.command(home.worker, WorkerCommand::Renegotiate { home, media, answered });
        let ingress = IngressAnswer::Udp { addresses, rtcp: Vec::new(), ice };
        let mut events = Vec::new();
        if streams_changed || ice_restarted {
            events.push(GatewayEvent::Renegotiated { session, streams_changed, ice_restarted });
        }
        if let Some(room) = gateway.views().session(session, now).map(|standing| standing.room) {
            let before = described_streams(session, &room, &labels, &sent_before);
            let after = described_streams(session, &room, &labels, &sent_now);
            let removed = before.iter().filter(|stream| !after.contains(stream));
            events.extend(removed.cloned().map(GatewayEvent::StreamRemoved));
            let added = after.iter().filter(|stream| !before.contains(stream));
            events.extend(added.cloned().map(GatewayEvent::StreamAdded));
        }
        Ok((ingress, events))
    }

    pub(crate) fn view(&self, standing: SessionStanding) -> SessionView {
        let session = standing.session;
        SessionView {
            totals: self.totals(session).unwrap_or_default(),
            state: standing,
            trace: self.registry.trace(session),
            ice: self.registry.ice_fragments(session),
        }
    }

    /// Copies the list in turns with others. If too many do, its caller gets an error, as with a full queue.
    pub(crate) fn begin_list(&mut self, list: ListCopy) {
        if self.lists.len() < REQUESTS_MAX {
            self.lists.push_back(list);
        }
    }

    pub(crate) fn has_lists(&self) -> bool {
        !self.lists.is_empty()
    }

    /// Copies the next slice of a list, if any.
    pub(crate) fn continue_list(&mut self, gateway: &Gateway) {
        let Some(list) = self.lists.pop_front() else { return };
        let list = match list {
            ListCopy::Sessions(list) => {
                let rest = gateway.views().sessions_after(list.after, Instant::now());
                let view = |standing| self.view(standing);
                let rest = rest.map(|(id, standing)| (id, standing.map(view)));
                list.add(Slice::of(rest, |_| 1)).map(ListCopy::Sessions)
            }
            ListCopy::Rooms(list) => {
                let cost = |room: &RoomStanding| 1 + room.sessions.len() / SESSIONS_PER_COST;
                let rest = gateway.views().rooms_after(list.after);
                list.add(Slice::of(rest, cost)).map(ListCopy::Rooms)
            }
        };
        self.lists.extend(list);
    }

    /// Suspends the workers. They hand out the states that have changed since the records, while control waits for
    /// nothing.
    pub(crate) fn suspend_packets(&mut self) -> LastStates {
        let workers = self.workers.count();
        let room = (0..workers).map(|worker| HandedOut::parts(self.registry.slots_of(worker)));
        let (to, parts) = mpsc::channel(room.sum());
        self.workers.command_all(|| WorkerCommand::Suspend(to.clone()));
        self.workers.wake_workers();
        LastStates::new(parts, workers)
    }

    /// Takes over the slots of another process and returns its sessions, for [`Sessions::restore`]. Fails without a change if
    /// this process cannot serve all of them.
    pub(crate) fn begin_restore(
        &mut self,
        record: RegistryRecord,
    ) -> Result<RestoringSessions, SnapshotError> {
        self.registry.begin_restore(record)
    }

    /// Continues a session of another process. `keeps_ssrc`: the nodes of its room do.
    pub(crate) fn restore(
        &mut self,
        restored: InstalledSession,
        at_worker: Option<AtWorker>,
        facts: Option<(Arc<str>, Labels)>,
        entry: EntryRecord,
        scenario: Option<&ScenarioSettings>,
        keeps_ssrc: bool,
    ) -> Result<(), SnapshotError> {
        let (state, ports) = at_worker.map(|it| (it.state, it.ports)).unzip();
        let data = self.idempotency_keys.reserve(entry.data);
        let beside = RestoredParts {
            media: Arc::clone(&restored.media),
            ports: ports.flatten(),
            facts,
            data,
            has_address: state.as_ref().is_some_and(|state| state.has_address()),
        };
        let (home, client, ports) = self.registry.restore(entry, beside)?;
        self.install_at(home, restored, client, ports, state, scenario, keeps_ssrc);
        Ok(())
    }

    /// Returns once all workers have taken the restored sessions: the flow table has the learned addresses then.
    pub(crate) fn confirm_restored(&mut self) -> Result<(), SnapshotError> {
        let confirmed = self.workers.ask_workers(WorkerCommand::Confirm);
        confirmed.map(drop).map_err(SnapshotError::Worker)
    }

    /// Continues restored sessions and trunks in these newer states; `nodes` has the numbers here of nodes of the other process.
    /// The first session without an entry is the error, and then nothing changes.
    pub(crate) fn continue_media(
        &mut self,
        media: Vec<MediaRecord>,
        trunks: Vec<Vec<TrunkState>>,
        nodes: &BTreeMap<NodeId, NodeId>,
    ) -> Result<(), SessionId> {
        let home = |record: &MediaRecord| {
            let entry = self.registry.get(record.state.session);
            entry.map(|entry| entry.home).ok_or(record.state.session)
        };
        let homes = media.iter().map(home).collect::<Result<Vec<_>, _>>()?;
        for (number, (home, MediaRecord { state, .. })) in (1..).zip(homes.into_iter().zip(media)) {
            self.workers.command(home.worker, WorkerCommand::Continue { home, state });
            if number % WOKEN_EVERY == 0 {
                self.workers.wake_workers();
            }
        }
        self.workers.continue_trunks(trunks, nodes);
        self.workers.wake_workers();
        Ok(())
    }

    /// Removes the sessions of another process, which goes on with them.
    pub(crate) fn forget_restored(&mut self) {
        self.registry.forget_restored();
        self.workers.command_all(|| WorkerCommand::ForgetRestored);
        // The keys of the flow table are free again. A worker that has ended is reported elsewhere.
        let _ = self.workers.ask_workers(WorkerCommand::Confirm);
    }

    /// The event of restored sessions.
    pub(crate) fn continued(&self, cause: Continuation, since: Instant) -> GatewayEvent {
        GatewayEvent::Continued {
            cause,
            sessions: self.registry.sessions().count(),
            oldest: self.registry.sessions().take(CONTINUED_MAX).collect(),
            callers: self.registry.callers().collect(),
            took: since.elapsed(),
        }
    }
}

/// The certificates and the answer of a WebRTC client.
fn dtls(keying: Option<&SrtpKeying>) -> Option<(&[CertificateFingerprint], &AnsweredMedia)> {
    match keying? {
        SrtpKeying::Dtls { fingerprints, answered, .. } => Some((fingerprints, answered)),
        SrtpKeying::Sdes(_) => None,
    }
}

/// A kind of these streams with a format for which a node's driver has not opened the session.
fn added_kind(entry: &SessionEntry, media: &MediaDescription) -> Option<StreamKind> {
    let opened = &entry.facts()?.media;
    let formats = media
        .streams
        .iter()
        .flat_map(|stream| stream.payload_types.iter().map(|payload| (stream.kind, payload)));
    let mut added = formats.filter(|(_, payload)| {
        opened.payload_type(payload.number).is_none_or(|(_, known)| known != *payload)
    });
    added.next().map(|(kind, _)| kind)
}

#[cfg(test)]
mod tests;
