//! From a node to the client: only the room's hop, continued in number and time whichever hop that is.

use std::time::{Duration, Instant};

use evenkeel_core::forward::{self, Reason, Verdict};
use evenkeel_core::{Hop, Kind, RtcpPort, Srtp};
use evenkeel_media::continuity::{Epoch, FILLED_WITHIN, Pass, Switch, Withheld};
use evenkeel_media::{demux, rtcp, rtp};

use super::{Known, Loan, Session};
use crate::worker::command::{Report, ShedRun};
use crate::worker::egress::{Side, Ways};
use crate::worker::stats::Way;

/// Without a connectivity check for so long, nothing is sent to the client any more (RFC 7675).
const CONSENT: Duration = Duration::from_secs(30);

/// What a node reports as lost of what it was sent, parts per million, if it does; of several streams the worst.
fn reported_loss(compound: &[u8]) -> Option<u32> {
    let worst = |blocks: &mut dyn Iterator<Item = rtcp::ReportBlock>| {
        blocks.map(|block| u32::from(block.fraction_lost) * 1_000_000 / 256).max()
    };
    rtcp::packets(compound)
        .map_while(Result::ok)
        .filter_map(|packet| match packet {
            rtcp::Packet::SenderReport(report) => worst(&mut report.blocks()),
            rtcp::Packet::ReceiverReport(report) => worst(&mut report.blocks()),
            _ => None,
        })
        .max()
}

impl Session {
    /// A packet that a hop sent for the client.
    pub(crate) fn handle_node_packet(&mut self, from: Hop, packet: &[u8], loan: &mut Loan<'_>) {
        self.stir(loan);
        let kind = demux::classify(packet);
        let header = match kind {
            demux::Kind::Rtp => match rtp::Header::parse(packet) {
                Ok(header) => Some(header),
                Err(_) => return loan.ways.drop(Reason::Malformed),
            },
            demux::Kind::Rtcp => None,
            _ => return loan.ways.drop(Reason::Malformed),
        };
        let payload_type = header.as_ref().map(|header| header.payload_type);
        let verdict =
            forward::to_client(from, payload_type, &self.plan, &self.route, loan.board, loan.now);
        let leaving = match verdict {
            Verdict::Pass { leaving, .. } => leaving,
            Verdict::Both([from, other]) => {
                return self.merge_to_client(from, Some(other), header.as_ref(), packet, loan);
            }
            Verdict::Drop(reason) => {
                if let (Reason::Shed, Some(header)) = (reason, &header) {
                    self.talk().totals.shed += 1;
                    self.note_shed(from, header, loan);
                }
                return loan.ways.drop(reason);
            }
        };
        let talk = self.talk();
        let hears = talk.hearing == Some(from);
        if talk.pair.is_some() && !leaving {
            return self.merge_to_client(from, None, header.as_ref(), packet, loan);
        }
        if !leaving && !hears {
            self.hear(from, loan);
        }
        // What the hop that was left still delivers belongs to the epoch before.
        let left = leaving && !hears;
        let epoch = Epoch(self.talk().epoch().0.saturating_sub(u64::from(left)));
        match header {
            Some(header) => self.rtp_to_client(from, epoch, &header, packet, loan),
            None => self.rtcp_to_client(epoch, packet, loan),
        }
    }

    /// What is shed is told by number, so that nobody takes it for loss, and leaves no gap in the client's numbers.
    fn note_shed(&mut self, from: Hop, header: &rtp::Header, loan: &mut Loan<'_>) {
        let talk = self.talk();
        if talk.hearing != Some(from) {
            if talk.pair.is_some() {
                // What the hop that leads delivers is told.
                return;
            }
            self.hear(from, loan);
        }
        let declared = self.media.payload_type(header.payload_type);
        let declared = declared.map(|(kind, payload)| (kind, payload.clock_rate));
        let talk = self.talk();
        if let Some((kind, _)) = declared {
            talk.flow.came[kind as usize] += 1;
        }
        let epoch = talk.epoch();
        let Some(Withheld { ssrc, after, ahead }) =
            declared.and_then(|(_, rate)| talk.continuity.withhold(epoch, header, rate, loan.now))
        else {
            return;
        };
        if let Some((run, _)) = &mut talk.shed
            && (run.ssrc, run.after) == (ssrc, after)
            && run.first + run.packets == ahead
        {
            run.packets += 1;
            return;
        }
        self.tell_shed(loan.ways);
        self.talk().shed = Some((ShedRun { ssrc, after, first: ahead, packets: 1 }, loan.now));
    }

    pub(crate) fn tell_shed(&mut self, ways: &Ways) {
        if let Some((run, _)) = self.talk.as_deref_mut().and_then(|talk| talk.shed.take()) {
            ways.report(Report::Shed { session: self.id, run });
        }
    }

    /// From here on this hop's packets reach the client.
    pub(super) fn hear(&mut self, hop: Hop, loan: &Loan<'_>) {
        self.note_switch(hop, loan);
        let (leaving, lead) = {
            let route = self.route.load();
            (route.leaving, route.lead)
        };
        let talk = self.talk();
        let before = talk.hears(hop);
        if before.is_some() {
            talk.totals.switches += 1;
            talk.feedback.want_key_frame();
        }
        talk.switches += 1;
        let epoch = talk.epoch();
        match leaving.filter(|(left, _)| before == Some(*left)) {
            Some((_, until)) => {
                talk.continuity.switched(epoch, Switch::Planned { lead });
                let since = until.checked_sub(FILLED_WITHIN).unwrap_or(until);
                talk.continuity.left(since.min(loan.now), true);
            }
            None => {
                talk.continuity.switched(epoch, Switch::Failover);
                talk.continuity.close_previous();
                // One that lives was left by a move before the last one.
                let died = before.and_then(|before| loan.board.died(before));
                talk.continuity.left(died.unwrap_or(loan.now), died.is_none());
            }
        }
    }

