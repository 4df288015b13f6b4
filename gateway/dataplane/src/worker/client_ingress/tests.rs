use std::net::UdpSocket;
use std::time::{Duration, Instant};

use evenkeel_media::probe::{self, ProbeTransport};
use evenkeel_media::srtp::{SrtpKeys, SrtpSender};
use evenkeel_model::{Board, Srtp};

use super::super::session::tests::{egress, install};
use super::*;
use crate::worker::session::{ClientAddressing, Install, SrtpKeying};

/// Two STUN sessions at one home worker, and a client's socket.
struct Bench {
    flows: Arc<Flows>,
    ingress: ClientIngress,
    egress: Egress,
    board: Board,
    sessions: SessionSlots,
    client: UdpSocket,
    start: Instant,
}

const MISSES: u32 = 200;
const FIRST: Home = Home { worker: 0, slot: 1, generation: 1 };
const SECOND: Home = Home { worker: 0, slot: 2, generation: 1 };

impl Bench {
    fn new() -> Bench {
        let start = Instant::now();
        let flows = Arc::new(Flows::new(100));
        let mut sessions = SessionSlots::default();
        for home in [FIRST, SECOND] {
            let install = install(ClientAddressing::Stun, Srtp::Plain, home.slot);
            assert_eq!(install.home, home);
            let entry = FlowEntry {
                password: Some(password(home.slot).as_bytes().into()),
                ..FlowEntry::of(install.home)
            };
            flows.insert(FlowKey::Ufrag(ufrag(home.slot)), entry).unwrap();
            sessions.put(WorkerSession::new(install));
        }
        let client = client();
        let keys = RandomState::new();
        let ingress = ClientIngress::new(0, Arc::clone(&flows), vec![false], MISSES, keys, start);
        let (egress, board) = (egress(start).0, Board::new(1));
        Bench { flows, ingress, egress, board, sessions, client, start }
    }

    fn source(&self) -> SourceKey {
        SourceKey { listener: 0, address: self.client.local_addr().unwrap() }
    }

    fn identify(&mut self, ms: u64, side: RtpSide, datagram: &[u8]) -> Option<(Home, ArrivalKind)> {
        self.identify_from(self.source(), ms, side, datagram)
    }

    fn identify_from(
        &mut self,
        source: SourceKey,
        ms: u64,
        side: RtpSide,
        datagram: &[u8],
    ) -> Option<(Home, ArrivalKind)> {
        let now = self.start + Duration::from_millis(ms);
        self.ingress.identify(source, side, datagram, &self.egress, now)
    }

    /// Continues from another address of the client's host and returns the old socket.
    fn move_client(&mut self) -> UdpSocket {
        std::mem::replace(&mut self.client, client())
    }

    /// Sends a datagram from the client. Returns the session that lost the address, if any.
    fn send(&mut self, ms: u64, datagram: &[u8]) -> Option<Home> {
        let before = self.holder();
        self.send_from(self.source(), ms, datagram);
        before.filter(|before| Some(*before) != self.holder())
    }

    fn send_from(&mut self, source: SourceKey, ms: u64, datagram: &[u8]) {
        let Some((home, kind)) = self.identify_from(source, ms, RtpSide::Rtp, datagram) else {
            return;
        };
        let now = self.start + Duration::from_millis(ms);
        let cx = &mut PacketContext { egress: &mut self.egress, board: &self.board, now };
        self.ingress.deliver(
            &mut self.sessions,
            home,
            ClientArrival { source, local: None, kind },
            datagram,
            cx,
        );
        self.egress.flush(now);
    }

    /// Returns whether the client received an answer since the last call.
    fn answered(&self) -> bool {
        received(&self.client).iter().any(|datagram| stun::is_response(datagram))
    }

    fn holder(&self) -> Option<Home> {
        self.flows.home(&self.source().key())
    }

    fn packets_up(&mut self, home: Home) -> u64 {
        let totals = self.sessions.with(home, |session| session.totals(Instant::now()));
        totals.unwrap().packets_up
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.egress.stats.drops(reason)
    }
}

fn received(client: &UdpSocket) -> Vec<Vec<u8>> {
    let mut buffer = [0; 256];
    let next = || client.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec());
    std::iter::from_fn(next).collect()
}

fn client() -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_nonblocking(true).unwrap();
    client
}

fn password(slot: u32) -> String {
    format!("password of session {slot}")
}

fn ufrag(slot: u32) -> Ufrag {
    Ufrag::new(format!("ufrag{slot}").as_bytes()).unwrap()
}

