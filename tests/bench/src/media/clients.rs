//! A sender and a receiver of plain RTP. Both answer for themselves: the receiver judges by the sender's schedule and content.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

use evenkeel_lab::clock;
use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::rtcp::{self, RtcpPacket};
use evenkeel_media::rtp::{self, RtpHeader};

use super::content::{self, number_of};
use super::flexfec::ParityDecoder;
use super::path;
use super::red;
use super::row::{LATENCY, Medium, REORDERING, Repair};

/// Interval of RTCP reports.
pub(super) const REPORT_EVERY: Duration = Duration::from_millis(500);
/// Longer than any packet.
pub(super) const DATAGRAM: usize = 2_048;
/// Seconds from 1900 to 1970.
const UNIX_IN_NTP_S: u64 = 2_208_988_800;

/// The NTP time of a report, of nanoseconds since the Unix epoch.
pub(super) fn ntp_of(unix_ns: u64) -> u64 {
    let (seconds, rest) = (unix_ns / 1_000_000_000, unix_ns % 1_000_000_000);
    ((seconds + UNIX_IN_NTP_S) << 32) | ((rest << 32) / 1_000_000_000)
}

/// The times at which packets are sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) medium: Medium,
    pub(super) begins: Instant,
    /// The number of packets.
    pub(super) packets: usize,
}

impl Schedule {
    pub(super) fn due(&self, number: usize) -> Instant {
        self.begins + self.medium.since_first(number / self.medium.packets_per_frame())
    }
}

pub(super) struct Sender {
    pub(super) socket: UdpSocket,
    /// It sends to this address.
    pub(super) gateway: SocketAddr,
    schedule: Schedule,
    session: u64,
    ssrc: u32,
    first_sequence: u16,
    first_timestamp: u32,
    next: usize,
    octets: u32,
    reports_at: Instant,
    /// Packets sent again because the gateway asked for them.
    pub(super) resent: u64,
}

impl Sender {
    /// # Errors
    /// The system has no sockets.
    pub(super) fn new(session: u64, schedule: Schedule) -> io::Result<Sender> {
        let socket = path::socket()?;
        let gateway = socket.local_addr()?;
        Ok(Sender {
            socket,
            gateway,
            schedule,
            session,
            ssrc: 0x5e4d_0000 + session as u32,
            first_sequence: 65_000_u16.wrapping_add(session as u16),
            first_timestamp: 4_294_000_000,
            next: 0,
            octets: 0,
            reports_at: schedule.begins,
            resent: 0,
        })
    }

    /// Sends the packets and reports that are due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while self.next < self.schedule.packets && self.schedule.due(self.next) <= now {
            self.send(self.next);
            self.octets = self.octets.wrapping_add(self.schedule.medium.payload_length() as u32);
            self.next += 1;
        }
        if now >= self.reports_at {
            self.reports_at = now + REPORT_EVERY;
            self.report(now);
        }
    }

    fn send(&self, number: usize) {
        let medium = self.schedule.medium;
        let frame = number / medium.packets_per_frame();
        let ends_frame = (number + 1).is_multiple_of(medium.packets_per_frame());
        let fields = rtp::Fields {
            payload_type: medium.payload_type(),
            marker: medium == Medium::Video && ends_frame,
            sequence: self.first_sequence.wrapping_add(number as u16),
            timestamp: self.timestamp(frame),
            ssrc: self.ssrc,
        };
        let mut packet = Vec::new();
        rtp::write(&fields, &content::write(medium, self.session, number), &mut packet);
        // A full socket loses the packet, as any network would.
        let _lost_at_worst = self.socket.send_to(&packet, self.gateway);
    }

    fn timestamp(&self, frame: usize) -> u32 {
        let ticks = (frame as u32).wrapping_mul(self.schedule.medium.ticks_per_frame());
        self.first_timestamp.wrapping_add(ticks)
    }

    fn report(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.schedule.begins);
        let ticks = elapsed.as_secs_f64() * f64::from(self.schedule.medium.clock_rate());
        let info = rtcp::SenderInfo {
            ssrc: self.ssrc,
            ntp: ntp_of(clock::now_ns()),
            timestamp: self.first_timestamp.wrapping_add(ticks as u32),
            packets: self.next as u32,
            octets: self.octets,
        };
        let mut report = Vec::new();
        rtcp::write_sender_report(&info, &[], &mut report);
        rtcp::write_cname(self.ssrc, b"sender", &mut report);
        let _lost_at_worst = self.socket.send_to(&report, self.gateway);
    }

    /// Reads what has arrived and sends again what the gateway asks for.
    pub(super) fn receive(&mut self) {
        let mut datagram = [0; DATAGRAM];
        while let Ok((length, _)) = self.socket.recv_from(&mut datagram) {
            if demux::classify(&datagram[..length]) != DatagramKind::Rtcp {
                continue;
            }
            for packet in rtcp::packets(&datagram[..length]).flatten() {
                let RtcpPacket::Nack(nack) = packet else { continue };
                if nack.media != self.ssrc {
                    continue;
                }
                for sequence in nack.missing() {
                    let number = usize::from(sequence.wrapping_sub(self.first_sequence));
                    if number < self.next {
                        self.send(number);
                        self.resent += 1;
                    }
                }
            }
        }
    }
}

