use super::*;
use evenkeel_fuzz::Corpus;
use message::MESSAGE_LEN_MAX;

/// The sample request of RFC 5769, section 2.1.
const SAMPLE_REQUEST: [u8; 108] = [
    0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86,
    0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e, 0x20, 0x74, 0x65, 0x73,
    0x74, 0x20, 0x63, 0x6c, 0x69, 0x65, 0x6e, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6e, 0x00, 0x01, 0xff,
    0x80, 0x29, 0x00, 0x08, 0x93, 0x2f, 0xf9, 0xb1, 0x51, 0x26, 0x3b, 0x36, 0x00, 0x06, 0x00, 0x09,
    0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68, 0x36, 0x76, 0x59, 0x20, 0x20, 0x20, 0x00, 0x08, 0x00, 0x14,
    0x9a, 0xea, 0xa7, 0x0c, 0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e, 0xf2, 0xb5, 0xb2, 0xd3, 0xf2, 0x49,
    0xc1, 0xb5, 0x71, 0xa2, 0x80, 0x28, 0x00, 0x04, 0xe5, 0x7a, 0x3b, 0xcf,
];

/// The sample IPv4 response of RFC 5769, section 2.2.
const SAMPLE_RESPONSE: [u8; 80] = [
    0x01, 0x01, 0x00, 0x3c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86,
    0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63,
    0x74, 0x6f, 0x72, 0x20, 0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43,
    0x00, 0x08, 0x00, 0x14, 0x2b, 0x91, 0xf5, 0x99, 0xfd, 0x9e, 0x90, 0xc3, 0x8c, 0x74, 0x89, 0xf9,
    0x2a, 0xf9, 0xba, 0x53, 0xf0, 0x6b, 0xe7, 0xd7, 0x80, 0x28, 0x00, 0x04, 0xc0, 0x7d, 0x4c, 0x96,
];

const SAMPLE_PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";
const TRANSACTION: Transaction = Transaction([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);

fn key() -> StunKey {
    StunKey::new("a password of the session")
}

fn binding(key: &StunKey) -> BindingBuilder<'_> {
    BindingBuilder {
        transaction: TRANSACTION,
        username: Some(Username { server_ufrag: "here", client_ufrag: "there" }),
        key: Some(key),
        priority: Some(0x6e00_01ff),
        controlling: Some(7),
        use_candidate: true,
    }
}

fn written(binding: &BindingBuilder<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    binding.write(&mut bytes);
    bytes
}

#[test]
fn rfc_sample_request_is_verified() {
    let request = BindingRequest::parse(&SAMPLE_REQUEST).unwrap();
    let username = Username { server_ufrag: "evtj", client_ufrag: "h6vY" };
    assert_eq!(request.username(), Some(username));
    assert_eq!(request.message.attribute(PRIORITY), Some(&[0x6e, 0x00, 0x01, 0xff][..]));
    let role = 0x932f_f9b1_5126_3b36_u64.to_be_bytes();
    assert_eq!(request.message.attribute(ICE_CONTROLLED), Some(&role[..]));
    assert!(!request.use_candidate());
    assert!(request.message.has_fingerprint);
    assert_eq!(request.unknown().count(), 0);
    assert_eq!(request.message.verify(&StunKey::new(SAMPLE_PASSWORD)), Ok(()));
    assert_eq!(request.message.verify(&StunKey::new("wrong")), Err(Unverified::Wrong));
}

#[test]
fn rfc_sample_response_is_verified() {
    let response = Response::parse(&SAMPLE_RESPONSE).unwrap();
    let mapped = "192.0.2.1:32853".parse().unwrap();
    assert_eq!(response.outcome, BindingOutcome::Mapped(mapped));
    assert_eq!(response.message.verify(&StunKey::new(SAMPLE_PASSWORD)), Ok(()));
}

#[test]
fn written_request_is_read_back() {
    let bytes = written(&binding(&key()));
    assert!(is_stun(&bytes));
    let request = BindingRequest::parse(&bytes).unwrap();
    assert_eq!(request.message.transaction(), TRANSACTION);
    let username = Username { server_ufrag: "here", client_ufrag: "there" };
    assert_eq!(request.username(), Some(username));
    assert_eq!(request.message.attribute(PRIORITY), Some(&[0x6e, 0x00, 0x01, 0xff][..]));
    assert_eq!(request.message.attribute(ICE_CONTROLLING), Some(&7_u64.to_be_bytes()[..]));
    assert!(request.use_candidate());
    assert!(request.message.has_fingerprint);
    assert_eq!(request.message.verify(&key()), Ok(()));
}

