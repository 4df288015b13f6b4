//! One stream of RTP, packet by packet.

use evenkeel_media::rtp;

use evenkeel_lab::Mark;

/// What all sessions declare.
pub(super) const PAYLOAD_TYPE: u8 = 111;
/// Units of the timestamp a second.
const CLOCK_RATE: u64 = 48_000;
/// What a load sends first of a stream; every session has its own above it.
const SSRC: u32 = 0x0100_0000;
/// Set in the SSRC of what nodes send.
const FROM_NODE: u32 = 0x8000_0000;

/// Which way a packet goes.
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

/// A stream as its sender keeps it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    session: u32,
    ssrc: u32,
    /// Packets sent so far.
    pub(super) sent: u64,
}

impl Stream {
    pub(super) fn new(session: u32, way: Way) -> Stream {
        Stream { session, ssrc: ssrc(session, way), sent: 0 }
    }

    /// Makes `packet` the next of the stream: its header and mark are written, what follows stays.
    pub(super) fn next(&mut self, packet: &mut [u8], window: u8, now_ns: u64) {
        let timestamp = now_ns / 1_000 * (CLOCK_RATE / 1_000) / 1_000;
        packet[0] = 0x80;
        packet[1] = PAYLOAD_TYPE;
        rtp::set_sequence(packet, self.sent as u16);
        rtp::set_timestamp(packet, timestamp as u32);
        rtp::set_ssrc(packet, self.ssrc);
        let mark = Mark {
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

/// The mark of an RTP packet of this stream's way, if it is one of a load and the SSRC is its session's.
pub(super) fn read(packet: &[u8], way: Way) -> Option<Mark> {
    let header = rtp::Header::parse(packet).ok()?;
    let mark = Mark::read(header.payload(packet))?;
    (u64::from(header.ssrc) == u64::from(ssrc(0, way)) + mark.session).then_some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_a_stream_are_rtp_in_order_and_say_whose_they_are() {
        let mut stream = Stream::new(7, Way::ToClient);
        for number in 0..3 {
            let mut packet = vec![0x55; 60];
            stream.next(&mut packet, 9, 1_000_000_000);
            let header = rtp::Header::parse(&packet).unwrap();
            assert_eq!((header.ssrc, header.sequence), (ssrc(7, Way::ToClient), number));
            assert_eq!((header.timestamp, header.payload_type), (48_000, PAYLOAD_TYPE));
            let expected = Mark {
                session: 7,
                number: number.into(),
                sent_ns: 1_000_000_000,
                node: 0,
                stream: 9,
            };
            assert_eq!(read(&packet, Way::ToClient), Some(expected));
            assert_eq!(read(&packet, Way::ToNode), None, "it is another stream");
        }
    }
}
