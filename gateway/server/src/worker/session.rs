//! A session at its home worker: the one place that writes its continuity, its statistics and its way to the client.

mod address;
#[cfg(test)]
pub(super) mod tests;
mod to_client;
mod to_node;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{Board, Hop, Kind, Media, Plan, RouteCell, SessionId, Srtp};
use evenkeel_media::continuity::{Continuity, Protection};
use evenkeel_media::quality::Codec;

use address::Address;

use super::command::{Client, Dscp, Install, Leg, Report, ShedRun, Summary, Totals};
use super::feedback::Feedback;
use super::measure::Measure;
use super::ports::Ports;
use super::stamps::Way;
use super::ways::{self, Side, Ways};
use crate::flows::Home;

/// What is shed in a row is told this often: whoever counts needs it to the number, not to the moment.
const SHED_TOLD_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Session {
    pub(crate) home: Home,
    pub(crate) id: SessionId,
    media: Arc<Media>,
    client: Client,
    route: Arc<RouteCell>,
    plan: Plan,
    dscp: Dscp,
    pub(crate) ports: Option<Ports>,
    legs: Vec<(Hop, Leg)>,
    /// Where its packets go.
    address: Address,
    continuity: Continuity,
    /// The hop whose packets reach the client, and how many there have been.
    hearing: Option<Hop>,
    switches: u32,
    pub(crate) measure: Measure,
    pub(crate) feedback: Feedback,
    pub(crate) totals: Totals,
    /// What was shed and is not yet told, and since when.
    shed: Option<(ShedRun, Instant)>,
}

/// The codec of its voice, if it has one: the first that it would rather have.
fn voice(media: &Media) -> Option<Codec> {
    let voice = media.streams.iter().find(|stream| stream.kind == Kind::Audio)?;
    voice.payload_types.first().map(|payload| Codec::named(&payload.codec))
}

/// What a worker lends a session while it handles a packet.
pub(crate) struct Loan<'a> {
    pub(crate) ways: &'a mut Ways,
    pub(crate) board: &'a Board,
    pub(crate) now: Instant,
}

impl Session {
    pub(crate) fn new(install: Install, now: Instant) -> Session {
        let Install { home, session, media, client, route, plan, dscp, ports, seed } = install;
        let mut address = Address::default();
        if let Client::Declared { listener, address: rtp, rtcp } = client {
            address.rtp = Some((listener, rtp));
            address.rtcp = Some((listener, rtcp));
        }
        let protection = match media.srtp {
            Srtp::Plain => Protection::Clear,
            Srtp::Opaque => Protection::Srtp,
        };
        Session {
            home,
            id: session,
            client,
            route,
            plan,
            dscp,
            ports,
            legs: Vec::new(),
            address,
            continuity: Continuity::new(seed, protection),
            hearing: None,
            switches: 0,
            measure: Measure::new(voice(&media), now),
            feedback: Feedback::new(seed, &media),
            totals: Totals::default(),
            shed: None,
            media,
        }
    }

    /// The leg that it had there before, if it had one.
    pub(crate) fn attach(&mut self, hop: Hop, leg: Leg) -> Option<Leg> {
        let before = self.detach(hop);
        self.legs.push((hop, leg));
        before
    }

    /// The leg it had there, if it had one.
    pub(crate) fn detach(&mut self, hop: Hop) -> Option<Leg> {
        let place = self.legs.iter().position(|(at, _)| *at == hop)?;
        Some(self.legs.swap_remove(place).1)
    }

    pub(crate) fn legs(&self) -> &[(Hop, Leg)] {
        &self.legs
    }

    pub(crate) fn has_leg(&self, hop: Hop) -> bool {
        self.legs.iter().any(|(at, _)| *at == hop)
    }

    /// The hop with a port leg to this address.
    pub(crate) fn hop_at(&self, source: SocketAddr) -> Option<Hop> {
        let is_there = |leg: &Leg| match *leg {
            Leg::Port { address, rtcp } => address == source || rtcp == source,
            Leg::Trunk(_) => false,
        };
        // A node that returned has the address it had; what comes now is of the newest incarnation.
        let there = self.legs.iter().filter(|(_, leg)| is_there(leg)).map(|(hop, _)| *hop);
        there.max_by_key(|hop| hop.incarnation)
    }

    pub(crate) fn set_plan(&mut self, plan: Plan, loan: &mut Loan<'_>) {
        let restored = self.plan.shed != 0 && plan.shed == 0;
        let capped = self.plan.send_cap_kbps() != plan.send_cap_kbps();
        self.plan = plan;
        if restored {
            self.tell_shed(loan.ways);
            self.feedback.want_key_frame();
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
        if let Some(request) = self.feedback.key_frame_of_client(loan.now) {
            loan.ways.stamps.asked_key_frame(Way::ToClient);
            self.send_to_client(Side::Rtcp, Kind::Video, &request, loan, |_| {});
        }
    }

    /// Tells the client how much it may send, if there is a cap or one was lifted.
    pub(crate) fn send_cap(&mut self, loan: &mut Loan<'_>) {
        if let Some(cap) = self.feedback.cap(self.plan.send_cap_kbps(), loan.now) {
            self.send_to_client(Side::Rtcp, Kind::Video, &cap, loan, |_| {});
        }
    }

    /// Every 100 ms: repeats the cap, or that there is none any more, when it is due, and tells what was shed.
    pub(crate) fn tick(&mut self, loan: &mut Loan<'_>) {
        if self.feedback.cap_is_due(self.plan.send_cap_kbps(), loan.now) {
            self.send_cap(loan);
        }
        let due = |since: Instant| loan.now.saturating_duration_since(since) >= SHED_TOLD_EVERY;
        if self.shed.is_some_and(|(_, since)| due(since)) {
            self.tell_shed(loan.ways);
        }
    }

    /// What workers tell control of it every 100 ms.
    pub(crate) fn summary(&mut self, now: Instant) -> Summary {
        self.totals.lost_up = self.measure.lost_up();
        Summary {
            session: self.id,
            measures: self.measure.interval(now),
            last_heard: self.measure.last_heard(),
            totals: self.totals,
        }
    }

    pub(crate) fn final_totals(&self) -> Totals {
        Totals { lost_up: self.measure.lost_up(), ..self.totals }
    }

    /// The error queue of its port tells this of what was sent to this address. That nobody listens there says
    /// something of the node; that the way is too narrow or gone does not.
    pub(crate) fn accused(&self, address: SocketAddr, error: &io::Error, ways: &Ways) {
        if error.kind() != io::ErrorKind::ConnectionRefused {
            return ways.drop(ways::reason(error));
        }
        if let Some(hop) = self.hop_at(address) {
            ways.report(Report::PortClosed { session: self.id, hop });
        }
    }
}