/// Counters of a receiver, of packets with a judged number but for `wrong`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Reception {
    /// Packets with content that had arrived before.
    pub(super) repeated: u64,
    /// Packets with redundant blocks, and these blocks.
    pub(super) red_packets: u64,
    pub(super) red_blocks: u64,
    /// Malformed packets and blocks, and those that the sender did not send so.
    pub(super) wrong: u64,
}

/// The stream that a receiver gets.
#[derive(Clone, Copy)]
struct IncomingStream {
    ssrc: u32,
    /// Its sequence number less the sender's number.
    ahead: u16,
    /// The highest number so far.
    highest: usize,
    /// The number of its first packet.
    first: usize,
    received: usize,
    /// At the last report.
    expected_before: usize,
    received_before: usize,
}

pub(super) struct Receiver {
    pub(super) socket: UdpSocket,
    /// It sends to this address.
    pub(super) gateway: SocketAddr,
    schedule: Schedule,
    judged: Range<usize>,
    session: u64,
    ssrc: u32,
    asks: bool,
    /// It asks again after this time.
    round_trip: Duration,
    parity: Option<ParityDecoder>,
    stream: Option<IncomingStream>,
    /// By number, when its content arrived first.
    arrived: Vec<Option<Instant>>,
    /// By number, when it was asked for last.
    asked: Vec<Option<Instant>>,
    /// All packets before this one have arrived, or are too late.
    settled: usize,
    /// The shortest time from a packet's schedule to its arrival.
    transit: Option<Duration>,
    /// The middle bits of the NTP time in the last sender report, and its arrival.
    last_report: Option<SenderReportArrival>,
    reports_at: Instant,
    pub(super) reception: Reception,
}

/// The place of a redundant block.
#[derive(Clone, Copy)]
struct RedundantPlace {
    /// The number of the packet that carries it.
    carrier: usize,
    /// By how much its timestamp is before that of the packet.
    before: u32,
}

#[derive(Clone, Copy)]
struct SenderReportArrival {
    middle: u32,
    at: Instant,
}

impl Receiver {
    /// `repair`: the repair that it declares.
    ///
    /// # Errors
    /// The system has no sockets.
    pub(super) fn new(
        session: u64,
        schedule: Schedule,
        judged: Range<usize>,
        repair: Option<Repair>,
        round_trip: Duration,
    ) -> io::Result<Receiver> {
        let socket = path::socket()?;
        let gateway = socket.local_addr()?;
        Ok(Receiver {
            socket,
            gateway,
            schedule,
            judged,
            session,
            ssrc: 0x4ece_0000 + session as u32,
            asks: repair.is_some_and(Repair::has_nack),
            round_trip,
            parity: (repair == Some(Repair::Parity)).then(ParityDecoder::default),
            stream: None,
            arrived: vec![None; schedule.packets],
            asked: vec![None; schedule.packets],
            settled: 0,
            transit: None,
            last_report: None,
            reports_at: schedule.begins,
            reception: Reception::default(),
        })
    }

