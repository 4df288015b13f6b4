use super::*;
use crate::continuity::{OriginalPacket, Pass, StreamEpoch};
use crate::instant::tests::handed_over;
use crate::rtp::RtpHeader;

const OPUS: u8 = 111;
const VP8: u8 = 96;
const RTX: u8 = 97;

fn section(index: u8, payload_type: u8) -> AnnouncedSection {
    let has_retransmissions = payload_type == VP8;
    AnnouncedSection { index, payload_types: vec![payload_type], has_retransmissions }
}

/// One m-line of voice and two of pictures: SSRCs 1,000, 1,002 and 1,006.
fn announced() -> Arc<AnnouncedStreams> {
    let sections = vec![section(0, OPUS), section(1, VP8), section(3, VP8)];
    Arc::new(AnnouncedStreams { seed: 1_000, sections })
}

/// A client, and the time of the test in milliseconds.
struct Client {
    continuity: Continuity,
    at_ms: u64,
}

impl Client {
    fn new() -> Client {
        let mut continuity = Continuity::new(7, Protection::Terminated);
        continuity.announce(announced());
        Client { continuity, at_ms: 0 }
    }

    fn now(&self) -> Instant {
        #[expect(clippy::disallowed_methods, reason = "an origin is needed; only distances count")]
        static ORIGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        *ORIGIN + Duration::from_millis(self.at_ms)
    }

    /// The SSRC and the sequence number that the client gets; `None` without an m-line.
    fn got(
        &mut self,
        epoch: u64,
        (payload_type, ssrc): (u8, u32),
        sequence: u16,
        repairs: Option<(u32, u16)>,
    ) -> Option<(u32, u16)> {
        let header = RtpHeader {
            payload_type,
            marker: true,
            sequence,
            timestamp: 90 * self.at_ms as u32,
            ssrc,
            payload_offset: 12,
            payload_end: 112,
        };
        let clock_rate = if payload_type == OPUS { 48_000 } else { 90_000 };
        let (epoch, now) = (StreamEpoch(epoch), self.now());
        let pass = match repairs {
            Some((ssrc, sequence)) => {
                let repaired = OriginalPacket { ssrc, sequence, timestamp: 0 };
                self.continuity.pass_retransmission(epoch, &header, clock_rate, repaired, now)
            }
            None => self.continuity.pass(epoch, &header, clock_rate, now),
        };
        match pass {
            Pass::Untouched => Some((ssrc, sequence)),
            Pass::Rewrite { ssrc, sequence, .. } => Some((ssrc, sequence)),
            Pass::Surplus => None,
            dropped => panic!("{dropped:?}"),
        }
    }

    fn ssrc(&mut self, epoch: u64, source: (u8, u32), sequence: u16) -> Option<u32> {
        self.at_ms += 10;
        self.got(epoch, source, sequence, None).map(|(ssrc, _)| ssrc)
    }
}

#[test]
fn sources_get_the_ssrcs_of_m_lines_that_admit_them() {
    let mut client = Client::new();
    assert_eq!(client.ssrc(1, (VP8, 7), 50), Some(1_002));
    assert_eq!(client.ssrc(1, (OPUS, 8), 50), Some(1_000));
    assert_eq!(client.ssrc(1, (VP8, 9), 50), Some(1_006));
    assert_eq!(client.ssrc(1, (VP8, 7), 51), Some(1_002));
    assert_eq!(client.ssrc(1, (VP8, 10), 50), None, "a third picture");
    assert_eq!(client.ssrc(1, (OPUS, 11), 50), None, "a second voice");
    assert_eq!(client.ssrc(1, (45, 12), 50), None, "a codec that no m-line has");
}

#[test]
fn retransmissions_have_the_ssrc_beside_that_of_their_stream() {
    let mut client = Client::new();
    client.ssrc(1, (VP8, 7), 50);
    client.ssrc(1, (VP8, 9), 50);
    assert_eq!(client.ssrc(1, (RTX, 20), 1), None, "padding, of an unknown stream");
    let repair =
        |client: &mut Client, epoch, ssrc, of| client.got(epoch, (RTX, ssrc), 1, Some((of, 50)));
    assert_eq!(repair(&mut client, 1, 20, 1_006), Some((1_007, 1)));
    assert_eq!(repair(&mut client, 1, 21, 1_002), Some((1_003, 1)));
    // Another node sends both with other SSRCs, in another order.
    assert_eq!(client.ssrc(2, (VP8, 30), 900), Some(1_002));
    assert_eq!(client.ssrc(2, (VP8, 31), 900), Some(1_006));
    assert_eq!(repair(&mut client, 2, 40, 1_002).map(|(ssrc, _)| ssrc), Some(1_003));
    assert_eq!(repair(&mut client, 2, 41, 1_006).map(|(ssrc, _)| ssrc), Some(1_007));
}

#[test]
fn m_line_of_a_source_that_ended_goes_to_another_without_a_gap() {
    let mut client = Client::new();
    for number in 0..20 {
        assert_eq!(client.ssrc(1, (VP8, 7), 50 + number), Some(1_002));
        assert_eq!(client.ssrc(1, (VP8, 9), 70 + number), Some(1_006));
    }
    assert_eq!(client.ssrc(1, (VP8, 10), 3_000), None);
    client.at_ms += 800;
    assert_eq!(client.ssrc(1, (VP8, 9), 90), Some(1_006));
    assert_eq!(client.ssrc(1, (VP8, 10), 3_001), None, "0.8 s");
    client.at_ms += 300;
    let next = client.got(1, (VP8, 10), 3_002, None);
    assert_eq!(next, Some((1_002, 70)));
    assert_eq!(client.ssrc(1, (VP8, 10), 3_003), Some(1_002));
    assert_eq!(client.ssrc(1, (VP8, 7), 70), None, "it has lost its m-line");
}

#[test]
fn later_answer_keeps_the_streams_of_m_lines_that_remain() {
    let mut client = Client::new();
    client.ssrc(1, (VP8, 7), 50);
    client.ssrc(1, (VP8, 9), 50);
    let sections = vec![section(0, OPUS), section(3, VP8), section(4, VP8)];
    client.continuity.announce(Arc::new(AnnouncedStreams { seed: 1_000, sections }));
    assert_eq!(client.ssrc(1, (VP8, 9), 51), Some(1_006));
    assert_eq!(client.ssrc(1, (VP8, 7), 51), Some(1_008), "its m-line is gone");
    client.continuity.announce(Arc::default());
    assert_eq!(client.ssrc(1, (OPUS, 8), 51), Some(8), "nothing is announced");
}

#[test]
fn copy_that_is_announced_goes_on() {
    let mut client = Client::new();
    client.ssrc(1, (VP8, 7), 50);
    client.ssrc(1, (OPUS, 8), 50);
    client.continuity.announced = None;
    client.continuity = handed_over(&client.continuity);
    client.continuity.announce(announced());
    assert_eq!(client.ssrc(1, (OPUS, 8), 51), Some(1_000));
    assert_eq!(client.ssrc(2, (VP8, 70), 1_051), Some(1_002), "another node");
}
