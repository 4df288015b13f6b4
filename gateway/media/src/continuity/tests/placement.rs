use super::super::*;
use super::at;
use crate::tests::handed_over;

const OPUS: u8 = 111;
const VP8: u8 = 96;
const RTX: u8 = 97;

fn section(index: u8, payload_type: u8) -> AnnouncedSection {
    let has_retransmissions = payload_type == VP8;
    AnnouncedSection { index, payload_types: vec![payload_type], has_retransmissions, sender: None }
}

/// One m-line of voice and two of pictures: SSRCs 1,000, 1,002 and 1,006.
fn announced() -> Arc<AnnouncedStreams> {
    let sections = vec![section(0, OPUS), section(1, VP8), section(3, VP8)];
    Arc::new(AnnouncedStreams { seed: 1_000, in_sync: Vec::new(), sections })
}

#[test]
fn kept_ssrc_gets_the_m_line_of_its_sender() {
    let mut named = (*announced()).clone();
    for (place, ssrc) in [(1, 71), (2, 72)] {
        let sender = AnnouncedSender { stream: "s1".into(), ssrcs: vec![ssrc] };
        named.sections[place].sender = Some(sender);
    }
    let new = || {
        let mut client = Client::new();
        client.continuity.announce(Arc::new(named.clone()));
        client
    };
    let mut client = new();
    let ssrc_of = |numbers: Option<(u32, u16)>| numbers.map(|(ssrc, _)| ssrc);
    assert_eq!(ssrc_of(client.numbers(1, VP8, 72, 1)), Some(1_006), "the second sender is first");
    assert_eq!(ssrc_of(client.numbers(1, VP8, 71, 1)), Some(1_002));
    // Another node keeps the SSRCs, too.
    assert_eq!(ssrc_of(client.numbers(2, VP8, 71, 2)), Some(1_002));
    assert_eq!(ssrc_of(client.numbers(2, VP8, 72, 2)), Some(1_006));
    // One that does not gets the m-lines in the order of first packets.
    let mut client = new();
    assert_eq!(ssrc_of(client.numbers(1, VP8, 5, 1)), Some(1_002));
    assert_eq!(ssrc_of(client.numbers(1, VP8, 6, 1)), Some(1_006));
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
        at(self.at_ms as f64)
    }

    fn header(&self, payload_type: u8, ssrc: u32, sequence: u16) -> RtpHeader {
        RtpHeader {
            payload_type,
            marker: true,
            sequence,
            timestamp: 90 * self.at_ms as u32,
            ssrc,
            payload_offset: 12,
            payload_end: 112,
        }
    }

    /// Sends a packet of the node of this epoch, 10 ms after the one before. Returns the SSRC and the sequence number that the client
    /// gets.
    fn numbers(
        &mut self,
        epoch: u64,
        payload_type: u8,
        ssrc: u32,
        sequence: u16,
    ) -> Option<(u32, u16)> {
        self.at_ms += 10;
        let header = self.header(payload_type, ssrc, sequence);
        let clock_rate = if payload_type == OPUS { 48_000 } else { 90_000 };
        match self.continuity.pass(StreamEpoch(epoch), &header, clock_rate, self.now()) {
            Pass::Untouched => Some((ssrc, sequence)),
            Pass::Rewrite { ssrc, sequence, .. } => Some((ssrc, sequence)),
            Pass::Surplus => None,
            dropped => panic!("{dropped:?}"),
        }
    }

    /// The SSRC alone.
    fn ssrc(&mut self, epoch: u64, payload_type: u8, ssrc: u32, sequence: u16) -> Option<u32> {
        self.numbers(epoch, payload_type, ssrc, sequence).map(|(ssrc, _)| ssrc)
    }

    /// Sends packet `original` of a stream again. Returns the SSRC and the original number that the client gets.
    fn repair(&mut self, epoch: u64, ssrc: u32, original: u16) -> Option<(u32, u16)> {
        let (header, now) = (self.header(RTX, ssrc, 1), self.now());
        let (epoch, is_repaired) = (StreamEpoch(epoch), |number| number == VP8);
        let passed =
            self.continuity.pass_retransmission(epoch, &header, original, 90_000, is_repaired, now);
        match passed {
            (Pass::Untouched, Some(numbers)) => Some((ssrc, numbers.sequence)),
            (Pass::Rewrite { ssrc, .. }, Some(numbers)) => Some((ssrc, numbers.sequence)),
            _ => None,
        }
    }
}