fn check_with(slot: u32, password: &str) -> Vec<u8> {
    check_of(7, slot, password)
}

fn check_of(transaction: u8, slot: u32, password: &str) -> Vec<u8> {
    let server_ufrag = format!("ufrag{slot}");
    let username = stun::Username { server_ufrag: &server_ufrag, client_ufrag: "c" };
    let key = stun::StunKey::new(password);
    let mut datagram = Vec::new();
    let probe = stun::BindingBuilder::probe(stun::Transaction([transaction; 12]));
    stun::BindingBuilder { username: Some(username), key: Some(&key), ..probe }
        .write(&mut datagram);
    datagram
}

/// Builds a check with one more attribute and a valid integrity.
fn check_with_attribute(slot: u32, kind: u16) -> Vec<u8> {
    let username = format!("ufrag{slot}:x");
    assert_eq!(username.len() % 4, 0, "needs no padding");
    let mut datagram = [&[0, 1, 0, 0][..], &stun::MAGIC_COOKIE.to_be_bytes(), &[7; 12]].concat();
    let mut append = |kind: u16, value: &[u8]| {
        datagram.extend_from_slice(&kind.to_be_bytes());
        datagram.extend_from_slice(&(value.len() as u16).to_be_bytes());
        datagram.extend_from_slice(value);
    };
    append(0x0006, username.as_bytes());
    append(kind, &[]);
    // RFC 8489, 14.5: the length counts the integrity attribute, 24 bytes.
    datagram[3] = (datagram.len() - 20 + 24) as u8;
    let key = ::ring::hmac::Key::new(
        ::ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        password(slot).as_bytes(),
    );
    let integrity = ::ring::hmac::sign(&key, &datagram);
    datagram.extend_from_slice(&[0, 8, 0, 20]);
    datagram.extend_from_slice(integrity.as_ref());
    datagram
}

fn check(slot: u32) -> Vec<u8> {
    check_with(slot, &password(slot))
}

fn media() -> Vec<u8> {
    let mut packet = Vec::new();
    let fields =
        rtp::Fields { payload_type: 96, marker: false, sequence: 1, timestamp: 1, ssrc: 1 };
    rtp::write(&fields, b"frame", &mut packet);
    packet
}

#[test]
fn address_moves_to_new_session_when_old_is_silent() {
    let mut bench = Bench::new();
    bench.send(0, &check(1));
    assert!(bench.answered());
    bench.send(1_000, &media());
    bench.send(3_000, &check(2));
    assert!(!bench.answered(), "the source may be forged while the first session still checks");
    assert_eq!(bench.holder(), Some(FIRST));
    assert_eq!(bench.send(6_000, &check(2)), Some(FIRST));
    assert!(bench.answered());
    assert_eq!(bench.holder(), Some(SECOND));
    bench.send(6_001, &media());
    assert_eq!([FIRST, SECOND].map(|home| bench.packets_up(home)), [1, 1]);
    let learned = bench.sessions.with(FIRST, |session| session.client.learned().len());
    assert_eq!(learned, Some(0));
}

/// The client's answer to the gateway's check.
fn answer(bench: &Bench) -> Vec<u8> {
    let datagrams = received(&bench.client);
    let mut requests = datagrams.iter().filter_map(|it| stun::BindingRequest::parse(it).ok());
    let request = requests.next().expect("the gateway checks the address");
    let (mut answer, address) = (Vec::new(), ([127, 0, 0, 1], 1).into());
    stun::write_success(request.message.transaction(), address, None, &mut answer);
    answer
}

#[test]
fn address_in_use_is_not_taken() {
    let mut bench = Bench::new();
    bench.send(0, &check(1));
    bench.send(1, &answer(&bench));
    bench.send(10_000, &check(2));
    assert!(!bench.answered(), "a forged check");
    assert_eq!(bench.holder(), Some(FIRST));
    bench.send(11_000, &check_of(8, 1, &password(1)));
    assert!(bench.answered(), "the client's own check is accepted");
    bench.send(40_999, &check_of(9, 2, &password(2)));
    assert_eq!(bench.holder(), Some(FIRST));
    assert_eq!(bench.send(41_000, &check_of(10, 2, &password(2))), Some(FIRST));
}