#[test]
fn check_of_the_controlled_agent_is_verified() {
    let (username, mut bytes) = (Username { server_ufrag: "them", client_ufrag: "us" }, Vec::new());
    write_check(TRANSACTION, username, &key(), &mut bytes);
    let request = BindingRequest::parse(&bytes).unwrap();
    assert_eq!((request.username(), request.unknown().count()), (Some(username), 0));
    assert_eq!(request.message.transaction(), TRANSACTION);
    assert_eq!(request.message.attribute(ICE_CONTROLLED), Some(&[0; 8][..]));
    assert_eq!(request.message.attribute(PRIORITY).map(<[u8]>::len), Some(4));
    assert!(!request.use_candidate() && request.message.has_fingerprint);
    assert_eq!(request.message.verify(&key()), Ok(()));
}

#[test]
fn responses_are_told_from_requests() {
    let mut answer = Vec::new();
    write_unknown(TRANSACTION, std::iter::empty(), None, &mut answer);
    assert!(is_response(&SAMPLE_RESPONSE) && is_response(&answer));
    assert!(!is_response(&SAMPLE_REQUEST) && !is_response(&[1]) && !is_response(&[]));
}

#[test]
fn plain_probe_has_only_a_transaction() {
    let bytes = written(&BindingBuilder::probe(TRANSACTION));
    let request = BindingRequest::parse(&bytes).unwrap();
    assert_eq!(request.username(), None);
    assert_eq!(request.message.attribute(ICE_CONTROLLING), None);
    assert!(!request.use_candidate());
    assert_eq!(request.message.verify(&key()), Err(Unverified::Missing));
}

#[test]
fn addresses_of_both_families_are_returned() {
    for address in ["203.0.113.9:65535", "[2001:db8::17]:1"] {
        let mapped: SocketAddr = address.parse().unwrap();
        let mut bytes = Vec::new();
        write_success(TRANSACTION, mapped, Some(&key()), &mut bytes);
        let response = Response::parse(&bytes).unwrap();
        assert_eq!(response.outcome, BindingOutcome::Mapped(mapped));
        assert_eq!(response.message.transaction(), TRANSACTION);
        assert_eq!(response.message.verify(&key()), Ok(()));
        let octets = match mapped.ip() {
            std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
            std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let plain = bytes.windows(octets.len()).any(|window| window == octets);
        assert!(!plain, "the address is XORed");
    }
}

#[test]
fn errors_carry_their_code() {
    for (code, number) in [(b"\0\0\x04\x00", 400), (b"\0\0\x04\x01", 401)] {
        let mut bytes = Vec::new();
        let start = begin(BINDING_ERROR, TRANSACTION, &mut bytes);
        append(ERROR_CODE, code, &mut bytes);
        end(start, None, &mut bytes);
        let response = Response::parse(&bytes).unwrap();
        assert_eq!(response.outcome, BindingOutcome::Refused(number));
        assert_eq!(response.message.verify(&key()), Err(Unverified::Missing));
    }
}

#[test]
fn unknown_required_attributes_are_named() {
    let mut bytes = Vec::new();
    let start = begin(1, TRANSACTION, &mut bytes);
    for kind in [0x7fff, 0x8000, 0x0001, 0x0002, 0x0003, 0x0004] {
        append(kind, &[1, 2, 3], &mut bytes);
    }
    end(start, None, &mut bytes);
    let request = BindingRequest::parse(&bytes).unwrap();
    let unknown: Vec<_> = request.unknown().collect();
    assert_eq!(unknown, [0x7fff, 1, 2, 3], "without optional ones and those beyond the bound");

    let mut answer = Vec::new();
    write_unknown(TRANSACTION, request.unknown(), Some(&key()), &mut answer);
    let response = Response::parse(&answer).unwrap();
    assert_eq!(response.outcome, BindingOutcome::Refused(420));
    let named = [0x00, 0x0a, 0x00, 0x08, 0x7f, 0xff, 0, 1, 0, 2, 0, 3];
    assert!(answer.windows(named.len()).any(|window| window == named));
}

#[test]
fn any_changed_bit_is_detected() {
    let bytes = written(&binding(&key()));
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let noticed = BindingRequest::parse(&changed)
            .map_or(true, |request| !request.message.has_fingerprint);
        assert!(noticed, "bit {bit}");
    }
}