#[test]
fn sources_get_the_ssrcs_of_m_lines_that_admit_them() {
    let mut client = Client::new();
    assert_eq!(client.ssrc(1, VP8, 7, 50), Some(1_002));
    assert_eq!(client.ssrc(1, OPUS, 8, 50), Some(1_000));
    assert_eq!(client.ssrc(1, VP8, 9, 50), Some(1_006));
    assert_eq!(client.ssrc(1, VP8, 7, 51), Some(1_002));
    assert_eq!(client.ssrc(1, VP8, 10, 50), None, "a third picture");
    assert_eq!(client.ssrc(1, OPUS, 11, 50), None, "a second voice");
    assert_eq!(client.ssrc(1, 45, 12, 50), None, "a codec that no m-line has");
}

#[test]
fn retransmissions_have_the_ssrc_beside_their_stream() {
    let mut client = Client::new();
    client.ssrc(1, VP8, 7, 50);
    client.ssrc(1, VP8, 9, 9_000);
    assert_eq!(client.ssrc(1, RTX, 20, 1), None, "padding, of an unknown stream");
    assert_eq!(client.repair(1, 20, 9_000), Some((1_007, 9_000)));
    let header = client.header(RTX, 20, 1);
    let found = client.continuity.original(StreamEpoch(1), &header, 9_000, 90_000, |it| it == VP8);
    assert_eq!(found.map(|numbers| (numbers.ssrc, numbers.sequence)), Some((1_006, 9_000)));
    assert_eq!(client.repair(1, 21, 50), Some((1_003, 50)));
    assert_eq!(client.repair(1, 20, 50), None, "its source repairs the other stream");
    // Another node sends both with other SSRCs, in another order.
    assert_eq!(client.ssrc(2, VP8, 30, 900), Some(1_002));
    assert_eq!(client.ssrc(2, VP8, 31, 40_000), Some(1_006));
    let [first, second] = [900, 40_000].map(|original| client.repair(2, 40, original));
    assert_eq!((first.map(|(ssrc, _)| ssrc), second), (Some(1_003), None));
    assert_eq!(client.repair(2, 41, 40_000).map(|(ssrc, _)| ssrc), Some(1_007));
    let (header, now) =
        (RtpHeader { timestamp: 1 << 30, ..client.header(RTX, 42, 1) }, client.now());
    let (pass, _) =
        client.continuity.pass_retransmission(StreamEpoch(2), &header, 900, 90_000, |_| true, now);
    assert_eq!(pass, Pass::Stale, "of another time");
}

#[test]
fn announced_retransmissions_belong_to_their_stream() {
    let streams = announced();
    let of = |ssrc| streams.retransmissions_of(ssrc);
    // That of voice, and an m-line that is not there, have none.
    let found = [999, 1_000, 1_002, 1_003, 1_004, 1_006, 7].map(of);
    assert_eq!(found, [None, None, Some(1_003), None, None, Some(1_007), None]);
    let is_of = |ssrc| streams.is_of_retransmissions(ssrc);
    assert_eq!([1_001, 1_002, 1_003, 1_005, 1_007].map(is_of), [false, false, true, false, true]);
    assert!(streams.has_retransmissions());
    let voice = AnnouncedStreams { sections: vec![section(0, OPUS)], ..(*streams).clone() };
    assert!(!voice.has_retransmissions());
}

#[test]
fn client_without_retransmissions_gets_none() {
    let mut client = Client::new();
    let section = AnnouncedSection { has_retransmissions: false, ..section(1, VP8) };
    let streams = AnnouncedStreams { sections: vec![section], ..(*announced()).clone() };
    client.continuity.announce(Arc::new(streams));
    assert_eq!(client.ssrc(1, VP8, 7, 50), Some(1_002));
    assert_eq!(client.repair(1, 20, 50), None);
}

