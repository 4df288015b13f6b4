//! RTCP at a sample node. A rewriting node answers reports itself and forwards requests with the sender's SSRC; an
//! untouched node reflects RTCP unchanged.

use evenkeel_media::rtcp::{self, FirEntry, Pli, RtcpPacket, SenderInfo};

use super::reflector::{BatchClock, Reflector, SessionIndex};
use crate::datagrams::DatagramOutbox;

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
                Ok(RtcpPacket::Pli(pli)) => {
                    self.counters.pli += 1;
                    self.ask_sender(pli.media, outbox, |own, media, out| {
                        rtcp::write_pli(Pli { sender: own, media }, out);
                    });
                }
                Ok(RtcpPacket::Fir(fir)) => {
                    self.counters.fir += 1;
                    for entry in fir.entries() {
                        self.ask_sender(entry.media, outbox, |own, media, out| {
                            rtcp::write_fir(own, &[FirEntry { media, number: entry.number }], out);
                        });
                    }
                }
                // Ignored: the node has no cache to answer a NACK, and only the gateway sets caps.
                Ok(RtcpPacket::Remb(_) | RtcpPacket::Other { .. }) => {}
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

    /// Forwards a request to the sender of the stream with this outgoing SSRC, under its incoming SSRC. Requests for
    /// unknown streams are dropped.
    fn ask_sender(
        &mut self,
        out_ssrc: u32,
        outbox: &mut DatagramOutbox,
        write: impl Fn(u32, u32, &mut Vec<u8>),
    ) {
        if self.options.untouched {
            return;
        }
        let Some(&(index, ssrc)) = self.out_ssrcs.get(&out_ssrc) else { return };
        let Some(leg) = self.sessions.get(&index).map(|session| session.leg) else { return };
        let own = self.number;
        let mut request = Vec::new();
        rtcp::write_receiver_report(own, &[], &mut request);
        write(own, ssrc, &mut request);
        self.send(leg, &request, outbox);
    }
}
