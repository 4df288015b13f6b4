//! RTCP at a sample node. A rewriting node answers reports itself and forwards feedback to the senders, about their own SSRCs and
//! sequence numbers; an untouched node reflects RTCP unchanged.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_media::rtcp::{self, FirEntry, Pli, Remb, RtcpPacket, SenderInfo, TransportWide};

use super::reflector::{BatchClock, Reflector, SessionIndex};
use super::session::{ReflectedStream, SessionLeg};
use crate::datagrams::DatagramOutbox;

/// An older estimate of a receiver bounds no sender. Receivers send one each second.
const ESTIMATE_WITHIN: Duration = Duration::from_secs(5);

impl Reflector {
    pub(super) fn handle_rtcp(
        &mut self,
        index: SessionIndex,
        compound: &[u8],
        now: BatchClock,
        outbox: &mut DatagramOutbox,
    ) {
        let mut reported = false;
        for packet in rtcp::packets(compound) {
            match packet {
                Ok(RtcpPacket::SenderReport(report)) => {
                    self.counters.sender_reports += 1;
                    reported = true;
                    self.handle_sender_report(index, report.info, now, outbox);
                }
                Ok(RtcpPacket::ReceiverReport(_)) => self.counters.receiver_reports += 1,
                Ok(RtcpPacket::Nack(nack)) => {
                    self.counters.nack += 1;
                    self.ask_sender(nack.media, outbox, |own, stream, out| {
                        let missing = nack.missing().map(|number| stream.incoming_sequence(number));
                        rtcp::write_nack(own, stream.ssrc, &missing.collect::<Vec<_>>(), out);
                    });
                }
                Ok(RtcpPacket::Pli(pli)) => {
                    self.counters.pli += 1;
                    self.ask_sender(pli.media, outbox, |own, stream, out| {
                        rtcp::write_pli(Pli { sender: own, media: stream.ssrc }, out);
                    });
                }
                Ok(RtcpPacket::Fir(fir)) => {
                    self.counters.fir += 1;
                    for FirEntry { media, number } in fir.entries() {
                        self.ask_sender(media, outbox, |own, stream, out| {
                            rtcp::write_fir(own, &[FirEntry { media: stream.ssrc, number }], out);
                        });
                    }
                }
                Ok(RtcpPacket::Remb(remb)) => {
                    self.counters.remb += 1;
                    self.handle_estimate(index, remb, now, outbox);
                }
                Ok(RtcpPacket::TransportWide(arrivals)) => {
                    self.counters.transport_wide += 1;
                    self.forward_arrivals(index, arrivals, outbox);
                }
                Ok(RtcpPacket::Extended(_)) => {
                    if !self.options.untouched {
                        self.counters.ignored.count_rtcp(rtcp::xr::EXTENDED_REPORT);
                    }
                }
                Ok(RtcpPacket::Other { payload_type, .. }) => {
                    if !self.options.untouched {
                        self.counters.ignored.count_rtcp(payload_type);
                    }
                }
                Err(_) => {
                    self.counters.malformed += 1;
                    return;
                }
            }
        }
        if self.options.untouched {
            self.reflect(index, compound, outbox);
        } else if reported {
            self.answer_report(index, now, outbox);
        }
    }

    /// Forwards the sender's mapping of NTP to RTP time to the room, with the SSRC and timestamps of the outgoing
    /// stream.
    fn handle_sender_report(
        &mut self,
        index: SessionIndex,
        info: SenderInfo,
        now: BatchClock,
        outbox: &mut DatagramOutbox,
    ) {
        let untouched = self.options.untouched;
        let Some(session) = self.sessions.get_mut(&index) else { return };
        let Some(stream) = session.streams.iter_mut().find(|stream| stream.ssrc == info.ssrc)
        else {
            self.counters.ignored.unknown_stream += u64::from(!untouched);
            return;
        };
        stream.reception.sender_report(info.ntp, now.unix_us * 1_000);
        if untouched {
            return;
        }
        let timestamp = info.timestamp.wrapping_add(stream.timestamp_offset);
        let out_ssrc = stream.out_ssrc;
        let mut report = Vec::new();
        rtcp::write_sender_report(
            &SenderInfo { ssrc: out_ssrc, timestamp, ..info },
            &[],
            &mut report,
        );
        rtcp::write_cname(out_ssrc, b"sample-node", &mut report);
        self.reflect(index, &report, outbox);
    }

