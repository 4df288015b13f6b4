use evenkeel_fuzz::Corpus;

use super::*;

/// A ClientHello with these extensions, without its message header.
fn hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let mut message = DTLS_1_2.to_be_bytes().to_vec();
    message.extend([7; 32]);
    message.extend([0, 0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let extensions: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, bytes)| {
            let length = u16::try_from(bytes.len()).unwrap();
            [kind.to_be_bytes(), length.to_be_bytes()].concat().into_iter().chain(bytes.to_vec())
        })
        .collect();
    message.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    message.extend(extensions);
    message
}

/// A record with a fragment of a ClientHello.
fn record(message: &[u8], range: std::ops::Range<usize>) -> Vec<u8> {
    let u24 = |number: usize| u32::try_from(number).unwrap().to_be_bytes()[1..].to_vec();
    let mut body = vec![CLIENT_HELLO];
    body.extend(u24(message.len()));
    body.extend([0, 0]);
    body.extend(u24(range.start));
    body.extend(u24(range.len()));
    body.extend(&message[range]);
    let mut record = vec![HANDSHAKE, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
    record.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    record.extend(body);
    record
}

const BOTH: &[u8] = &[4, 0xfe, 0xfc, 0xfe, 0xfd];
const ONLY_13: &[u8] = &[2, 0xfe, 0xfc];
const ONLY_10: &[u8] = &[2, 0xfe, 0xff];
const GCM: &[u8] = &[0, 2, 0, 7, 0];
const UNKNOWN: &[u8] = &[0, 4, 0, 2, 0, 5, 0];

#[test]
fn version_12_is_preferred() {
    let version =
        |extensions: &[(u16, &[u8])]| ClientHello::parse(&hello(extensions)).unwrap().version;
    assert_eq!(version(&[]), Some(Version::Dtls12));
    assert_eq!(version(&[(SUPPORTED_VERSIONS, BOTH)]), Some(Version::Dtls12));
    assert_eq!(version(&[(SUPPORTED_VERSIONS, ONLY_13)]), Some(Version::Dtls13));
    assert_eq!(version(&[(SUPPORTED_VERSIONS, ONLY_10)]), None);
    let mut old = hello(&[]);
    old[1] = 0xff;
    assert_eq!(ClientHello::parse(&old).unwrap().version, None);
}

#[test]
fn srtp_offer_is_read() {
    let srtp = |extensions: &[(u16, &[u8])]| ClientHello::parse(&hello(extensions)).unwrap().srtp;
    assert_eq!(srtp(&[(SUPPORTED_VERSIONS, BOTH)]), SrtpOffer::None);
    assert_eq!(srtp(&[(USE_SRTP, UNKNOWN)]), SrtpOffer::Unsupported);
    assert_eq!(srtp(&[(0xaaaa, &[1]), (USE_SRTP, GCM)]), SrtpOffer::Supported);
}

#[test]
fn truncated_hello_is_malformed() {
    let message = hello(&[(SUPPORTED_VERSIONS, BOTH), (USE_SRTP, GCM)]);
    let without_extensions = 42;
    for end in (0..message.len()).filter(|end| *end != without_extensions) {
        assert_eq!(ClientHello::parse(&message[..end]), None, "{end} bytes");
    }
    assert!(ClientHello::parse(&message[..without_extensions]).is_some());
}

#[test]
fn fragments_join_in_any_order_and_overlapping() {
    let message = hello(&[(USE_SRTP, GCM)]);
    let (end, parts) = (message.len(), [0..20, 15..30, 30..message.len()]);
    let records = parts.clone().map(|range| record(&message, range));
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let all = order.iter().flat_map(|index| Fragment::all(&records[*index])).collect();
        assert_eq!(Fragment::join(all).as_ref(), Some(&message), "{order:?}");
    }
    for (absent, part) in parts.iter().enumerate() {
        let rest = (0..3).filter(|index| *index != absent);
        let all = rest.flat_map(|index| Fragment::all(&records[index])).collect();
        assert_eq!(Fragment::join(all), None, "without {part:?} of {end}");
    }
    assert_eq!(Fragment::join(Vec::new()), None);
}

#[test]
fn random_is_that_of_the_first_fragment() {
    let message = hello(&[]);
    let random = |range| Fragment::all(&record(&message, range))[0].random();
    assert_eq!(random(0..34), Some([7; 32]));
    assert_eq!(random(0..33), None);
    assert_eq!(random(1..40), None);
}

#[test]
fn encrypted_records_are_skipped() {
    let message = hello(&[]);
    let plain = record(&message, 0..message.len());
    let mut encrypted = plain.clone();
    encrypted[4] = 1;
    let both = [encrypted.clone(), plain.clone()].concat();
    assert_eq!(Fragment::all(&encrypted).len(), 0);
    assert_eq!(Fragment::all(&both).len(), 1);
    let tls13 = [vec![0x2f], plain].concat();
    assert_eq!(Fragment::all(&tls13).len(), 0);
}

#[test]
fn fuzz_hello() {
    let message = hello(&[(SUPPORTED_VERSIONS, BOTH), (USE_SRTP, GCM)]);
    let two = [record(&message, 0..30), record(&message, 30..message.len())].concat();
    Corpus::of("dtls_hello").with(two).check(|datagram| {
        let fragments = Fragment::all(datagram);
        for fragment in &fragments {
            assert!(fragment.is_within_message());
        }
        if let Some(message) = Fragment::join(fragments) {
            ClientHello::parse(&message);
        }
    });
}
