//! A client on a plain UDP socket, which keeps all packets that it receives.

use std::cell::RefCell;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use evenkeel_lab::TestHeader;
use evenkeel_lab::client::{SrtpEndpoint, answer_check};
use evenkeel_media::numbering::ClientNumbers;
use evenkeel_media::rtcp::{self, ReportBlock};
use evenkeel_media::{demux, rtp};

use super::{TIMEOUT, wait_until};

/// The packet interval of audio.
const PACE: Duration = Duration::from_millis(20);

pub(crate) struct Phone {
    pub(crate) socket: UdpSocket,
    pub(crate) target: SocketAddr,
    /// Identifies the phone's packets in the test header.
    pub(crate) number: u64,
    pub(crate) voice: Track,
    pub(crate) video: Track,
    pub(crate) sends_video: bool,
    /// The network loses one of this many packets of voice to the gateway; 0: none.
    pub(crate) lost_each: u64,
    pub(crate) heard: Vec<Heard>,
    /// Received packets that are not marked RTP.
    pub(crate) other: Vec<Vec<u8>>,
    pub(crate) srtp: Option<RefCell<SrtpEndpoint>>,
    /// The phone's numbers, if they differ from those of the room.
    pub(crate) numbers: Option<ClientNumbers>,
    due: Instant,
}

fn is_media(kind: demux::DatagramKind) -> bool {
    matches!(kind, demux::DatagramKind::Rtp | demux::DatagramKind::Rtcp)
}

#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) header: rtp::RtpHeader,
    pub(crate) mark: TestHeader,
    pub(crate) from: SocketAddr,
    pub(crate) length: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Track {
    pub(crate) payload_type: u8,
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) step: u32,
    pub(crate) size: usize,
    pub(crate) sent: u64,
    pub(crate) stream: u8,
}

impl Track {
    pub(crate) fn packet(&mut self, session: u64) -> Vec<u8> {
        let mark =
            TestHeader { session, number: self.sent, sent_ns: 0, node: 0, stream: self.stream };
        let mut payload = Vec::new();
        mark.write(&mut payload);
        payload.resize(self.size.max(TestHeader::LENGTH), 0x5a);
        let fields = rtp::Fields {
            payload_type: self.payload_type,
            marker: self.stream == 1,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        };
        let mut packet = Vec::new();
        rtp::write(&fields, &payload, &mut packet);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(self.step);
        self.sent += 1;
        packet
    }
}

impl Phone {
    pub(crate) fn new(number: u64) -> Phone {
        Phone::on("127.0.0.1:0", number)
    }

