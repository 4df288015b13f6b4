use evenkeel_media::stun::{Response, Username};

use super::*;

const PASSWORD: &str = "0123456789abcdef0123456789abcdef";

fn source() -> SocketAddr {
    "[2001:db8::1]:40000".parse().unwrap()
}

fn ufrag(number: usize) -> String {
    format!("{number:016x}")
}

/// A packet of this number and length.
fn packet(number: u16, length: usize, password: &str) -> Vec<u8> {
    let (mut packet, ufrag) = (Vec::new(), ufrag(1));
    let username = Username { server_ufrag: &ufrag, client_ufrag: "probe" };
    let transaction = probe::transaction(number, [7; 10]);
    let key = StunKey::new(password);
    stun::write_padded_request(transaction, username, &key, length, &mut packet);
    packet
}

fn planned(number: u16) -> Vec<u8> {
    packet(number, usize::from(ProbeTransport::Udp.bytes_of(number).unwrap()), PASSWORD)
}

/// The answer of a probe that opened this long ago.
fn answered(probe: &ClientProbe, datagram: &[u8], age: Duration) -> Result<Vec<u8>, DropReason> {
    let mut answer = vec![1];
    let answered = probe.answer(source(), datagram, probe.opened + age, &mut answer);
    answered.map(|()| answer)
}

#[test]
fn answer_is_as_long_as_its_question() {
    let probe = ClientProbe::new(PASSWORD, ProbeTransport::Udp, Instant::now());
    for number in [0, 140, 143, 146, 149, 366] {
        let question = planned(number);
        let answer = answered(&probe, &question, Duration::ZERO).unwrap();
        assert_eq!(answer.len(), question.len());
        let answer = Response::parse(&answer).unwrap();
        assert_eq!(probe::number(answer.message.transaction()), number);
        assert_eq!(answer.message.verify(&StunKey::new(PASSWORD)), Ok(()));
        assert!(probe.has_received(number) && !probe.has_received(number + 1));
    }
    assert!(probe.is_v6() && probe.refused() == 0);
    assert!(!probe.has_received(u16::MAX));
}

#[test]
fn repeated_packet_and_other_size_are_refused() {
    let probe = ClientProbe::new(PASSWORD, ProbeTransport::Udp, Instant::now());
    let refused = |datagram: &[u8]| answered(&probe, datagram, Duration::ZERO).unwrap_err();
    assert!(answered(&probe, &planned(5), Duration::ZERO).is_ok());
    assert_eq!(refused(&planned(5)), DropReason::Replayed);
    for other in [packet(6, 164, PASSWORD), packet(6, 0, PASSWORD), packet(367, 160, PASSWORD)] {
        assert_eq!(refused(&other), DropReason::Oversize);
    }
    assert_eq!((probe.refused(), probe.has_received(6)), (4, false));
}

#[test]
fn packet_without_the_password_changes_nothing() {
    let probe = ClientProbe::new(PASSWORD, ProbeTransport::Udp, Instant::now());
    let refused = |datagram: &[u8]| answered(&probe, datagram, Duration::ZERO).unwrap_err();
    assert_eq!(refused(&packet(0, 160, "another password of the probe")), DropReason::BadIntegrity);
    assert_eq!(refused(&planned(0)[..40]), DropReason::Malformed);
    assert!(!probe.has_received(0) && probe.refused() == 0);
}

#[test]
fn probe_answers_for_ten_seconds() {
    let probe = ClientProbe::new(PASSWORD, ProbeTransport::Udp, Instant::now());
    let last = ANSWERED_FOR - Duration::from_millis(1);
    assert!(answered(&probe, &planned(0), last).is_ok());
    assert_eq!(answered(&probe, &planned(1), ANSWERED_FOR), Err(DropReason::BadIntegrity));
    assert!(!probe.has_received(1));
}

#[test]
fn probes_are_bounded_and_forgotten() {
    let (probes, start) = (ClientProbes::default(), Instant::now());
    let open = |number, now| {
        let ufrag = Ufrag::new(ufrag(number).as_bytes()).unwrap();
        probes.open(ufrag, PASSWORD, ProbeTransport::Udp, now)
    };
    for number in 0..PROBES_MAX {
        assert_eq!(open(number, start), Ok(()));
    }
    let last = start + KEPT_FOR - Duration::from_millis(1);
    assert_eq!(open(PROBES_MAX, last), Err(TooManyProbes));
    assert!(probes.find(&ufrag(0), last).is_some());
    assert!(probes.find(&ufrag(0), start + KEPT_FOR).is_none());
    assert!(probes.find("a ufrag that is longer than any of the gateway", start).is_none());
    assert_eq!(open(PROBES_MAX, start + KEPT_FOR), Ok(()));
    assert!(probes.find(&ufrag(PROBES_MAX), start + KEPT_FOR).is_some());
}

/// A packet by WebTransport.
fn numbered(number: u16, length: usize) -> Vec<u8> {
    let mut packet = vec![0; length];
    packet[..2].copy_from_slice(&number.to_be_bytes());
    packet
}

#[test]
fn token_opens_one_session_within_ten_seconds() {
    let opened = Instant::now();
    let of = |transport| ClientProbe::new(PASSWORD, transport, opened);
    let probe = of(ProbeTransport::WebTransport);
    let last = opened + ANSWERED_FOR - Duration::from_millis(1);
    assert!(!probe.admits_session("another token", last));
    assert!(probe.admits_session(PASSWORD, last));
    assert!(!probe.admits_session(PASSWORD, last), "it was used");
    let late = of(ProbeTransport::WebTransport);
    assert!(!late.admits_session(PASSWORD, opened + ANSWERED_FOR));
    assert!(!of(ProbeTransport::Udp).admits_session(PASSWORD, opened));
    // Its password protects no packet by UDP.
    assert_eq!(answered(&probe, &planned(0), Duration::ZERO), Err(DropReason::BadIntegrity));
}

#[test]
fn datagram_is_echoed_once_in_its_size() {
    let opened = Instant::now();
    let probe = ClientProbe::new(PASSWORD, ProbeTransport::WebTransport, opened);
    let echoes = |datagram: &[u8], now| probe.echoes(source(), datagram, now);
    assert!(echoes(&numbered(0, 160), opened) && echoes(&numbered(409, 1_000), opened));
    assert!(probe.has_received(0) && probe.has_received(409) && probe.is_v6());
    for wrong in [numbered(0, 160), numbered(1, 164), numbered(410, 160)] {
        assert!(!echoes(&wrong, opened));
    }
    assert!(!echoes(&[0], opened) && !echoes(&numbered(1, 160), opened + ANSWERED_FOR));
    assert_eq!((probe.refused(), probe.has_received(1)), (3, false));
}
