//! One stream of RTP, packet by packet.

use evenkeel_media::rtp;

use evenkeel_lab::TestHeader;

/// The payload type of all sessions.
pub(super) const PAYLOAD_TYPE: u8 = 111;
/// Timestamp units per second.
const CLOCK_RATE: u64 = 48_000;
/// The base of SSRCs, to which the session's number is added.
const SSRC: u32 = 0x0100_0000;
/// Set in the SSRC of packets that nodes send.
const FROM_NODE: u32 = 0x8000_0000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    ToNode,
    ToClient,
}

/// The SSRC of a session's stream.
pub(super) fn ssrc(session: u32, way: Way) -> u32 {
    let own = SSRC + session;
    match way {
        Way::ToNode => own,
        Way::ToClient => own | FROM_NODE,
    }
}

/// A sender's state of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    session: u32,
    ssrc: u32,
    pub(super) sent: u64,
}

impl Stream {
    pub(super) fn new(session: u32, way: Way) -> Stream {
        Stream { session, ssrc: ssrc(session, way), sent: 0 }
    }

    /// Writes header and mark of the stream's next packet into `packet`; the rest stays.
    pub(super) fn next(&mut self, packet: &mut [u8], window: u8, now_ns: u64) {
        let timestamp = now_ns / 1_000 * (CLOCK_RATE / 1_000) / 1_000;
        packet[0] = 0x80;
        packet[1] = PAYLOAD_TYPE;
        rtp::set_sequence(packet, self.sent as u16);
        rtp::set_timestamp(packet, timestamp as u32);
        rtp::set_ssrc(packet, self.ssrc);
        let mark = TestHeader {
            session: self.session.into(),
            number: self.sent,
            sent_ns: now_ns,
            node: 0,
            stream: window,
        };
        mark.write_to(&mut packet[rtp::HEADER_LEN..]);
        self.sent += 1;
    }
}

/// The mark of an RTP packet in this direction, if it is of a load and the SSRC is its session's.
pub(super) fn read(packet: &[u8], way: Way) -> Option<TestHeader> {
    let header = rtp::RtpHeader::parse(packet).ok()?;
    let mark = TestHeader::read(header.payload(packet))?;
    (u64::from(header.ssrc) == u64::from(ssrc(0, way)) + mark.session).then_some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_packets_are_marked_rtp_in_order() {
        let mut stream = Stream::new(7, Way::ToClient);
        for number in 0..3 {
            let mut packet = vec![0x55; 60];
            stream.next(&mut packet, 9, 1_000_000_000);
            let header = rtp::RtpHeader::parse(&packet).unwrap();
            assert_eq!((header.ssrc, header.sequence), (ssrc(7, Way::ToClient), number));
            assert_eq!((header.timestamp, header.payload_type), (48_000, PAYLOAD_TYPE));
            let expected = TestHeader {
                session: 7,
                number: number.into(),
                sent_ns: 1_000_000_000,
                node: 0,
                stream: 9,
            };
            assert_eq!(read(&packet, Way::ToClient), Some(expected));
            assert_eq!(read(&packet, Way::ToNode), None, "the other direction is another stream");
        }
    }
}
