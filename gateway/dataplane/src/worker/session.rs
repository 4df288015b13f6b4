//! A session at its home worker: the one place that writes its continuity, its statistics and its way to the client.

mod address;
mod hitless;
#[cfg(test)]
pub(super) mod tests;
mod to_client;
mod to_node;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::forward::{self, Verdict};
use evenkeel_core::{Board, Flow, Hop, Kind, Media, Mode, Plan, RouteCell, SessionId, Srtp};
use evenkeel_media::continuity::{Continuity, Epoch, FILLED_WITHIN, Protection};
use evenkeel_media::merge::Pair;
use evenkeel_media::quality::Codec;
use evenkeel_media::trunk::Tag;

use address::Address;

use super::command::{Client, Dscp, Install, Leg, Report, ShedRun, Summary, Totals};
use super::egress::{self, Side, Ways};
use super::feedback::Feedback;
use super::measurements::Measure;
use super::ports::Ports;
use super::stats::Way;
use crate::flows::Home;

/// What is shed in a row is told this often: whoever counts needs it to the number, not to the moment.
const SHED_TOLD_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Session {
    pub(crate) home: Home,
    pub(crate) id: SessionId,
    media: Arc<Media>,
    known: Known,
    route: Arc<RouteCell>,
    plan: Plan,
    dscp: Dscp,
    pub(crate) ports: Option<Box<Ports>>,
    legs: Vec<(Hop, Leg)>,
    /// Where its packets go.
    address: Address,
    /// What it says and hears, once something is said: most of many sessions are silent, and take little room.
    talk: Option<Box<Talk>>,
    /// What its own numbers are drawn from.
    seed: u64,
    /// Whether it is among those that are summed up, and whether something happened to it since it was.
    awake: bool,
    stirred: bool,
    /// Whether the next packet panics.
    #[cfg(any(test, feature = "fault-injection"))]
    pub(super) panics: bool,
}

/// How the client is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    Declared,
    DeclaredIp,
    Stun,
    Quic { flow_from_gateway: u64 },
}

/// What goes with packets of a session.
struct Talk {
    continuity: Continuity,
    measure: Measure,
    feedback: Feedback,
    /// The hop whose packets reach the client, and how many there have been.
    hearing: Option<Hop>,
    switches: u32,
    /// In hitless mode: the two hops whose packets do.
    pair: Option<Box<Pair<Hop>>>,
    totals: Totals,
    /// What went between it and its node since that was told.
    flow: Flow,
    /// Packets missing at switches that were told.
    missed_told: u32,
    /// What was shed and is not yet told, and since when.
    shed: Option<(ShedRun, Instant)>,
}

/// The codec of its voice, if it has one: the first that it would rather have.
fn voice(media: &Media) -> Option<Codec> {
    let voice = media.streams.iter().find(|stream| stream.kind == Kind::Audio)?;
    voice.payload_types.first().map(|payload| Codec::named(&payload.codec))
}

impl Talk {
    /// Once in a session's life, so that what packets go through stays short.
    #[cold]
    fn new(seed: u64, media: &Media) -> Box<Talk> {
        let protection = match media.srtp {
            Srtp::Plain => Protection::Clear,
            Srtp::Opaque => Protection::Srtp,
        };
        Box::new(Talk {
            continuity: Continuity::new(seed, protection),
            measure: Measure::new(voice(media)),
            feedback: Feedback::new(seed, media),
            hearing: None,
            switches: 0,
            pair: None,
            totals: Totals::default(),
            flow: Flow::default(),
            missed_told: 0,
            shed: None,
        })
    }
}

impl Talk {
    /// The time of the hop that the client hears.
    fn epoch(&self) -> Epoch {
        Epoch(u64::from(self.switches))
    }

    /// From here on it hears this hop: what another delivered and reported says nothing of it. Whom it heard before.
    fn hears(&mut self, hop: Hop) -> Option<Hop> {
        self.flow = Flow { sent: self.flow.sent, ..Flow::default() };
        self.hearing.replace(hop)
    }
}

/// What a worker lends a session while it handles a packet.
pub(crate) struct Loan<'a> {
    pub(crate) ways: &'a mut Ways,
    pub(crate) board: &'a Board,
    pub(crate) now: Instant,
}