#[test]
fn address_of_srtp_is_not_taken() {
    let mut bench = Bench::new();
    let offered = ["1 AES_CM_128_HMAC_SHA1_80 inline:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"];
    let keys = SrtpKeys::accept(offered.map(str::parse), |bytes| bytes.fill(9)).unwrap();
    let mut sender = SrtpSender::new(&keys.client);
    sender.lease(1, u64::MAX, u64::MAX).unwrap();
    let srtp = Some(SrtpKeying::Sdes(Arc::new(keys)));
    let install = Install { srtp, ..install(ClientAddressing::Stun, Srtp::Terminated, FIRST.slot) };
    bench.sessions.put(WorkerSession::new(install));
    bench.send(0, &check(1));
    bench.send(1, &answer(&bench));
    let packet = media();
    let mut buffer = [&packet[..], &[0; 20]].concat();
    let protected = sender.protect_rtp(&mut buffer, packet.len()).unwrap().to_vec();
    bench.send(20_000, &protected);
    assert_eq!(bench.packets_up(FIRST), 1);
    bench.send(49_999, &check(2));
    assert_eq!(bench.holder(), Some(FIRST), "30 s from the packet on");
    assert_eq!(bench.send(50_000, &check_of(8, 2, &password(2))), Some(FIRST));
}

#[test]
fn response_of_an_unknown_source_is_dropped() {
    let mut bench = Bench::new();
    bench.send(0, &check(1));
    let answer = answer(&bench);
    bench.move_client();
    bench.send(1, &answer);
    assert_eq!(bench.drops(DropReason::UnknownSource), 1);
}

#[test]
fn declared_address_is_neither_taken_nor_answered() {
    let mut bench = Bench::new();
    let declared = Home { worker: 0, slot: 9, generation: 1 };
    bench.flows.insert(bench.source().key(), FlowEntry::of(declared)).unwrap();
    bench.send(60_000, &check(1));
    assert!(!bench.answered());
    assert_eq!(bench.holder(), Some(declared));
}

#[test]
fn address_is_learned_at_the_home_worker_only() {
    let mut bench = Bench::new();
    assert_eq!(bench.identify(0, RtpSide::Rtp, &check(1)), Some((FIRST, ArrivalKind::Check)));
    assert_eq!(bench.holder(), None, "the worker that read it need not be the home worker");
}

/// A packet of the probe `probe` with this number.
fn probe_packet(number: u16, password: &str) -> Vec<u8> {
    let mut packet = Vec::new();
    let username = stun::Username { server_ufrag: "probe", client_ufrag: "client" };
    let (transaction, key) = (probe::transaction(number, [7; 10]), stun::StunKey::new(password));
    stun::write_padded_request(transaction, username, &key, 160, &mut packet);
    packet
}

#[test]
fn packet_of_a_probe_opens_no_session() {
    let mut bench = Bench::new();
    let ufrag = Ufrag::new(b"probe").unwrap();
    let packet = |number| probe_packet(number, "password of the probe");
    assert_eq!(bench.identify(0, RtpSide::Rtp, &packet(0)), None);
    assert_eq!(bench.drops(DropReason::BadIntegrity), 1, "there is no probe yet");
    let probes = &bench.ingress.probes;
    probes.open(ufrag, "password of the probe", ProbeTransport::Udp, bench.start).unwrap();
    assert_eq!(bench.identify(0, RtpSide::Rtp, &packet(0)), None);
    assert_eq!(bench.ingress.probe_answer().map(<[u8]>::len), Some(160));
    assert_eq!(bench.ingress.probe_answer(), None, "it is sent once");
    for (side, reason) in
        [(RtpSide::Rtp, DropReason::Replayed), (RtpSide::Rtcp, DropReason::UnknownSource)]
    {
        assert_eq!(bench.identify(1, side, &packet(0)), None);
        assert_eq!(bench.ingress.probe_answer(), None, "{side:?}");
        assert_eq!(bench.drops(reason), 1, "{side:?}");
    }
    assert_eq!(bench.identify(1, RtpSide::Rtp, &media()), None);
    assert_eq!(bench.holder(), None, "its address is not learned");
}

#[test]
fn failed_packets_of_a_probe_are_limited() {
    let mut bench = Bench::new();
    let ufrag = Ufrag::new(b"probe").unwrap();
    let probes = &bench.ingress.probes;
    probes.open(ufrag, "password of the probe", ProbeTransport::Udp, bench.start).unwrap();
    for _ in 0..1_000 {
        bench.identify(1, RtpSide::Rtp, &probe_packet(0, "a guess at the password"));
    }
    assert_eq!(bench.drops(DropReason::BadIntegrity), 2 * u64::from(MISSES));
    assert_eq!(bench.drops(DropReason::Limited), 1_000 - 2 * u64::from(MISSES));
    bench.identify(1, RtpSide::Rtp, &probe_packet(0, "password of the probe"));
    assert_eq!(bench.ingress.probe_answer(), None);
}