    /// Reads what has arrived.
    pub(super) fn receive(&mut self) {
        let mut datagram = [0; DATAGRAM];
        while let Ok((length, _)) = self.socket.recv_from(&mut datagram) {
            let (datagram, now) = (&datagram[..length], Instant::now());
            match demux::classify(datagram) {
                DatagramKind::Rtp => self.handle_media(datagram, now),
                DatagramKind::Rtcp => self.handle_reports(datagram, now),
                _ => {}
            }
        }
    }

    fn handle_reports(&mut self, compound: &[u8], at: Instant) {
        for packet in rtcp::packets(compound).flatten() {
            if let RtcpPacket::SenderReport(report) = packet {
                let middle = (report.info.ntp >> 16) as u32;
                self.last_report = Some(SenderReportArrival { middle, at });
            }
        }
    }

    fn handle_media(&mut self, packet: &[u8], now: Instant) {
        let Ok(header) = RtpHeader::parse(packet) else { return self.reception.wrong += 1 };
        let payload = header.payload(packet);
        if header.payload_type == Medium::PARITY {
            return self.handle_parity(payload, now);
        }
        if header.payload_type != Medium::RED {
            let number = self.take(payload, None, now);
            if let Some(parity) = self.parity.as_mut().filter(|_| number.is_some()) {
                parity.note_packet(header.sequence, packet);
            }
            self.count(&header, number);
            return self.recover(now);
        }
        let Some(blocks) = red::blocks(payload) else { return self.reception.wrong += 1 };
        let (primary, redundant) = blocks.split_last().expect("a payload has a primary block");
        // Redundant blocks first: their numbers are lower.
        let number = number_of(primary.content);
        for block in redundant {
            let place = number.map(|carrier| RedundantPlace { carrier, before: block.before });
            self.take(block.content, place, now);
        }
        if number.is_some_and(|number| self.judged.contains(&number)) {
            self.reception.red_packets += 1;
            self.reception.red_blocks += redundant.len() as u64;
        }
        let number = self.take(primary.content, None, now);
        self.count(&header, number);
    }

    fn handle_parity(&mut self, payload: &[u8], now: Instant) {
        let is_sound = self.parity.as_mut().is_some_and(|parity| parity.note_parity(payload));
        self.reception.wrong += u64::from(!is_sound);
        self.recover(now);
    }

    /// Takes the packets that parity gives now.
    fn recover(&mut self, now: Instant) {
        let (Some(stream), Some(parity)) = (self.stream, &mut self.parity) else { return };
        for recovered in parity.recover() {
            let expected = recovered.as_ref().map(|it| it.sequence.wrapping_sub(stream.ahead));
            let number = recovered.and_then(|it| self.take(&it.payload, None, now));
            let is_right = number.is_some() && number == expected.map(usize::from);
            self.reception.wrong += u64::from(!is_right);
        }
    }

    /// Takes the content of a packet or a block. Returns its number.
    fn take(
        &mut self,
        content: &[u8],
        redundant: Option<RedundantPlace>,
        now: Instant,
    ) -> Option<usize> {
        let number = number_of(content).filter(|number| *number < self.schedule.packets);
        let is_right = |number: usize| {
            let ticks = self.schedule.medium.ticks_per_frame();
            let is_in_place = redundant.is_none_or(|RedundantPlace { carrier, before }| {
                carrier.checked_sub(number).is_some_and(|frames| frames as u32 * ticks == before)
            });
            is_in_place && content::write(self.schedule.medium, self.session, number) == content
        };
        let Some(number) = number.filter(|number| is_right(*number)) else {
            self.reception.wrong += 1;
            return None;
        };
        let is_repeated = self.arrived[number].is_some() && redundant.is_none();
        self.reception.repeated += u64::from(is_repeated && self.judged.contains(&number));
        if self.arrived[number].is_none() {
            self.arrived[number] = Some(now);
            let took = now.saturating_duration_since(self.schedule.due(number));
            self.transit = Some(self.transit.map_or(took, |least| least.min(took)));
        }
        Some(number)
    }

