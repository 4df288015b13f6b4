use super::*;

fn packet(payload: &[u8]) -> (RtpHeader, Vec<u8>) {
    let mut bytes = Vec::new();
    let fields =
        crate::rtp::Fields { payload_type: 97, marker: false, sequence: 1, timestamp: 2, ssrc: 3 };
    crate::rtp::write(&fields, payload, &mut bytes);
    (RtpHeader::parse(&bytes).unwrap(), bytes)
}

#[test]
fn number_of_the_lost_packet_is_read_and_changed() {
    let (header, mut bytes) = packet(&[0x12, 0x34, 7]);
    assert_eq!(original_sequence(&header, &bytes), Some(0x1234));
    set_original_sequence(&header, &mut bytes, 0xfedc);
    assert_eq!(header.payload(&bytes), [0xfe, 0xdc, 7]);
}

#[test]
fn padding_has_no_number() {
    for payload in [&[][..], &[1]] {
        let (header, mut bytes) = packet(payload);
        assert_eq!(original_sequence(&header, &bytes), None);
        set_original_sequence(&header, &mut bytes, 0xfedc);
        assert_eq!(header.payload(&bytes), payload);
    }
}

#[test]
fn stream_that_sent_the_number_last_is_repaired() {
    let streams = [("a", 10), ("b", 500), ("c", 40_000)];
    let of = |original| repaired(original, streams.into_iter());
    assert_eq!(of(10), Some("a"));
    assert_eq!(of(11), Some("b"), "a has not sent it yet");
    assert_eq!(of(65_530), Some("a"), "before the wrap");
    assert_eq!(of(40_000 - SENT_WITHIN), Some("c"));
    assert_eq!(of(40_000 - SENT_WITHIN - 1), None);
    assert_eq!(of(40_001), None);
}
