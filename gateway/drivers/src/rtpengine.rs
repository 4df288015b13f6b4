//! Sessions at an rtpengine, by its NG protocol (bencode over UDP). A room is a call: its first session is the offering
//! side, its second the answering side. After every change both sides are signalled again in full, and rtpengine
//! answers with its ports. Repeated signalling changes nothing, so it also refreshes the call.
//!
//! With SRTP on the legs, the sessions are in a [new call](keys) after each change.

mod bencode;
mod call;
mod keys;
mod ng;
mod record;
mod sdp;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bencode::Value;
use call::{CallLeg, CallStage, OPEN_WITHIN, RtpengineCall};
use evenkeel_config::{
    DriverKey, DriverKeys, DriverKind, DriverSettings, NodeConfig, NodeProbe, NodeSrtp, Signalling,
    address,
};
use evenkeel_dataplane::worker::{NodeLeg, NodePort, SrtpPort};
use evenkeel_media::srtp::SrtpKeys;
use evenkeel_model::{Hop, Incarnation, NodeId, RoomId, SessionId};
use keys::{CallSrtp, CallSrtpRecord, KeyFault};
use ng::{NgAnswer, NgCommand, NgRequests, NgTimeout};
pub(crate) use record::CallRecord;
use record::PlaceRecord;
use sdp::{SdpPorts, Taken};

use crate::driver::{Driver, DriverContext, NodeDriver, NodeInput, RecordScope};
use crate::message::DriverMessage;
use crate::record::DriversRecord;
use crate::session::{
    Clock, ContinuedSession, DriverAction, LocalSource, OpenRequest, SessionFacts, Transport,
};

/// Interval of refreshes. rtpengine forgets a call without media after 60 s unless it is signalled, so two refreshes in
/// a row may be lost. A refresh causes no media packets.
const TELL_AGAIN: Duration = Duration::from_secs(15);

/// Retries of an unconfirmed `delete` end after this time. Then rtpengine's media timeout ends the call.
const END_WITHIN: Duration = Duration::from_millis(500);

/// Maximum requests in flight, so that a burst does not overflow rtpengine's socket buffer: about 90 fit into 208 KiB.
const ASKED_AT_ONCE: usize = 32;

/// Maximum queued `delete` requests. Further calls are ended by rtpengine's media timeout.
const ENDS_MAX: usize = 65_536;

/// Least time between two renewals of a call's keys: each takes ports of both sides and interrupts both sessions.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Rtpengine;

impl DriverKind for Rtpengine {
    fn name(&self) -> &'static str {
        "rtpengine"
    }

    fn keys(&self) -> &'static [DriverKey] {
        const { &[DriverKey::new("ng")] }
    }

    fn address_key(&self) -> (&'static str, &'static str) {
        ("ng", "10.0.1.11:2223")
    }

    fn instead_of(&self, key: &str) -> Option<&'static str> {
        match key {
            "address" => Some("its address is the key `ng`"),
            "probe" => Some("rtpengine is always probed, by pings of its NG protocol"),
            _ => None,
        }
    }

    fn keeps_ssrc(&self) -> bool {
        true
    }

    fn agrees_on_keys(&self) -> bool {
        true
    }

    /// Messages with keys of SRTP must stay on this host.
    fn read(&self, keys: &mut DriverKeys<'_>) -> Option<DriverSettings> {
        let is_remote = |address: SocketAddr| !address.ip().to_canonical().is_loopback();
        if let Some(srtp) = keys.srtp()
            && *srtp.get_ref() == NodeSrtp::Sdes
            && keys.address().is_some_and(is_remote)
        {
            let place = srtp.span();
            let found = "`srtp = \"sdes\"` with `ng` on another host";
            let expected = "`ng` on a loopback address such as `127.0.0.1:2223`";
            let help = "messages of the NG protocol are not encrypted, and they contain the keys; a tunnel that is encrypted \
                        may begin at the loopback address";
            keys.refuse(place, found, expected, Some(help));
        }
        let rtpengine = DriverSettings::new(self.name(), NodeProbe::Ping, Signalling::Datagrams);
        Some(DriverSettings {
            sessions_per_room: Some(2),
            unmeshed: Some("rtpengines do not forward to each other"),
            ..rtpengine
        })
    }
}