    /// Counts a packet for reports.
    fn count(&mut self, header: &RtpHeader, number: Option<usize>) {
        let Some(number) = number else { return };
        let stream = self.stream.get_or_insert(IncomingStream {
            ssrc: header.ssrc,
            ahead: header.sequence.wrapping_sub(number as u16),
            highest: number,
            first: number,
            received: 0,
            expected_before: 0,
            received_before: 0,
        });
        stream.highest = stream.highest.max(number);
        stream.received += 1;
        let is_of_stream = stream.ssrc == header.ssrc
            && header.sequence.wrapping_sub(stream.ahead) == number as u16;
        self.reception.wrong += u64::from(!is_of_stream);
    }

    /// The time at which the content of a number is played.
    fn deadline(&self, number: usize) -> Option<Instant> {
        Some(self.schedule.due(number) + self.transit? + LATENCY)
    }

    /// True if the content of this number arrived in time.
    pub(super) fn has(&self, number: usize) -> bool {
        let in_time = |at: Instant| self.deadline(number).is_some_and(|deadline| at <= deadline);
        self.arrived[number].is_some_and(in_time)
    }

    /// Asks for packets and sends the reports that are due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.asks {
            self.ask(now);
        }
        if now >= self.reports_at {
            self.reports_at = now + REPORT_EVERY;
            self.report(now);
        }
    }

    fn ask(&mut self, now: Instant) {
        let (Some(stream), Some(transit)) = (self.stream, self.transit) else { return };
        let mut missing = Vec::new();
        for number in self.settled.max(stream.first)..self.schedule.packets {
            let due = self.schedule.due(number) + transit;
            if due + REORDERING > now {
                break;
            }
            // A repetition that would come too late is not asked for.
            let is_over = self.arrived[number].is_some() || now + self.round_trip > due + LATENCY;
            if is_over && number == self.settled.max(stream.first) {
                self.settled = number + 1;
            }
            let is_early = self.asked[number].is_some_and(|asked| now < asked + self.round_trip);
            if !is_over && !is_early {
                self.asked[number] = Some(now);
                missing.push(stream.ahead.wrapping_add(number as u16));
            }
        }
        if missing.is_empty() {
            return;
        }
        let mut compound = Vec::new();
        rtcp::write_receiver_report(self.ssrc, &[], &mut compound);
        rtcp::write_cname(self.ssrc, b"receiver", &mut compound);
        rtcp::write_nack(self.ssrc, stream.ssrc, &missing, &mut compound);
        let _lost_at_worst = self.socket.send_to(&compound, self.gateway);
    }

    /// Sends a receiver report (RFC 3550, section 6.4.2 and appendix A.3). Without a stream it has no block: it opens the path.
    fn report(&mut self, now: Instant) {
        let since = self.last_report.map(|report| now.saturating_duration_since(report.at));
        let (last_sr, delay_since_last_sr) =
            self.last_report.zip(since).map_or((0, 0), |(report, since)| {
                (report.middle, (since.as_secs_f64() * 65_536.0) as u32)
            });
        let block = self.stream.as_mut().map(|stream| {
            let expected = stream.highest + 1 - stream.first;
            let due = expected - stream.expected_before;
            let missed = due.saturating_sub(stream.received - stream.received_before);
            (stream.expected_before, stream.received_before) = (expected, stream.received);
            let lost = expected as i64 - stream.received as i64;
            rtcp::ReportBlock {
                ssrc: stream.ssrc,
                fraction_lost: u8::try_from((missed << 8) / due.max(1)).unwrap_or(u8::MAX),
                lost: i32::try_from(lost).unwrap_or(0),
                sequence_max: extended(stream),
                jitter: 0,
                last_sr,
                delay_since_last_sr,
            }
        });
        let mut report = Vec::new();
        rtcp::write_receiver_report(self.ssrc, block.as_slice(), &mut report);
        rtcp::write_cname(self.ssrc, b"receiver", &mut report);
        let _lost_at_worst = self.socket.send_to(&report, self.gateway);
    }
}