#[test]
fn failed_checks_of_an_address_are_limited() {
    let mut bench = Bench::new();
    let stranger = SourceKey { listener: 0, address: "127.0.0.1:9".parse().unwrap() };
    for _ in 0..1_000 {
        let failed = bench.identify_from(stranger, 1, RtpSide::Rtp, &check_with(1, "guess"));
        assert_eq!(failed, None);
    }
    assert_eq!(bench.drops(DropReason::BadIntegrity), 2 * u64::from(MISSES));
    let passed = |bench: &mut Bench, ms| bench.identify_from(stranger, ms, RtpSide::Rtp, &check(1));
    assert_eq!(passed(&mut bench, 2), None);
    assert!(passed(&mut bench, 20).is_some(), "checks are limited briefly");
}

#[test]
fn failed_checks_do_not_limit_a_learned_address() {
    let mut bench = Bench::new();
    bench.send(0, &check(1));
    for _ in 0..1_000 {
        // A forger of the client's address knows the session's ufrag.
        assert_eq!(bench.identify(1, RtpSide::Rtp, &check_with(1, "guess")), None);
    }
    assert!(bench.identify(1, RtpSide::Rtp, &check(1)).is_some());
    let other = bench.identify(1, RtpSide::Rtp, &check(2));
    assert_eq!(other, None, "the address is limited for another session");
}

#[test]
fn flood_of_unknown_packets_spares_sessions() {
    let mut bench = Bench::new();
    let stranger = SourceKey { listener: 0, address: "127.0.0.66:9".parse().unwrap() };
    for datagram in [media(), check_with(3, "guess"), vec![0, 1, 2]] {
        for _ in 0..1_000 {
            assert_eq!(bench.identify_from(stranger, 1, RtpSide::Rtp, &datagram), None);
        }
    }
    assert!(bench.drops(DropReason::Limited) > 2_000);
    assert_eq!(bench.identify(1, RtpSide::Rtp, &check(1)), Some((FIRST, ArrivalKind::Check)));
    bench.flows.insert(bench.source().key(), FlowEntry::of(SECOND)).unwrap();
    assert_eq!(bench.identify(1, RtpSide::Rtp, &media()), Some((SECOND, ArrivalKind::Rtp)));
}

#[test]
fn declared_ip_is_found_during_a_flood() {
    let mut bench = Bench::new();
    (0..1_000).for_each(|_| _ = bench.identify(1, RtpSide::Rtp, &media()));
    let ip = bench.source().address.ip();
    bench.flows.insert(FlowKey::DeclaredIp { listener: 0, ip }, FlowEntry::of(FIRST)).unwrap();
    assert_eq!(bench.identify(1, RtpSide::Rtp, &media()), Some((FIRST, ArrivalKind::Rtp)));
}

#[test]
fn replayed_check_is_dropped_from_another_address() {
    let mut bench = Bench::new();
    bench.send(0, &check(1));
    assert!(bench.answered());
    bench.move_client();
    bench.send(1, &check(1));
    assert!(!bench.answered());
    assert_eq!((bench.holder(), bench.drops(DropReason::Replayed)), (None, 1));
    bench.send(2, &check_of(8, 1, &password(1)));
    assert!(bench.answered(), "a new check moves the client");
    assert_eq!(bench.holder(), Some(FIRST));
}

#[test]
fn refused_check_cannot_be_replayed() {
    let mut bench = Bench::new();
    let declared = SourceKey { listener: 0, address: "127.0.0.66:9".parse().unwrap() };
    bench.flows.insert(declared.key(), FlowEntry::of(SECOND)).unwrap();
    bench.send_from(declared, 0, &check(1));
    assert_eq!(bench.drops(DropReason::UnknownSource), 1, "another session declared the address");
    bench.send(1, &check(1));
    assert_eq!((bench.holder(), bench.drops(DropReason::Replayed)), (None, 1));
}

#[test]
fn retransmitted_check_is_answered_without_effect() {
    let mut bench = Bench::new();
    bench.send(0, &check(1));
    let (first, old) = (bench.source(), bench.move_client());
    bench.send(1, &check_of(8, 1, &password(1)));
    assert!(old.recv(&mut [0; 256]).is_ok() && bench.answered());
    bench.send_from(first, 2, &check(1));
    assert!(old.recv(&mut [0; 256]).is_ok());
    let newest =
        bench.sessions.with(FIRST, |session| session.client.learned().last().copied()).unwrap();
    assert_eq!(newest, Some(bench.source()));
}