#[test]
fn username_is_read_without_the_fingerprint() {
    let mut bytes = written(&binding(&key()));
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(BindingRequest::parse(&bytes).unwrap_err(), StunError::Fingerprint);
    let username = Username { server_ufrag: "here", client_ufrag: "there" };
    assert_eq!(Username::read(&bytes), Ok(Some(username)));
    assert_eq!(Username::read(&written(&BindingBuilder::probe(TRANSACTION))), Ok(None));
    assert_eq!(Username::read(&bytes[1..]), Err(StunError::NotStun));
}

#[test]
fn valid_fingerprint_does_not_replace_integrity() {
    let mut bytes = written(&binding(&key()));
    let name = bytes.windows(4).position(|window| window == b"here").unwrap();
    bytes[name] = b'm';
    let until = bytes.len() - 8;
    let mut forged = bytes[..until].to_vec();
    end(0, None, &mut forged);
    let request = BindingRequest::parse(&forged).unwrap();
    assert_eq!(request.message.verify(&key()), Err(Unverified::Wrong));
}

#[test]
fn attributes_after_integrity_are_ignored() {
    let key = key();
    let mut bytes = written(&BindingBuilder { use_candidate: false, ..binding(&key) });
    bytes.truncate(bytes.len() - 8);
    append(0x0025, &[], &mut bytes);
    end(0, None, &mut bytes);
    let request = BindingRequest::parse(&bytes).unwrap();
    assert_eq!(request.message.verify(&key), Ok(()));
    assert!(!request.use_candidate());
}

#[test]
fn truncated_or_extended_message_is_not_stun() {
    let mut bytes = written(&binding(&key()));
    for length in 0..bytes.len() {
        assert!(!is_stun(&bytes[..length]));
        assert_eq!(BindingRequest::parse(&bytes[..length]).unwrap_err(), StunError::NotStun);
    }
    bytes.extend_from_slice(&[0; 4]);
    assert!(!is_stun(&bytes));
}

#[test]
fn attribute_beyond_the_message_is_refused() {
    let mut bytes = Vec::new();
    begin(1, TRANSACTION, &mut bytes);
    bytes[3] = 8;
    bytes.extend_from_slice(&[0, 6, 0, 5, 1, 2, 3, 4]);
    assert_eq!(BindingRequest::parse(&bytes).unwrap_err(), StunError::Attribute(6));
    bytes[23] = 4;
    assert!(BindingRequest::parse(&bytes).is_ok());
}

#[test]
fn attributes_of_a_wrong_length_are_refused() {
    for (kind, length) in [(0x0024, 3), (0x0025, 1), (0x802a, 7), (0x0008, 19), (0x8028, 5)] {
        let mut bytes = Vec::new();
        let start = begin(1, TRANSACTION, &mut bytes);
        append(kind, &vec![0; length], &mut bytes);
        end(start, None, &mut bytes);
        assert_eq!(
            BindingRequest::parse(&bytes).unwrap_err(),
            StunError::Attribute(kind),
            "{kind:#x}"
        );
    }
}

#[test]
fn message_above_the_limit_is_refused() {
    for (length, fits) in [(MESSAGE_LEN_MAX - 32, true), (MESSAGE_LEN_MAX - 28, false)] {
        let mut bytes = Vec::new();
        let start = begin(1, TRANSACTION, &mut bytes);
        append(0x8022, &vec![0; length], &mut bytes);
        end(start, None, &mut bytes);
        assert_eq!(BindingRequest::parse(&bytes).is_ok(), fits, "{}", bytes.len());
    }
}