    /// A hop takes the place of another. Where that died, how long the client heard nothing is measured, unless its
    /// sources had fallen silent before: then nobody knows how long it would have heard nothing anyway.
    pub(super) fn note_switch(&mut self, to: Hop, loan: &Loan<'_>) {
        let (mode, talk) = (self.route.load().mode, self.talk());
        let Some(before) = talk.hearing.filter(|before| *before != to) else {
            return;
        };
        let died = loan.board.died(before);
        if let Some(last) = died.and_then(|died| talk.continuity.fell_silent(died)) {
            loan.ways.stamps.recovered(mode, loan.now.saturating_duration_since(last));
        }
    }

    pub(super) fn rtp_to_client(
        &mut self,
        from: Hop,
        epoch: Epoch,
        header: &rtp::Header,
        packet: &[u8],
        loan: &mut Loan<'_>,
    ) {
        let Some((kind, payload)) = self.media.payload_type(header.payload_type) else {
            return loan.ways.drop(Reason::UndeclaredPayload);
        };
        let clock_rate = payload.clock_rate;
        let talk = self.talk();
        // Of two hops all that the one that leads delivers is counted, where they are merged.
        if talk.hearing == Some(from) && talk.pair.is_none() {
            talk.flow.came[kind as usize] += 1;
        }
        let rewrite = match talk.continuity.pass(epoch, header, clock_rate, loan.now) {
            Pass::Untouched => None,
            Pass::Rewrite { ssrc, sequence, timestamp } => Some((ssrc, sequence, timestamp)),
            Pass::Stale | Pass::Duplicate => return loan.ways.drop(Reason::Stale),
        };
        talk.totals.packets_down += 1;
        talk.totals.bytes_down += packet.len() as u64;
        talk.measure.sent(packet.len());
        if kind == Kind::Video
            && let Some(request) = talk.feedback.key_frame_request(header.ssrc)
        {
            loan.ways.stamps.asked_key_frame(Way::ToNode);
            self.send_to_node(from, Side::Rtcp, Kind::Video, &request, loan);
        }
        self.send_to_client(Side::Rtp, kind, packet, loan, |bytes| {
            if let Some((ssrc, sequence, timestamp)) = rewrite {
                rtp::set_ssrc(bytes, ssrc);
                rtp::set_sequence(bytes, sequence);
                rtp::set_timestamp(bytes, timestamp);
            }
        });
    }

    pub(super) fn rtcp_to_client(&mut self, epoch: Epoch, packet: &[u8], loan: &mut Loan<'_>) {
        let plain = self.media.srtp == Srtp::Plain;
        // What the hop that was left still reports is told of nobody.
        let talk = self.talk();
        if plain && epoch == talk.epoch() {
            talk.flow.reported_ppm = reported_loss(packet).or(talk.flow.reported_ppm);
        }
        let mut packet = packet.to_vec();
        let Ok(length) = self.talk().continuity.rtcp_to_client(epoch, &mut packet) else {
            return loan.ways.drop(Reason::Feedback);
        };
        packet.truncate(length);
        let cap = self.plan.send_cap_kbps();
        let talk = self.talk();
        talk.feedback.limit(&mut packet, cap, loan.now);
        if plain {
            talk.measure.note_sender_report(&packet, loan.now);
        }
        self.send_to_client(Side::Rtcp, Kind::Audio, &packet, loan, |_| {});
    }

    pub(super) fn send_to_client(
        &mut self,
        side: Side,
        kind: Kind,
        packet: &[u8],
        loan: &mut Loan<'_>,
        rewrite: impl FnOnce(&mut [u8]),
    ) {
        if let Known::Quic { flow_from_gateway } = self.known {
            // The ring takes bytes as they are, so they are rewritten on the way.
            let mut bytes = [0; crate::mmsg::DATAGRAM_MAX];
            let Some(bytes) = bytes.get_mut(..packet.len()) else {
                return loan.ways.drop(Reason::Oversize);
            };
            bytes.copy_from_slice(packet);
            rewrite(bytes);
            loan.ways.queue_to_quic(self.home, flow_from_gateway, bytes);
            loan.ways.stamps.passed(Way::ToClient, packet.len());
            return;
        }
        let address = match side {
            Side::Rtp => self.address.rtp,
            Side::Rtcp => self.address.rtcp(),
        };
        let recent = |at: Instant| loan.now.saturating_duration_since(at) < CONSENT;
        let consent = self.known != Known::Stun || self.address.consent().is_some_and(recent);
        let Some((listener, address)) = address.filter(|_| consent) else {
            return loan.ways.drop(Reason::NoAddress);
        };
        match loan.ways.queue_to_client(
            (listener, self.side(side)),
            address,
            self.dscp_of(kind),
            packet,
        ) {
            Some(bytes) => {
                rewrite(bytes);
                loan.ways.stamps.passed(Way::ToClient, packet.len());
            }
            None => loan.ways.drop(Reason::NoAddress),
        }
    }

    /// The listener's own RTCP port only for clients that keep RTCP apart.
    fn side(&self, side: Side) -> Side {
        match self.media.rtcp {
            RtcpPort::Mux => Side::Rtp,
            RtcpPort::Own => side,
        }
    }
}