    pub(crate) fn on(address: &str, number: u64) -> Phone {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let track = |payload_type, stream, step| Track {
            payload_type,
            ssrc: 0x1000 * number as u32 + u32::from(payload_type),
            sequence: 65_500_u16.wrapping_add(number as u16),
            timestamp: 4_000_000_000,
            step,
            size: 100,
            sent: 0,
            stream,
        };
        Phone {
            target: socket.local_addr().unwrap(),
            socket,
            number,
            voice: track(111, 0, 960),
            video: track(96, 1, 1_800),
            sends_video: false,
            lost_each: 0,
            heard: Vec::new(),
            other: Vec::new(),
            srtp: None,
            numbers: None,
            due: Instant::now(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    pub(crate) fn set_target(&mut self, target: SocketAddr) {
        self.target = target;
    }

    /// Sends one packet of each stream.
    pub(crate) fn send_media(&mut self) {
        let voice = self.voice.packet(self.number);
        if !self.voice.sent.is_multiple_of(self.lost_each) {
            self.send(&voice);
        }
        if self.sends_video {
            let video = self.video.packet(self.number);
            self.send(&video);
        }
    }

    /// Reports this loss of the streams of these packets, each the last of its stream.
    pub(crate) fn report_loss(&self, last: &[Heard], fraction_lost: u8) {
        let block = |heard: &Heard| ReportBlock {
            ssrc: heard.header.ssrc,
            fraction_lost,
            sequence_max: u32::from(heard.header.sequence),
            ..ReportBlock::default()
        };
        let blocks: Vec<ReportBlock> = last.iter().map(block).collect();
        let mut packet = Vec::new();
        rtcp::write_receiver_report(self.voice.ssrc, &blocks, &mut packet);
        self.send(&packet);
    }

    pub(crate) fn send(&self, packet: &[u8]) {
        let kind = demux::classify(packet);
        let mut packet = packet.to_vec();
        if let Some(numbers) = self.numbers.as_ref().filter(|_| kind == demux::DatagramKind::Rtp) {
            numbers.map_to_client(&mut packet).unwrap();
        }
        let srtp = self.srtp.as_ref().filter(|_| is_media(kind));
        let protected = srtp.map(|srtp| srtp.borrow_mut().protect(&packet).unwrap());
        self.socket.send_to(&protected.unwrap_or(packet), self.target).unwrap();
    }

    /// Receives what is queued; waits a millisecond for the first packet. Answers checks of the gateway.
    pub(crate) fn listen(&mut self) {
        let mut buffer = [0; 4_096];
        while let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
            let kind = demux::classify(&buffer[..length]);
            if let Some(answer) = answer_check(&buffer[..length], from) {
                self.socket.send_to(&answer, from).unwrap();
                continue;
            }
            let mut bytes = buffer[..length].to_vec();
            if let Some(srtp) = self.srtp.as_mut().filter(|_| is_media(kind)) {
                bytes = srtp.get_mut().unprotect(&bytes).expect("the gateway's packets verify");
            }
            if let Some(numbers) =
                self.numbers.as_ref().filter(|_| kind == demux::DatagramKind::Rtp)
            {
                numbers.map_to_room(&mut bytes).expect("the packets have the phone's numbers");
            }
            let bytes = &bytes[..];
            let marked = || {
                let header = rtp::RtpHeader::parse(bytes).ok()?;
                Some((header, TestHeader::read(header.payload(bytes))?))
            };
            match marked().filter(|_| demux::classify(bytes) == demux::DatagramKind::Rtp) {
                Some((header, mark)) => self.heard.push(Heard { header, mark, from, length }),
                None => self.other.push(bytes.to_vec()),
            }
        }
    }

    /// Waits until the phone, which hears itself, has heard the last packet of voice that it sent. Then none is under way.
    pub(crate) fn hear_rest(&mut self) {
        wait_until("the last packet is heard", || {
            self.listen();
            let last = self.heard.iter().rfind(|heard| heard.mark.stream == self.voice.stream);
            last.is_some_and(|last| last.mark.number + 1 == self.voice.sent)
        });
    }

    pub(crate) fn heard_from(&self, number: u64, stream: u8) -> Vec<Heard> {
        let is = |heard: &&Heard| heard.mark.session == number && heard.mark.stream == stream;
        self.heard.iter().filter(is).cloned().collect()
    }

    pub(crate) fn audio_from(&self, number: u64) -> usize {
        self.heard_from(number, 0).len()
    }

    /// The packets of voice from another phone since its last packet of video.
    pub(crate) fn voices_since_video(&self, number: u64) -> usize {
        let of_other = self.heard.iter().rev().filter(|heard| heard.mark.session == number);
        of_other.take_while(|heard| heard.mark.stream == 0).count()
    }

    /// True if the last packet came through this node.
    pub(crate) fn last_heard_via(&self, node: u32) -> bool {
        self.heard.last().is_some_and(|heard| heard.mark.node == node)
    }
}

/// Sends audio and video of all phones, each at its pace, until the condition holds.
pub(crate) fn talk(
    phones: &mut [&mut Phone],
    what: &str,
    mut until: impl FnMut(&[&mut Phone]) -> bool,
) {
    let deadline = Instant::now() + TIMEOUT;
    while !until(phones) {
        assert!(Instant::now() < deadline, "timed out: {what}");
        for phone in phones.iter_mut() {
            let now = Instant::now();
            if now >= phone.due {
                phone.due = now.max(phone.due + PACE);
                phone.send_media();
            }
            phone.listen();
        }
    }
}

/// Lets phones 1 and 2 talk until each heard 100 packets of the other by this node.
pub(crate) fn talk_by(phones: &mut [&mut Phone; 2], what: &str, node: u32) {
    talk(phones, what, |phones| {
        let counts = [(0, 2), (1, 1)].map(|(phone, from): (usize, u64)| {
            let heard = phones[phone].heard.iter();
            heard.filter(|it| it.mark.session == from && it.mark.node == node).count()
        });
        counts.iter().all(|count| *count >= 100)
    });
}

/// Sends this many packets per phone.
pub(crate) fn talk_for(phones: &mut [&mut Phone], packets: u64) {
    let goal: Vec<u64> = phones.iter().map(|phone| phone.voice.sent + packets).collect();
    talk(phones, "all packets are sent", |phones| {
        phones.iter().zip(&goal).all(|(phone, goal)| phone.voice.sent >= *goal)
    });
}

/// Asserts that a receiver sees one stream: one SSRC, no duplicate, sequence numbers in order, timestamps that do not go back
/// (packets of a frame share one). Returns how many sequence numbers are missing.
pub(crate) fn assert_continuous(heard: &[Heard]) -> u64 {
    let mut missing = 0;
    for pair in heard.windows(2) {
        let (before, after) = (&pair[0].header, &pair[1].header);
        assert_eq!(before.ssrc, after.ssrc, "SSRC changed: {pair:?}");
        let step = after.sequence.wrapping_sub(before.sequence);
        assert!((1..500).contains(&step), "a step of {step}: {pair:?}");
        let elapsed = after.timestamp.wrapping_sub(before.timestamp);
        assert!(elapsed < 20 * 48_000, "timestamp step of {elapsed}: {pair:?}");
        missing += u64::from(step - 1);
    }
    missing
}

/// Asserts that the packets are those from `first` to `sent`, each once and in order.
pub(crate) fn assert_complete(heard: &[Heard], first: u64, sent: u64) {
    let numbers: Vec<u64> = heard.iter().map(|heard| heard.mark.number).collect();
    let expected: Vec<u64> = (first..sent).collect();
    assert_eq!(numbers, expected);
}