/// The highest sequence number, with the wraps since the first one.
fn extended(stream: &IncomingStream) -> u32 {
    let first = u32::from(stream.ahead.wrapping_add(stream.first as u16));
    first + (stream.highest - stream.first) as u32
}

#[cfg(test)]
mod tests {
    use super::super::row::ROUND_TRIP;
    use super::*;

    const SESSION: u64 = 3;
    const JUDGED: Range<usize> = 0..50;
    const SOON: Duration = Duration::from_secs(10);
    /// From a packet's schedule to its arrival.
    const TRANSIT: Duration = Duration::from_millis(20);

    fn schedule() -> Schedule {
        Schedule { medium: Medium::Voice, begins: Instant::now(), packets: 50 }
    }

    /// A receiver that sends to its own socket.
    fn receiver() -> Receiver {
        let receiver =
            Receiver::new(SESSION, schedule(), JUDGED, Some(Repair::Nack), ROUND_TRIP).unwrap();
        receiver.socket.set_nonblocking(false).unwrap();
        receiver.socket.set_read_timeout(Some(SOON)).unwrap();
        receiver
    }

    fn packet(payload_type: u8, number: u16, payload: &[u8]) -> Vec<u8> {
        let fields = rtp::Fields {
            payload_type,
            marker: false,
            sequence: 65_530_u16.wrapping_add(number),
            timestamp: 960 * u32::from(number),
            ssrc: 9,
        };
        let mut packet = Vec::new();
        rtp::write(&fields, payload, &mut packet);
        packet
    }

    fn content(number: u16) -> Vec<u8> {
        content::write(Medium::Voice, SESSION, number.into())
    }

    /// Hands over the packet of this number when it is due, or this much later.
    fn deliver(receiver: &mut Receiver, number: u16, later: Duration) {
        let at = receiver.schedule.due(number.into()) + TRANSIT + later;
        let packet = packet(111, number, &content(number));
        receiver.handle_media(&packet, at);
    }

    /// The numbers that the receiver asks for at this time after the packet was due.
    fn asked(receiver: &mut Receiver, number: usize, after: Duration) -> Vec<u16> {
        receiver.ask(receiver.schedule.due(number) + TRANSIT + after);
        receiver.socket.send_to(b"end", receiver.gateway).unwrap();
        let mut numbers = Vec::new();
        let mut datagram = [0; DATAGRAM];
        loop {
            let length = receiver.socket.recv(&mut datagram).unwrap();
            if &datagram[..length] == b"end" {
                return numbers;
            }
            for packet in rtcp::packets(&datagram[..length]).flatten() {
                if let RtcpPacket::Nack(nack) = packet {
                    numbers.extend(nack.missing().map(|sequence| sequence.wrapping_sub(65_530)));
                }
            }
        }
    }

    #[test]
    fn missed_packet_is_asked_for_each_round_trip() {
        let mut receiver = receiver();
        for number in (0..6).chain(8..16) {
            deliver(&mut receiver, number, Duration::ZERO);
        }
        let ms = Duration::from_millis;
        let mut asked = |after| asked(&mut receiver, 6, ms(after));
        assert_eq!(asked(19), [0; 0], "it may be out of order");
        assert_eq!(asked(20), [6]);
        assert_eq!(asked(45), [7], "the next is due 20 ms later");
        assert_eq!(asked(60), [6]);
        assert_eq!(asked(79), [0; 0], "less than a round trip since then");
        assert_eq!(asked(85), [7]);
        assert_eq!(asked(100), [0; 0], "the answer would come too late");
    }

    #[test]
    fn repeated_packet_counts_until_its_deadline() {
        let mut receiver = receiver();
        for number in [0, 1, 2, 5] {
            deliver(&mut receiver, number, Duration::ZERO);
        }
        deliver(&mut receiver, 3, LATENCY);
        deliver(&mut receiver, 4, LATENCY + Duration::from_micros(1));
        deliver(&mut receiver, 5, LATENCY);
        assert_eq!(
            [2, 3, 4, 5, 6].map(|number| receiver.has(number)),
            [true, true, false, true, false]
        );
        assert_eq!((receiver.reception.repeated, receiver.reception.wrong), (1, 0));
    }

