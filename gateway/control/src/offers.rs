//! Offers that have no answer yet. A caller gets one reply, after the session can carry packets.
//!
//! Offers that come while the first policies are compiling or the gateway is suspended wait, so that policies decide
//! them. On listeners for trusted networks a first packet opens a session without a caller, once per source.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_dataplane::worker::SrtpKeying;
use evenkeel_model::{
    AcceptedOffer, ClientIdentity, CoreEvent, Decider, FeedbackSupport, Hop, IngressProtocol,
    Labels, MediaDescription, MediaStream, NodeId, Offer, OfferId, OfferRefusal, PayloadType,
    RoomId, RtcpPort, SessionId, Srtp, StreamKind,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::messages::{ControlError, REQUESTS_MAX};
use crate::registry::IngressAnswer;
use crate::reporting::{EventRecord, GatewayEvent, TraceCaller};
use crate::traces::CallerSpan;

/// The beginning of the rooms of sessions that a first packet opened.
const FIRST_PACKET: &str = "open-";

/// Interval after which the packets of a refused source are a new offer.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Limit of remembered sources. When it is reached, packets of new sources are ignored until entries expire.
const SOURCES_MAX: usize = 4_096;

/// Memory of a session's keys for SRTP and of the contexts that are derived from them, with a few sources.
const SRTP_BYTES: usize = 8 * 1_024;

/// Maximum shared values of a kind; the oldest is replaced. This is enough for a few kinds of clients in a few regions.
const SHARED_MAX: usize = 32;

pub(crate) type OfferReply = oneshot::Sender<Result<SessionAnswer, ControlError>>;

/// A session request, as the API read it.
#[derive(Clone, PartialEq, Debug)]
pub struct OfferedSession {
    /// The name of the scenario.
    pub scenario: Arc<str>,
    /// The room's name in the client's signalling.
    pub room: Arc<str>,
    /// Facts that policies may read.
    pub labels: Labels,
    /// The protocol and identity of the client.
    pub ingress: IngressProtocol,
    /// The streams of the client.
    pub media: Arc<MediaDescription>,
    /// The origin of the keys of the client's SRTP, if it ends here.
    pub srtp: Option<SrtpKeying>,
    /// The client's own addresses at `plain` nodes, by node name.
    pub nodes: Vec<(Arc<str>, SocketAddr)>,
    /// From the `traceparent` of the request.
    pub caller: Option<CallerSpan>,
}

impl OfferedSession {
    /// Memory of what the request brings, as if no other session had the same.
    pub fn data_bytes(&self) -> usize {
        let label = |(key, value): &(Box<str>, Box<str>)| {
            size_of::<(Box<str>, Box<str>)>() + key.len() + value.len()
        };
        let payload_type = |it: &PayloadType| size_of::<PayloadType>() + it.codec.len();
        let stream = |it: &MediaStream| {
            size_of::<MediaStream>() + it.payload_types.iter().map(payload_type).sum::<usize>()
        };
        self.room.len()
            + self.labels.iter().map(label).sum::<usize>()
            + self.media.streams.iter().map(stream).sum::<usize>()
            + size_of_val(&*self.nodes)
            + self.srtp.as_ref().map_or(0, |_| SRTP_BYTES)
    }

    /// The event of a refusal before the core had the offer, if the refusal has one.
    pub(crate) fn turned_away(
        &self,
        refusal: &ControlError,
        arrived: Instant,
    ) -> Option<EventRecord> {
        let (reason, scenario) = (refusal.turned_away()?, self.scenario.clone());
        let event = GatewayEvent::TurnedAway { scenario, reason, session: None };
        Some(EventRecord { caller: Some(self.caller(arrived)), ..EventRecord::now(event) })
    }

    fn caller(&self, arrived: Instant) -> TraceCaller {
        TraceCaller { arrived, span: self.caller.clone() }
    }
}

/// A later offer of a WebRTC client.
#[derive(Clone, PartialEq, Debug)]
pub struct LaterOffer {
    /// The number of the session.
    pub session: SessionId,
    /// The client's ICE user fragment. Another one than before restarts ICE (RFC 8839, section 4.4.1.1.1).
    pub ufrag: Box<str>,
    /// The streams; `None` if they remain.
    pub streams: Option<LaterStreams>,
}

/// The streams of a [`LaterOffer`].
#[derive(Clone, PartialEq, Debug)]
pub struct LaterStreams {
    /// Replaces the description of the session.
    pub media: Arc<MediaDescription>,
    /// The certificates and the answer. The certificates are those of the first offer.
    pub keying: SrtpKeying,
}

/// The answer to an accepted offer.
#[derive(Clone, PartialEq, Debug)]
pub struct SessionAnswer {
    /// The number of the session.
    pub session: SessionId,
    /// The number of the room.
    pub room: RoomId,
    /// The addresses for the client.
    pub ingress: IngressAnswer,
    /// The hops of the session's room, best first.
    pub route: Vec<Hop>,
    /// The author of the admission.
    pub admitted_by: Decider,
    /// The author of the placement.
    pub routed_by: Decider,
}

/// Offers that have no answer yet.
pub(crate) struct OfferQueue {
    in_progress: BTreeMap<OfferId, OfferInProgress>,
    /// The number of the next offer.
    next: u64,
    interner: RequestInterner,
    /// `None` after the last waiting offer was released.
    waiting: Option<WaitingOffers>,
    first_packets: FirstPackets,
}

struct OfferInProgress {
    request: OfferedSession,
    /// The request's part of the limit `session_data_mib`; moves to the session.
    data: Option<OwnedSemaphorePermit>,
    arrived: Instant,
    /// The addresses for the reply, or why the session was not registered; `None` before.
    registered: Option<Result<IngressAnswer, ControlError>>,
    /// The last node that did not open the session, with the reason.
    not_opened: Option<(NodeId, ControlError)>,
    reply: Option<OfferReply>,
}

/// Parts of an offer that its session keeps.
#[derive(Default)]
pub(crate) struct SessionParts {
    pub(crate) nodes: Vec<(Arc<str>, SocketAddr)>,
    pub(crate) data: Option<OwnedSemaphorePermit>,
    pub(crate) caller: Option<CallerSpan>,
    pub(crate) srtp: Option<SrtpKeying>,
}

impl OfferQueue {
    pub(crate) fn new(awaits_policies: bool) -> OfferQueue {
        OfferQueue {
            in_progress: BTreeMap::new(),
            next: 1,
            interner: RequestInterner::default(),
            waiting: awaits_policies.then(WaitingOffers::default),
            first_packets: FirstPackets::default(),
        }
    }

    /// Returns true if the core has answered all offers.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_progress.is_empty()
    }

    /// The number of the next offer.
    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    /// Continues the numbers of another process.
    pub(crate) fn number_from(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Returns the offer for the core. Its answer is passed to [`OfferQueue::reply`].
    pub(crate) fn begin(
        &mut self,
        request: OfferedSession,
        data: OwnedSemaphorePermit,
        reply: Option<OfferReply>,
        arrived: Instant,
    ) -> Offer {
        let request = self.interner.share(request);
        let id = OfferId(self.next);
        self.next += 1;
        let offer = Offer {
            id,
            scenario: request.scenario.clone(),
            room: request.room.clone(),
            labels: request.labels.clone(),
            ingress: request.ingress.clone(),
            media: request.media.clone(),
        };
        let pending = OfferInProgress {
            request,
            data: Some(data),
            arrived,
            registered: None,
            not_opened: None,
            reply,
        };
        self.in_progress.insert(id, pending);
        offer
    }

    /// Returns the request of a session of this scenario for RTP from an unknown source, once per source.
    pub(crate) fn first_packet(
        &mut self,
        scenario: Arc<str>,
        listener: u8,
        source: SocketAddr,
        payload_type: u8,
        now: Instant,
    ) -> Option<OfferedSession> {
        let is_new = self.first_packets.is_new(listener, source, now);
        is_new.then(|| first_packet_request(scenario, listener, source, payload_type))
    }

    /// The parts of an offer that its session keeps.
    pub(crate) fn take_for_session(&mut self, offer: OfferId) -> SessionParts {
        let Some(OfferInProgress { request, data, .. }) = self.in_progress.get_mut(&offer) else {
            return SessionParts::default();
        };
        SessionParts {
            nodes: std::mem::take(&mut request.nodes),
            data: data.take(),
            caller: request.caller.clone(),
            srtp: request.srtp.take(),
        }
    }

    /// The addresses for the reply to an offer, or the error.
    pub(crate) fn note_registered(
        &mut self,
        offer: OfferId,
        registered: Result<IngressAnswer, ControlError>,
    ) {
        if let Some(pending) = self.in_progress.get_mut(&offer) {
            pending.registered = Some(registered);
        }
    }

    /// The answer of a node for the reply to an offer that no node accepts.
    pub(crate) fn note_not_opened(&mut self, offer: OfferId, node: NodeId, refusal: ControlError) {
        if let Some(pending) = self.in_progress.get_mut(&offer) {
            pending.not_opened = Some((node, refusal));
        }
    }

    /// Answers the caller. Returns the session if the caller has gone and will not use it.
    pub(crate) fn reply(
        &mut self,
        offer: OfferId,
        result: Result<AcceptedOffer, OfferRefusal>,
    ) -> Option<SessionId> {
        let OfferInProgress { request, registered, not_opened, reply, .. } =
            self.in_progress.remove(&offer)?;
        let answer = match (result, registered) {
            (Ok(accepted), Some(Ok(ingress))) => Ok(SessionAnswer {
                session: accepted.session,
                room: accepted.room,
                ingress,
                route: accepted.route.load().hops.iter().map(|(hop, _)| *hop).collect(),
                admitted_by: accepted.admitted_by,
                routed_by: accepted.routed_by,
            }),
            (Ok(_), Some(Err(_)) | None) => Err(ControlError::Unavailable),
            (Err(_), Some(Err(error))) => Err(error),
            (Err(refused), Some(Ok(_)) | None) => Err(match (not_opened, &refused) {
                (Some((node, error)), OfferRefusal::NotOpened { node: by, .. }) if node == *by => {
                    error
                }
                _ => ControlError::Refused(refused),
            }),
        };
        match reply {
            Some(reply) => {
                let opened = answer.as_ref().ok().map(|opened| opened.session);
                reply.send(answer).err().and(opened)
            }
            None => {
                if let IngressProtocol::Udp(ClientIdentity::Open { address, listener }) =
                    request.ingress
                {
                    let opened = answer.is_ok();
                    self.first_packets.finished(listener, address, opened, Instant::now());
                }
                None
            }
        }
    }

    /// The event of this offer, or of its session, for subscribers, with the caller.
    pub(crate) fn event(&self, event: CoreEvent, offer: OfferId) -> EventRecord {
        let pending = self.in_progress.get(&offer);
        let event = match event {
            CoreEvent::Refused { session, ref scenario, .. } => {
                let registered = pending.and_then(|pending| pending.registered.as_ref());
                let error = registered.and_then(|registered| registered.as_ref().err());
                match error.and_then(ControlError::turned_away) {
                    Some(reason) => {
                        let scenario = scenario.clone();
                        GatewayEvent::TurnedAway { scenario, reason, session }
                    }
                    None => GatewayEvent::Core(event),
                }
            }
            event => GatewayEvent::Core(event),
        };
        let caller = pending.map(|pending| pending.request.caller(pending.arrived));
        EventRecord { caller, ..EventRecord::now(event) }
    }

    /// Returns true if offers wait for the policies, or for the end of a suspension.
    pub(crate) fn is_holding(&self) -> bool {
        self.waiting.is_some()
    }

    /// Drops the offers that wait. Their callers get an error.
    pub(crate) fn drop_waiting(&mut self) {
        self.waiting = None;
    }

    /// Keeps an offer until the suspension ends or the policies are active.
    pub(crate) fn hold(&mut self, request: Box<OfferedSession>, reply: OfferReply) {
        // The first policies of a suspended gateway are active: only the end of the suspension is waited for.
        let suspended = || WaitingOffers { policies_stand: true, ..WaitingOffers::default() };
        self.waiting.get_or_insert_with(suspended).hold(request, reply);
    }

    /// Takes the next offer that waits for nothing any more.
    pub(crate) fn next_waiting(&mut self) -> Option<(Box<OfferedSession>, OfferReply)> {
        let next = self.waiting.as_mut().filter(|waiting| waiting.policies_stand)?.next();
        if next.is_none() {
            self.waiting = None;
        }
        next
    }

    /// Returns true until the first policies are active.
    pub(crate) fn awaits_policies(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| !waiting.policies_stand)
    }

    pub(crate) fn handle_policies_active(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.policies_stand = true;
            // Fails only for a caller that has gone.
            waiting.policy_waiters.drain(..).for_each(|reply| _ = reply.send(()));
        }
    }

    pub(crate) fn await_policies(&mut self, reply: oneshot::Sender<()>) {
        match self.waiting.as_mut().filter(|waiting| !waiting.policies_stand) {
            Some(waiting) => waiting.policy_waiters.push(reply),
            None => _ = reply.send(()),
        }
    }
}

