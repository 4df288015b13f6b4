use super::*;
use crate::rtcp::RtcpError;
use evenkeel_fuzz::Corpus;

/// Feedback of sender 1 with these streams and the report's time 65,536.
fn packet(streams: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![0x8b, 205, 0, 0, 0, 0, 0, 1];
    streams.iter().for_each(|stream| out.extend_from_slice(stream));
    out.extend_from_slice(&[0, 1, 0, 0]);
    out[3] = (out.len() / 4 - 1) as u8;
    out
}

/// Three packets from 65,535 on, with two bytes of padding: 16 units before the report's time, missing, and at an unknown time
/// with the mark of congestion.
const THREE: [u8; 16] = [0, 0, 0, 0x11, 0xff, 0xff, 0, 3, 0x80, 0x10, 0, 0, 0xff, 0xff, 0, 0];

/// Two packets from 7 on: one too old for a time, and one 1 unit before the report's time.
const TWO: [u8; 12] = [0, 0, 0, 0x22, 0, 7, 0, 2, 0x9f, 0xfe, 0xa0, 0x01];

#[test]
fn streams_and_arrivals_are_read() {
    use PacketArrival::{Before, Missing, Untimed};
    let bytes = packet(&[&THREE, &TWO]);
    let feedback = CongestionFeedback::parse(&bytes).unwrap();
    assert_eq!((feedback.sender, feedback.at), (1, 65_536));
    let streams: Vec<_> = feedback.streams().collect();
    let [three, two] = streams[..] else { panic!("{streams:?}") };
    assert_eq!((three.ssrc, three.begin, two.ssrc, two.begin), (0x11, 65_535, 0x22, 7));
    let read: Vec<_> = three.arrivals().collect();
    assert_eq!(read, [(65_535, Before(16)), (0, Missing), (1, Untimed)]);
    assert_eq!(two.arrivals().collect::<Vec<_>>(), [(7, Untimed), (8, Before(1))]);
    assert_eq!(
        [65_534, 65_535, 1, 2].map(|number| three.arrival(number)),
        [None, Some(Before(16)), Some(Untimed), None]
    );
    assert_eq!(CongestionFeedback::parse(&packet(&[])).unwrap().streams().count(), 0);
}

#[test]
fn streams_that_do_not_fit_are_refused() {
    let too_many = [&[0, 0, 0, 0x11, 0, 0, 0x40, 1][..], &[0; 2 * 16_386]].concat();
    let mut long = packet(&[&too_many]);
    let words = (long.len() / 4 - 1) as u16;
    long[2..4].copy_from_slice(&words.to_be_bytes());
    let cases = [
        ("without the report's time", vec![0x8b, 205, 0, 1, 0, 0, 0, 1]),
        ("a part of a stream", packet(&[&THREE[..4]])),
        ("without two packets", packet(&[&TWO[..8]])),
        ("more than 16,384 packets", long),
    ];
    for (case, bytes) in cases {
        let error = CongestionFeedback::parse(&bytes).map(|_| ()).unwrap_err();
        assert_eq!(error, RtcpError::Body(205), "{case}");
    }
    assert!(CongestionFeedback::parse(&[0x80, 201, 0, 1, 0, 0, 0, 1]).is_err());
}

#[test]
fn fuzz_ccfb() {
    let corpus = Corpus::of("ccfb").with(packet(&[&THREE, &TWO])).with(packet(&[]));
    corpus.check(|bytes| {
        let Ok(feedback) = CongestionFeedback::parse(bytes) else { return };
        let mut again = Vec::new();
        for stream in feedback.streams() {
            let numbers = stream.arrivals().map(|(number, _)| number);
            assert!(
                numbers.zip(0..).all(|(number, index)| number == stream.begin.wrapping_add(index))
            );
            again.extend_from_slice(&stream.ssrc.to_be_bytes());
            again.extend_from_slice(&stream.begin.to_be_bytes());
            again.extend_from_slice(&(stream.metrics.len() as u16).to_be_bytes());
            stream.metrics.iter().for_each(|metric| again.extend_from_slice(metric));
            let padding = again.len().next_multiple_of(4);
            again.extend_from_slice(&feedback.blocks[again.len()..padding]);
        }
        assert_eq!(again, feedback.blocks);
    });
}