#[test]
fn m_line_of_a_source_that_ended_goes_to_another() {
    let mut client = Client::new();
    for number in 0..20 {
        assert_eq!(client.ssrc(1, VP8, 7, 50 + number), Some(1_002));
        assert_eq!(client.ssrc(1, VP8, 9, 70 + number), Some(1_006));
    }
    assert_eq!(client.ssrc(1, VP8, 10, 3_000), None);
    client.at_ms += 800;
    assert_eq!(client.ssrc(1, VP8, 9, 90), Some(1_006));
    assert_eq!(client.ssrc(1, VP8, 10, 3_001), None, "0.8 s");
    client.at_ms += 300;
    assert_eq!(client.ssrc(1, VP8, 9, 91), Some(1_006));
    assert_eq!(client.numbers(1, VP8, 10, 3_002), Some((1_002, 70)), "without a gap");
    assert_eq!(client.ssrc(1, VP8, 10, 3_003), Some(1_002));
    assert_eq!(client.ssrc(1, VP8, 7, 70), None, "it has lost its m-line");
}

#[test]
fn no_source_ends_while_the_node_is_silent() {
    let mut client = Client::new();
    for number in 0..20 {
        client.ssrc(1, VP8, 7, 50 + number);
        client.ssrc(1, VP8, 9, 70 + number);
        assert_eq!(client.ssrc(1, VP8, 10, 3_000 + number), None);
    }
    client.at_ms += 5_000;
    assert_eq!(client.ssrc(1, VP8, 10, 3_020), None, "the first after the silence");
    assert_eq!(client.ssrc(1, VP8, 7, 70), Some(1_002));
    assert_eq!(client.ssrc(1, VP8, 9, 90), Some(1_006));
}

#[test]
fn held_stream_goes_on_without_a_gap() {
    let mut client = Client::new();
    client.ssrc(1, OPUS, 8, 50_000);
    let next = client.numbers(1, OPUS, 8, 50_001).unwrap();
    let announce = |client: &mut Client, sections: Vec<AnnouncedSection>| {
        let streams = AnnouncedStreams { sections, ..(*announced()).clone() };
        client.continuity.announce(Arc::new(streams));
    };
    announce(&mut client, Vec::new());
    for number in 0..40_000 {
        assert_eq!(client.ssrc(1, OPUS, 8, 50_002_u16.wrapping_add(number)), None, "held");
    }
    announce(&mut client, vec![section(0, OPUS)]);
    let resumed = client.numbers(1, OPUS, 8, 50_002_u16.wrapping_add(40_000));
    assert_eq!(resumed, Some((next.0, next.1 + 1)));
}

#[test]
fn codec_of_another_node_needs_an_m_line_that_has_it() {
    let mut client = Client::new();
    let sections = vec![section(1, VP8), section(3, 106)];
    client.continuity.announce(Arc::new(AnnouncedStreams { sections, ..(*announced()).clone() }));
    assert_eq!(client.ssrc(1, VP8, 7, 50), Some(1_002));
    assert_eq!(client.ssrc(2, 106, 30, 900), Some(1_006), "not in place of VP8");
}

#[test]
fn later_answer_keeps_the_streams_of_m_lines_that_remain() {
    let mut client = Client::new();
    client.ssrc(1, VP8, 7, 50);
    client.ssrc(1, VP8, 9, 50);
    let sections = vec![section(0, OPUS), section(3, VP8), section(4, VP8)];
    client.continuity.announce(Arc::new(AnnouncedStreams {
        seed: 1_000,
        in_sync: Vec::new(),
        sections,
    }));
    assert_eq!(client.ssrc(1, VP8, 9, 51), Some(1_006));
    assert_eq!(client.ssrc(1, VP8, 7, 51), Some(1_008), "its m-line is gone");
    let mut without = Client { continuity: Continuity::new(7, Protection::Terminated), at_ms: 0 };
    without.continuity.announce(Arc::default());
    assert_eq!(without.ssrc(1, OPUS, 8, 51), Some(8), "nothing was ever announced");
}

#[test]
fn copy_that_is_announced_goes_on() {
    let mut client = Client::new();
    client.ssrc(1, VP8, 7, 50);
    client.ssrc(1, OPUS, 8, 50);
    client.continuity.announced = None;
    client.continuity = handed_over(&client.continuity);
    client.continuity.announce(announced());
    assert_eq!(client.ssrc(1, OPUS, 8, 51), Some(1_000));
    assert_eq!(client.ssrc(2, VP8, 70, 1_051), Some(1_002), "another node");
}