/// Waiting offers in order, bounded like control's own queue.
#[derive(Default)]
struct WaitingOffers {
    offers: VecDeque<(Box<OfferedSession>, OfferReply)>,
    /// Callers that wait for the policies without an offer: at most one reload.
    policy_waiters: Vec<oneshot::Sender<()>>,
    /// The policies are active. Offers that come before the queue is empty still go to its end.
    policies_stand: bool,
}

impl WaitingOffers {
    /// Adds an offer. If too many wait the caller gets an error.
    fn hold(&mut self, request: Box<OfferedSession>, reply: OfferReply) {
        if self.offers.len() == REQUESTS_MAX {
            // Offers of callers that have gone free their place.
            self.offers.retain(|(_, reply)| !reply.is_closed());
        }
        if self.offers.len() < REQUESTS_MAX {
            self.offers.push_back((request, reply));
        } else {
            let _ = reply.send(Err(ControlError::Unavailable));
        }
    }

    /// The next offer whose caller still waits. A session without a caller would block the client's address.
    fn next(&mut self) -> Option<(Box<OfferedSession>, OfferReply)> {
        while let Some(offer) = self.offers.pop_front() {
            if !offer.1.is_closed() {
                return Some(offer);
            }
        }
        None
    }
}

/// Sources that are ignored, and until when.
#[derive(Default, Debug)]
struct FirstPackets(BTreeMap<(u8, SocketAddr), Instant>);