    fn answer_report(&mut self, index: SessionIndex, now: BatchClock, outbox: &mut DatagramOutbox) {
        let own = self.number;
        let Some(session) = self.sessions.get_mut(&index) else { return };
        let blocks: Vec<_> = session
            .streams
            .iter_mut()
            .map(|stream| stream.reception.report(stream.ssrc, now.unix_us * 1_000))
            .collect();
        let leg = session.leg;
        let mut report = Vec::new();
        rtcp::write_receiver_report(own, &blocks, &mut report);
        rtcp::write_cname(own, b"sample-node", &mut report);
        self.send(leg, &report, outbox);
    }

    /// Forwards feedback on a stream to its sender. `write` appends it, from the node's SSRC and about the incoming stream.
    fn ask_sender(
        &mut self,
        out_ssrc: u32,
        outbox: &mut DatagramOutbox,
        write: impl Fn(u32, &ReflectedStream, &mut Vec<u8>),
    ) {
        if self.options.untouched {
            return;
        }
        let found = self.out_ssrcs.get(&out_ssrc).and_then(|(index, ssrc)| {
            let session = self.sessions.get(index)?;
            Some((session.leg, session.streams.iter().find(|stream| stream.ssrc == *ssrc)?))
        });
        let Some((leg, stream)) = found else {
            self.counters.ignored.unknown_stream += 1;
            return;
        };
        let mut request = Vec::new();
        rtcp::write_receiver_report(self.number, &[], &mut request);
        write(self.number, stream, &mut request);
        self.send(leg, &request, outbox);
    }

    /// Forwards the lowest estimate of a sender's receivers to it, so that a receiver with a better path does not lift it again.
    fn handle_estimate(
        &mut self,
        index: SessionIndex,
        remb: Remb<'_>,
        now: BatchClock,
        outbox: &mut DatagramOutbox,
    ) {
        if self.options.untouched {
            return;
        }
        let Some(session) = self.sessions.get_mut(&index) else { return };
        session.estimate = Some((remb.bitrate_bps, now.instant));
        let mut senders: BTreeMap<SessionIndex, Vec<u32>> = BTreeMap::new();
        for source in remb.sources() {
            match self.out_ssrcs.get(&source) {
                Some(&(sender, ssrc)) => senders.entry(sender).or_default().push(ssrc),
                None => self.counters.ignored.unknown_stream += 1,
            }
        }
        let is_recent = |at| now.instant.saturating_duration_since(at) <= ESTIMATE_WITHIN;
        for (sender, ssrcs) in senders {
            let Some(leg) = self.sessions.get(&sender).map(|session| session.leg) else { continue };
            let estimates = self.others(sender).filter_map(|receiver| receiver.estimate);
            let recent = estimates.filter(|(_, at)| is_recent(*at)).map(|(bps, _)| bps);
            let Some(lowest) = recent.min() else { continue };
            let mut request = Vec::new();
            rtcp::write_receiver_report(self.number, &[], &mut request);
            rtcp::write_remb(self.number, lowest, &ssrcs, &mut request);
            self.send(leg, &request, outbox);
        }
    }

    /// Forwards transport-wide feedback if all packets that the receiver gets are of one sender: several would number theirs alike.
    fn forward_arrivals(
        &mut self,
        index: SessionIndex,
        mut arrivals: TransportWide<'_>,
        outbox: &mut DatagramOutbox,
    ) {
        if self.options.untouched {
            return;
        }
        let senders: Vec<SessionLeg> = self.others(index).map(|session| session.leg).collect();
        let [leg] = senders[..] else {
            self.counters.ignored.transport_wide += 1;
            return;
        };
        arrivals.sender = self.number;
        if let Some((_, ssrc)) = self.out_ssrcs.get(&arrivals.media) {
            arrivals.media = *ssrc;
        }
        let mut forwarded = Vec::new();
        rtcp::write_receiver_report(self.number, &[], &mut forwarded);
        arrivals.write(&mut forwarded);
        self.send(leg, &forwarded, outbox);
    }
}