impl Session {
    pub(crate) fn new(install: Install) -> Session {
        let Install { home, session, media, client, route, plan, dscp, ports, seed } = install;
        let address = match client {
            Client::Declared { listener, address, rtcp } => {
                Address::declared((listener, address), (listener, rtcp))
            }
            Client::DeclaredIp { .. } | Client::Stun | Client::Quic { .. } => Address::default(),
        };
        let known = match client {
            Client::Declared { .. } => Known::Declared,
            Client::DeclaredIp { .. } => Known::DeclaredIp,
            Client::Stun => Known::Stun,
            Client::Quic { flow_from_gateway } => Known::Quic { flow_from_gateway },
        };
        Session {
            home,
            id: session,
            known,
            route,
            plan,
            dscp,
            ports,
            legs: Vec::new(),
            address,
            talk: None,
            seed,
            // Its cap is told before it says a word.
            awake: plan.send_cap_kbps() > 0,
            stirred: false,
            #[cfg(any(test, feature = "fault-injection"))]
            panics: false,
            media,
        }
    }

    fn talk(&mut self) -> &mut Talk {
        let (seed, media) = (self.seed, &*self.media);
        self.talk.get_or_insert_with(|| Talk::new(seed, media))
    }

    /// Something happens to it: it is summed up until nothing does any more.
    fn stir(&mut self, loan: &mut Loan<'_>) {
        #[cfg(any(test, feature = "fault-injection"))]
        assert!(!self.panics, "injected panic of {}", self.id);
        if !self.awake || self.talk.is_none() {
            self.talk().measure.begin_interval(loan.now);
        }
        self.wake(loan);
    }

    fn wake(&mut self, loan: &mut Loan<'_>) {
        self.stirred = true;
        if !self.awake {
            self.awake = true;
            loan.ways.awake.add(self.home);
        }
    }

    pub(crate) fn is_awake(&self) -> bool {
        self.awake
    }

    /// Whether nothing happens to it any more that is to be summed up, as it was just now.
    pub(crate) fn rests(&mut self, now: Instant) -> bool {
        let stirred = std::mem::take(&mut self.stirred);
        let cap = self.plan.send_cap_kbps();
        let is_quiet = |talk: &Talk| {
            talk.shed.is_none() && talk.measure.is_quiet(now) && !talk.feedback.repeats(cap, now)
        };
        self.awake = stirred || !self.talk.as_deref().map_or(cap == 0, is_quiet);
        !self.awake
    }

    /// Something other than media came from the client.
    pub(crate) fn heard(&mut self, loan: &mut Loan<'_>) {
        self.stir(loan);
        self.talk().measure.heard(loan.now);
    }

    /// What QUIC knows of the path: its round trip, and packets lost and sent since it was told last.
    pub(crate) fn quic_path(&mut self, (rtt_us, lost, sent): (u32, u32, u32), loan: &mut Loan<'_>) {
        self.stir(loan);
        self.talk().measure.quic_path(rtt_us, lost, sent, loan.now);
    }

    /// It is open at the hop by this leg, and by no other any more.
    pub(crate) fn attach(&mut self, hop: Hop, leg: Leg) {
        self.detach(hop);
        // One at a time: they are few, and there are many sessions.
        self.legs.reserve_exact(1);
        self.legs.push((hop, leg));
    }

    /// It is open there no longer.
    pub(crate) fn detach(&mut self, hop: Hop) {
        self.legs.retain(|(at, _)| *at != hop);
    }

    pub(crate) fn has_leg(&self, hop: Hop) -> bool {
        self.legs.iter().any(|(at, _)| *at == hop)
    }

    /// The hop with this tag.
    pub(crate) fn hop_of(&self, tag: Tag) -> Option<Hop> {
        let is_it = |leg: &Leg| matches!(leg, Leg::Trunk(own) if *own == tag);
        self.legs.iter().find(|(_, leg)| is_it(leg)).map(|(hop, _)| *hop)
    }

    /// The hop with a port leg to this address.
    pub(crate) fn hop_at(&self, source: SocketAddr, loan: &Loan<'_>) -> Option<Hop> {
        let is_there = |leg: &Leg| match leg {
            Leg::Port(port) => port.is_at(source),
            Leg::Trunk(_) => false,
        };
        let there = self.legs.iter().filter(|(_, leg)| is_there(leg)).map(|(hop, _)| *hop);
        there.reduce(|one, other| self.speaks_of(one, other, loan))
    }

    /// Which of two hops at one address a packet from there is of: the one that the room is on, then the one that it is
    /// leaving, as where a node comes to the address of one that goes; then the newest incarnation, as of a node that
    /// returned.
    #[cold]
    fn speaks_of(&self, one: Hop, other: Hop, loan: &Loan<'_>) -> Hop {
        let rank = |hop: Hop| {
            let (plan, route) = (&self.plan, &self.route);
            let carries = match forward::to_client(hop, None, plan, route, loan.board, loan.now) {
                Verdict::Pass { leaving: false, .. } | Verdict::Both(_) => 2,
                Verdict::Pass { leaving: true, .. } => 1,
                Verdict::Drop(_) => 0,
            };
            (carries, hop.incarnation)
        };
        if rank(other) > rank(one) { other } else { one }
    }