impl FirstPackets {
    /// Returns false if packets of this source are ignored.
    fn is_new(&mut self, listener: u8, source: SocketAddr, now: Instant) -> bool {
        if self.0.len() >= SOURCES_MAX {
            self.0.retain(|_, until| *until > now);
        }
        let known = self.0.get(&(listener, source)).is_some_and(|until| *until > now);
        if known || self.0.len() >= SOURCES_MAX {
            return false;
        }
        self.0.insert((listener, source), now + AGAIN_AFTER);
        true
    }

    /// Records that the session of the source was opened or refused.
    fn finished(&mut self, listener: u8, source: SocketAddr, opened: bool, now: Instant) {
        if opened {
            self.0.remove(&(listener, source));
        } else {
            self.0.insert((listener, source), now + AGAIN_AFTER);
        }
    }
}

/// The session request for a first packet. The payload type and RFC 3551 determine the kind of media.
fn first_packet_request(
    scenario: Arc<str>,
    listener: u8,
    source: SocketAddr,
    payload_type: u8,
) -> OfferedSession {
    let (kind, clock_rate) = match payload_type {
        26 | 28 | 31..=34 => (StreamKind::Video, 90_000),
        0..=23 => (StreamKind::Audio, 8_000),
        _ => (StreamKind::Audio, 48_000),
    };
    let payload = |number| PayloadType::new(number, "unknown", clock_rate);
    let stream = MediaStream {
        kind,
        payload_types: vec![payload(payload_type)],
        feedback: FeedbackSupport::default(),
        bitrate_kbps: None,
    };
    OfferedSession {
        scenario,
        room: format!("{FIRST_PACKET}{listener}-{source}").into(),
        labels: Arc::default(),
        ingress: IngressProtocol::Udp(ClientIdentity::Open { address: source, listener }),
        media: Arc::new(MediaDescription::new(vec![stream], RtcpPort::Mux, Srtp::Plain)),
        srtp: None,
        nodes: Vec::new(),
        caller: None,
    }
}