#[test]
fn check_on_the_rtcp_port_is_dropped() {
    let mut bench = Bench::new();
    assert_eq!(bench.identify(0, RtpSide::Rtcp, &check(1)), None);
    assert_eq!(bench.drops(DropReason::UnknownSource), 1);
}

#[test]
fn unknown_attribute_is_refused_and_teaches_nothing() {
    let mut bench = Bench::new();
    let mut datagram = check_with_attribute(1, 0x7fff);
    bench.send(0, &datagram);
    let mut answer = [0; 256];
    let length = bench.client.recv(&mut answer).unwrap();
    let response = stun::Response::parse(&answer[..length]).unwrap();
    assert_eq!(response.outcome, stun::BindingOutcome::Refused(420));
    assert_eq!(bench.holder(), None);
    *datagram.last_mut().unwrap() ^= 1;
    bench.send(1, &datagram);
    assert!(!bench.answered(), "a check without integrity is not answered");
}

#[test]
fn cached_lookup_expires_after_a_second() {
    let mut bench = Bench::new();
    let key = bench.source().key();
    bench.flows.insert(key, FlowEntry::of(FIRST)).unwrap();
    let voice = [0x80, 111, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let mut heard = |ms, removed: bool| {
        if removed {
            bench.flows.remove(&key, FIRST);
        }
        bench.ingress.expire_cache(bench.start + Duration::from_millis(ms));
        bench.identify(ms, RtpSide::Rtp, &voice).map(|(home, _)| home)
    };
    assert_eq!(heard(0, false), Some(FIRST));
    assert_eq!(heard(999, true), Some(FIRST), "cached");
    assert_eq!(heard(1_000, false), None);
}

fn limiter(now: Instant) -> FailureLimiter {
    FailureLimiter::new(200, RandomState::new(), now)
}

#[test]
fn flood_from_one_prefix_spares_others() {
    let now = Instant::now();
    let mut limiter = limiter(now);
    let flood = |limiter: &mut FailureLimiter, at| {
        let stranger = |port: &u16| {
            let source = FailureOrigin::prefix(([10, 0, 0, 1], *port).into());
            limiter.allows(source, at) && {
                limiter.charge(source);
                true
            }
        };
        (0..2_000_u16).filter(stranger).count()
    };
    assert_eq!(flood(&mut limiter, now), 400);
    assert!(
        !limiter.allows(FailureOrigin::prefix(([10, 0, 0, 77], 1).into()), now),
        "the same prefix"
    );
    // Another prefix may share the bucket, so all of them are asked.
    let others = (1..=255).map(|third| FailureOrigin::prefix(([10, 0, third, 1], 1).into()));
    assert!(others.filter(|other| limiter.allows(*other, now)).count() > 240);
    assert_eq!(flood(&mut limiter, now + Duration::from_secs(1)), 200);
}

#[test]
fn successful_lookups_cost_nothing() {
    let now = Instant::now();
    let mut limiter = limiter(now);
    let origin = FailureOrigin::prefix(([10, 0, 0, 1], 7).into());
    assert!((0..2_000).all(|_| limiter.allows(origin, now)));
}

#[test]
fn no_debt_is_left_after_a_flood() {
    let now = Instant::now();
    let mut limiter = limiter(now);
    let origin = FailureOrigin::prefix(([10, 0, 0, 1], 7).into());
    (0..100_000).for_each(|_| limiter.charge(origin));
    assert!(!limiter.allows(origin, now));
    assert!(limiter.allows(origin, now + Duration::from_millis(6)));
}

#[test]
fn prefixes_are_24_and_56_bits() {
    let same = |one: &str, other: &str| {
        let prefix =
            |source: &str| FailureOrigin::prefix(SocketAddr::new(source.parse().unwrap(), 1));
        prefix(one) == prefix(other)
    };
    assert!(same("10.1.2.3", "10.1.2.200") && !same("10.1.2.3", "10.1.3.3"));
    assert!(same("2001:db8:1:2ff::1", "2001:db8:1:200::2"));
    assert!(!same("2001:db8:1:2ff::1", "2001:db8:1:300::1"));
}

#[test]
fn buckets_differ_between_two_keys() {
    let now = Instant::now();
    let (one, other) = (limiter(now), limiter(now));
    let sources = (0..=255).map(|third| FailureOrigin::prefix(([10, 0, third, 1], 1).into()));
    let same = sources.filter(|source| one.place(*source) == other.place(*source)).count();
    assert!(same < 16, "{same} of 256 prefixes have the bucket that another process computes");
}