    pub(crate) fn set_plan(&mut self, plan: Plan, loan: &mut Loan<'_>) {
        let restored = self.plan.shed != 0 && plan.shed == 0;
        let capped = self.plan.send_cap_kbps() != plan.send_cap_kbps();
        self.plan = plan;
        self.wake(loan);
        if restored {
            self.tell_shed(loan.ways);
            self.talk().feedback.want_key_frame();
        }
        if capped {
            self.send_cap(loan);
        }
    }

    fn dscp_of(&self, kind: Kind) -> u8 {
        match kind {
            Kind::Audio => self.dscp.voice,
            Kind::Video => self.dscp.video,
        }
    }

    /// Asks the client for a key frame of each video stream it sends.
    pub(crate) fn ask_key_frame(&mut self, loan: &mut Loan<'_>) {
        if let Some(talk) = &mut self.talk
            && let Some(request) = talk.feedback.key_frame_of_client(loan.now)
        {
            loan.ways.stamps.asked_key_frame(Way::ToClient);
            self.send_to_client(Side::Rtcp, Kind::Video, &request, loan, |_| {});
        }
    }

    /// Tells the client how much it may send, if there is a cap or one was lifted.
    pub(crate) fn send_cap(&mut self, loan: &mut Loan<'_>) {
        let kbps = self.plan.send_cap_kbps();
        if let Some(cap) = self.talk().feedback.cap(kbps, loan.now) {
            self.send_to_client(Side::Rtcp, Kind::Video, &cap, loan, |_| {});
        }
    }

    /// Every 100 ms: repeats the cap, or that there is none any more, when it is due, and tells what was shed.
    pub(crate) fn tick(&mut self, loan: &mut Loan<'_>) {
        let kbps = self.plan.send_cap_kbps();
        let is_due = |talk: &Talk| talk.feedback.cap_is_due(kbps, loan.now);
        if self.talk.as_deref().map_or(kbps > 0, is_due) {
            self.send_cap(loan);
        }
        let due = |since: Instant| loan.now.saturating_duration_since(since) >= SHED_TOLD_EVERY;
        let shed = self.talk.as_deref().and_then(|talk| talk.shed);
        if shed.is_some_and(|(_, since)| due(since)) {
            self.tell_shed(loan.ways);
        }
    }

    /// What workers tell control of it; nothing before anything was said.
    pub(crate) fn summary(&mut self, now: Instant) -> Option<Summary> {
        let Talk { measure, continuity, flow, missed_told, hearing, .. } =
            self.talk.as_deref_mut()?;
        let (measures, last_heard) = (measure.interval(now), measure.last_heard());
        let (expected, lost) = continuity.arrivals();
        let missed = continuity.missed_at_switches(now);
        let missed = missed.saturating_sub(std::mem::replace(missed_told, missed));
        let flow = Flow { hears: *hearing, expected, lost, missed, ..std::mem::take(flow) };
        let totals = self.totals(now);
        Some(Summary { session: self.id, measures, last_heard, flow, totals })
    }

    /// How it survives the death of its node.
    pub(crate) fn mode(&self) -> Mode {
        self.route.load().mode
    }

    /// What it carried, where nothing more is to come.
    pub(crate) fn final_totals(&self, now: Instant) -> Totals {
        self.totals(now + FILLED_WITHIN)
    }

    fn totals(&self, now: Instant) -> Totals {
        let totals = |talk: &Talk| Totals {
            lost_up: talk.measure.lost_up(),
            lost_at_switches: talk.continuity.missed_at_switches(now),
            ..talk.totals
        };
        self.talk.as_deref().map_or(Totals::default(), totals)
    }

    /// The error queue of its port tells this of what was sent to this address. That nobody listens there says
    /// something of the node; that the way is too narrow or gone does not.
    pub(crate) fn accused(&self, address: SocketAddr, error: &io::Error, loan: &Loan<'_>) {
        if error.kind() != io::ErrorKind::ConnectionRefused {
            return loan.ways.drop(egress::reason(error));
        }
        if let Some(hop) = self.hop_at(address, loan) {
            loan.ways.report(Report::PortClosed { session: self.id, hop });
        }
    }
}
