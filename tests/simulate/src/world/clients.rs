//! Clients join and leave.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::{
    ClientIdentity, FeedbackSupport, IngressProtocol, Labels, MediaDescription, MediaStream, Offer,
    PayloadType, RtcpPort, SessionId, Srtp, StreamKind,
};

use super::{Event, TRIES_AGAIN_AFTER, World};
use crate::client::{Phase, VOICE_EVERY};
use crate::node::Arrival;
use crate::packet::{VIDEO, VOICE};
use crate::script::Join;

impl World<'_> {
    pub(super) fn join(&mut self, client: u32) {
        if self.ending || self.clients[client as usize].phase != Phase::Away {
            return;
        }
        if self.control_stalls_until.is_some() {
            return self.put_in(Duration::from_millis(10), Event::Join(client));
        }
        self.clients[client as usize].phase = Phase::Offered;
        if self.script.baseline.is_some() {
            return self.reopen(client);
        }
        let offer = self.offer(client);
        self.gateway.handle_offer(offer, self.now);
        self.settle();
    }

    fn offer(&mut self, client: u32) -> Offer {
        let id = self.offer_id(client);
        let join = self.clients[client as usize].join;
        let stream = |kind, number, clock_rate, kbps| MediaStream {
            kind,
            payload_types: vec![PayloadType::new(number, "x", clock_rate)],
            feedback: FeedbackSupport { remb: true, ..FeedbackSupport::default() },
            bitrate_kbps: Some(kbps),
        };
        let mut streams = vec![stream(StreamKind::Audio, VOICE, 48_000, 64)];
        if join.video {
            streams.push(stream(StreamKind::Video, VIDEO, 90_000, 150));
        }
        let address = ([10, (client >> 16) as u8, (client >> 8) as u8, client as u8], 4_000).into();
        Offer {
            id,
            scenario: if join.call { "call".into() } else { "live".into() },
            room: format!("room{}", join.room).into(),
            labels: self.labels(client),
            ingress: IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp: None }),
            media: Arc::new(MediaDescription::new(streams, RtcpPort::Mux, Srtp::Plain)),
        }
    }

    /// Clients of rated worlds differ in device and role.
    fn labels(&self, client: u32) -> Labels {
        if !self.script.rated {
            return Vec::new().into();
        }
        let Join { sends, call, .. } = self.clients[client as usize].join;
        let phone = client.is_multiple_of(2);
        let mut labels = vec![("device", if phone { "phone" } else { "desktop" })];
        labels.extend(
            (!client.is_multiple_of(3))
                .then(|| ("max-height", ["360", "720"][client as usize % 2])),
        );
        labels.extend(client.is_multiple_of(5).then_some(("battery", "low")));
        let role = match (call, sends) {
            (true, _) if client.is_multiple_of(3) => "listener",
            (true, _) => "speaker",
            (false, true) => "publisher",
            (false, false) => "viewer",
        };
        labels.push(("role", role));
        labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
    }

    pub(super) fn accepted(&mut self, client: u32, session: SessionId) {
        let now = self.now;
        self.outcome.admitted += 1;
        let one = &mut self.clients[client as usize];
        one.session = Some(session);
        if one.phase == Phase::Gone {
            // The client left while the offer was pending.
            let _ = self.gateway.handle_close(session, now);
            return;
        }
        (one.phase, one.since) = (Phase::Live, now);
        let (delay, video, sends) = (one.join.delay, one.join.video, one.join.sends);
        if let Some(state) = self.session(session) {
            state.last_heard = Some(now);
        }
        // Client clocks have random phases.
        let phase = VOICE_EVERY.mul_f64(self.rng.f64());
        if sends {
            self.put_in(
                delay * 2 + phase,
                Event::Beat { client, kind: StreamKind::Audio, session },
            );
        }
        if sends && video {
            self.put_in(
                delay * 2 + phase * 2,
                Event::Beat { client, kind: StreamKind::Video, session },
            );
        }
    }

    pub(super) fn refused(&mut self, client: u32) {
        self.outcome.refused += 1;
        let one = &mut self.clients[client as usize];
        if one.phase == Phase::Offered
            && self.now - self.began < self.script.lasts - self.script.calm
        {
            one.phase = Phase::Away;
            let after = TRIES_AGAIN_AFTER.mul_f64(0.5 + self.rng.f64());
            self.put_in(after, Event::Join(client));
        } else {
            one.phase = Phase::Gone;
        }
    }

    pub(super) fn leave(&mut self, client: u32) {
        let one = &mut self.clients[client as usize];
        if one.join.vanishes && one.phase == Phase::Live {
            one.mute = true;
            return;
        }
        let before = std::mem::replace(&mut one.phase, Phase::Gone);
        let session = one.session;
        if before == Phase::Live
            && let Some(session) = session
        {
            if self.script.baseline.is_some() {
                return self.end(session);
            }
            // The call fails if the gateway has closed the session meanwhile.
            let _ = self.gateway.handle_close(session, self.now);
            self.settle();
        }
    }

    pub(super) fn end(&mut self, session: SessionId) {
        let Some(state) = self.sessions.get_mut(session.0 as usize).and_then(Option::take) else {
            return;
        };
        let one = &mut self.clients[state.client as usize];
        if one.session == Some(session) {
            (one.phase, one.session) = (Phase::Gone, None);
        }
        for leg in state.legs {
            self.tags[leg.tag as usize].closed = true;
            self.send(leg.hop.node.0 as usize, Arrival::Close { tag: leg.tag });
        }
    }
}