#[test]
fn padded_messages_have_the_length() {
    let (key, mapped) = (key(), "[2001:db8::1]:5004".parse().unwrap());
    let username = Username { server_ufrag: "0123456789abcdef", client_ufrag: "probe" };
    for length in [160, 1_200, MESSAGE_LEN_MAX] {
        let (mut request, mut success) = (Vec::new(), Vec::new());
        write_padded_request(TRANSACTION, username, &key, length, &mut request);
        write_padded_success(TRANSACTION, mapped, &key, length, &mut success);
        assert_eq!((request.len(), success.len()), (length, length));
        let request = BindingRequest::parse(&request).unwrap();
        assert_eq!((request.username(), request.message.verify(&key)), (Some(username), Ok(())));
        let success = Response::parse(&success).unwrap();
        assert_eq!(success.outcome, BindingOutcome::Mapped(mapped));
        assert_eq!(success.message.verify(&key), Ok(()));
    }
}

#[test]
fn requests_and_responses_are_distinct() {
    let request = written(&binding(&key()));
    assert_eq!(Response::parse(&request).unwrap_err(), StunError::NotBinding);
    let mut response = Vec::new();
    write_unknown(TRANSACTION, std::iter::empty(), None, &mut response);
    assert_eq!(BindingRequest::parse(&response).unwrap_err(), StunError::NotBinding);
}

#[test]
fn username_without_a_colon_is_none() {
    let mut bytes = Vec::new();
    let start = begin(1, TRANSACTION, &mut bytes);
    append(0x0006, b"nobody", &mut bytes);
    end(start, None, &mut bytes);
    assert_eq!(BindingRequest::parse(&bytes).unwrap().username(), None);
}

#[test]
fn keys_are_hidden_in_debug_output() {
    assert_eq!(format!("{:?}", StunKey::new("secret")), "Key(…)");
}

/// Reads a request and writes it, and every response to it.
fn assert_answerable(request: &BindingRequest<'_>) {
    assert!(request.unknown().count() <= UNKNOWN_MAX);
    let transaction = request.message.transaction();
    let binding = BindingBuilder {
        transaction,
        username: request.username(),
        key: Some(&key()),
        priority: None,
        controlling: None,
        use_candidate: request.use_candidate(),
    };
    let again = written(&binding);
    let again = BindingRequest::parse(&again).unwrap();
    assert_eq!(again.message.verify(&key()), Ok(()));
    assert_eq!(again.message.transaction(), transaction);
    assert_eq!(again.username(), request.username());
    assert_eq!(again.use_candidate(), request.use_candidate());

    let mapped = "[2001:db8::17]:1".parse().unwrap();
    let response = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        let response = Response::parse(&bytes).unwrap();
        assert_eq!(response.message.transaction(), transaction);
        response.outcome
    };
    let success = response(&|out| write_success(transaction, mapped, Some(&key()), out));
    assert_eq!(success, BindingOutcome::Mapped(mapped));
    let unknown = response(&|out| write_unknown(transaction, request.unknown(), None, out));
    assert_eq!(unknown, BindingOutcome::Refused(420));
}

/// Returns a message with valid length, integrity and fingerprint, and the attributes of `bytes`
/// without its last two, which are these.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let kind = bytes.first_chunk().map_or(0, |kind| u16::from_be_bytes(*kind));
    let attributes = bytes.get(20..bytes.len().saturating_sub(32)).unwrap_or_default();
    let mut out = Vec::new();
    begin(kind, TRANSACTION, &mut out);
    out.extend_from_slice(attributes);
    out.resize(out.len().next_multiple_of(4), 0);
    end(0, Some(&key()), &mut out);
    out
}

#[test]
fn fuzz_stun() {
    let mut response = Vec::new();
    let mapped = "203.0.113.9:65535".parse().unwrap();
    write_success(TRANSACTION, mapped, Some(&key()), &mut response);
    let corpus = Corpus::of("stun").with(SAMPLE_REQUEST).with(SAMPLE_RESPONSE).with(response);
    corpus.with(written(&binding(&key()))).check(|bytes| {
        for message in [bytes, &sealed(bytes)] {
            if let Ok(request) = BindingRequest::parse(message) {
                assert!(is_stun(message) && message.len() <= MESSAGE_LEN_MAX);
                assert_answerable(&request);
            }
            if let Ok(response) = Response::parse(message)
                && let BindingOutcome::Mapped(mapped) = response.outcome
            {
                let mut again = Vec::new();
                write_success(response.message.transaction(), mapped, None, &mut again);
                assert_eq!(Response::parse(&again).unwrap().outcome, response.outcome);
            }
        }
    });
}