impl Driver for Rtpengine {
    fn start(
        &self,
        node: NodeId,
        config: &NodeConfig,
        context: &DriverContext,
    ) -> Box<dyn NodeDriver> {
        Box::new(RtpengineNode::new(node, config.address, context.source))
    }
}

struct RtpengineNode {
    node: NodeId,
    ng: SocketAddr,
    source: LocalSource,
    /// Calls by number. Numbers are random, so no call ID is ever reused.
    calls: BTreeMap<u64, RtpengineCall>,
    rooms: BTreeMap<(RoomId, Incarnation), u64>,
    sessions: BTreeMap<(SessionId, Incarnation), u64>,
    waiting: VecDeque<u64>,
    /// Calls to refresh, in the order of their times.
    refreshes: VecDeque<(Instant, u64)>,
    /// Calls to delete. Each waits for one other call at most, so that rtpengine needs few further ports.
    ends: VecDeque<u64>,
    /// The last request was a `delete`.
    ended_last: bool,
    questions: NgRequests,
    acts: VecDeque<DriverAction>,
}

impl NodeDriver for RtpengineNode {
    fn open(
        &mut self,
        request: &OpenRequest<'_>,
        draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<DriverAction> {
        let &OpenRequest { session, room, hop, facts, .. } = request;
        let SessionFacts { media, ports: (rtp, rtcp), .. } = facts?;
        let number = *self.rooms.entry((room, hop.incarnation)).or_insert_with(|| {
            let number = draw();
            self.calls.insert(number, RtpengineCall::new((room, hop.incarnation)));
            self.questions.drawn = draw();
            number
        });
        let call = self.calls.get_mut(&number)?;
        let Some(place) = call.place_for(session) else {
            return Some(DriverAction::RoomFull { session, hop });
        };
        let ports = SdpPorts { rtp: *rtp, rtcp: *rtcp };
        let media = Arc::clone(media);
        *place = Some(CallLeg { session, hop, ports, media, since: clock.now, leg: None });
        if request.srtp == NodeSrtp::Sdes {
            call.srtp.get_or_insert_default().note_changed();
        }
        self.sessions.insert((session, hop.incarnation), number);
        self.want(number);
        None
    }

    fn close(&mut self, session: SessionId, hop: Hop, _clock: Clock) -> Option<DriverAction> {
        let number = self.sessions.remove(&(session, hop.incarnation))?;
        let call = self.calls.get_mut(&number)?;
        if call.leave(session) {
            call.srtp.iter_mut().for_each(CallSrtp::note_changed);
            self.want(number);
        }
        None
    }

    fn handle(
        &mut self,
        input: NodeInput,
        _draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<DriverAction> {
        match input {
            NodeInput::Datagram(datagram) => self.handle_datagram(&datagram, clock.now),
            NodeInput::Unreachable(quotes) => self.handle_unreachable(&quotes, clock.now),
            NodeInput::StreamRestarted { session, hop } => {
                self.renew_keys(session, hop, clock.now);
            }
            NodeInput::Posted { .. }
            | NodeInput::Signed(_)
            | NodeInput::Sessions(_)
            | NodeInput::LongBundle { .. } => {}
        }
        None
    }

    fn poll(&mut self, clock: Clock) -> Option<DriverAction> {
        let now = clock.now;
        loop {
            if let Some(act) = self.acts.pop_front() {
                return Some(act);
            }
            match self.questions.due(now) {
                Some(NgTimeout::Again(datagram)) => return Some(self.send(datagram)),
                Some(NgTimeout::Late(about)) => {
                    let reason = format!("rtpengine at {} did not answer in time", self.ng);
                    self.handle_failed(about, false, reason, now);
                    continue;
                }
                None => {}
            }
            while let Some((_, number)) = self.refreshes.pop_front_if(|(due, _)| *due <= now) {
                let due = |call: &&mut RtpengineCall| call.refresh.is_some_and(|due| due <= now);
                if let Some(call) = self.calls.get_mut(&number).filter(due) {
                    call.refresh = None;
                    self.want(number);
                }
            }
            let out = self.questions.unanswered.len();
            let ends_max = match self.waiting.is_empty() {
                true => ASKED_AT_ONCE / 2,
                false if self.ended_last => 0,
                false => ASKED_AT_ONCE,
            };
            if let Some(number) = self.waiting.pop_front_if(|number| {
                let waits = self.calls.get(number).and_then(RtpengineCall::waits_since);
                waits.is_some_and(|since| since + OPEN_WITHIN <= now)
            }) {
                let reason =
                    format!("rtpengine at {} timed out before the request was sent", self.ng);
                self.handle_failed(NgCommand::Offer(number), false, reason, now);
            } else if let Some(number) = self.ends.pop_front_if(|_| out < ends_max) {
                self.ended_last = true;
                self.signal_end(number, now);
            } else if let Some(number) = self.waiting.pop_front_if(|_| out < ASKED_AT_ONCE) {
                self.ended_last = false;
                self.signal_first(number, now);
            } else {
                return None;
            }
        }
    }

    /// A `delete` that was not sent is not recorded: rtpengine's media timeout ends that call.
    fn record(&self, scope: RecordScope, record: &mut DriversRecord) {
        match scope {
            RecordScope::All => {
                let calls = self.calls.iter();
                let calls = calls.filter_map(|(number, call)| CallRecord::of(*number, call));
                record.calls.extend(calls);
            }
            RecordScope::Session { session, hop, with_keys } => {
                record.calls.extend(self.record_of(session, hop, with_keys));
            }
        }
    }

    fn restore(
        &mut self,
        record: DriversRecord,
        known: &ContinuedSession<'_>,
        draw: &mut dyn FnMut() -> u64,
        now: Instant,
    ) {
        let mut calls = record.calls;
        calls.iter_mut().for_each(|call| call.await_openings(TELL_AGAIN, now));
        calls.sort_unstable_by_key(|call| call.refresh);
        calls.into_iter().for_each(|call| self.restore_call(call, known, draw, now));
    }
}

impl RtpengineNode {
    fn new(node: NodeId, ng: SocketAddr, source: LocalSource) -> RtpengineNode {
        RtpengineNode {
            node,
            ng,
            source,
            calls: BTreeMap::new(),
            rooms: BTreeMap::new(),
            sessions: BTreeMap::new(),
            waiting: VecDeque::new(),
            refreshes: VecDeque::new(),
            ends: VecDeque::new(),
            ended_last: false,
            questions: NgRequests::default(),
            acts: VecDeque::new(),
        }
    }

    /// The session's call at this hop.
    fn record_of(&self, session: SessionId, hop: Hop, with_keys: bool) -> Option<CallRecord> {
        let number = *self.sessions.get(&(session, hop.incarnation))?;
        let mut record = CallRecord::of(number, self.calls.get(&number)?)?;
        record.srtp.iter_mut().filter(|_| !with_keys).for_each(|srtp| srtp.keys = None);
        Some(record)
    }

    /// Continues a call of another process. A call that was being signalled is signalled again at once. Calls come in
    /// the order of their refreshes.
    fn restore_call(
        &mut self,
        record: CallRecord,
        known: &ContinuedSession<'_>,
        draw: &mut dyn FnMut() -> u64,
        now: Instant,
    ) {
        let here = |(session, hop)| (known.hop)(session, hop);
        let Some(hop) = record.hops().find_map(here) else { return };
        let CallRecord { number, room, places, own, refresh, srtp } = record;
        self.questions.drawn = draw();
        let mut srtp = match srtp {
            None => None,
            Some(CallSrtpRecord { keys: Some(keys), .. }) => {
                let open = places.map(|place| Some(place.filter(|it| it.taken.is_some())?.session));
                Some(CallSrtp::restored(keys, open))
            }
            Some(CallSrtpRecord { number, keys: None }) => return self.end_at_node(number),
        };
        let recorded = places;
        let places: [_; 2] = std::array::from_fn(|side| {
            let PlaceRecord { session, hop, taken } = recorded[side]?;
            let taken = taken?;
            let (hop, facts) = ((known.hop)(session, hop)?, (known.facts)(session)?);
            let SessionFacts { ref media, ports: (rtp, rtcp), .. } = *facts;
            let (ports, media) = (SdpPorts { rtp, rtcp }, Arc::clone(media));
            let leg = Some(leg(taken, srtp.as_ref().and_then(|srtp| srtp.open()?.of_leg(side))));
            Some(CallLeg { session, hop, ports, media, since: now, leg })
        });
        if places.iter().flatten().count() < recorded.iter().flatten().count() {
            srtp.iter_mut().for_each(CallSrtp::note_changed);
        }
        let room = (room, hop.incarnation);
        for place in places.iter().flatten() {
            self.sessions.insert((place.session, place.hop.incarnation), number);
        }
        let due = refresh.unwrap_or(now);
        let call = RtpengineCall {
            places,
            own,
            is_known: true,
            refresh: Some(due),
            srtp,
            ..RtpengineCall::new(room)
        };
        self.calls.insert(number, call);
        self.rooms.insert(room, number);
        self.refreshes.push_back((due, number));
    }

    /// Replaces the call of the session's room by one with other keys, unless it is being signalled or was replaced within
    /// [`RENEWAL_INTERVAL`].
    fn renew_keys(&mut self, session: SessionId, hop: Hop, now: Instant) {
        let Some(&number) = self.sessions.get(&(session, hop.incarnation)) else { return };
        let is_due = |call: &&mut RtpengineCall| {
            let is_old = call.renewed.is_none_or(|renewed| renewed + RENEWAL_INTERVAL <= now);
            call.stage == CallStage::Resting && is_old
        };
        let Some(call) = self.calls.get_mut(&number).filter(is_due) else { return };
        if let Some(srtp) = &mut call.srtp {
            call.renewed = Some(now);
            srtp.note_changed();
            self.want(number);
        }
    }

    /// Queues a changed call. A call without sessions is deleted.
    fn want(&mut self, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        call.stale = true;
        if call.is_empty() && self.rooms.get(&call.room) == Some(&number) {
            self.rooms.remove(&call.room);
        }
        if call.stage == CallStage::Resting {
            call.stage = CallStage::Waiting;
            self.waiting.push_back(number);
        }
    }

    fn handle_datagram(&mut self, datagram: &[u8], now: Instant) {
        if let Some((about, answer)) = self.questions.answered(datagram) {
            self.handle_answer(about, answer, now);
        }
    }

    /// Handles that no process listens for the datagrams that begin with these bytes.
    fn handle_unreachable(&mut self, quotes: &[Box<[u8]>], now: Instant) {
        // Any other error may be forged.
        if !quotes.iter().any(|quoted| self.questions.is_pending(quoted)) {
            return;
        }
        let reason = format!("no NG listener at {}", self.ng);
        for about in self.questions.give_up() {
            self.handle_failed(about, false, reason.clone(), now);
        }
        // No process listens, so no calls exist there.
        for number in std::mem::take(&mut self.ends) {
            self.calls.remove(&number);
        }
    }

    fn handle_answer(&mut self, about: NgCommand, answer: NgAnswer, now: Instant) {
        let description = match answer {
            NgAnswer::Done(description) => description,
            NgAnswer::Refused { busy, reason } => {
                return self.handle_failed(about, busy, reason, now);
            }
        };
        let description = description.as_deref().map(String::as_str);
        let taken = description.and_then(sdp::read);
        if let Some(Err(wrong)) = taken.map(|taken| address::checked(taken.rtp)) {
            let reason = format!("the SDP of rtpengine: {wrong}");
            return self.handle_failed(about, false, reason, now);
        }
        match self.take_keys(about, description.unwrap_or_default()) {
            Ok(()) => {}
            // rtpengine has restarted, and its call begins with the first index of SRTP.
            Err(KeyFault::Changed) => return self.renew(about.call(), now),
            Err(KeyFault::NoKey(suite)) => {
                let name = suite.name();
                let reason = format!(
                    "rtpengine answered without `a=crypto` of {name}, and the node has `srtp = \"sdes\"`"
                );
                return self.handle_failed(about, false, reason, now);
            }
        }
        match (about, taken) {
            (NgCommand::Delete(number), _) => _ = self.calls.remove(&number),
            (NgCommand::Offer(number), Some(taken)) => self.signal_second(number, taken, now),
            (NgCommand::Answer(number), Some(taken)) => self.settle(number, taken, now),
            (NgCommand::Offer(_) | NgCommand::Answer(_), None) => {
                let reason = "rtpengine did not say where it takes packets";
                self.handle_failed(about, false, reason, now);
            }
        }
    }

    /// Takes rtpengine's key from its SDP, if the call has SRTP. The answer to the offer of the first side describes the second one.
    fn take_keys(&mut self, about: NgCommand, sdp: &str) -> Result<(), KeyFault> {
        let side = match about {
            NgCommand::Offer(_) => 1,
            NgCommand::Answer(_) => 0,
            NgCommand::Delete(_) => return Ok(()),
        };
        let call = self.calls.get_mut(&about.call());
        let keys = call.and_then(|call| call.srtp.as_mut()?.signalled());
        keys.map_or(Ok(()), |keys| keys.take(side, sdp))
    }

    /// Signals the sessions in a new call.
    fn renew(&mut self, number: u64, now: Instant) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        call.stale = true;
        if let Some(srtp) = &mut call.srtp {
            let ended = srtp.abort();
            srtp.note_changed();
            self.end_at_node(ended);
        }
        self.end_exchange(number, now);
    }

    /// Deletes a call at rtpengine that has no successor here, or another one.
    fn end_at_node(&mut self, call: Option<u64>) {
        if self.ends.len() < ENDS_MAX {
            self.ends.extend(call);
        }
    }

    fn send(&self, bytes: DriverMessage) -> DriverAction {
        DriverAction::Send { node: self.node, transport: Transport::Datagram, bytes }
    }

    fn ask(&mut self, about: NgCommand, question: &Value<'_>, by: Instant, now: Instant) {
        let datagram = self.questions.ask(about, question, by, now);
        let act = self.send(datagram);
        self.acts.push_back(act);
    }

    /// Signals the first side, or deletes a call without sessions.
    fn signal_first(&mut self, number: u64, now: Instant) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        if call.is_empty() {
            call.stage = CallStage::Ending;
            if let Some(srtp) = &mut call.srtp {
                let ended = srtp.end();
                self.calls.remove(&number);
                self.end_at_node(ended);
            } else if call.is_known && self.ends.len() < ENDS_MAX {
                self.ends.push_back(number);
            } else {
                self.calls.remove(&number);
            }
            return;
        }
        call.stale = false;
        call.signalled =
            call.places.each_ref().map(|place| place.as_ref().map(|place| place.session));
        let Some(own) = call.own.or_else(|| self.source.towards(self.ng)) else {
            let reason = format!("no route to {}", self.ng);
            return self.handle_failed(NgCommand::Offer(number), false, reason, now);
        };
        call.own = Some(own);
        call.srtp.iter_mut().for_each(CallSrtp::begin);
        call.stage = CallStage::Offered;
        call.is_known = true;
        self.signal(number, 0, own, now);
    }