/// Tells if a room's name has the form of that of a session that a first packet opened, `open-0-192.0.2.7:5004`.
#[must_use]
pub fn is_first_packet_room(room: &str) -> bool {
    let numbers = room.strip_prefix(FIRST_PACKET).and_then(|rest| rest.split_once('-'));
    numbers.is_some_and(|(listener, source)| {
        listener.parse::<u8>().is_ok() && source.parse::<SocketAddr>().is_ok()
    })
}

/// Shares media and labels of offers, which are equal for clients of one kind.
#[derive(Clone, Default, Debug)]
pub(crate) struct RequestInterner {
    scenarios: SharedValues<Arc<str>>,
    pub(crate) labels: SharedValues<Labels>,
    pub(crate) media: SharedValues<Arc<MediaDescription>>,
}

impl RequestInterner {
    /// Replaces parts of the request by equal shared values.
    pub(crate) fn share(&mut self, request: OfferedSession) -> OfferedSession {
        OfferedSession {
            scenario: self.scenarios.share(request.scenario),
            labels: self.labels.share(request.labels),
            media: self.media.share(request.media),
            ..request
        }
    }
}

/// The newest values of a kind.
#[derive(Clone, Debug)]
pub(crate) struct SharedValues<T>(VecDeque<T>);

impl<T> Default for SharedValues<T> {
    fn default() -> Self {
        SharedValues(VecDeque::new())
    }
}

impl<T: Clone + PartialEq> SharedValues<T> {
    pub(crate) fn share(&mut self, one: T) -> T {
        if let Some(same) = self.0.iter().find(|kept| **kept == one) {
            return same.clone();
        }
        if self.0.len() == SHARED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(one.clone());
        one
    }
}

#[cfg(test)]
mod tests;