    #[test]
    fn redundant_block_replaces_a_lost_packet() {
        let mut receiver = receiver();
        deliver(&mut receiver, 0, Duration::ZERO);
        let (older, newer) = (content(1), content(3));
        let red = |before: u32, older: &[u8]| {
            let fields = before << 10 | older.len() as u32;
            let [_, a, b, c] = fields.to_be_bytes();
            [&[0x80 | 111, a, b, c, 111][..], older, &newer].concat()
        };
        let at = receiver.schedule.due(3) + TRANSIT;
        receiver.handle_media(&packet(Medium::RED, 3, &red(2 * 960, &older)), at);
        assert_eq!([0, 1, 2, 3].map(|number| receiver.has(number)), [true, true, false, true]);
        let blocks = (receiver.reception.red_packets, receiver.reception.red_blocks);
        assert_eq!((blocks, receiver.reception.wrong), ((1, 1), 0));
        receiver.handle_media(&packet(Medium::RED, 3, &red(960, &older)), at);
        assert_eq!(receiver.reception.wrong, 1, "the block has another timestamp");
        let mut damaged = older.clone();
        *damaged.last_mut().unwrap() ^= 1;
        receiver.handle_media(&packet(Medium::RED, 3, &red(2 * 960, &damaged)), at);
        assert_eq!(receiver.reception.wrong, 2, "the block has another content");
    }

    #[test]
    fn parity_replaces_a_lost_packet() {
        let mut receiver = receiver();
        receiver.parity = Some(ParityDecoder::default());
        deliver(&mut receiver, 0, Duration::ZERO);
        let parity_of = |number: u16, last: u8| {
            let mut lost = packet(111, number, &content(number));
            *lost.last_mut().unwrap() ^= last;
            let length = (lost.len() - rtp::HEADER_LEN) as u16;
            let payload = [
                &[0, 111][..],
                &length.to_be_bytes(),
                &lost[4..8],
                &[1, 0, 0, 0, 0, 0, 0, 9],
                &65_530_u16.wrapping_add(number).to_be_bytes(),
                &[0xc0, 0],
                &lost[rtp::HEADER_LEN..],
            ];
            packet(Medium::PARITY, number, &payload.concat())
        };
        let at = receiver.schedule.due(1) + TRANSIT;
        receiver.handle_media(&parity_of(1, 0), at);
        assert_eq!([0, 1, 2].map(|number| receiver.has(number)), [true, true, false]);
        assert_eq!(receiver.reception.wrong, 0);
        receiver.handle_media(&parity_of(2, 1), at);
        assert!(!receiver.has(2) && receiver.reception.wrong > 0, "it has another content");
    }

    #[test]
    fn sender_sends_again_as_asked() {
        let gateway = UdpSocket::bind("127.0.0.1:0").unwrap();
        gateway.set_read_timeout(Some(SOON)).unwrap();
        let mut sender = Sender::new(SESSION, schedule()).unwrap();
        sender.gateway = gateway.local_addr().unwrap();
        sender.handle_timeout(sender.schedule.due(2));
        let mut buffer = [0; DATAGRAM];
        let mut next = || {
            loop {
                let length = gateway.recv(&mut buffer).unwrap();
                if demux::classify(&buffer[..length]) == DatagramKind::Rtp {
                    return buffer[..length].to_vec();
                }
            }
        };
        let sent = [next(), next(), next()];
        let second = RtpHeader::parse(&sent[1]).unwrap();
        let mut nack = Vec::new();
        // The other one was not sent yet.
        let missing = [second.sequence, second.sequence.wrapping_add(9)];
        rtcp::write_nack(1, second.ssrc, &missing, &mut nack);
        gateway.send_to(&nack, sender.socket.local_addr().unwrap()).unwrap();
        let until = Instant::now() + SOON;
        while sender.resent == 0 {
            assert!(Instant::now() < until);
            sender.receive();
        }
        assert_eq!((next(), sender.resent), (sent[1].clone(), 1));
    }
}