    /// Signals the second side after rtpengine has answered the first with its ports for the second.
    fn signal_second(&mut self, number: u64, taken: Taken, now: Instant) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        call.stage = CallStage::Answered(taken);
        if let Some(own) = call.own {
            self.signal(number, 1, own, now);
        }
    }

    fn signal(&mut self, number: u64, side: usize, own: IpAddr, now: Instant) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let keys = call.srtp.as_mut().and_then(CallSrtp::signalled);
        let id = id(keys.map_or(number, |keys| keys.number));
        let sdp = call.sdp(side, own);
        let question = call.question(side, &id, &sdp);
        let about = if side == 0 { NgCommand::Offer(number) } else { NgCommand::Answer(number) };
        let by = call.waits_since().unwrap_or(now) + OPEN_WITHIN;
        self.ask(about, &question, by, now);
    }

    fn signal_end(&mut self, number: u64, now: Instant) {
        let id = id(number);
        let question = Value::dictionary(vec![
            ("call-id", (&*id).into()),
            ("command", "delete".into()),
            ("delete-delay", Value::Number(0)),
        ]);
        self.ask(NgCommand::Delete(number), &question, now + END_WITHIN, now);
    }

    /// Both sides were answered: signalled sessions are open.
    fn settle(&mut self, number: u64, first: Taken, now: Instant) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let CallStage::Answered(second) = call.stage else { return };
        // Media may leave by another interface than NG requests, with another source address.
        let own = self.source.towards(first.rtp);
        if own.is_some() && own != call.own {
            call.own = own;
            return self.renew(number, now);
        }
        if call.srtp.as_ref().is_some_and(CallSrtp::changed_during_refresh) {
            return self.renew(number, now);
        }
        let mut keys = call.srtp.as_mut().and_then(CallSrtp::signalled);
        for (side, taken) in [first, second].into_iter().enumerate() {
            let keys = keys.as_mut().and_then(|keys| keys.of_leg(side));
            let place = call.places[side].as_mut();
            if let Some(place) = place.filter(|place| call.signalled[side] == Some(place.session)) {
                self.acts.extend(place.open_at(taken, keys));
            }
        }
        let signalled = call.signalled;
        let ended = call.srtp.as_mut().and_then(|srtp| srtp.complete(signalled));
        self.end_at_node(ended);
        self.end_exchange(number, now);
    }

    /// Refuses the sessions that the failed request signalled and that are not open yet. Sessions added since are
    /// signalled by the next request.
    fn handle_failed(
        &mut self,
        about: NgCommand,
        busy: bool,
        reason: impl Into<Cow<'static, str>>,
        now: Instant,
    ) {
        let (number, reason) = (about.call(), reason.into());
        if matches!(about, NgCommand::Delete(_)) {
            self.calls.remove(&number);
            return;
        }
        let Some(call) = self.calls.get_mut(&number) else { return };
        let ended = call.srtp.as_mut().and_then(CallSrtp::abort);
        let opening: Vec<CallLeg> = call.take_failed(now).collect();
        if let Some(open) = call.open_sessions() {
            call.srtp.iter_mut().for_each(|srtp| srtp.note_sessions(open));
        }
        self.end_at_node(ended);
        if opening.is_empty() {
            tracing::debug!(node = ?self.node, %reason, "call not refreshed");
        }
        for CallLeg { session, hop, .. } in opening {
            self.sessions.remove(&(session, hop.incarnation));
            let reason = reason.clone();
            self.acts.push_back(DriverAction::Refused { session, hop, unwilling: busy, reason });
        }
        self.end_exchange(number, now);
    }

    /// Ends the exchange about a call until its next change or refresh.
    fn end_exchange(&mut self, number: u64, now: Instant) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        call.stage = CallStage::Resting;
        if call.stale || call.is_empty() {
            self.want(number);
        } else {
            let due = now + TELL_AGAIN;
            call.refresh = Some(due);
            self.refreshes.push_back((due, number));
        }
    }
}

impl CallLeg {
    /// Reports the session as open if it was not open yet.
    fn open_at(&mut self, taken: Taken, keys: Option<Arc<SrtpKeys>>) -> Option<DriverAction> {
        let &mut CallLeg { session, hop, ports, .. } = self;
        let rtcp_port = ports.rtcp.map_or(taken.rtp.port(), |_| taken.rtcp_port);
        let leg = leg(NodePort { address: taken.rtp, rtcp_port }, keys);
        match self.leg.replace(leg.clone()) {
            None => Some(DriverAction::Opened { session, hop, leg }),
            Some(before) if before != leg => Some(DriverAction::Changed { session, hop, leg }),
            Some(_) => None,
        }
    }
}

fn leg(port: NodePort, keys: Option<Arc<SrtpKeys>>) -> NodeLeg {
    match keys {
        None => NodeLeg::Port(Box::new(port)),
        Some(keys) => NodeLeg::Srtp(Box::new(SrtpPort { port, keys })),
    }
}

fn id(number: u64) -> String {
    format!("evenkeel-{number:016x}")
}
